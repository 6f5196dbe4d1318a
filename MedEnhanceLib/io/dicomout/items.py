"""The small parts that all objects are made of: codes, references, identifiers, short texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom import Dataset

    from MedEnhanceLib.io.dicomout.derivation import Derivation

#: From the number of the source's series to that of what is derived, by what that is.
_STEPS = {"images": 1000, "segmentation": 2000, "uncertainty": 3000, "measurements": 4000}
#: Our units → value and meaning of their code in UCUM.
UNIT_CODES = {
    "HU": ("[hnsf'U]", "Hounsfield unit"),
    "Bq/ml": ("Bq/ml", "Becquerels/milliliter"),
    "counts": ("{counts}", "Counts"),
    "Gy": ("Gy", "Gy"),
    "relative": ("{ratio}", "ratio"),
}


@dataclass(frozen=True)
class Reference:
    """A stored image, or one frame of it, counted from 1."""

    sop_class: str
    sop_instance: str
    frame: int | None = None


def with_elements(**elements: Any) -> Dataset:
    """A dataset of these elements, by keyword."""
    from pydicom import Dataset

    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def coded(value: str, meaning: str, scheme: str = "DCM") -> Dataset:
    """An item of a code sequence; of DICOM's own terms unless another scheme is named."""
    return with_elements(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def refer_to(one: Reference, **more: Any) -> Dataset:
    """An item that names a stored image, with `more` elements."""
    frame = {} if one.frame is None else {"ReferencedFrameNumber": one.frame}
    return with_elements(
        ReferencedSOPClassUID=one.sop_class,
        ReferencedSOPInstanceUID=one.sop_instance,
        **frame,
        **more,
    )


def fresh_uid() -> str:
    """A UID that nobody has: 2.25 and a random number."""
    from pydicom.uid import generate_uid

    return str(generate_uid(prefix=None))


def values_of(dataset: Dataset, keyword: str) -> list[Any]:
    """All values of an element; none where it is absent or empty."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, float, int)) else list(value)


def series_number(derivation: Derivation, header: Dataset | None, kind: str) -> int:
    """The wished one, else that of the source and a step for each kind of object."""
    if derivation.series_number is not None:
        return derivation.series_number
    source = header.get("SeriesNumber") if header is not None else None
    return max(0, int(source or 0)) % 10**6 + _STEPS[kind]


def short_text(value: object) -> str:
    """Without what DICOM's short texts cannot hold, and no longer than they may be."""
    return cut(re.sub(r"[\x00-\x1f\x7f\\]+", " ", str(value or "")).strip())


def cut(text: str, most: int = 64) -> str:
    """The beginning, in `most` bytes of UTF-8: some readers count these instead of characters."""
    return text.encode()[:most].decode(errors="ignore").rstrip()
