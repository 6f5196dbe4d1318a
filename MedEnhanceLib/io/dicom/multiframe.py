"""Many frames in one file → image planes, where each frame says its place in the patient.

Functional groups (enhanced CT, MR and PET, and what was converted to them) say it for each frame;
a dose grid says it by offsets. Other files of many frames are clips, and are refused as such.
Source: DICOM PS3.3 C.7.6.16 (functional groups), C.8.8.3 (RT dose), A.1.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.elements import acquisition_time, floats, one, text, texts, whole
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.sources import FileRef

if TYPE_CHECKING:
    from pydicom import Dataset

#: What `frames_of` needs of a header, besides what plain slices need.
ELEMENTS = (
    "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "DimensionIndexSequence", "GridFrameOffsetVector", "DoseGridScaling", "DoseUnits",
)  # fmt: skip
_CLASS = "1.2.840.10008.5.1.4.1.1."
_DOSE = f"{_CLASS}481.2"
_PET = (f"{_CLASS}130", f"{_CLASS}128.1")
_FRAME_TYPES = (
    "MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence",
)  # fmt: skip
#: Dimensions that other fields tell of: stack, place in it, position, time, echo, b-value, type.
_TOLD = (
    0x00209056, 0x00209057, 0x00200032, 0x00209128, 0x0020930D, 0x00209153, 0x00209241, 0x00209156,
    0x00189074, 0x00189151, 0x00189082, 0x00080008, 0x00089007,
)  # fmt: skip
_B_VALUE = 0x00189087
_DOSE_UNITS = {"GY": "Gy", "RELATIVE": "relative"}
_COPY_AGAIN = "Copy or export the file again."
_ABSOLUTE_MM = 0.01
_CLIPS = {
    "20": "nuclear medicine: its frames are views, gates or slices without a place of their own",
    "3.1": "an ultrasound clip",
    "6.1": "ultrasound",
    "6.2": "an ultrasound volume, which is not read",
    "7.1": "a secondary capture: pictures without a place in the patient",
    "7.2": "a secondary capture: pictures without a place in the patient",
    "7.3": "a secondary capture: pictures without a place in the patient",
    "7.4": "a secondary capture: pictures without a place in the patient",
    "12.1": "X-ray angiography: projections through the body",
    "12.2": "X-ray fluoroscopy: projections through the body",
    "12.1.1": "X-ray angiography: projections through the body",
    "12.2.1": "X-ray fluoroscopy: projections through the body",
}
_Groups = tuple["Dataset", ...]

_KEPT_ASIDE = ("PerFrame", "Shared")


def frames_of(header: Dataset, file: FileRef, common: Slice) -> list[Slice]:
    """The image planes of a file of frames, in its own order; all fields per frame.

    header: with ELEMENTS. common: what all frames share.
    Raises InputError for frames without a place in the patient, with the reason, and where the
    header and its groups contradict each other.
    """
    count = whole(header, "NumberOfFrames") or 1
    common = replace(common, file=file)
    if common.sop_class == _DOSE:
        return _dose_planes(header, common, count)
    if "PerFrameFunctionalGroupsSequence" not in header:
        raise _clip(common.sop_class, count)
    frames = _items(header, "PerFrameFunctionalGroupsSequence")
    if len(frames) != count:
        raise InputError(
            f"NumberOfFrames is {count}, but {len(frames)} frames are described", _COPY_AGAIN
        )
    shared = _items(header, "SharedFunctionalGroupsSequence")[:1]
    dimensions = [
        int(item.get("DimensionIndexPointer") or 0)
        for item in _items(header, "DimensionIndexSequence")
    ]
    planes = [
        _plane(_Frame((own, *shared)), replace(common, frame=index), dimensions)
        for index, own in enumerate(frames, 1)
    ]
    return _with_stacks(planes, frames)


def functional_group(name: str, *groups: Dataset) -> Dataset:
    """The first item of a functional group, from the first of `groups` that has it, or empty."""
    return _Frame(groups).of(name)


class _Frame:
    """The functional groups of one frame: its own first, then those that all share."""

    def __init__(self, groups: _Groups) -> None:
        self._groups = groups

    def of(self, *names: str) -> Dataset:
        """The first item of the first group of these names; empty where there is none."""
        from pydicom import Dataset

        for groups in self._groups:
            for name in names:
                found = _items(groups, name)
                if found:
                    return found[0]
        return Dataset()


def _pet_units(frame: _Frame) -> str:
    """Units of single PET images, which a file converted from them keeps aside."""
    kept = (frame.of(f"Unassigned{kind}ConvertedAttributesSequence") for kind in _KEPT_ASIDE)
    return next(filter(None, (text(item, "Units") for item in kept)), "")


def _plane(frame: _Frame, common: Slice, dimensions: Sequence[int]) -> Slice:
    measures = frame.of("PixelMeasuresSequence")
    values = frame.of("PixelValueTransformationSequence")
    content = frame.of("FrameContentSequence")
    kind = text(values, "RescaleType")
    own = {
        "position": floats(frame.of("PlanePositionSequence"), "ImagePositionPatient", 3),
        "orientation": floats(frame.of("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        "pixel_spacing": floats(measures, "PixelSpacing", 2),
        "thickness": one(measures, "SliceThickness"),
        "between": one(measures, "SpacingBetweenSlices"),
        "slope": one(values, "RescaleSlope"),
        "intercept": one(values, "RescaleIntercept"),
        "rescale_type": kind,
        "units": _pet_units(frame) or kind if common.sop_class in _PET else "",
        "acquisition": text(content, "FrameAcquisitionNumber"),
        "echo": text(frame.of("MREchoSequence"), "EffectiveEchoTime"),
        "phase": _phase(frame, content, dimensions),
        "b_value": text(frame.of("MRDiffusionSequence"), "DiffusionBValue"),
        "image_type": texts(frame.of(*_FRAME_TYPES), "FrameType"),
        "time_s": _time_s(frame, content),
        "window": _window(frame.of("FrameVOILUTSequence")),
    }
    found = {name: value for name, value in own.items() if value not in (None, "", ())}
    return replace(common, **found)  # type: ignore[arg-type]


def _phase(frame: _Frame, content: Dataset, dimensions: Sequence[int]) -> str:
    """What places a frame in time, or else in a dimension that no other field tells of."""
    heart = frame.of("CardiacSynchronizationSequence")
    for group, field, unit in (
        (content, "TemporalPositionIndex", ""),
        (heart, "NominalCardiacTriggerDelayTime", " ms"),
        (heart, "NominalPercentageOfCardiacPhase", " %"),
    ):
        found = text(group, field)
        if found:
            return found + unit
    told = content.get("DimensionIndexValues")
    values = [told] if isinstance(told, int) else list(told or ())
    pairs = list(zip(dimensions, values, strict=False))
    if all(pointer in (*_TOLD, _B_VALUE) for pointer, _ in pairs):
        return ""
    return "-".join(str(value) for pointer, value in pairs if pointer not in _TOLD)


def _time_s(frame: _Frame, content: Dataset) -> float | None:
    from pydicom import Dataset

    for field in "FrameAcquisitionDateTime", "FrameReferenceDateTime":
        moment = Dataset()
        moment.AcquisitionDateTime = text(content, field)
        found = acquisition_time(moment)
        if text(content, field) and found is not None:
            return found
    return one(frame.of("TemporalPositionSequence"), "TemporalPositionTimeOffset")


def _window(group: Dataset) -> tuple[float, float] | None:
    pair = []
    for field in "WindowCenter", "WindowWidth":
        value = group.get(field)
        first = value if isinstance(value, int | float | str) else next(iter(value or ()), None)
        try:
            pair.append(float(first))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None
    return (pair[0], pair[1]) if np.isfinite(pair).all() and pair[1] > 0 else None


def _with_stacks(planes: list[Slice], frames: Sequence[Dataset]) -> list[Slice]:
    """Parallel stacks are told apart by the acquisition, which they have no other field for."""
    stacks = [text(_Frame((own,)).of("FrameContentSequence"), "StackID") for own in frames]
    if len(set(stacks)) < 2:
        return planes
    return [
        replace(plane, acquisition=f"{plane.acquisition} stack {stack}".strip())
        for plane, stack in zip(planes, stacks, strict=True)
    ]


def _dose_planes(header: Dataset, common: Slice, count: int) -> list[Slice]:
    scaling = one(header, "DoseGridScaling")
    if scaling is None or scaling <= 0:
        raise InputError(
            f"DoseGridScaling is {'missing' if scaling is None else scaling}, so that the stored "
            "numbers give no dose",
            "Export the dose again.",
        )
    told = text(header, "DoseUnits").upper()
    common = replace(
        common,
        slope=scaling,
        intercept=0.0,
        units=_DOSE_UNITS.get(told, told),
    )
    position, orientation = common.position, common.orientation
    if position is None or orientation is None:
        return [replace(common, frame=index) for index in range(1, count + 1)]
    offsets = _offsets(header, count, position, orientation)
    normal = np.cross(orientation[:3], orientation[3:])
    return [
        replace(
            common,
            frame=index,
            position=tuple((np.asarray(position) + offset * normal).tolist()),
        )
        for index, offset in enumerate(offsets, 1)
    ]


def _offsets(
    header: Dataset, count: int, position: tuple[float, ...], orientation: tuple[float, ...]
) -> tuple[float, ...]:
    """Mm of each plane from the first, along the normal."""
    if count == 1 and not header.get("GridFrameOffsetVector"):
        return (0.0,)
    offsets = (
        floats(header, "GridFrameOffsetVector", count)
        if count > 1
        else (one(header, "GridFrameOffsetVector") or 0.0,)
    )
    if offsets is None:
        raise InputError(
            "GridFrameOffsetVector is missing, so that its planes have no place", _COPY_AGAIN
        )
    if offsets[0] == 0:
        return offsets
    # Then they are places along z, and the first is that of ImagePositionPatient.
    upright = abs(abs(orientation[0]) - 1) < 1e-4 and abs(abs(orientation[4]) - 1) < 1e-4
    if not upright or abs(offsets[0] - position[2]) > _ABSOLUTE_MM:
        raise InputError(
            f"GridFrameOffsetVector begins with {offsets[0]:g}, neither 0 nor the z of "
            "ImagePositionPatient",
            "Correct the header.",
        )
    up = orientation[0] * orientation[4]
    return tuple((offset - offsets[0]) * up for offset in offsets)


def _clip(sop_class: str, count: int) -> InputError:
    what = _CLIPS.get(sop_class.removeprefix(_CLASS), "frames without functional groups")
    return InputError(
        f"{what}: {count} frames in one file, and none says its place in the patient",
        "Give a tomographic series, or convert it with 3D Slicer and give the NRRD or NIfTI file.",
    )


def _items(dataset: Dataset, name: str) -> _Groups:
    found = dataset.get(name)
    return tuple(found) if found is not None and not isinstance(found, str | bytes | int) else ()
