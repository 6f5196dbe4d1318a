"""One image plane as its header tells of it: plain values, no pixels, nothing of pydicom.

Headers are read in other processes, so all of it can be pickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.io.dicom.sources import FileRef


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A single-frame file, or one frame of a multi-frame file; None and "" where it says nothing.

    frame: its place in a multi-frame file, counted from 1. number: InstanceNumber.
    patient: PatientID. body_part: BodyPartExamined.
    position, orientation: as DICOM gives them, mm and direction cosines in LPS.
    pixel_spacing: mm between rows, then between columns.
    thickness, between: mm, SliceThickness and SpacingBetweenSlices.
    has_lut: whether its intensities need a ModalityLUTSequence. padding: PixelPaddingValue.
    units: of the intensities, where an element of the modality tells (PET, dose).
    acquisition, stack: number of the acquisition; StackID, in files of many frames.
    echo: EchoNumbers. echo_ms: EchoTime. b_value: s/mm².
    settings: what else makes an image another one of the same anatomy, as pairs of a name and a
    value: ("kernel", "B30F"), ("kV", "80"); a dimension that no field tells of is one, too.
    temporal_index: which temporal position. trigger_ms: after the trigger, milliseconds.
    heart_percent, breath_percent: of the cardiac and of the respiratory cycle.
    time_s: when it was taken, seconds since a fixed day, or since the scan began.
    reference_ms: FrameReferenceTime. interval_ms: TemporalResolution, from frame to frame.
    window: centre and width. stamp: of the file when its header was read; see FileRef.stamp.
    concatenation: see concatenation.place_in.
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
        """What a message calls it."""
        return self.file.name if self.frame is None else f"{self.file.name}, frame {self.frame}"


Slices = Sequence[Slice]
