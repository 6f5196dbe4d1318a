"""What pixel data may carry besides pixels: bytes after them, overlays in bits that are unused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.deidentify.change import Change
from MedEnhanceLib.io.deidentify.streams import without_words

if TYPE_CHECKING:
    from pydicom import Dataset

_TAG, _NAME = "(7FE0,0010)", "PixelData"
_OVERLAY_GROUPS = range(0x6000, 0x6020, 2)
_BIT_POSITION = 0x0102


def tidy_pixels(dataset: Dataset) -> list[Change]:
    """Cut out what is no pixel: bytes behind them, comments in compressed ones, overlays in bits.

    Raises InputError where there are fewer pixels than the header says.
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
    """The same frames without words in them, one fragment each where any had some."""
    from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

    value: bytes = dataset.PixelData
    count = int(dataset.get("NumberOfFrames") or 1)
    frames, cleaned = [], []
    try:
        for frame in generate_frames(value, number_of_frames=count):
            frames.append(frame)
            cleaned.append(without_words(frame, syntax))
    except ValueError as cause:
        raise InputError(
            "damaged: its compressed frames cannot be told apart", "Copy or export it again."
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
    """How many bytes the pixels take, by pydicom's own count."""
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
