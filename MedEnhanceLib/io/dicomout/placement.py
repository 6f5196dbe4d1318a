"""Where the slices of a volume lie in the patient, and which stored images are behind each.

One matching for all objects: images and their frames, segmentations and maps name the same sources.
Slices that lie where the images lie take over the images' own numbers, digit by digit, so that
every reader finds both in the same place. Elsewhere the numbers come from the volume's geometry.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import DicomOrigin
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.io.dicomout.derivation import Reference, ds_text
from MedEnhanceLib.io.dicomout.template import Template

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True, eq=False)
class Place:
    """One slice: where it lies and what it came from.

    Attributes:
        frame: the time point, from 0.
        slice_: the voxels [J, I].
        position: of the first voxel, decimal strings, mm in LPS.
        grid: of the whole frame.
        header: of the image behind it, or the nearest one; if the images lie across the slice,
            the attributes in which all of them agree.
        on_image: whether it lies on one image, voxel on voxel.
        references: the image behind it, or those around it.
        is_resampled: whether some slice of the volume was made from several images.
    """

    frame: int
    slice_: Voxels
    position: tuple[str, ...]
    grid: Grid
    header: Dataset | None
    on_image: bool
    references: tuple[Reference, ...]
    is_resampled: bool


def find_places(volume: Volume, template: Template) -> list[Place]:
    """The place of every slice of a volume, frame by frame, in the order of their numbers."""
    places = []
    for number, frame in enumerate(volume.frames()):
        grid = lay_out(frame, _of_frame(template, volume, number))
        around = around_slices(grid.planes, frame.geometry, frame.shape)
        made = [not one and len(near) > 1 for one, near in zip(grid.behind, around, strict=True)]
        common = None
        if grid.planes and not are_parallel(grid.planes, frame.geometry):
            common = _said_by_all([plane.header for plane in grid.planes])
        for k, behind in enumerate(grid.behind):
            found = behind or around[k]
            nearest = found[0].header if found else None
            places.append(
                Place(
                    frame=number,
                    slice_=frame.voxels[k],
                    position=grid.positions[k],
                    grid=grid,
                    header=nearest if behind or common is None else common,
                    on_image=bool(behind),
                    references=tuple(
                        plane.reference
                        for plane in grid.planes
                        if plane.reference in {one.reference for one in found}
                    ),
                    is_resampled=any(made),
                )
            )
    return places


def _of_frame(template: Template, volume: Volume, number: int) -> Template:
    """The images of one time point, if the template distinguishes time points."""
    origin = template.origin
    if origin is None or len(origin.instances) != (volume.shape[0] if volume.is_sequence else 1):
        return template
    counts = [len(frame) for frame in origin.instances]
    start = sum(counts[:number])
    return replace(
        template,
        headers=template.headers[start : start + counts[number]],
        origin=replace(origin, instances=origin.instances[number : number + 1]),
    )


def _said_by_all(headers: Sequence[Dataset]) -> Dataset:
    """The elements in which all images agree: they hold for a slice through many of them."""
    from pydicom import Dataset

    common = Dataset()
    for element in headers[0]:
        if all(element.tag in other and other[element.tag] == element for other in headers[1:]):
            common.add(copy.deepcopy(element))
    return common


@dataclass(frozen=True)
class Grid:
    """The frames of an object, as decimal strings of DICOM, in mm, LPS.

    Attributes:
        orientation: cosines of rows and columns, 6 numbers.
        spacing: between rows and columns.
        thickness: of a slice.
        between: from slice to slice.
        positions: one for each slice of the volume, in its order.
        behind: the images that lie on each slice, voxel on voxel; none for a resampled slice.
        planes: all images.
        series: SeriesInstanceUID → the images of that series.
        frame_of_reference: its UID.
    """

    orientation: tuple[str, ...]
    spacing: tuple[str, ...]
    thickness: str
    between: str
    positions: tuple[tuple[str, ...], ...]
    behind: tuple[tuple[Plane, ...], ...]
    planes: tuple[Plane, ...]
    series: dict[str, list[Reference]]
    frame_of_reference: str

    @property
    def references(self) -> tuple[tuple[Reference, ...], ...]:
        """The images behind each slice."""
        return tuple(tuple(plane.reference for plane in found) for found in self.behind)


def lay_out(
    volume: Volume, template: Template, source_images: Sequence[Dataset] | None = None
) -> Grid:
    """Find the images behind each slice of a volume and the places of its frames.

    Args:
        volume: [K, J, I]. Only images that `volume.origin` names count, if it names any: all time
            points of a sequence lie in the same place.
        template: the images that it came from.
        source_images: the images, if they are not the template's.
    """
    planes = of_images(source_images) if source_images is not None else of_template(template)
    planes = of_origin(planes, volume.origin)
    geometry, slices = volume.geometry, volume.shape[0]
    behind = behind_slices(planes, geometry, volume.shape)
    first = [found[0] for found in behind if found]
    kept = volume.origin is None or volume.origin.on_grid
    if kept and len(first) == slices:
        positions = tuple(plane.position for plane in first)
        orientation, spacing, thickness = first[0].orientation, first[0].spacing, first[0].thickness
    else:
        affine, direction = geometry.affine_lps, np.asarray(geometry.direction)
        positions = tuple(decimals(affine[:3, 3] + k * affine[:3, 2]) for k in range(slices))
        orientation = decimals([*direction[:, 0], *direction[:, 1]])
        spacing = decimals([geometry.spacing[1], geometry.spacing[0]])
        thickness = ""
    between = decimals([geometry.spacing[2]])[0]
    return Grid(
        orientation=orientation,
        spacing=spacing,
        thickness=thickness or between,
        between=between,
        positions=positions,
        behind=tuple(map(tuple, behind)),
        planes=tuple(planes),
        series=_series(planes),
        frame_of_reference=template.frame_of_reference,
    )


def _series(planes: list[Plane]) -> dict[str, list[Reference]]:
    """The images of each series, each once, without their frames."""
    series: dict[str, dict[Reference, None]] = {}
    for plane in planes:
        whole = replace(plane.reference, frame=None)
        series.setdefault(plane.series, {})[whole] = None
    return {uid: list(images) for uid, images in series.items()}


#: How far from a slice, in voxels, an image may lie and still be the one behind it. Readers accept
#: slices up to 5 % off a regular grid.
_NEAR = 0.1
#: How far cosines, and spacings relative to their size, may differ on the same grid.
_SAME = 1e-3


@dataclass(frozen=True, eq=False)
class Plane:
    """A stored image or frame, with its place as it is written; empty where it is missing."""

    reference: Reference
    series: str
    position: tuple[str, ...]
    orientation: tuple[str, ...]
    spacing: tuple[str, ...]
    thickness: str
    shape: tuple[int, int]
    header: Dataset

    @property
    def has_place(self) -> bool:
        """Whether its place is complete."""
        return (len(self.position), len(self.orientation), len(self.spacing)) == (3, 6, 2)

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """Of length 1, in the patient."""
        across, down = np.reshape(np.array(self.orientation, float), (2, 3))
        normal = np.cross(across, down)
        return np.asarray(normal / np.linalg.norm(normal))


def of_template(template: Template) -> list[Plane]:
    """The planes of the images that a template was read from, in its order."""
    if template.origin is None:
        return []
    instances = [one for frame in template.origin.instances for one in frame]
    return [
        _plane(header, Reference(one.sop_class, one.sop_instance, one.frame))
        for header, one in zip(template.headers, instances, strict=True)
    ]


def of_images(images: Sequence[Dataset]) -> list[Plane]:
    """The planes of single-frame images."""
    return [
        _plane(image, Reference(str(image.SOPClassUID), str(image.SOPInstanceUID)))
        for image in images
    ]


def of_origin(planes: list[Plane], origin: DicomOrigin | None) -> list[Plane]:
    """The planes that a volume's origin names; all if it names none of them."""
    if origin is None:
        return planes
    named = {
        Reference(one.sop_class, one.sop_instance, one.frame)
        for frame in origin.instances
        for one in frame
    }
    return [plane for plane in planes if plane.reference in named] or planes


