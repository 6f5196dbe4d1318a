"""Where the frames of an object lie, and which stored images each of them was made from.

Frames that lie where the images lie take over the images' own numbers, digit by digit, so that
every reader finds both in the same place. Elsewhere the numbers come from the volume's geometry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib.geometry import Geometry
from MedEnhanceLib.io.dicomout.frames import frame_as_image
from MedEnhanceLib.io.dicomout.template import Template
from MedEnhanceLib.origin import DicomOrigin
from MedEnhanceLib.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

#: How far from a slice an image may lie and still be the one behind it, in voxels. Readers take
#: slices up to 5 % off a regular grid.
_NEAR = 0.1
#: How far cosines, and spacings relative to their size, may differ on the same grid.
_SAME = 1e-3


@dataclass(frozen=True)
class Reference:
    """A stored image, or one frame of it, counted from 1."""

    sop_class: str
    sop_instance: str
    frame: int | None = None


@dataclass(frozen=True)
class _Plane:
    """A stored image or frame, with its numbers as it writes them; empty where it does not."""

    reference: Reference
    series: str
    position: tuple[str, ...]
    orientation: tuple[str, ...]
    spacing: tuple[str, ...]
    thickness: str
    shape: tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """The frames of an object: decimal strings of DICOM, in mm, LPS.

    positions, references: one per slice of the volume, in its order; a slice that lies where no
    image does has no references. series: instance UID → the images of that series.
    """

    orientation: tuple[str, ...]
    spacing: tuple[str, ...]
    thickness: str
    between: str
    positions: tuple[tuple[str, ...], ...]
    references: tuple[tuple[Reference, ...], ...]
    series: dict[str, list[Reference]]
    frame_of_reference: str


def lay_out(
    volume: Volume, template: Template, source_images: Sequence[Dataset] | None = None
) -> Grid:
    """Find the images behind each slice of a volume [K, J, I] and the numbers of its frames.

    source_images: the images, single-frame or enhanced, where they are not the template's.
    Of those that `volume.origin` names only they count: one time point of a sequence lies where
    all the others do.
    """
    planes = _of_images(source_images) if source_images is not None else _of_template(template)
    planes = _of_origin(planes, volume.origin)
    geometry, slices = volume.geometry, volume.shape[0]
    behind = _match(planes, geometry, volume.shape)
    first = [found[0] for found in behind if found]
    kept = volume.origin is None or volume.origin.on_grid
    if kept and len(first) == slices:
        positions = tuple(plane.position for plane in first)
        orientation, spacing, thickness = first[0].orientation, first[0].spacing, first[0].thickness
    else:
        affine, direction = geometry.affine_lps, np.asarray(geometry.direction)
        positions = tuple(_decimals(affine[:3, 3] + k * affine[:3, 2]) for k in range(slices))
        orientation = _decimals([*direction[:, 0], *direction[:, 1]])
        spacing = _decimals([geometry.spacing[1], geometry.spacing[0]])
        thickness = ""
    between = _decimals([geometry.spacing[2]])[0]
    return Grid(
        orientation=orientation,
        spacing=spacing,
        thickness=thickness or between,
        between=between,
        positions=positions,
        references=tuple(tuple(plane.reference for plane in found) for found in behind),
        series=_series(planes),
        frame_of_reference=template.frame_of_reference,
    )


def _of_template(template: Template) -> list[_Plane]:
    if template.origin is None:
        return []
    instances = [one for frame in template.origin.instances for one in frame]
    return [
        _plane(header, Reference(one.sop_class, one.sop_instance, one.frame))
        for header, one in zip(template.headers, instances, strict=True)
    ]


def _of_images(images: Sequence[Dataset]) -> list[_Plane]:
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


def _plane(image: Dataset, reference: Reference) -> _Plane:
    """A single image as a plane; without its place where it does not say it in full."""
    position, orientation, spacing = (
        _decimals(image.get(keyword) or ())
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    )
    thickness = image.get("SliceThickness")
    return _Plane(
        reference=reference,
        series=str(image.SeriesInstanceUID),
        position=position,
        orientation=orientation,
        spacing=spacing,
        # A thickness of 0 is a scanner's way to say that it does not know.
        thickness=_decimals([thickness])[0] if thickness else "",
        shape=(int(image.get("Rows") or 0), int(image.get("Columns") or 0)),
    )


def _of_origin(planes: list[_Plane], origin: DicomOrigin | None) -> list[_Plane]:
    if origin is None:
        return planes
    named = {
        Reference(one.sop_class, one.sop_instance, one.frame)
        for frame in origin.instances
        for one in frame
    }
    return [plane for plane in planes if plane.reference in named] or planes


def _match(planes: list[_Plane], geometry: Geometry, shape: tuple[int, ...]) -> list[list[_Plane]]:
    """The planes that lie on each slice, voxel on voxel."""
    behind: list[list[_Plane]] = [[] for _ in range(shape[0])]
    to_index = np.linalg.inv(geometry.affine_lps)
    cosines = np.asarray(geometry.direction).T[:2].ravel()
    spacing = np.array(geometry.spacing[1::-1])
    for plane in planes:
        if (len(plane.position), len(plane.orientation), len(plane.spacing)) != (3, 6, 2):
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


def _series(planes: list[_Plane]) -> dict[str, list[Reference]]:
    """The images of each series, each once, without their frames."""
    series: dict[str, dict[Reference, None]] = {}
    for plane in planes:
        whole = replace(plane.reference, frame=None)
        series.setdefault(plane.series, {})[whole] = None
    return {uid: list(images) for uid, images in series.items()}


def _decimals(values: Any) -> tuple[str, ...]:
    """As DICOM writes decimals: a number's own digits where they fit into 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    written = (str(value).strip() for value in values)
    return tuple(
        text if len(text) <= 16 else str(format_number_as_ds(float(text))) for text in written
    )
