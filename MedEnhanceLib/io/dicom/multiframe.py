"""Files of many frames → image planes, where each frame has a place in the patient.

Functional groups (enhanced CT, MR and PET, and legacy images converted to them) give the place of
each frame; a dose grid gives it by offsets. Other files of many frames are clips, and are refused.
Sources: DICOM PS3.3 A.1.4, C.7.6.16 (functional groups), C.7.6.16.2.2.4 (concatenations), C.7.6.17
(dimensions), C.8.8.3 (RT dose).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.elements import (
    Elements,
    acquisition_time,
    floats,
    number,
    one,
    text,
    texts,
    whole,
    window,
)
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.sources import COPY_AGAIN, FileRef

if TYPE_CHECKING:
    from pydicom import Dataset


CONCATENATION = ("ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber")
_DOSE = ("GridFrameOffsetVector", "DoseGridScaling", "DoseUnits", "DoseType")
#: Elements that `frames_of` reads, besides those of plain slices.
ELEMENTS = (
    "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "DimensionIndexSequence", *CONCATENATION, *_DOSE,
)  # fmt: skip
_CLASS = "1.2.840.10008.5.1.4.1.1."
_RT_DOSE = f"{_CLASS}481.2"
_DOSE_UNITS = {"GY": "Gy", "RELATIVE": "relative"}
_EXPORT_DOSE = "Export the dose again."
#: mm: tolerance of a GridFrameOffsetVector with absolute positions.
_ABSOLUTE_MM = 0.01
_PET = (f"{_CLASS}130", f"{_CLASS}128.1")
_CLIPS = {
    "20": "nuclear medicine: its frames are views, gates or slices without a place of their own",
    "3.1": "an ultrasound clip",
    "6.1": "ultrasound",
    "6.2": "an ultrasound volume, which is not read",
    **dict.fromkeys(
        ("7.1", "7.2", "7.3", "7.4"), "a secondary capture: pictures without a place in the patient"
    ),
    **dict.fromkeys(("12.1", "12.1.1"), "X-ray angiography: projections through the body"),
    **dict.fromkeys(("12.2", "12.2.1"), "X-ray fluoroscopy: projections through the body"),
}
#: Dimension index pointers whose meaning is already in a field of Slice.
_FIELD_OF = {
    0x00209056: "stack", 0x00209057: "position", 0x00200032: "position", 0x00201041: "position",
    0x00200013: "position", 0x00080018: "position", 0x00200037: "orientation",
    0x00209128: "temporal_index", 0x00200100: "temporal_index", 0x00209153: "trigger_ms",
    0x00181060: "trigger_ms", 0x00209241: "heart_percent", 0x00209245: "breath_percent",
    0x0020930D: "time_s", 0x00189074: "time_s", 0x00189151: "time_s", 0x00080032: "time_s",
    0x00209156: "acquisition", 0x00200012: "acquisition", 0x00189082: "echo_ms",
    0x00180081: "echo_ms", 0x00180086: "echo", 0x00189087: "b_value", 0x00080008: "image_type",
    0x00089007: "image_type", 0x00089208: "image_type", 0x00089209: "image_type",
}  # fmt: skip
_DIRECTIONS = (0x00189075, 0x00189076, 0x00189089)
#: Fields that the groups of one frame and those of all frames must agree on.
_PLACING = {
    "position": "ImagePositionPatient",
    "orientation": "ImageOrientationPatient",
    "pixel_spacing": "PixelSpacing",
    "slope": "RescaleSlope",
    "intercept": "RescaleIntercept",
}

Found = dict[str, Any]
Reader = Callable[["Dataset"], Found]


def frames_of(header: Dataset, file: FileRef, common: Slice) -> list[Slice]:
    """The image planes of a file of many frames.

    Args:
        header: a header with ELEMENTS.
        file: where it was read from.
        common: the fields that all frames share.
    Returns:
        One slice a frame, in the order of the file.
    Raises:
        InputError: frames have no place in the patient, or header and groups contradict each other.
    """
    count = whole(header, "NumberOfFrames") or 1
    if count < 1:
        raise InputError(f"NumberOfFrames is {count}", COPY_AGAIN)
    common = replace(common, file=file, concatenation=concatenation_of(header))
    if common.sop_class == _RT_DOSE:
        return _dose_planes(header, common, count)
    if "PerFrameFunctionalGroupsSequence" not in header:
        raise _clip(common.sop_class, count)
    frames = items_of(header, "PerFrameFunctionalGroupsSequence")
    if len(frames) != count:
        raise InputError(
            f"NumberOfFrames is {count}, but {len(frames)} frames are described", COPY_AGAIN
        )
    shared: Found = {}
    for groups in items_of(header, "SharedFunctionalGroupsSequence")[:1]:
        shared = _found(groups)
    found = [_joined(shared, _found(own), index) for index, own in enumerate(frames, 1)]
    dimensions = _dimensions(header)
    common = _without(common, {name for own in found for name in own})
    has_directions = any(one.is_direction for one in dimensions) or any(
        "direction" in own for own in found
    )
    return [_plane(own, dimensions, common, has_directions) for own in found]


def functional_group(name: str, *groups: Dataset) -> Dataset:
    """The first item of a functional group, from the first of `groups` that has it, or empty."""
    from pydicom import Dataset

    return next((items_of(own, name)[0] for own in groups if items_of(own, name)), Dataset())


def _fields_of(**fields: tuple[Callable[[Elements, str], Any], str]) -> Reader:
    """A reader of fields: field of a slice → (how to read it, the element's keyword)."""
    return lambda item: {name: read(item, element) for name, (read, element) in fields.items()}


def _numbers(count: int) -> Callable[[Elements, str], tuple[float, ...] | None]:
    return lambda item, element: floats(item, element, count)


def _content(item: Dataset) -> Found:
    times = (
        acquisition_time({"AcquisitionDateTime": moment})
        for moment in (text(item, "FrameAcquisitionDateTime"), text(item, "FrameReferenceDateTime"))
        if moment
    )
    indices = item.get("DimensionIndexValues")
    return {
        "acquisition": text(item, "FrameAcquisitionNumber"),
        "stack": text(item, "StackID"),
        "temporal_index": number(item, "TemporalPositionIndex"),
        "time_s": next((moment for moment in times if moment is not None), None),
        "indices": (indices,) if isinstance(indices, int) else tuple(indices or ()),
    }


def _diffusion(item: Dataset) -> Found:
    weight = one(item, "DiffusionBValue")
    own = functional_group("DiffusionGradientDirectionSequence", item)
    direction = floats(own, "DiffusionGradientOrientation", 3)
    return {
        "b_value": "" if weight is None else f"{weight:g}",
        "direction": " ".join(f"{part:g}" for part in direction or ()),
    }


def _image_type(item: Dataset) -> Found:
    """What ImageType holds in plain images, and what has elements of its own in enhanced ones."""
    kind = texts(item, "FrameType")
    parts = (*texts(item, "ComplexImageComponent"), *texts(item, "AcquisitionContrast"))
    return {"image_type": (*kind, *(part for part in parts if part not in kind))}


def _setting(element: str, name: str) -> Reader:
    return lambda item: {f"{_SETTING}{name}": "\\".join(texts(item, element))}


#: Precedes the name of a setting among the fields.
_SETTING = "setting: "
#: Elements of plain images that were converted, and that have no functional group.
_CONVERTED = _fields_of(
    units=(text, "Units"),
    acquisition=(text, "AcquisitionNumber"),
    echo=(text, "EchoNumbers"),
    temporal_index=(number, "TemporalPositionIdentifier"),
    trigger_ms=(one, "TriggerTime"),
)
_READERS: Mapping[str, Reader] = {
    "PlanePositionSequence": _fields_of(position=(_numbers(3), "ImagePositionPatient")),
    "PlaneOrientationSequence": _fields_of(orientation=(_numbers(6), "ImageOrientationPatient")),
    "PixelMeasuresSequence": _fields_of(
        pixel_spacing=(_numbers(2), "PixelSpacing"),
        thickness=(one, "SliceThickness"),
        between=(one, "SpacingBetweenSlices"),
    ),
    "PixelValueTransformationSequence": _fields_of(
        slope=(one, "RescaleSlope"),
        intercept=(one, "RescaleIntercept"),
        rescale_type=(text, "RescaleType"),
    ),
    "FrameContentSequence": _content,
    "TemporalPositionSequence": _fields_of(offset_s=(one, "TemporalPositionTimeOffset")),
    "CardiacSynchronizationSequence": _fields_of(
        trigger_ms=(one, "NominalCardiacTriggerDelayTime"),
        heart_percent=(one, "NominalPercentageOfCardiacPhase"),
    ),
    "RespiratorySynchronizationSequence": _fields_of(
        breath_percent=(one, "NominalPercentageOfRespiratoryPhase")
    ),
    "MREchoSequence": _fields_of(echo_ms=(text, "EffectiveEchoTime")),
    "MRDiffusionSequence": _diffusion,
    "MRImageFrameTypeSequence": _image_type,
    "CTImageFrameTypeSequence": _image_type,
    "PETFrameTypeSequence": _image_type,
    "CTReconstructionSequence": _setting("ConvolutionKernel", "kernel"),
    "CTXRayDetailsSequence": _setting("KVP", "kV"),
    "MRModifierSequence": _setting("InversionTimes", "inversion time"),
    "MRTimingAndRelatedParametersSequence": _setting("FlipAngle", "flip angle"),
    "FrameVOILUTSequence": lambda item: {"window": window(item)},
    "UnassignedPerFrameConvertedAttributesSequence": _CONVERTED,
    "UnassignedSharedConvertedAttributesSequence": _CONVERTED,
}


@functools.cache
def _readers() -> dict[int, Reader]:
    from pydicom.datadict import tag_for_keyword

    return {tag_for_keyword(name) or 0: read for name, read in _READERS.items()}


def _found(groups: Dataset) -> Found:
    """The fields of a slice that functional groups state; without those that they leave empty."""
    fields: Found = {}
    readers = _readers()
    for tag in sorted(groups.keys()):
        if tag in readers:
            for item in items_of(groups, tag)[:1]:
                found = readers[tag](item)
                fields |= {name: value for name, value in found.items() if value not in _NOTHING}
    return fields


_NOTHING = (None, "", ())


def _joined(shared: Found, own: Found, index: int) -> Found:
    for name, element in _PLACING.items():
        if name in own and shared.get(name, own[name]) != own[name]:
            raise InputError(
                f"{element} is {shared[name]} for all frames, and {own[name]} for frame {index}",
                COPY_AGAIN,
            )
    joined = {**shared, **own, "frame": index}
    if "offset_s" in joined:
        joined.setdefault("time_s", joined["offset_s"])
    return joined


def _without(common: Slice, names: set[str]) -> Slice:
    """Reset the fields that any frame states itself: the header outside the groups may not."""
    bare: Found = {one.name: one.default for one in fields(Slice)}
    return replace(common, **{name: bare[name] for name in names if name in bare})


@dataclass(frozen=True)
class _Dimension:
    """field: the field of Slice that has the same meaning, or ""; name: for lists of series."""

    field: str
    name: str
    is_direction: bool


def _dimensions(header: Dataset) -> list[_Dimension]:
    from pydicom.datadict import keyword_for_tag

    found: list[_Dimension] = []
    for item in items_of(header, "DimensionIndexSequence"):
        pointer = int(item.get("DimensionIndexPointer") or 0)
        name = text(item, "DimensionDescriptionLabel") or keyword_for_tag(pointer)
        name = name or f"dimension ({pointer >> 16:04X},{pointer & 0xFFFF:04X})"
        same = sum(one.name.startswith(name) for one in found)
        name = f"{name} {same + 1}" if same else name
        found.append(_Dimension(_FIELD_OF.get(pointer, ""), name, pointer in _DIRECTIONS))
    return found


def _plane(
    found: Found, dimensions: list[_Dimension], common: Slice, has_directions: bool
) -> Slice:
    settings = dict(common.settings) | {
        name.removeprefix(_SETTING): value
        for name, value in found.items()
        if name.startswith(_SETTING)
    }
    settings |= _dimensions_without_field(found, dimensions)
    if has_directions:
        settings |= _direction(found, dimensions)
    own = {name: value for name, value in found.items() if name in _FIELDS}
    for dimension, value in _indices(found, dimensions):
        if dimension.field == "temporal_index":
            own.setdefault("temporal_index", int(value))
    if common.sop_class not in _PET:
        own.pop("units", None)
    elif "units" not in own:
        own["units"] = found.get("rescale_type", common.units)
    return replace(common, **own, settings=tuple(settings.items()))


_FIELDS = frozenset(one.name for one in fields(Slice))


def _indices(found: Found, dimensions: list[_Dimension]) -> list[tuple[_Dimension, int]]:
    """The index of each dimension; none where there are more or fewer values than dimensions."""
    values = found.get("indices", ())
    return list(zip(dimensions, values, strict=True)) if len(values) == len(dimensions) else []


def _dimensions_without_field(found: Found, dimensions: list[_Dimension]) -> dict[str, str]:
    """Dimensions without a field of their own become settings, under their names."""
    return {
        dimension.name: str(value)
        for dimension, value in _indices(found, dimensions)
        if not dimension.is_direction
        and dimension.field not in (*found, "position", "orientation", "temporal_index")
    }


def _direction(found: Found, dimensions: list[_Dimension]) -> dict[str, str]:
    """The diffusion gradient, with its b-value; an unweighted image has none."""
    weight = found.get("b_value", "")
    counted = [value for one, value in _indices(found, dimensions) if one.is_direction]
    direction = "-".join(f"{value:04d}" for value in counted) or found.get("direction", "")
    if weight == "0":
        return {"direction": "0 s/mm²"}  # sorts before the directions of weighted images
    if not direction:
        return {}
    return {"direction": f"{weight} s/mm² {direction}" if weight else direction}


def _clip(sop_class: str, count: int) -> InputError:
    what = _CLIPS.get(sop_class.removeprefix(_CLASS), "frames without functional groups")
    return InputError(
        f"{what}: {count} frames in one file, and none states its position in the patient",
        "Give a tomographic series, or convert it with 3D Slicer and give the NRRD or NIfTI file.",
    )


def items_of(dataset: Dataset, name: str | int) -> tuple[Dataset, ...]:
    """The items of a sequence, by its keyword or tag; () where it is absent."""
    found: Any = dataset.get(name)
    found = getattr(found, "value", found)  # by its tag, pydicom gives the element
    return tuple(found) if found is not None and not isinstance(found, str | bytes | int) else ()


def concatenation_of(header: Elements) -> tuple[str, int, int] | None:
    """(UID, number of this file from 1, number of files or 0 if unknown); None for other files."""
    uid, *counts = CONCATENATION
    if not text(header, uid):
        return None
    own, total = (number(header, field) or 0 for field in counts)
    return text(header, uid), own, total


def _dose_planes(header: Elements, common: Slice, count: int) -> list[Slice]:
    """The planes of a dose grid, in its order.

    common: the fields that all planes share, with the place of the first plane.
    Raises InputError for differences of doses (DoseType ERROR) and without scaling or offsets.
    """
    if text(header, "DoseType").upper() == "ERROR":
        raise InputError(
            "DoseType is ERROR: its numbers are differences between doses, not a dose",
            "Give the dose itself.",
        )
    units = text(header, "DoseUnits")
    common = replace(
        common,
        slope=_scaling(header, common),
        intercept=0.0,
        units=_DOSE_UNITS.get(units.upper(), units),
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


def _scaling(header: Elements, common: Slice) -> float:
    if common.has_lut:
        raise InputError(
            "it holds both a ModalityLUTSequence and DoseGridScaling: which one gives the dose is "
            "unclear",
            _EXPORT_DOSE,
        )
    scaling = one(header, "DoseGridScaling")
    if scaling is None or scaling <= 0:
        raise InputError(
            f"DoseGridScaling is {'missing' if scaling is None else scaling}, so that the stored "
            "numbers give no dose",
            _EXPORT_DOSE,
        )
    return scaling


def _offsets(
    header: Elements, count: int, position: tuple[float, ...], orientation: tuple[float, ...]
) -> tuple[float, ...]:
    """The distance of each plane from the first, in mm along the normal."""
    if count == 1 and not header.get("GridFrameOffsetVector"):
        return (0.0,)
    offsets = floats(header, "GridFrameOffsetVector", count)
    if offsets is None:
        raise InputError(
            "GridFrameOffsetVector is missing, so that its planes have no place", COPY_AGAIN
        )
    if offsets[0] == 0:
        return offsets
    # Otherwise they are positions along z, the first being that of ImagePositionPatient.
    upright = abs(abs(orientation[0]) - 1) < 1e-4 and abs(abs(orientation[4]) - 1) < 1e-4
    if not upright or abs(offsets[0] - position[2]) > _ABSOLUTE_MM:
        raise InputError(
            f"GridFrameOffsetVector begins with {offsets[0]:g}, neither 0 nor the z of "
            "ImagePositionPatient",
            "Correct the header.",
        )
    up = orientation[0] * orientation[4]
    return tuple((offset - offsets[0]) * up for offset in offsets)