def behind_slices(
    planes: Sequence[Plane], geometry: Geometry, shape: tuple[int, ...]
) -> list[list[Plane]]:
    """The planes that lie on each slice of a volume [K, J, I], voxel on voxel."""
    behind: list[list[Plane]] = [[] for _ in range(shape[0])]
    to_index = np.linalg.inv(geometry.affine_lps)
    cosines = np.asarray(geometry.direction).T[:2].ravel()
    spacing = np.array(geometry.spacing[1::-1])
    for plane in planes:
        if not plane.has_place:
            continue
        i, j, k = (to_index @ [*map(float, plane.position), 1.0])[:3]
        number = round(k)
        if (
            plane.shape == shape[1:]
            and 0 <= number < shape[0]
            and max(abs(i), abs(j), abs(k - number)) < _NEAR
            and np.abs(cosines - np.array(plane.orientation, float)).max() < _SAME
            and np.abs(np.array(plane.spacing, float) / spacing - 1).max() < _SAME
        ):
            behind[number].append(plane)
    return behind


def are_parallel(planes: Sequence[Plane], geometry: Geometry) -> bool:
    """Whether all planes are parallel to the slices of a geometry."""
    along = np.asarray(geometry.direction)[:, 2]
    return all(plane.has_place and abs(plane.normal @ along) > 1 - _SAME for plane in planes)


