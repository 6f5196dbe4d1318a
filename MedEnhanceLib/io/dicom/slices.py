"""One image plane as its header describes it: plain values without pixels.

Headers are read in other processes, so a Slice can be pickled and holds nothing of pydicom.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.io.dicom.elements import (
    PRIVATE_B_VALUES,
    Elements,
    acquisition_time,
    first,
    floats,
    lossy_steps,
    measured,
    number,
    one,
    text,
    texts,
    whole,
    window,
)
from MedEnhanceLib.io.dicom.sources import FileRef

#: Elements that make images of the same anatomy differ, and their names in messages.
_SETTINGS = {
    "ConvolutionKernel": "kernel",
    "KVP": "kV",
    "InversionTime": "inversion time",
    "FlipAngle": "flip angle",
}
#: GE adds multiples of this to a b-value.
_GE_OFFSET = 1e9


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A single-frame file, or one frame of a multi-frame file; None and "" for what is missing.

    frame: its place in a multi-frame file, counted from 1. number: InstanceNumber.
    patient: PatientID. body_part: BodyPartExamined.
    position, orientation: as DICOM gives them, mm and direction cosines in LPS.
    pixel_spacing: mm between rows, then between columns.
    thickness, between: mm, SliceThickness and SpacingBetweenSlices.
    has_lut: whether its intensities need a ModalityLUTSequence. padding: PixelPaddingValue.
    units: of the intensities, where the modality has an element for it (PET, dose).
    acquisition, stack: number of the acquisition; StackID, in files of many frames.
    echo: EchoNumbers. echo_ms: EchoTime. b_value: s/mm².
    settings: what else makes images of the same anatomy differ, as pairs of a name and a value:
    ("kernel", "B30F"), ("kV", "80"); also dimensions without a field of their own.
    temporal_index: number of the temporal position. trigger_ms: milliseconds after the trigger.
    heart_percent, breath_percent: of the cardiac and of the respiratory cycle.
    time_s: time of acquisition, seconds since a fixed day, or since the scan began.
    reference_ms: FrameReferenceTime. interval_ms: TemporalResolution, from frame to frame.
    window: center and width. stamp: of the file when its header was read; see FileRef.stamp.
    concatenation: see multiframe.concatenation_of.
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
    transfer_syntax: str = ""

    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    pixel_spacing: tuple[float, ...] | None = None
    thickness: float | None = None
    between: float | None = None

    slope: float | None = None
    intercept: float | None = None
    rescale_type: str = ""
    units: str = ""
    has_lut: bool = False
    padding: float | None = None

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
    window: tuple[float, float] | None = None
    burned_in: str = ""
    stamp: tuple[int, int] | None = None
    concatenation: tuple[str, int, int] | None = None

    @property
    def label(self) -> str:
        """Its name in messages."""
        return self.file.name if self.frame is None else f"{self.file.name}, frame {self.frame}"


Slices = Sequence[Slice]


def slice_of(header: Elements, file: FileRef, stamp: tuple[int, int], syntax: str) -> Slice:
    """What a header says of the image in a file, or of all frames in it.

    Args:
        header: with elements.HEADER_ELEMENTS.
        file: where it was read from.
        stamp: of the file when its header was read, see FileRef.stamp.
        syntax: the transfer syntax UID.
    Raises:
        InputError: a value that places or scales the image is malformed.
    """
    rows, columns = whole(header, "Rows"), whole(header, "Columns")
    bits = whole(header, "BitsAllocated") or 16
    samples = whole(header, "SamplesPerPixel") or 1
    frames = whole(header, "NumberOfFrames") or 1
    size = 0 if file.member else stamp[0]
    return Slice(
        file=file,
        sop_class=text(header, "SOPClassUID"),
        instance=text(header, "SOPInstanceUID"),
        study=text(header, "StudyInstanceUID"),
        series=text(header, "SeriesInstanceUID"),
        patient=text(header, "PatientID"),
        modality=text(header, "Modality"),
        number=number(header, "InstanceNumber"),
        rows=rows,
        columns=columns,
        samples=samples,
        bits_allocated=bits,
        bits_stored=whole(header, "BitsStored") or bits,
        signed=whole(header, "PixelRepresentation") == 1,
        photometric=text(header, "PhotometricInterpretation"),
        transfer_syntax=syntax,
        position=floats(header, "ImagePositionPatient", 3),
        orientation=floats(header, "ImageOrientationPatient", 6),
        pixel_spacing=floats(header, "PixelSpacing", 2),
        thickness=one(header, "SliceThickness"),
        between=one(header, "SpacingBetweenSlices"),
        slope=one(header, "RescaleSlope"),
        intercept=one(header, "RescaleIntercept"),
        rescale_type=text(header, "RescaleType"),
        units=text(header, "Units"),
        has_lut="ModalityLUTSequence" in header,
        padding=one(header, "PixelPaddingValue"),
        frame_of_reference=text(header, "FrameOfReferenceUID"),
        acquisition=text(header, "AcquisitionNumber"),
        echo=text(header, "EchoNumbers"),
        echo_ms=text(header, "EchoTime"),
        b_value=_b_value(header),
        image_type=texts(header, "ImageType"),
        settings=_settings(header),
        temporal_index=number(header, "TemporalPositionIdentifier"),
        trigger_ms=measured(header, "TriggerTime"),
        heart_percent=measured(header, "NominalPercentageOfCardiacPhase"),
        breath_percent=measured(header, "NominalPercentageOfRespiratoryPhase"),
        time_s=acquisition_time(header),
        reference_ms=measured(header, "FrameReferenceTime"),
        interval_ms=measured(header, "TemporalResolution"),
        lossy=lossy_steps(header, syntax, rows * columns * samples * frames * bits / 8, size),
        stamp=stamp,
        window=window(header),
        burned_in=text(header, "BurnedInAnnotation"),
        body_part=text(header, "BodyPartExamined"),
    )


def _settings(header: Elements) -> tuple[tuple[str, str], ...]:
    pairs = ((name, "\\".join(texts(header, field))) for field, name in _SETTINGS.items())
    return tuple(pair for pair in pairs if pair[1])


def _b_value(header: Elements) -> str:
    """In s/mm²: of the standard element, else of the private element of a known manufacturer."""
    value = number(header, "DiffusionBValue")
    if value is not None:
        return f"{value}"
    for tag, _vr, creator_tag, creator in PRIVATE_B_VALUES:
        if text(header, creator_tag) == creator:
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                return f"{int(float(first(header, tag)) % _GE_OFFSET)}"
    return ""
