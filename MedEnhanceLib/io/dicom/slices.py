"""One image plane as its header describes it: plain values without pixels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.io.dicom.elements import (
    Fields,
    acquisition_time,
    floats,
    lossy_steps,
    measured,
    number,
    real,
    text,
    texts,
    whole,
)
from MedEnhanceLib.io.dicom.sources import FileRef

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
#: What is read of every image: keywords, and tags of private elements.
ELEMENTS: tuple[str | int, ...] = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber",
    "SeriesNumber", "SeriesDescription", "StudyDescription", "StudyDate", "SeriesDate",
    "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "PatientID", "Modality",
    "ImageType", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
    "SpacingBetweenSlices", "FrameOfReferenceUID", "RescaleSlope", "RescaleIntercept",
    "RescaleType", "Units", "ModalityLUTSequence", "AcquisitionNumber", "EchoNumbers", "EchoTime",
    "TemporalPositionIdentifier", "TemporalResolution", "TriggerTime", "FrameReferenceTime",
    "NominalPercentageOfCardiacPhase", "NominalPercentageOfRespiratoryPhase", "DiffusionBValue",
    "KVP", "ConvolutionKernel", "InversionTime", "FlipAngle", "BodyPartExamined",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
    *(tag for element, creator, _name in _PRIVATE_B_VALUES for tag in (element, creator)),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A single-frame file, or one frame of a multi-frame file; None and "" for what is missing.

    frame: its place in a multi-frame file, counted from 1. number: InstanceNumber.
    patient: PatientID. body_part: BodyPartExamined.
    position, orientation: as DICOM gives them, mm and direction cosines in LPS.
    pixel_spacing: mm between rows, then between columns.
    thickness, between: mm, SliceThickness and SpacingBetweenSlices.
    units: of the intensities, where the modality has an element for it (PET).
    acquisition, stack: number of the acquisition; StackID, in files of many frames.
    echo: EchoNumbers. echo_ms: EchoTime. b_value: s/mm².
    settings: what else makes images of the same anatomy differ, as pairs of a name and a value:
    ("kernel", "B30F"), ("kV", "80").
    temporal_index: number of the temporal position. trigger_ms: milliseconds after the trigger.
    heart_percent, breath_percent: of the cardiac and of the respiratory cycle.
    time_s: time of acquisition, seconds since a fixed day.
    reference_ms: FrameReferenceTime. interval_ms: TemporalResolution, from frame to frame.
    stamp: of the file when its header was read; see FileRef.stamp.
    """

    file: FileRef
    frame: int | None = None
    sop_class: str = ""
    instance: str = ""
    study: str = ""
    series: str = ""
    patient: str = ""
    modality: str = ""
    body_part: str = ""
    number: int | None = None

    rows: int = 0
    columns: int = 0
    samples: int = 1
    bits_allocated: int = 16
    bits_stored: int = 16
    signed: bool = False
    photometric: str = ""

    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    pixel_spacing: tuple[float, ...] | None = None
    thickness: float | None = None
    between: float | None = None

    slope: float | None = None
    intercept: float | None = None
    rescale_type: str = ""
    units: str = ""

    frame_of_reference: str = ""
    acquisition: str = ""
    stack: str = ""
    echo: str = ""
    echo_ms: str = ""
    b_value: str = ""
    image_type: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()

    temporal_index: int | None = None
    trigger_ms: float | None = None
    heart_percent: float | None = None
    breath_percent: float | None = None
    time_s: float | None = None
    reference_ms: float | None = None
    interval_ms: float | None = None

    lossy: tuple[Lossy, ...] = ()
    stamp: tuple[int, int] | None = None

    @property
    def label(self) -> str:
        """Its name in messages."""
        return self.file.name if self.frame is None else f"{self.file.name}, frame {self.frame}"


Slices = Sequence[Slice]


def slice_of(
    header: Fields, file: FileRef, stamp: tuple[int, int], syntax: str, frame: int | None = None
) -> Slice:
    """What a header says of the image in a file, or of one of its frames.

    Args:
        header: with ELEMENTS; of a frame, with what its functional groups say.
        file: where it was read from.
        stamp: of the file when its header was read, see FileRef.stamp.
        syntax: the transfer syntax UID.
        frame: its number in the file, from 1; None for the only one.
    Raises:
        InputError: a value that places or scales the image is malformed.
    """
    rows, columns = whole(header, "Rows"), whole(header, "Columns")
    bits = whole(header, "BitsAllocated") or 16
    samples = whole(header, "SamplesPerPixel") or 1
    frames = whole(header, "NumberOfFrames") or 1
    raw_bytes = rows * columns * samples * frames * bits / 8
    return Slice(
        file=file,
        frame=frame,
        sop_class=text(header, "SOPClassUID"),
        instance=text(header, "SOPInstanceUID"),
        study=text(header, "StudyInstanceUID"),
        series=text(header, "SeriesInstanceUID"),
        patient=text(header, "PatientID"),
        modality=text(header, "Modality"),
        body_part=text(header, "BodyPartExamined"),
        number=number(header, "InstanceNumber"),
        rows=rows,
        columns=columns,
        samples=samples,
        bits_allocated=bits,
        bits_stored=whole(header, "BitsStored") or bits,
        signed=whole(header, "PixelRepresentation") == 1,
        photometric=text(header, "PhotometricInterpretation"),
        position=floats(header, "ImagePositionPatient", 3),
        orientation=floats(header, "ImageOrientationPatient", 6),
        pixel_spacing=floats(header, "PixelSpacing", 2),
        thickness=real(header, "SliceThickness"),
        between=real(header, "SpacingBetweenSlices"),
        slope=real(header, "RescaleSlope"),
        intercept=real(header, "RescaleIntercept"),
        rescale_type=text(header, "RescaleType"),
        units=text(header, "Units"),
        frame_of_reference=text(header, "FrameOfReferenceUID"),
        acquisition=text(header, "AcquisitionNumber"),
        stack=text(header, "StackID"),
        echo=text(header, "EchoNumbers"),
        echo_ms=text(header, "EchoTime"),
        b_value=_b_value(header),
        image_type=_image_type(header),
        settings=tuple(
            (name, value)
            for field, name in _SETTINGS.items()
            if (value := "\\".join(texts(header, field)))
        ),
        temporal_index=number(header, "TemporalPositionIdentifier"),
        trigger_ms=measured(header, "TriggerTime"),
        heart_percent=measured(header, "NominalPercentageOfCardiacPhase"),
        breath_percent=measured(header, "NominalPercentageOfRespiratoryPhase"),
        time_s=acquisition_time(header),
        reference_ms=measured(header, "FrameReferenceTime"),
        interval_ms=measured(header, "TemporalResolution"),
        lossy=lossy_steps(header, syntax, raw_bytes, 0 if file.member else stamp[0]),
        stamp=stamp,
    )


def _image_type(header: Fields) -> tuple[str, ...]:
    """ImageType, and what has elements of its own in enhanced images."""
    kind = texts(header, "ImageType")
    parts = (*texts(header, "ComplexImageComponent"), *texts(header, "AcquisitionContrast"))
    return (*kind, *(part for part in parts if part not in kind))


def _b_value(header: Fields) -> str:
    """In s/mm²: of the standard element, else of the private element of a known manufacturer."""
    value = measured(header, "DiffusionBValue")
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