def around_slices(
    planes: Sequence[Plane], geometry: Geometry, shape: tuple[int, ...]
) -> list[list[Plane]]:
    """The images that each slice of a volume [K, J, I] was made from, the nearest first.

    Of parallel images those in the slice; without any, those on both sides of it and all within
    its thickness. Of other images all that cut it, and those next to its edges.
    """
    placed = [plane for plane in planes if plane.has_place]
    if not placed:
        return [[] for _ in range(shape[0])]
    parallel = are_parallel(placed, geometry)
    around = []
    for low, high in _reaches(placed, geometry, shape):
        apart = np.maximum(np.maximum(low, -high), 0.0)
        inside = apart < _NEAR
        if not parallel:
            taken = inside | _next_to(low, high)
        else:
            within = apart < 0.5 + _NEAR
            taken = within if inside.any() else within | _next_to(low, high)
        order = np.argsort(apart, kind="stable")
        around.append([placed[number] for number in order if taken[number]])
    return around


def _reaches(
    planes: Sequence[Plane], geometry: Geometry, shape: tuple[int, ...]
) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Signed distances of each slice's corners from each plane, lowest and highest, in slices."""
    along = np.asarray(geometry.direction)[:, 2]
    normals = np.array([plane.normal for plane in planes])
    normals *= np.where(normals @ along < 0, -1.0, 1.0)[:, None]
    offsets = np.sum(normals * np.array([plane.position for plane in planes], float), axis=1)
    for k in range(shape[0]):
        corners = [[i, j, k, 1] for i in (0, shape[2] - 1) for j in (0, shape[1] - 1)]
        points = (np.array(corners) @ geometry.affine_lps.T)[:, :3]
        away = (points @ normals.T - offsets) / geometry.spacing[2]
        yield away.min(axis=0), away.max(axis=0)


def _next_to(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """The planes nearest below and nearest above; several if they lie at one height."""
    taken = np.zeros(len(low), bool)
    for away in (low, -high):
        beyond = np.where(away >= _NEAR, away, np.inf)
        taken |= np.isfinite(beyond) & (beyond < beyond.min() + _NEAR)
    return taken


def _plane(image: Dataset, reference: Reference) -> Plane:
    """A single image as a plane."""
    position, orientation, spacing = (
        decimals(image.get(keyword) or ())
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    )
    thickness = image.get("SliceThickness")
    return Plane(
        reference=reference,
        series=str(image.SeriesInstanceUID),
        position=position,
        orientation=orientation,
        spacing=spacing,
        # Some scanners write a thickness of 0 if it is unknown.
        thickness=decimals([thickness])[0] if thickness else "",
        shape=(int(image.get("Rows") or 0), int(image.get("Columns") or 0)),
        header=image,
    )


def decimals(values: Any) -> tuple[str, ...]:
    """Numbers as decimal strings of DICOM."""
    return tuple(ds_text(str(value).strip()) for value in values)
