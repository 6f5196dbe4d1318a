"""What no profile of attributes can clean: text in pixels, faces, documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
#: Objects without pixels whose text the table knows: RT structure set and plan, registrations.
_WITHOUT_PIXELS = {
    "1.2.840.10008.5.1.4.1.1.481.3",
    "1.2.840.10008.5.1.4.1.1.481.5",
    "1.2.840.10008.5.1.4.1.1.66.1",
    "1.2.840.10008.5.1.4.1.1.66.3",
}
_DIRECTORY = "1.2.840.10008.1.3.10"
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
    """Why an object is left out at all; "" for one that can be cleaned."""
    sop_class = _text(dataset, "SOPClassUID")
    if sop_class == _DIRECTORY or "DirectoryRecordSequence" in dataset:
        return "a DICOMDIR names its patients; make a new one for the result"
    if "EncapsulatedDocument" in dataset:
        return "a document is enclosed, whose text cannot be cleaned"
    if "ContentSequence" in dataset:
        return "its content is free text, which cannot be cleaned"
    if any(name in dataset for name in _PIXELS) or sop_class in _WITHOUT_PIXELS:
        return ""
    return "it holds no image, and its text cannot be cleaned"


def lacks_pixels(dataset: Dataset) -> bool:
    """Whether this is an image that was cut off before its pixels."""
    from pydicom.uid import UID

    is_image = "Rows" in dataset or UID(_text(dataset, "SOPClassUID")).name.endswith(
        "Image Storage"
    )
    return is_image and not any(name in dataset for name in _PIXELS)


def burned_in(dataset: Dataset) -> tuple[str, str]:
    """Whether text may stand in the pixels: ("refuse" | "warn" | "", why)."""
    if not any(name in dataset for name in _PIXELS):
        return "", ""
    told = _text(dataset, "BurnedInAnnotation").upper()
    if told == "YES":
        return "refuse", "BurnedInAnnotation is YES"
    reason = _writing(dataset)
    if reason and told == "NO":
        return "warn", f"{reason}, though BurnedInAnnotation is NO"
    if reason:
        return "refuse", f"{reason}, and BurnedInAnnotation says nothing"
    if told == "NO" or _text(dataset, "Modality") in _COMPUTED:
        return "", ""
    return "warn", "BurnedInAnnotation says nothing"


def shows_face(dataset: Dataset) -> str:
    """Why a face may be recognised; "" where nothing speaks for it."""
    told = _text(dataset, "RecognizableVisualFeatures").upper()
    if told == "YES":
        return "RecognizableVisualFeatures is YES"
    if told == "NO" or _text(dataset, "Modality") not in _SHOWS_SURFACE:
        return ""
    part = _text(dataset, "BodyPartExamined").upper().replace(" ", "")
    if not part:
        return "the part of the body is not told, and a face can be rendered from a head"
    return "a face can be rendered from a head" if any(word in part for word in _HEADS) else ""


def _writing(dataset: Dataset) -> str:
    modality, sop_class = _text(dataset, "Modality").upper(), _text(dataset, "SOPClassUID")
    if modality in _WRITING:
        return f"images of the modality {modality} often carry text"
    if any(sop_class == one or sop_class.startswith(one) for one in _WRITING_CLASSES):
        return "captured and photographed images often carry text"
    kinds = _text(dataset, "ImageType").upper()
    if any(word in kinds for word in _CAPTURES):
        return "its ImageType tells of a captured screen"
    if not _text(dataset, "PhotometricInterpretation").startswith("MONOCHROME"):
        return "colour images often carry text"
    return ""


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()
