"""Where the slices of a volume lie in the patient, and which stored images are behind each.

One matching for all objects: images, segmentations and maps name the same sources. Slices that lie
where the images lie take over the images' own numbers, digit by digit, so that every reader finds
both in the same place. Elsewhere the numbers come from the volume's geometry.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.io.dicomout.derivation import Reference, ds_text
from MedEnhanceLib.io.dicomout.template import Template

if TYPE_CHECKING:
    from pydicom import Dataset

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
    """

    orientation: tuple[str, ...]
    spacing: tuple[str, ...]
    thickness: str
    between: str
    positions: tuple[tuple[str, ...], ...]
    behind: tuple[tuple[Plane, ...], ...]
    planes: tuple[Plane, ...]


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
        grid = lay_out(frame, template)
        around = _around_slices(grid.planes, frame.geometry, len(grid.behind))
        is_across = bool(grid.planes) and around is None
        common = _said_by_all([plane.header for plane in grid.planes]) if is_across else None
        sources = [
            behind or (grid.planes if around is None else around[k])
            for k, behind in enumerate(grid.behind)
        ]
        is_resampled = any(
            len(planes) > 1 and not behind
            for planes, behind in zip(sources, grid.behind, strict=True)
        )
        for k, planes in enumerate(sources):
            on_image = bool(grid.behind[k])
            nearest = planes[0].header if planes else None
            places.append(
                Place(
                    frame=number,
                    slice_=frame.voxels[k],
                    position=grid.positions[k],
                    grid=grid,
                    header=common if is_across and not on_image else nearest,
                    on_image=on_image,
                    references=tuple(plane.reference for plane in grid.planes if plane in planes),
                    is_resampled=is_resampled,
                )
            )
    return places


def _said_by_all(headers: Sequence[Dataset]) -> Dataset:
    """The elements in which all images agree: they hold for a slice through many of them."""
    from pydicom import Dataset

    common = Dataset()
    for element in headers[0]:
        if all(element.tag in other and other[element.tag] == element for other in headers[1:]):
            common.add(copy.deepcopy(element))
    return common


def lay_out(
    volume: Volume, template: Template, source_images: Sequence[Dataset] | None = None
) -> Grid:
    """Find the images behind each slice of a volume and the places of its frames.

    Args:
        volume: [K, J, I]. Only images that `volume.origin` names count, if it names any: all time
            points of a sequence lie in the same place.
        template: the images that it came from.
        source_images: single images, if they are not the template's.
    """
    if source_images is None:
        planes = _planes_of(template, volume)
    else:
        planes = [
            _plane(image, Reference(str(image.SOPClassUID), str(image.SOPInstanceUID)))
            for image in source_images
        ]
    geometry, slices = volume.geometry, volume.shape[0]
    behind = _behind_slices(planes, geometry, volume.shape)
    first = [images[0] for images in behind if images]
    between = decimals([geometry.spacing[2]])[0]
    if len(first) == slices and (volume.origin is None or volume.origin.on_grid):
        positions = tuple(plane.position for plane in first)
        orientation, spacing, thickness = first[0].orientation, first[0].spacing, first[0].thickness
    else:
        affine, direction = geometry.affine_lps, np.asarray(geometry.direction)
        positions = tuple(decimals(affine[:3, 3] + k * affine[:3, 2]) for k in range(slices))
        orientation = decimals([*direction[:, 0], *direction[:, 1]])
        spacing = decimals([geometry.spacing[1], geometry.spacing[0]])
        thickness = between
    return Grid(
        orientation=orientation,
        spacing=spacing,
        thickness=thickness or between,
        between=between,
        positions=positions,
        behind=tuple(map(tuple, behind)),
        planes=tuple(planes),
    )


def _planes_of(template: Template, volume: Volume) -> list[Plane]:
    """The images of a template in its order; those alone that the volume names, if it names any."""
    if template.origin is None:
        return []
    of_volume = volume.origin.instances if volume.origin else ()
    named = {(instance.file, instance.frame) for frame in of_volume for instance in frame}
    instances = [instance for frame in template.origin.instances for instance in frame]
    is_named = [(instance.file, instance.frame) in named for instance in instances]
    return [
        _plane(header, Reference(instance.sop_class, instance.sop_instance, instance.frame))
        for header, instance, counts in zip(template.headers, instances, is_named, strict=True)
        if counts or not any(is_named)
    ]


def _behind_slices(
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


def _around_slices(
    planes: Sequence[Plane], geometry: Geometry, slices: int
) -> list[list[Plane]] | None:
    """The parallel images that each slice was made from, the nearest first; None for others.

    Those within its thickness; without any in the slice itself, those on both sides of it too.
    """
    along = np.asarray(geometry.direction)[:, 2]
    if not all(plane.has_place and abs(_normal(plane) @ along) > 1 - _SAME for plane in planes):
        return None
    places = np.array([plane.position for plane in planes], float).reshape(-1, 3)
    heights = (places - geometry.affine_lps[:3, 3]) @ along / geometry.spacing[2]
    around = []
    for k in range(slices):
        apart = heights - k
        is_source = np.abs(apart) < 0.5 + _NEAR
        if not (np.abs(apart) < _NEAR).any():
            for beyond in (apart[apart > 0], apart[apart < 0]):
                nearest = beyond[np.abs(beyond).argmin()] if beyond.size else np.inf
                is_source |= np.abs(apart - nearest) < _NEAR
        order = np.argsort(np.abs(apart), kind="stable")
        around.append([planes[number] for number in order if is_source[number]])
    return around


def _normal(plane: Plane) -> npt.NDArray[np.float64]:
    """Of length 1, in the patient."""
    across, down = np.reshape(np.array(plane.orientation, float), (2, 3))
    normal = np.cross(across, down)
    return np.asarray(normal / np.linalg.norm(normal))


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
