"""The values in the header of one image plane.

An absent element is None or ""; a malformed one that places or scales the image is an error.
"""

from __future__ import annotations

import datetime
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import diffusion

if TYPE_CHECKING:
    from pydicom import Dataset

_CONTROLS = dict.fromkeys(
    [*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], " "
)
#: Stands for a missing date.
_SOME_DAY = "20000101"
#: Transfer syntaxes that are always lossy → DICOM's term for the method.
LOSSY_SYNTAXES = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
}
#: The method of syntaxes that may be lossy, for headers that name none.
_METHODS = {
    **LOSSY_SYNTAXES,
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}
#: Elements by keyword, private ones by tag.
Fields = dict[str | int, Any]
#: GE's vascular collapse flag, its part of the signal (1: phase), and the creator of their block.
_GE_COLLAPSE, _GE_COMPONENT, _GE_CREATOR = 0x00431030, 0x0043102F, 0x00430010
#: Its delay after each volume of an EPI sequence, s.
_GE_DELAY = 0x0043107C
#: Unit → element of Philips PET with the factor from intensities.
_PHILIPS_FACTORS = {"SUV": 0x70531000, "Bq/ml": 0x70531009}
Read = Callable[[Fields, str], Any]
#: SpecificCharacterSet.
_CHARSET = 0x00080005
#: Bytes of a value up to which files may share it.
_LONGEST_SHARED = 256


def plain_values(header: Dataset) -> Fields:
    """Return the elements of a header except sequences; those pydicom cannot decode are text."""
    from pydicom.dataelem import RawDataElement

    values: Fields = {}
    stated = header.original_character_set
    charset = stated if isinstance(stated, str) else tuple(stated or ())
    for tag, raw in header.items():
        vr, value, number = raw.VR, raw.value, int(tag)  # pydicom's tags compare slowly
        if vr == "SQ":
            continue
        if value is None and isinstance(raw, RawDataElement) and raw.length == 0:
            value = b""
        try:
            if (
                isinstance(raw, RawDataElement)
                and isinstance(value, bytes)
                and len(value) == raw.length <= _LONGEST_SHARED
                and charset
                and _stands_alone(number, vr)
            ):
                decoded = _decoded(number, vr, value, charset, raw.is_little_endian)
            else:
                decoded = header[tag].value
        except (ValueError, TypeError, ArithmeticError):
            decoded = f"malformed, {bytes(value or b'')[:40]!r}"
        values[_keyword(number)] = decoded
    return values


@functools.cache
def _keyword(tag: int) -> str | int:
    from pydicom.datadict import keyword_for_tag

    return keyword_for_tag(tag) or tag


@functools.cache
def _stands_alone(tag: int, vr: str | None) -> bool:
    """Return whether an element is decoded without others, such as PixelRepresentation."""
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    if vr is None and not tag >> 16 & 1 and dictionary_has_tag(tag):
        vr = dictionary_VR(tag)
    return tag != _CHARSET and vr is not None and len(vr) == 2 and vr not in ("SQ", "UN")


@functools.lru_cache(maxsize=4096)
def _decoded(
    tag: int, vr: str | None, value: bytes, charset: str | tuple[str, ...], is_little: bool
) -> Any:
    """Decode a value with pydicom, once for all files that share it: nobody may change it."""
    from pydicom.dataelem import RawDataElement, convert_raw_data_element, empty_value_for_VR
    from pydicom.tag import Tag

    stored: Any = value or empty_value_for_VR(vr, raw=True)
    raw = RawDataElement(Tag(tag), vr, len(value), stored, 0, vr is None, is_little)
    encoding = charset if isinstance(charset, str) else list(charset)
    return convert_raw_data_element(raw, encoding=encoding).value


def text(header: Any, field: str | int) -> str:
    """Return the element of `Fields` or of a Dataset as text; "" if it is absent."""
    value = header.get(field)
    return "" if value is None else plain(str(value)).strip()


def plain(value: str) -> str:
    """Replace characters that control a terminal or the direction of writing by spaces."""
    return value if value.isprintable() else value.translate(_CONTROLS)


def texts(header: Any, field: str) -> tuple[str, ...]:
    """Return all values of an element, in capitals."""
    value = header.get(field)
    if value is None or value == "":
        return ()
    parts = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    return tuple(str(part).strip().upper() for part in parts)


