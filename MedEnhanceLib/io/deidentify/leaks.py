"""Looks for removed values in what was written, in every byte but the pixels'."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from MedEnhanceLib.io.deidentify.identities import Identities
from MedEnhanceLib.io.deidentify.kept import kept_texts, repeats
from MedEnhanceLib.io.deidentify.values import decoded, stored_bytes, texts, vr_of

if TYPE_CHECKING:
    from pydicom import Dataset

_PIXELS = 0x7FE0
#: Compressed pixels are as good as random: shorter words are found there by chance.
_SHORTEST_IN_PIXELS = 6


def find_leak(dataset: Dataset, head: bytes, identities: Identities) -> str:
    """Where a removed value stands, "(gggg,eeee)" or "the file's header"; "" where nowhere.

    dataset: as read from the file. head: the file's bytes before its pixels.
    """
    for inner, tag in kept_texts(dataset):
        element = decoded(inner, tag)
        if repeats(identities, tag, element.VR, texts(element)):
            return _named(tag)
    for tag, stored in _stored(dataset):
        if tag >> 16 == _PIXELS:
            if identities.in_bytes(stored, shortest=_SHORTEST_IN_PIXELS):
                return _named(tag)
        elif tag >> 16 & 1 or identities.uid_in_bytes(stored) or identities.in_bytes(stored):
            return _named(tag)
    if identities.uid_in_bytes(head):
        return "its header"
    return "its header" if identities.in_bytes(head) else ""


def _stored(dataset: Dataset) -> Iterator[tuple[int, bytes]]:
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if vr_of(element) == "SQ":
            for item in dataset[tag].value:
                yield from _stored(item)
        else:
            yield tag, stored_bytes(element)


def _named(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
