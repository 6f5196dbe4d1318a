"""The texts that stay in a dataset, and whether they tell of somebody."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from MedEnhanceLib.io.deidentify.identities import Identities
from MedEnhanceLib.io.deidentify.values import TEXT_VRS, vr_of

if TYPE_CHECKING:
    from pydicom import Dataset

_PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_CODED = {"ImageType", "FrameType", "Modality"}
#: An item of a code sequence is none without them; a segment is none without its label.
NEVER_VOID = {
    "CodeValue", "CodeMeaning", "CodingSchemeDesignator", "SegmentLabel", "SegmentAlgorithmName",
}  # fmt: skip


def kept_texts(dataset: Dataset) -> Iterator[tuple[Dataset, int]]:
    """(dataset or item, tag) of every text in a dataset, at every depth, UIDs apart."""
    for tag in list(dataset.keys()):
        vr = vr_of(dataset.get_item(tag))
        if vr == "SQ":
            for item in dataset[tag].value:
                yield from kept_texts(item)
        elif vr in TEXT_VRS and vr != "UI" and tag not in _PIXELS:
            yield dataset, tag


def repeats(identities: Identities, tag: int, vr: str, told: Sequence[str]) -> bool:
    """Whether texts tell of somebody; a term of the standard where one belongs does not."""
    text = "\\".join(told)
    if vr == "CS" or is_coded(tag):
        return identities.in_text(text) and not identities.only_terms(text)
    return identities.in_text(text, also_short=keyword_of(tag) not in NEVER_VOID)


def is_coded(tag: int) -> bool:
    """Whether an image is none without the standard's own terms in this element."""
    return tag >> 16 == 0x0028 or keyword_of(tag) in _CODED


def keyword_of(tag: int) -> str:
    """As PS3.6 calls it; "" for what it does not know."""
    from pydicom.datadict import keyword_for_tag

    return str(keyword_for_tag(tag))
