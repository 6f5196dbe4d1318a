"""A DICOM segmentation → a volume of labels; the number of a segment is its label.

Frames without voxels of their segment may be missing. Source: DICOM PS3.3 A.51 and C.8.20.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io.dicom.elements import text, whole
from MedEnhanceLib.io.dicom.multiframe import CONCATENATION, frames_of, functional_group, items_of
from MedEnhanceLib.io.dicom.pixels import read_stored
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.sources import COPY_AGAIN, FileRef
from MedEnhanceLib.io.dicom.stack import stack
from MedEnhanceLib.io.dicom.structure import pydicom_failures, read_elements
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset

_CLASS = "1.2.840.10008.5.1.4.1.1.66."
_LABEL_MAP = f"{_CLASS}7"
#: The classes that hold labels on a grid.
CLASSES = (f"{_CLASS}4", _LABEL_MAP)
_ELEMENTS = (
    "SOPClassUID", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored",
    "PixelRepresentation", "PhotometricInterpretation", "FrameOfReferenceUID", "SegmentationType",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "SegmentSequence",
    *CONCATENATION,
)  # fmt: skip
_OTHER_READER = "Import it with 3D Slicer (extension QuantitativeReporting), and save it as NRRD."
#: Voxels: tolerance for the distance of a frame from the grid.
_OFF = 0.05
_MOST_PLANES = 65535


def read_segmentation(file: FileRef, source: str, monitor: Monitor) -> Volume:
    """Load a segmentation.

    Args:
        file: the segmentation.
        source: where it comes from, for the volume.
        monitor: for progress and cancellation.
    Returns:
        [K, J, I], the number of the segment or 0; modality SEG.
    Raises:
        InputError: segments overlap or are fractional, or the file is damaged; GeometryError where
            frames do not lie on one grid.
    """
    header = _header(file)
    kind = text(header, "SegmentationType").upper()
    is_map = text(header, "SOPClassUID") == _LABEL_MAP
    what = f"{file.name}, a {'label map ' if is_map else ''}segmentation"
    if not is_map and kind != "BINARY":
        raise InputError(
            f"{what}: SegmentationType is {kind or 'missing'}: it holds no labels", _OTHER_READER
        )
    try:
        planes = frames_of(header, file, _common(header, file))
        frames = items_of(header, "PerFrameFunctionalGroupsSequence")
        _refuse_a_part(planes[0])
        segments = [0] * len(frames) if is_map else _segments(frames, header)
        _refuse_odd_bits(planes[0], is_map)
    except InputError as cause:
        raise InputError(f"{what}: {cause.message}", cause.hint) from cause
    places, geometry = _grid(planes, file, monitor)
    return Volume(
        _labels(planes, places, segments, file, monitor),
        geometry,
        modality="SEG",
        source=source,
    )


def _header(file: FileRef) -> Dataset:
    try:
        with warnings.catch_warnings(), file.open() as stream:
            warnings.simplefilter("ignore")
            found = read_elements(stream, _ELEMENTS)
            for _ in found:  # pydicom decodes an element at its first access
                pass
    except pydicom_failures() as cause:
        reason = " ".join(str(cause).split())[:300] or type(cause).__name__
        raise InputError(f"{file.name}: its header cannot be read: {reason}", COPY_AGAIN) from cause
    return found


def _common(header: Dataset, file: FileRef) -> Slice:
    bits = whole(header, "BitsAllocated")
    return Slice(
        file=file,
        rows=whole(header, "Rows"),
        columns=whole(header, "Columns"),
        bits_allocated=bits,
        bits_stored=whole(header, "BitsStored") or bits,
        signed=whole(header, "PixelRepresentation") == 1,
        photometric=text(header, "PhotometricInterpretation"),
        frame_of_reference=text(header, "FrameOfReferenceUID"),
    )


def _segments(frames: Sequence[Dataset], header: Dataset) -> list[int]:
    """The number of each frame's segment."""
    shared = items_of(header, "SharedFunctionalGroupsSequence")
    known = {whole(item, "SegmentNumber") for item in items_of(header, "SegmentSequence")}
    numbers = []
    for frame in frames:
        found = functional_group("SegmentIdentificationSequence", frame, *shared)
        numbers.append(whole(found, "ReferencedSegmentNumber"))
        if numbers[-1] not in known or not 0 < numbers[-1] < 1 << 16:
            raise InputError(
                f"a frame belongs to segment {numbers[-1]}, which is unknown", COPY_AGAIN
            )
    return numbers


def _refuse_a_part(plane: Slice) -> None:
    uid, own, total = plane.concatenation or ("", 1, 1)
    if uid and (own, total) != (1, 1):
        raise InputError(
            f"it is part {own} of {total or 'several'}: labels of several files "
            "(a concatenation) are not joined",
            _OTHER_READER,
        )


