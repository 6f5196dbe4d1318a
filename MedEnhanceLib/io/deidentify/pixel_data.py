"""What the profile's attributes do not cover: text and faces in images, extra bytes in pixel data.

Segments of JPEG, JPEG-LS and JPEG 2000 before the coded pixels may hold any text: what a program
wrote, Exif, whole previews. They are cut out; what decoding needs stays, the pixels are untouched.
Source: ITU-T T.81, annex B; T.87, annex C; T.800, annex A.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.deidentify.replacements import text_of
from MedEnhanceLib.io.deidentify.rules import Change

if TYPE_CHECKING:
    from pydicom import Dataset


PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
#: Objects without pixels whose text the table knows: RT structure set and plan, registrations.
_WITHOUT_PIXELS = {
    "1.2.840.10008.5.1.4.1.1.481.3",
    "1.2.840.10008.5.1.4.1.1.481.5",
    "1.2.840.10008.5.1.4.1.1.66.1",
    "1.2.840.10008.5.1.4.1.1.66.3",
}
DIRECTORY = "1.2.840.10008.1.3.10"
#: Devices and scanners of paper and film that write into the image who lies there.
_WRITING = {
    "US", "IVUS", "SC", "XA", "RF", "ES", "OT", "XC", "GM", "OP", "OPT", "DOC", "HC", "ECG", "SM",
    "EPS", "BI", "TG", "DG",
}  # fmt: skip
_WRITING_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.7",  # secondary capture
    "1.2.840.10008.5.1.4.1.1.6.",  # ultrasound
    "1.2.840.10008.5.1.4.1.1.3.",
    "1.2.840.10008.5.1.4.1.1.77.1.",  # visible light
)
_CAPTURES = ("SCREEN", "CAPTURE", "REPORT", "DOSE_INFO", "DOSE INFO", "SCANNED")
_HEADS = ("HEAD", "BRAIN", "FACE", "SKULL", "NECK", "SINUS", "ORBIT", "JAW", "WHOLEBODY", "EAR")
_SHOWS_SURFACE = {"CT", "MR", "PT"}
#: Their pixels are computed and hold no text: segments and maps.
_COMPUTED = {"SEG", "RTDOSE", "REG", "RTSTRUCT", "RTPLAN"}


def unfit(dataset: Dataset) -> str:
    """Why an object cannot be cleaned and is left out; "" for one that can."""
    sop_class = text_of(dataset, "SOPClassUID")
    if sop_class == DIRECTORY or "DirectoryRecordSequence" in dataset:
        return "a DICOMDIR names its patients; make a new one for the result"
    if "EncapsulatedDocument" in dataset:
        return "a document is enclosed, whose text cannot be cleaned"
    if "ContentSequence" in dataset:
        return "its content is free text, which cannot be cleaned"
    if any(name in dataset for name in PIXELS) or sop_class in _WITHOUT_PIXELS:
        return ""
    return "it holds no image, and its text cannot be cleaned"


def lacks_pixels(dataset: Dataset) -> bool:
    """Whether this is an image that was cut off before its pixels."""
    from pydicom.uid import UID

    is_image = "Rows" in dataset or UID(text_of(dataset, "SOPClassUID")).name.endswith(
        "Image Storage"
    )
    return is_image and not any(name in dataset for name in PIXELS)


def burned_in(dataset: Dataset) -> tuple[str, str]:
    """Whether the pixels may show text: ("refuse" | "warn" | "", reason)."""
    if not any(name in dataset for name in PIXELS):
        return "", ""
    stated = text_of(dataset, "BurnedInAnnotation").upper()
    if stated == "YES":
        return "refuse", "BurnedInAnnotation is YES"
    reason = _writing(dataset)
    if reason and stated == "NO":
        return "warn", f"{reason}, though BurnedInAnnotation is NO"
    if reason:
        return "refuse", f"{reason}, and BurnedInAnnotation says nothing"
    if stated == "NO" or text_of(dataset, "Modality") in _COMPUTED:
        return "", ""
    return "warn", "BurnedInAnnotation says nothing"


def shows_face(dataset: Dataset) -> str:
    """Why a face may be recognized; "" if there is no reason."""
    stated = text_of(dataset, "RecognizableVisualFeatures").upper()
    if stated == "YES":
        return "RecognizableVisualFeatures is YES"
    if stated == "NO" or text_of(dataset, "Modality") not in _SHOWS_SURFACE:
        return ""
    part = text_of(dataset, "BodyPartExamined").upper().replace(" ", "")
    if not part:
        return "the part of the body is unknown, and a face can be rendered from a head"
    return "a face can be rendered from a head" if any(word in part for word in _HEADS) else ""


def _writing(dataset: Dataset) -> str:
    modality, sop_class = text_of(dataset, "Modality").upper(), text_of(dataset, "SOPClassUID")
    if modality in _WRITING:
        return f"images of the modality {modality} often carry text"
    if any(sop_class == one or sop_class.startswith(one) for one in _WRITING_CLASSES):
        return "captured and photographed images often carry text"
    kinds = text_of(dataset, "ImageType").upper()
    if any(word in kinds for word in _CAPTURES):
        return "by its ImageType it is a captured screen"
    if not text_of(dataset, "PhotometricInterpretation").startswith("MONOCHROME"):
        return "color images often carry text"
    return ""


_TAG, _NAME = "(7FE0,0010)", "PixelData"
_OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
_BIT_POSITION = 0x0102


def tidy_pixels(dataset: Dataset) -> list[Change]:
    """Remove what is not pixels: bytes after them, comments in compressed frames, overlays in bits.

    Args:
        dataset: changed in place.
    Returns:
        What was removed.
    Raises:
        InputError: fewer pixels than the header declares.
    """
    stored = dataset.get("PixelData")
    if stored is None:
        return []
    syntax = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    if syntax is not None and syntax.is_encapsulated:
        return _tidy_frames(dataset, str(syntax))
    changes = []
    length = _expected(dataset)
    if len(stored) < length:
        raise InputError(
            f"damaged: {len(stored)} bytes of pixels where the header says {length}",
            "Copy or export the file again.",
        )
    padded = length + length % 2
    if stored[length:].strip(b"\0"):
        dataset["PixelData"].value = stored[:length] + b"\0" * (padded - length)
        changes.append(Change(_TAG, _NAME, "bytes after the pixels removed"))
    if _has_embedded_overlay(dataset):
        dataset["PixelData"].value = _without_high_bits(dataset, length)
        changes.append(Change(_TAG, _NAME, "overlay in unused bits removed"))
    return changes


def _tidy_frames(dataset: Dataset, syntax: str) -> list[Change]:
    """Remove comments from compressed frames; if any had some, all get one fragment each."""
    from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

    value: bytes = dataset.PixelData
    count = int(dataset.get("NumberOfFrames") or 1)
    frames, cleaned = [], []
    try:
        for frame in generate_frames(value, number_of_frames=count):
            frames.append(frame)
            cleaned.append(without_comments(frame, syntax))
    except ValueError as cause:
        raise InputError(
            "damaged: its compressed frames cannot be separated", "Copy or export it again."
        ) from cause
    if len(frames) != count:
        raise InputError(
            f"damaged: {len(frames)} compressed frames where the header says {count}",
            "Copy or export the file again.",
        )
    if all(_bare(one) == _bare(other) for one, other in zip(frames, cleaned, strict=True)):
        return []
    if "ExtendedOffsetTable" in dataset:
        value, offsets, lengths = encapsulate_extended(cleaned)
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    else:
        value = encapsulate(cleaned)
    dataset["PixelData"].value = value
    return [Change(_TAG, _NAME, "comments in compressed frames removed")]


def _bare(frame: bytes) -> bytes:
    return frame.rstrip(b"\0")


def _expected(dataset: Dataset) -> int:
    """The number of bytes of the pixels, by pydicom."""
    from pydicom.pixels.utils import get_expected_length

    return int(get_expected_length(dataset))


def _has_embedded_overlay(dataset: Dataset) -> bool:
    return any(
        int(dataset[group << 16 | _BIT_POSITION].value or 0) > 0
        for group in _OVERLAY_GROUPS
        if group << 16 | _BIT_POSITION in dataset
    )


def _without_high_bits(dataset: Dataset, length: int) -> bytes:
    allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    high = int(dataset.get("HighBit", stored - 1))
    if allocated not in (8, 16, 32) or not 0 < stored <= high + 1 <= allocated:
        raise InputError(
            "an overlay lies in bits of the pixels, and BitsStored and HighBit contradict each "
            "other",
            "Correct the header.",
        )
    order = "<" if dataset.original_encoding[1] is not False else ">"
    kind: Any = np.dtype(f"{order}u{allocated // 8}")
    value: bytes = dataset.PixelData
    words = np.frombuffer(value[:length], kind)
    mask = np.array(((1 << stored) - 1) << (high + 1 - stored), kind)
    cleared: bytes = (words & mask).astype(kind).tobytes()
    return cleared + value[length:]


JPEG = {f"1.2.840.10008.1.2.4.{end}" for end in ("50", "51", "57", "70")}
JPEG_LS = {"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"}
JPEG_2000 = {f"1.2.840.10008.1.2.4.{end}" for end in ("90", "91", "92", "93", "201", "202", "203")}
_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
_APPLICATION = range(0xE0, 0xF0)
#: Application segments that say how colors are stored: the start, and the length of all.
_OF_COLOR = ((0xE0, b"JFIF\0", 16), (0xEE, b"Adobe", 14), (0xE8, b"mrfx", None))
#: The end of coded pixels: a marker that is neither padding nor a restart.
_NEXT = {
    False: re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]"),
    True: re.compile(rb"\xff+[\x80-\xcf\xd8-\xfe]"),
}
_DECOMPRESS = "Decompress it first, for instance with GDCM."
_SOC, _SOT, _J2K_COM, _EOC = b"\xff\x4f", b"\xff\x90", b"\xff\x64", b"\xff\xd9"


def without_comments(frame: bytes, syntax: str) -> bytes:
    """Remove from a JPEG, JPEG-LS or JPEG 2000 frame everything that decoding does not need.

    Args:
        frame: the compressed frame.
        syntax: its transfer syntax; frames of other syntaxes are returned unchanged.
    Raises:
        InputError: cut short, or not what its transfer syntax says.
    """
    if syntax in JPEG_2000:
        return _jpeg_2000(frame)
    if syntax in JPEG or syntax in JPEG_LS:
        return _jpeg(frame, is_ls=syntax in JPEG_LS)
    return frame


def _jpeg(frame: bytes, *, is_ls: bool) -> bytes:
    if frame[:2] != bytes((0xFF, _SOI)):
        raise _damaged("does not begin as such")
    kept, at = [frame[:2]], 2
    while True:
        start, at = at, _behind_marker(frame, at)
        marker = frame[at - 1]
        if marker == _EOI:
            return _even(b"".join([*kept, b"\xff\xd9"]))
        end = at + _length(frame, at)
        if marker == _SOS:
            found = _NEXT[is_ls].search(frame, end)
            end = found.start() if found else len(frame)
        elif _is_comment(marker, frame[at + 2 : end]):
            start = end
        kept.append(frame[start:end])
        at = end


def _behind_marker(frame: bytes, at: int) -> int:
    if frame[at : at + 1] != b"\xff":
        raise _damaged("is cut short")
    while frame[at : at + 1] == b"\xff":
        at += 1
    if at >= len(frame):
        raise _damaged("is cut short")
    return at + 1


def _length(frame: bytes, at: int) -> int:
    length = int.from_bytes(frame[at : at + 2], "big")
    if length < 2 or at + length > len(frame):
        raise _damaged("is cut short")
    return length


def _is_comment(marker: int, content: bytes) -> bool:
    if marker not in _APPLICATION:
        return marker == _COM
    return not any(
        marker == kind and content.startswith(start) and length in (None, len(content) + 2)
        and len(content) < 32
        for kind, start, length in _OF_COLOR
    )  # fmt: skip


def _jpeg_2000(frame: bytes) -> bytes:
    if frame[4:8] == b"jP  ":
        raise InputError(
            "its compressed frames are whole JP2 files, whose boxes may hold text", _DECOMPRESS
        )
    if frame[:2] != _SOC:
        raise _damaged("does not begin as such")
    kept, at = [_SOC], 2
    while frame[at : at + 2] != _SOT:
        if frame[at : at + 1] != b"\xff":
            raise _damaged("is cut short")
        end = at + 2 + _length(frame, at + 2)
        if frame[at : at + 2] != _J2K_COM:
            kept.append(frame[at:end])
        at = end
    start = at
    while frame[at : at + 2] == _SOT:
        length = int.from_bytes(frame[at + 6 : at + 10], "big")
        _refuse_comments(frame, at + 12)
        if not length:  # the last one, which reaches to the end
            at = frame.rfind(_EOC)
            break
        at += length
    if at < start + 12 or at > len(frame):
        raise _damaged("is cut short")
    return _even(b"".join([*kept, frame[start:at], _EOC]))


def _refuse_comments(frame: bytes, at: int) -> None:
    """Refuse a comment inside a tile: tiles' lengths are stored in many places."""
    while frame[at : at + 1] == b"\xff" and frame[at + 1 : at + 2] != b"\x93":
        if frame[at : at + 2] == _J2K_COM:
            raise InputError(
                "a comment lies in the middle of its compressed pixels",
                _DECOMPRESS,
            )
        at += 2 + _length(frame, at + 2)


def _even(frame: bytes) -> bytes:
    return frame + b"\0" * (len(frame) % 2)


def _damaged(what: str) -> InputError:
    return InputError(f"damaged: a compressed frame {what}", "Copy or export the file again.")