def floats(header: Any, field: str | int, count: int) -> tuple[float, ...] | None:
    """Read finite numbers; None for an absent or empty element, InputError for anything else.

    Args:
        header: `Fields` or a Dataset.
        field: keyword of the element.
        count: how many values it must have.
    """
    value = header.get(field)
    if value is None or value == "":
        return None
    try:
        parts = value.split("\\") if isinstance(value, str) else value if count > 1 else [value]
        numbers = tuple(float(part) for part in parts)
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise InputError(f"{field} is {str(value)[:100]}", "Correct the header.")
    return numbers


def real(header: Any, field: str | int) -> float | None:
    """Return the only number of an element, as `floats` reads it."""
    numbers = floats(header, field, 1)
    return None if numbers is None else numbers[0]


def whole(header: Any, field: str) -> int:
    """Return a whole number, 0 if it is absent; raises InputError as `floats` does."""
    return int(real(header, field) or 0)


def measured(header: Any, field: str | int) -> float | None:
    """Return a number that matters less: a malformed one counts as absent."""
    try:
        return real(header, field)
    except InputError:
        return None


def date(value: str) -> str:
    """Format a date of DICOM as YYYY-MM-DD; "" if it is malformed."""
    digits = value.replace(".", "")
    if len(digits) != 8 or not digits.isdigit():
        return ""
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"


def acquisition_time(header: Fields) -> float | None:
    """Read the time of acquisition, seconds since a fixed day, without time zone, or None."""
    moment = text(header, "AcquisitionDateTime").partition("+")[0].partition("-")[0]
    day, hour = moment[:8], moment[8:]
    if not moment:
        day = text(header, "AcquisitionDate").replace(".", "") or _SOME_DAY
        hour = text(header, "AcquisitionTime").replace(":", "")
    try:
        stated = datetime.datetime.fromisoformat(f"{day}T{hour}")
    except ValueError:
        return None
    return (stated - datetime.datetime.fromisoformat(_SOME_DAY)).total_seconds()


def lossy_steps(header: Fields, syntax: str) -> tuple[Lossy, ...]:
    """Return the lossy compressions that a header or its transfer syntax (a UID) states.

    Returns one for each method, "" if none is named; its ratio is 1 if none is stated.
    """
    methods = texts(header, "LossyImageCompressionMethod")
    is_lossy = text(header, "LossyImageCompression") == "01"
    implied = LOSSY_SYNTAXES.get(syntax, "")
    if not implied and is_lossy and not methods:
        implied = _METHODS.get(syntax, "")
    if implied and implied not in methods:
        methods = (*methods, implied)
    if not methods and is_lossy:
        methods = ("",)
    ratios = [
        measured({"ratio": ratio}, "ratio") or 1.0
        for ratio in texts(header, "LossyImageCompressionRatio")
    ]
    ratios += [1.0] * (len(methods) - len(ratios))
    return tuple(map(Lossy, methods, ratios))


def _image_type(header: Fields, keyword: str) -> tuple[str, ...]:
    """Read ImageType, with the parts of it that enhanced images keep in other elements."""
    kind = texts(header, keyword)
    if text(header, "ArterialSpinLabelingContrast"):
        kind = (*kind, "ASL")
    parts = (*texts(header, "ComplexImageComponent"), *texts(header, "AcquisitionContrast"))
    if text(header, _GE_CREATOR) == "GEMS_PARM_01" and text(header, _GE_COMPONENT) == "1":
        parts = (*parts, "PHASE")
    return (*kind, *(part for part in parts if part not in kind))


def _pixel_spacing(header: Fields, keyword: str) -> tuple[float, ...] | None:
    if len(texts(header, keyword)) == 1 and "\\" not in text(header, keyword):
        header = {keyword: [header[keyword]] * 2}
    return floats(header, keyword, 2)


def _notes(header: Fields, keyword: str) -> str:
    """Describe an odd PixelSpacing, and factors by which intensities become another quantity."""
    notes, factors = [], []
    if len(spacing := texts(header, "PixelSpacing")) == 1:
        notes.append(f"PixelSpacing is not two numbers but {spacing[0]}")
    slope, shift = measured(header, keyword), measured(header, "RealWorldValueIntercept") or 0.0
    applied = measured(header, "RescaleSlope") or 1.0, measured(header, "RescaleIntercept") or 0.0
    if slope is not None and not np.allclose((slope, shift), applied, rtol=1e-4):
        unit = text(header, "CodeValue")
        factors.append(f"stored numbers × {slope:g} {shift:+g} (RealWorldValueSlope) are {unit}")
    for unit, tag in _PHILIPS_FACTORS.items():
        factor = measured(header, tag)
        if factor and diffusion.is_of("Philips PET Private Group", header, tag):
            factors.append(f"intensities × {factor:g} (7053,{tag % 65536:04X}) are {unit}")
    if factors:
        notes.append(f"factors not applied, which results may lose: {'; '.join(factors)}")
    return "; ".join(notes)