def _refuse_odd_bits(plane: Slice, is_map: bool) -> None:
    """Binary segmentations store bits; some old programs wrote bytes of 0 and 1."""
    if plane.bits_allocated not in ((8, 16) if is_map else (1, 8)) or plane.signed:
        sign = "signed" if plane.signed else "unsigned"
        raise InputError(
            f"BitsAllocated is {plane.bits_allocated}, {sign}: these are no labels", COPY_AGAIN
        )


def _grid(planes: Sequence[Slice], file: FileRef, monitor: Monitor) -> tuple[list[int], Geometry]:
    """The number of each frame's place along the normal, and the grid of all places."""
    name = file.name
    first = planes[0]
    if any(None in (plane.position, plane.orientation, plane.pixel_spacing) for plane in planes):
        stack(planes, name, monitor)  # reports what is missing
        raise GeometryError(f"{name}: its frames have no place in the patient", COPY_AGAIN)
    orientation = np.asarray(first.orientation)
    normal = np.cross(orientation[:3], orientation[3:])
    along = np.array([float(normal @ np.asarray(plane.position)) for plane in planes])
    lowest = planes[int(along.argmin())]
    apart = np.diff(np.unique(np.round(along, 4)))
    step = abs(first.between or 0.0) or (
        float(apart.min()) if apart.size else first.thickness or 0.0
    )
    if not 0 < step < np.inf:
        raise GeometryError(f"{name}: the distance between its planes is unknown", COPY_AGAIN)
    exact = (along - along.min()) / step
    if exact.max() > _MOST_PLANES or np.abs(exact - np.round(exact)).max() > _OFF:
        raise GeometryError(
            f"{name}: its frames do not lie on a grid of {step:g} mm",
            "Export the segmentation again.",
        )
    places = np.round(exact).astype(int)
    # A place without frames gets a plane of the same grid.
    filled = [
        replace(lowest, position=tuple((np.asarray(lowest.position) + step * k * normal).tolist()))
        for k in range(int(places.max()) + 1)
    ]
    own = {int(place): plane for place, plane in zip(places, planes, strict=True)}
    whole_grid = stack([own.get(k, one) for k, one in enumerate(filled)], name, monitor)
    _refuse_off_grid(planes, places.tolist(), whole_grid.geometry, name)
    return places.tolist(), whole_grid.geometry


def _refuse_off_grid(
    planes: Sequence[Slice], places: Sequence[int], grid: Geometry, name: str
) -> None:
    """The corners of every frame must be those of its plane in the grid."""
    ends = (-0.5, planes[0].rows - 0.5), (-0.5, planes[0].columns - 0.5)
    j, i = (end.ravel() for end in np.meshgrid(*ends))
    cosines = np.array([plane.orientation for plane in planes])
    spacing = np.array([plane.pixel_spacing for plane in planes])
    right, down = cosines[:, :3] * spacing[:, 1:], cosines[:, 3:] * spacing[:, :1]
    corners = np.array([plane.position for plane in planes])[:, None]
    corners = corners + i[:, None] * right[:, None] + j[:, None] * down[:, None]
    to_voxels = np.linalg.inv(grid.affine_lps)
    found = corners @ to_voxels[:3, :3].T + to_voxels[:3, 3]
    expected = np.stack([np.broadcast_to(axis, found.shape[:2])
                         for axis in (i, j, np.asarray(places)[:, None])], axis=-1)  # fmt: skip
    off = np.abs(found - expected).max(axis=(1, 2))
    odd = int(off.argmax())
    if not off[odd] <= _OFF:
        raise GeometryError(
            f"{name}: frame {planes[odd].frame} lies up to {off[odd]:.2f} voxels off the grid of "
            "the others (ImagePositionPatient, ImageOrientationPatient, PixelSpacing)",
            _OTHER_READER,
        )


def _labels(
    planes: Sequence[Slice],
    places: Sequence[int],
    segments: Sequence[int],
    file: FileRef,
    monitor: Monitor,
) -> Voxels:
    """Labels [K, J, I]; segments: of each frame, 0 where its pixels are labels themselves."""
    dtype = np.uint8 if max(segments) < 256 and planes[0].bits_allocated <= 8 else np.uint16
    labels = np.zeros((max(places) + 1, planes[0].rows, planes[0].columns), dtype)
    for index, pixels in enumerate(read_stored(planes, file.name, monitor)):
        if segments[index] and pixels.max() > 1:
            raise InputError(
                f"{file.name}: frame {index + 1} of a binary segmentation holds {pixels.max()}",
                _OTHER_READER,
            )
        own = pixels.astype(dtype) * dtype(segments[index] or 1)
        plane = labels[places[index]]
        taken = (own != 0) & (plane != 0) & (plane != own)
        if taken.any():
            other = int(plane[taken][0])
            raise InputError(
                f"{file.name}: its segments {other} and {int(own[taken][0])} overlap "
                f"({int(taken.sum())} voxels of frame {index + 1})",
                _OTHER_READER,
            )
        np.maximum(plane, own, out=plane)
    return labels
