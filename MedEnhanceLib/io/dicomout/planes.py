"""The stored images behind a volume as planes in the patient, and which of them a slice is made of.

One matching for all objects: images and their frames, segmentations and maps name the same sources.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import DicomOrigin
from MedEnhanceLib.io.dicomout.frames import frame_as_image
from MedEnhanceLib.io.dicomout.items import Reference
from MedEnhanceLib.io.dicomout.template import Template

if TYPE_CHECKING:
    from pydicom import Dataset

#: How far from a slice an image may lie and still be the one behind it, in voxels. Readers take
#: slices up to 5 % off a regular grid.
_NEAR = 0.1
#: How far cosines, and spacings relative to their size, may differ on the same grid.
_SAME = 1e-3


@dataclass(frozen=True, eq=False)
class Plane:
    """A stored image or frame, with its numbers as it writes them; empty where it does not."""

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
        """Whether it says in full where it lies."""
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
    """The planes of single-frame and enhanced images."""
    planes = []
    for image in images:
        uids = (str(image.SOPClassUID), str(image.SOPInstanceUID))
        if "PerFrameFunctionalGroupsSequence" not in image:
            planes.append(_plane(image, Reference(*uids)))
            continue
        planes += [
            _plane(frame_as_image(image, number, "image"), Reference(*uids, number))
            for number in range(1, int(image.NumberOfFrames) + 1)
        ]
    return planes


def of_origin(planes: list[Plane], origin: DicomOrigin | None) -> list[Plane]:
    """Those that a volume names as its own; all where it names none of them."""
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
    """Whether all planes lie as the slices of a geometry do, whatever their distance."""
    along = np.asarray(geometry.direction)[:, 2]
    return all(plane.has_place and abs(plane.normal @ along) > 1 - _SAME for plane in planes)


def around_slices(
    planes: Sequence[Plane], geometry: Geometry, shape: tuple[int, ...]
) -> list[list[Plane]]:
    """What each slice of a volume [K, J, I] was made from, the nearest first.

    Of parallel images those in the slice, else those on both sides of it, with all that it is
    thick enough to reach. Of others all that cut it, and those next to its edges.
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
    """How far the corners of each slice lie beyond each plane, lowest and highest, in slices."""
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
    """The planes nearest below and nearest above; several where they lie at one height."""
    taken = np.zeros(len(low), bool)
    for away in (low, -high):
        beyond = np.where(away >= _NEAR, away, np.inf)
        taken |= np.isfinite(beyond) & (beyond < beyond.min() + _NEAR)
    return taken


def _plane(image: Dataset, reference: Reference) -> Plane:
    """A single image as a plane; without its place where it does not say it in full."""
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
        # A thickness of 0 is a scanner's way to say that it does not know.
        thickness=decimals([thickness])[0] if thickness else "",
        shape=(int(image.get("Rows") or 0), int(image.get("Columns") or 0)),
        header=image,
    )


def decimals(values: Any) -> tuple[str, ...]:
    """As DICOM writes decimals: a number's own digits where they fit into 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    written = (str(value).strip() for value in values)
    return tuple(
        text if len(text) <= 16 else str(format_number_as_ds(float(text))) for text in written
    )