def _number_texts(header: Fields, keyword: str) -> str:
    """Write the numbers of an element as text, the same for equal numbers."""
    return "\\".join(map(_number_text, texts(header, keyword)))


def _number_text(value: str) -> str:
    number = measured({"": value}, "")
    if number is None:
        return value
    return f"{int(number)}" if number.is_integer() else f"{number:.6g}"


def _joined(header: Fields, keyword: str) -> str:
    return "\\".join(texts(header, keyword))


def _collapse_flag(header: Fields, element: str) -> str:
    """Read GE's collapse flag: only it distinguishes magnitude and map in a field map of GE."""
    is_known = text(header, _GE_CREATOR) == "GEMS_PARM_01"
    return _number_texts(header, element) if is_known else ""


def _repetition(header: Fields, keyword: str) -> float | None:
    """Read the time from volume to volume of 2-D EPI, ms; None for other sequences."""
    words = (*texts(header, "ScanningSequence"), *texts(header, "ImageType"))
    is_epi = "EP" in words or "MOSAIC" in words or text(header, "EchoPlanarPulseSequence") == "YES"
    if not is_epi or text(header, "MRAcquisitionType") != "2D":
        return None
    is_ge = text(header, _GE_CREATOR) == "GEMS_PARM_01"
    delay_s = (measured(header, _GE_DELAY) if is_ge else None) or 0.0
    if stated_ms := measured(header, "TemporalResolution"):  # in derived series, with the delay
        return stated_ms
    repetition_ms = measured(header, keyword)
    return repetition_ms and round(repetition_ms + 1000 * delay_s, 3)


