"""Many frames in one file → image planes, where each frame says its place in the patient.

Functional groups (enhanced CT, MR and PET, and what was converted to them) say it for each frame;
a dose grid says it by offsets. Other files of many frames are clips, and are refused as such.
Source: DICOM PS3.3 C.7.6.16 (functional groups), C.7.6.17 (dimensions), A.1.4.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import concatenation, dose
from MedEnhanceLib.io.dicom.elements import (
    acquisition_time,
    floats,
    number,
    one,
    text,
    texts,
    whole,
)
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.io.dicom.words import COPY_AGAIN

if TYPE_CHECKING:
    from pydicom import Dataset

#: What `frames_of` needs of a header, besides what plain slices need.
ELEMENTS = (
    "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "DimensionIndexSequence", *concatenation.ELEMENTS, *dose.ELEMENTS,
)  # fmt: skip
_CLASS = "1.2.840.10008.5.1.4.1.1."
_PET = (f"{_CLASS}130", f"{_CLASS}128.1")
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
#: What a dimension counts that a field of a slice tells already.
_TOLD_BY = {
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
#: Where the groups of one frame and those of all tell these differently, the place is unclear.
_PLACING = {
    "position": "ImagePositionPatient",
    "orientation": "ImageOrientationPatient",
    "pixel_spacing": "PixelSpacing",
    "slope": "RescaleSlope",
    "intercept": "RescaleIntercept",
}

Told = dict[str, Any]


def frames_of(header: Dataset, file: FileRef, common: Slice) -> list[Slice]:
    """The image planes of a file of frames, in its own order; all fields per frame.

    header: with ELEMENTS. common: what all frames share.
    Raises InputError for frames without a place in the patient, with the reason, and where the
    header and its groups contradict each other.
    """
    count = whole(header, "NumberOfFrames") or 1
    if count < 1:
        raise InputError(f"NumberOfFrames is {count}", COPY_AGAIN)
    common = replace(common, file=file, concatenation=concatenation.place_in(header))
    if common.sop_class == dose.SOP_CLASS:
        return dose.dose_planes(header, common, count)
    if "PerFrameFunctionalGroupsSequence" not in header:
        raise _clip(common.sop_class, count)
    frames = _items(header, "PerFrameFunctionalGroupsSequence")
    if len(frames) != count:
        raise InputError(
            f"NumberOfFrames is {count}, but {len(frames)} frames are described", COPY_AGAIN
        )
    shared: Told = {}
    for groups in _items(header, "SharedFunctionalGroupsSequence")[:1]:
        shared = _told(groups)
    told = [_joined(shared, _told(own), index) for index, own in enumerate(frames, 1)]
    dimensions = _dimensions(header)
    common = _without(common, {name for one_frame in told for name in one_frame})
    has_directions = any(one.is_direction for one in dimensions) or any(
        "direction" in own for own in told
    )
    return [_plane(own, dimensions, common, has_directions) for own in told]


def functional_group(name: str, *groups: Dataset) -> Dataset:
    """The first item of a functional group, from the first of `groups` that has it, or empty."""
    from pydicom import Dataset

    return next((_items(own, name)[0] for own in groups if _items(own, name)), Dataset())


# ------------------------------------------------------------ groups → fields of a slice


def _place(item: Dataset) -> Told:
    return {"position": floats(item, "ImagePositionPatient", 3)}


def _orientation(item: Dataset) -> Told:
    return {"orientation": floats(item, "ImageOrientationPatient", 6)}


def _measures(item: Dataset) -> Told:
    return {
        "pixel_spacing": floats(item, "PixelSpacing", 2),
        "thickness": one(item, "SliceThickness"),
        "between": one(item, "SpacingBetweenSlices"),
    }


def _values(item: Dataset) -> Told:
    return {
        "slope": one(item, "RescaleSlope"),
        "intercept": one(item, "RescaleIntercept"),
        "rescale_type": text(item, "RescaleType"),
    }


def _content(item: Dataset) -> Told:
    moments = (
        acquisition_time({"AcquisitionDateTime": told})
        for told in (text(item, "FrameAcquisitionDateTime"), text(item, "FrameReferenceDateTime"))
        if told
    )
    indices = item.get("DimensionIndexValues")
    return {
        "acquisition": text(item, "FrameAcquisitionNumber"),
        "stack": text(item, "StackID"),
        "temporal_index": number(item, "TemporalPositionIndex"),
        "time_s": next((moment for moment in moments if moment is not None), None),
        "indices": (indices,) if isinstance(indices, int) else tuple(indices or ()),
    }


def _offset(item: Dataset) -> Told:
    return {"offset_s": one(item, "TemporalPositionTimeOffset")}


def _heart(item: Dataset) -> Told:
    return {
        "trigger_ms": one(item, "NominalCardiacTriggerDelayTime"),
        "heart_percent": one(item, "NominalPercentageOfCardiacPhase"),
    }


def _breath(item: Dataset) -> Told:
    return {"breath_percent": one(item, "NominalPercentageOfRespiratoryPhase")}


def _echo(item: Dataset) -> Told:
    return {"echo_ms": text(item, "EffectiveEchoTime")}


def _diffusion(item: Dataset) -> Told:
    weight = one(item, "DiffusionBValue")
    own = functional_group("DiffusionGradientDirectionSequence", item)
    direction = floats(own, "DiffusionGradientOrientation", 3)
    return {
        "b_value": "" if weight is None else f"{weight:g}",
        "direction": " ".join(f"{part:g}" for part in direction or ()),
    }


def _kind(item: Dataset) -> Told:
    """What ImageType says of plain images, and what DICOM tells in elements of their own since."""
    kind = texts(item, "FrameType")
    parts = (*texts(item, "ComplexImageComponent"), *texts(item, "AcquisitionContrast"))
    return {"image_type": (*kind, *(part for part in parts if part not in kind))}


def _setting(field: str, name: str) -> Callable[[Dataset], Told]:
    def read(item: Dataset) -> Told:
        return {f"{_SETTING}{name}": "\\".join(texts(item, field))}

    return read


def _kept(item: Dataset) -> Told:
    """What plain images said that were converted, and that has no group of its own."""
    return {
        "units": text(item, "Units"),
        "acquisition": text(item, "AcquisitionNumber"),
        "echo": text(item, "EchoNumbers"),
        "temporal_index": number(item, "TemporalPositionIdentifier"),
        "trigger_ms": one(item, "TriggerTime"),
    }


def _window(item: Dataset) -> Told:
    pair = []
    for field in "WindowCenter", "WindowWidth":
        value = item.get(field)
        first = value if isinstance(value, int | float | str) else next(iter(value or ()), None)
        try:
            pair.append(float(first))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return {}
    is_window = np.isfinite(pair).all() and pair[1] > 0
    return {"window": (pair[0], pair[1])} if is_window else {}


#: Before the name of a setting, among what is told.
_SETTING = "setting: "
_READERS: Mapping[str, Callable[[Dataset], Told]] = {
    "PlanePositionSequence": _place,
    "PlaneOrientationSequence": _orientation,
    "PixelMeasuresSequence": _measures,
    "PixelValueTransformationSequence": _values,
    "FrameContentSequence": _content,
    "TemporalPositionSequence": _offset,
    "CardiacSynchronizationSequence": _heart,
    "RespiratorySynchronizationSequence": _breath,
    "MREchoSequence": _echo,
    "MRDiffusionSequence": _diffusion,
    "MRImageFrameTypeSequence": _kind,
    "CTImageFrameTypeSequence": _kind,
    "PETFrameTypeSequence": _kind,
    "CTReconstructionSequence": _setting("ConvolutionKernel", "kernel"),
    "CTXRayDetailsSequence": _setting("KVP", "kV"),
    "MRModifierSequence": _setting("InversionTimes", "inversion time"),
    "MRTimingAndRelatedParametersSequence": _setting("FlipAngle", "flip angle"),
    "FrameVOILUTSequence": _window,
    "UnassignedPerFrameConvertedAttributesSequence": _kept,
    "UnassignedSharedConvertedAttributesSequence": _kept,
}


@functools.cache
def _readers() -> dict[int, Callable[[Dataset], Told]]:
    from pydicom.datadict import tag_for_keyword

    return {tag_for_keyword(name) or 0: read for name, read in _READERS.items()}


def _told(groups: Dataset) -> Told:
    """Whatever the functional groups tell of a slice; nothing of what they leave empty."""
    told: Told = {}
    readers = _readers()
    for tag in sorted(groups.keys()):
        if tag in readers:
            for item in _items(groups, tag)[:1]:
                found = readers[tag](item)
                told |= {name: value for name, value in found.items() if value not in _NOTHING}
    return told


_NOTHING = (None, "", ())


def _joined(shared: Told, own: Told, index: int) -> Told:
    for name, element in _PLACING.items():
        if name in own and shared.get(name, own[name]) != own[name]:
            raise InputError(
                f"{element} is {shared[name]} for all frames, and {own[name]} for frame {index}",
                COPY_AGAIN,
            )
    told = {**shared, **own, "frame": index}
    if "offset_s" in told:
        told.setdefault("time_s", told["offset_s"])
    return told


def _without(common: Slice, names: set[str]) -> Slice:
    """What any frame tells by itself is told for none by the header around them."""
    bare: Told = {one.name: one.default for one in fields(Slice)}
    return replace(common, **{name: bare[name] for name in names if name in bare})


# ------------------------------------------------------------ a frame → a slice


@dataclass(frozen=True)
class _Dimension:
    """told_by: the field of a slice that tells it already, or ""; name: for whoever must choose."""

    told_by: str
    name: str
    is_direction: bool


def _dimensions(header: Dataset) -> list[_Dimension]:
    from pydicom.datadict import keyword_for_tag

    found: list[_Dimension] = []
    for item in _items(header, "DimensionIndexSequence"):
        pointer = int(item.get("DimensionIndexPointer") or 0)
        name = text(item, "DimensionDescriptionLabel") or keyword_for_tag(pointer)
        name = name or f"dimension ({pointer >> 16:04X},{pointer & 0xFFFF:04X})"
        same = sum(one.name.startswith(name) for one in found)
        name = f"{name} {same + 1}" if same else name
        found.append(_Dimension(_TOLD_BY.get(pointer, ""), name, pointer in _DIRECTIONS))
    return found


def _plane(told: Told, dimensions: list[_Dimension], common: Slice, has_directions: bool) -> Slice:
    settings = dict(common.settings) | {
        name.removeprefix(_SETTING): value
        for name, value in told.items()
        if name.startswith(_SETTING)
    }
    settings |= _dimensions_told_by_none(told, dimensions)
    if has_directions:
        settings |= _direction(told, dimensions)
    own = {name: value for name, value in told.items() if name in _FIELDS}
    for dimension, value in _indices(told, dimensions):
        if dimension.told_by == "temporal_index":
            own.setdefault("temporal_index", int(value))
    if common.sop_class not in _PET:
        own.pop("units", None)
    elif "units" not in own:
        own["units"] = told.get("rescale_type", common.units)
    return replace(common, **own, settings=tuple(settings.items()))


_FIELDS = frozenset(one.name for one in fields(Slice))


def _indices(told: Told, dimensions: list[_Dimension]) -> list[tuple[_Dimension, int]]:
    """What each dimension counts; nothing where the values are not as many as the dimensions."""
    values = told.get("indices", ())
    return list(zip(dimensions, values, strict=True)) if len(values) == len(dimensions) else []


def _dimensions_told_by_none(told: Told, dimensions: list[_Dimension]) -> dict[str, str]:
    """A dimension that no field tells of is no time: it keeps its name."""
    return {
        dimension.name: str(value)
        for dimension, value in _indices(told, dimensions)
        if not dimension.is_direction
        and dimension.told_by not in (*told, "position", "orientation", "temporal_index")
    }


def _direction(told: Told, dimensions: list[_Dimension]) -> dict[str, str]:
    """Of a diffusion gradient, with its b-value; without weighting there is none."""
    weight = told.get("b_value", "")
    counted = [value for one, value in _indices(told, dimensions) if one.is_direction]
    direction = "-".join(f"{value:04d}" for value in counted) or told.get("direction", "")
    if weight == "0":
        return {"direction": "0 s/mm²"}  # beside others' direction, and before them
    if not direction:
        return {}
    return {"direction": f"{weight} s/mm² {direction}" if weight else direction}


def _clip(sop_class: str, count: int) -> InputError:
    what = _CLIPS.get(sop_class.removeprefix(_CLASS), "frames without functional groups")
    return InputError(
        f"{what}: {count} frames in one file, and none says its place in the patient",
        "Give a tomographic series, or convert it with 3D Slicer and give the NRRD or NIfTI file.",
    )


def _items(dataset: Dataset, name: str | int) -> tuple[Dataset, ...]:
    found: Any = dataset.get(name)
    found = getattr(found, "value", found)  # by its tag, pydicom gives the element
    return tuple(found) if found is not None and not isinstance(found, str | bytes | int) else ()
