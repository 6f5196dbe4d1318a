"""One image plane as its header describes it: plain values without pixels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.io.dicom.elements import (
    Fields,
    acquisition_time,
    floats,
    lossy_steps,
    measured,
    real,
    text,
    texts,
    whole,
)

#: Elements that make images of the same anatomy differ, and their names in messages.
_SETTINGS = {
    "ConvolutionKernel": "kernel",
    "KVP": "kV",
    "InversionTime": "inversion time",
    "FlipAngle": "flip angle",
    "DiffusionGradientOrientation": "direction",
}
#: Where manufacturers keep the b-value: element, creator's element, creator.
_PRIVATE_B_VALUES = (
    (0x0019100C, 0x00190010, "SIEMENS MR HEADER"),
    (0x00431039, 0x00430010, "GEMS_PARM_01"),
    (0x20011003, 0x20010010, "Philips Imaging DD 001"),
)
#: GE adds multiples of this to a b-value.
_GE_OFFSET = 1e9
Read = Callable[[Fields, str], Any]


def _image_type(header: Fields, keyword: str) -> tuple[str, ...]:
    """ImageType, and what has elements of its own in enhanced images."""
    kind = texts(header, keyword)
    parts = (*texts(header, "ComplexImageComponent"), *texts(header, "AcquisitionContrast"))
    return (*kind, *(part for part in parts if part not in kind))


def _b_value(header: Fields, keyword: str) -> str:
    """In s/mm²: of the standard element, else of the private element of a known manufacturer."""
    value = measured(header, keyword)
    if value is not None:
        return f"{value:g}"
    for tag, creator_tag, creator in _PRIVATE_B_VALUES:
        private = header.get(tag)
        if private is None or text(header, creator_tag) != creator:
            continue
        if isinstance(private, Iterable) and not isinstance(private, str | bytes):
            private = next(iter(private), "")
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return f"{int(float(private) % _GE_OFFSET)}"
    return ""


def _from(keyword: str, read: Read, default: Any = None) -> Any:
    """A field of Slice that `read` takes from the element `keyword` of a header."""
    return field(default=default, metadata={"keyword": keyword, "read": read})


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A single-frame file, or one frame of a multi-frame file; None and "" for what is missing.

    frame: its place in a multi-frame file, counted from 1.
    position, orientation: as DICOM gives them, mm and direction cosines in LPS.
    pixel_spacing: mm between rows, then between columns. thickness, between: mm.
    units: of the intensities, where the modality has an element for it (PET).
    stack: StackID, in files of many frames. echo_ms: EchoTime. b_value: s/mm².
    settings: what else makes images of the same anatomy differ, as pairs of a name and a value:
    ("kernel", "B30F"), ("kV", "80").
    trigger_ms: milliseconds after the trigger. heart_percent, breath_percent: of the cycle.
    time_s: time of acquisition, seconds since a fixed day.
    interval_ms: TemporalResolution, from frame to frame.
    """

    file: Path
    frame: int | None = None
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
    pixel_spacing: tuple[float, ...] | None = _from("PixelSpacing", partial(floats, count=2))
    thickness: float | None = _from("SliceThickness", real)
    between: float | None = _from("SpacingBetweenSlices", real)

    slope: float | None = _from("RescaleSlope", real)
    intercept: float | None = _from("RescaleIntercept", real)
    rescale_type: str = _from("RescaleType", text, "")
    units: str = _from("Units", text, "")

    frame_of_reference: str = _from("FrameOfReferenceUID", text, "")
    acquisition: str = _from("AcquisitionNumber", text, "")
    stack: str = _from("StackID", text, "")
    echo: str = _from("EchoNumbers", text, "")
    echo_ms: str = _from("EchoTime", text, "")
    b_value: str = _from("DiffusionBValue", _b_value, "")
    image_type: tuple[str, ...] = _from("ImageType", _image_type, ())
    settings: tuple[tuple[str, str], ...] = ()

    temporal_index: float | None = _from("TemporalPositionIdentifier", measured)
    trigger_ms: float | None = _from("TriggerTime", measured)
    heart_percent: float | None = _from("NominalPercentageOfCardiacPhase", measured)
    breath_percent: float | None = _from("NominalPercentageOfRespiratoryPhase", measured)
    time_s: float | None = None
    reference_ms: float | None = _from("FrameReferenceTime", measured)
    interval_ms: float | None = _from("TemporalResolution", measured)

    lossy: tuple[Lossy, ...] = ()

    @property
    def label(self) -> str:
        """Its name in messages."""
        return self.file.name if self.frame is None else f"{self.file.name}, frame {self.frame}"


Slices = Sequence[Slice]
_READ: tuple[tuple[str, str, Read], ...] = tuple(
    (own.name, own.metadata["keyword"], own.metadata["read"])
    for own in fields(Slice)
    if own.metadata
)
#: What is read of every image: keywords, and tags of private elements.
ELEMENTS: tuple[str | int, ...] = (
    *(keyword for _name, keyword, _read in _READ),
    *_SETTINGS,
    "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "NumberOfFrames",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    *(tag for element, creator, _name in _PRIVATE_B_VALUES for tag in (element, creator)),
)  # fmt: skip


def slice_of(header: Fields, file: Path, syntax: str, frame: int | None = None) -> Slice:
    """What a header says of the image in a file, or of one of its frames.

    Args:
        header: with ELEMENTS; of a frame, with what its functional groups say.
        file: where it was read from.
        syntax: the transfer syntax UID.
        frame: its number in the file, from 1; None for the only one.
    Raises:
        InputError: a value that places or scales the image is malformed.
    """
    values = {name: read(header, keyword) for name, keyword, read in _READ}
    settings = {name: "\\".join(texts(header, keyword)) for keyword, name in _SETTINGS.items()}
    cells = values["rows"] * values["columns"] * values["samples"]
    raw_bytes = cells * (whole(header, "NumberOfFrames") or 1) * values["bits_allocated"] / 8
    return Slice(
        file=file,
        frame=frame,
        settings=tuple((name, value) for name, value in settings.items() if value),
        time_s=acquisition_time(header),
        lossy=lossy_steps(header, syntax, raw_bytes, lambda: file.stat().st_size),
        **values,
    )