def _from(keyword: str | int, read: Read, default: Any = None) -> Any:
    """Return a field of Slice that `read` takes from the element `keyword` of a header."""
    return field(default=default, metadata={"keyword": keyword, "read": read})


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A single-frame file, or one frame of a multi-frame file; None and "" for what is missing.

    Attributes:
        frame: its place in a multi-frame file, counted from 1.
        tile: its place in a mosaic, likewise.
        position, orientation: as DICOM gives them, mm and direction cosines in LPS.
        pixel_spacing: mm between rows, then between columns.
        thickness, between: mm.
        padding, padding_limit: the range of stored numbers that stand for nothing.
        units: of the intensities, where the modality has an element for it (PET).
        notes: on what is odd in its header, or not applied, for warnings.
        burned_in: whether BurnedInAnnotation says that pixels show text.
        stack: StackID, in files of many frames.
        echo_ms: EchoTime.
        b_value: s/mm².
        direction: of the diffusion gradient, a unit vector in LPS.
        agent: ContrastBolusAgent.
        number: InstanceNumber.
        dimensions: DimensionIndexValues.
        temporal_count: NumberOfTemporalPositions.
        trigger_ms: milliseconds after the trigger.
        heart_percent, breath_percent: of the cycle.
        time_s: time of acquisition, seconds since a fixed day.
        duration_ms: ActualFrameDuration.
        interval_ms: TemporalResolution, from frame to frame.
        repetition_ms: from volume to volume of 2-D EPI.
    """

    file: Path
    frame: int | None = None
    tile: int | None = None
    sop_class: str = _from("SOPClassUID", text, "")
    instance: str = _from("SOPInstanceUID", text, "")
    study: str = _from("StudyInstanceUID", text, "")
    series: str = _from("SeriesInstanceUID", text, "")
    patient: str = _from("PatientID", text, "")
    modality: str = _from("Modality", text, "")
    body_part: str = _from("BodyPartExamined", text, "")

    rows: int = _from("Rows", whole, 0)
    columns: int = _from("Columns", whole, 0)
    samples: int = _from("SamplesPerPixel", lambda *of: whole(*of) or 1, 1)
    bits_allocated: int = _from("BitsAllocated", lambda *of: whole(*of) or 16, 16)
    signed: bool = _from("PixelRepresentation", lambda *of: whole(*of) == 1, False)
    photometric: str = _from("PhotometricInterpretation", text, "")

    position: tuple[float, ...] | None = _from("ImagePositionPatient", partial(floats, count=3))
    orientation: tuple[float, ...] | None = _from(
        "ImageOrientationPatient", partial(floats, count=6)
    )
    pixel_spacing: tuple[float, ...] | None = _from("PixelSpacing", _pixel_spacing)
    thickness: float | None = _from("SliceThickness", real)
    between: float | None = _from("SpacingBetweenSlices", real)

    slope: float | None = _from("RescaleSlope", real)
    intercept: float | None = _from("RescaleIntercept", real)
    padding: float | None = _from("PixelPaddingValue", measured)
    padding_limit: float | None = _from("PixelPaddingRangeLimit", measured)
    rescale_type: str = _from("RescaleType", text, "")
    units: str = _from("Units", text, "")
    real_world_unit: str = _from("CodeValue", text, "")
    notes: str = _from("RealWorldValueSlope", _notes, "")
    burned_in: bool = _from("BurnedInAnnotation", lambda *of: text(*of) == "YES", False)

    frame_of_reference: str = _from("FrameOfReferenceUID", text, "")
    acquisition: str = _from("AcquisitionNumber", _number_texts, "")
    stack: str = _from("StackID", text, "")
    echo: str = _from("EchoNumbers", _number_texts, "")
    echo_ms: str = _from("EchoTime", _number_texts, "")
    b_value: str = _from("DiffusionBValue", diffusion.b_value, "")
    image_type: tuple[str, ...] = _from("ImageType", _image_type, ())
    kernel: str = _from("ConvolutionKernel", _joined, "")
    kv: str = _from("KVP", _number_texts, "")
    collapse_flag: str = _from(_GE_COLLAPSE, _collapse_flag, "")
    inversion_ms: str = _from("InversionTime", _number_texts, "")
    flip_degrees: str = _from("FlipAngle", _number_texts, "")
    direction: tuple[float, ...] | None = _from("DiffusionGradientOrientation", diffusion.direction)

    agent: str = _from("ContrastBolusAgent", text, "")

    number: float | None = _from("InstanceNumber", measured)
    dimensions: tuple[str, ...] = _from("DimensionIndexValues", texts, ())
    temporal_index: float | None = _from("TemporalPositionIdentifier", measured)
    temporal_count: float | None = _from("NumberOfTemporalPositions", measured)
    trigger_ms: float | None = _from("TriggerTime", measured)
    heart_percent: float | None = _from("NominalPercentageOfCardiacPhase", measured)
    breath_percent: float | None = _from("NominalPercentageOfRespiratoryPhase", measured)
    time_s: float | None = None
    reference_ms: float | None = _from("FrameReferenceTime", measured)
    duration_ms: float | None = _from("ActualFrameDuration", measured)
    interval_ms: float | None = _from("TemporalResolution", measured)
    repetition_ms: float | None = _from("RepetitionTime", _repetition)

    lossy: tuple[Lossy, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of its stored numbers."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.bits_allocated // 8}")

    @property
    def label(self) -> str:
        """Name in messages."""
        if self.tile is not None:
            return f"{self.file.name}, tile {self.tile}"
        return self.file.name if self.frame is None else f"{self.file.name}, frame {self.frame}"


Slices = Sequence[Slice]
_READ: tuple[tuple[str, Any, Read], ...] = tuple(
    (column.name, column.metadata["keyword"], column.metadata["read"])
    for column in fields(Slice)
    if column.metadata
)
#: Elements that are read from every image: keywords, and tags of private elements.
ELEMENTS: tuple[str | int, ...] = (
    *(keyword for _name, keyword, _read in _READ),
    "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "NumberOfFrames",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    *diffusion.ELEMENTS, _GE_COMPONENT, _GE_DELAY, "RealWorldValueMappingSequence",
    "ScanningSequence", "MRAcquisitionType", "EchoPlanarPulseSequence", 0x70530010,
    *_PHILIPS_FACTORS.values(),
)  # fmt: skip


def slice_of(header: Fields, file: Path, syntax: str, frame: int | None = None) -> Slice:
    """Describe the image in a file, or one of its frames, by its header.

    Args:
        header: with ELEMENTS; of a frame, with those of its functional groups.
        file: of the image.
        syntax: the transfer syntax UID.
        frame: its number in the file, from 1; None for a single-frame file.
    Raises InputError if a value that places or scales the image is malformed.
    """
    values = {name: read(header, keyword) for name, keyword, read in _READ}
    if values["slope"] == 0:
        raise InputError("RescaleSlope is 0", "Correct the header.")
    if values["rows"] * values["columns"] == 0:
        raise InputError(f"zero size, {values['columns']}×{values['rows']}", "Correct the header.")
    if values["bits_allocated"] not in (8, 16, 32):
        raise InputError(
            f"BitsAllocated is {values['bits_allocated']}, which is not read", "Correct the header."
        )
    return Slice(
        file=file,
        frame=frame,
        time_s=acquisition_time(header),
        lossy=lossy_steps(header, syntax),
        **values,
    )
