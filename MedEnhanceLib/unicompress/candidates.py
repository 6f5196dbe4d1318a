"""Codes a block with every coder that may win, and keeps the shortest code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from MedEnhanceLib.core.volume import Voxels
from MedEnhanceLib.unicompress.coders import CODERS, CONSTANT, JPEGLS, STACKED, VARIANTS, ZSTD
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.integers import (
    Coded,
    from_integers,
    to_bounded_integers,
    to_integers,
)
from MedEnhanceLib.unicompress.spool import Bytes

#: One block in so many, and about so many blocks at least, try every variant of JPEG XL.
_POLLED_SHARE = 16
_POLLED_BLOCKS = 4
#: zstd's full effort is spent where its quick result comes this near to the best.
_ZSTD_NEAR = 1.4


@dataclass(frozen=True)
class Code:
    """kind: id of the block type; data: the bytes of the chunk, which begin with `record`.

    sizes: the bytes that each type took.
    """

    kind: int
    data: Bytes
    record: bytes
    sizes: dict[int, int]


def code_block(
    block: Voxels, bound: float | None, *, speed: Speed, variants: Sequence[int]
) -> Code:
    """The shortest code of a block: exact or, with a bound, off by no more than it.

    variants: the kinds of JPEG XL to try; zstd and JPEG-LS are quick and always tried.
    """
    exact = to_integers(block)
    if bound is None:
        return _shortest(exact, speed, variants)
    bounded = _shortest(to_bounded_integers(block, bound), speed, variants)
    if block.dtype.kind != "f" or bounded.record == exact.record:
        return bounded
    # Floats that repeat may take fewer bits as they are than as steps.
    return min(bounded, _shortest(exact, speed, variants), key=lambda code: len(code.data))


def expected_block(block: Voxels, bound: float | None, code: Code) -> Voxels:
    """What a reader will make of the code that `code_block` gave."""
    if bound is None:
        return block
    bounded = to_bounded_integers(block, bound)
    if bounded.record != code.record:
        return block
    return from_integers(bounded.record, bounded.indices, block.dtype, block.shape)


def polled_blocks(count: int) -> range:
    """The blocks that try every variant; the others take the variant that won."""
    return range(0, count, min(max(count // _POLLED_BLOCKS, 1), _POLLED_SHARE))


def leading_variant(polled: Iterable[Code]) -> tuple[int, ...]:
    """The variant of JPEG XL with the smallest sum over the polled blocks."""
    sums = dict.fromkeys(VARIANTS, 0)
    for code in polled:
        fallback = code.sizes.get(STACKED, 0)
        for kind in VARIANTS:
            sums[kind] += code.sizes.get(kind, fallback)
    return (min(VARIANTS, key=lambda kind: sums[kind]),)


def _shortest(coded: Coded, speed: Speed, variants: Sequence[int]) -> Code:
    if (nothing := CODERS[CONSTANT].encode(coded.indices, speed)) is not None:
        return Code(CONSTANT, coded.record + nothing, coded.record, {CONSTANT: 0})
    codes: dict[int, bytes] = {}
    for kind in (ZSTD, JPEGLS, *variants):
        try:
            data = CODERS[kind].encode(coded.indices, "fast" if kind == ZSTD else speed)
        except RuntimeError:  # a codec that gives up on a block does not win it; zstd never does
            continue
        if data is not None:
            codes[kind] = data
    best = min(codes, key=lambda kind: len(codes[kind]))
    if speed != "fast" and len(codes[ZSTD]) < _ZSTD_NEAR * len(codes[best]):
        codes[ZSTD] = CODERS[ZSTD].encode(coded.indices, speed) or codes[ZSTD]
        best = min(codes, key=lambda kind: len(codes[kind]))
    sizes = {kind: len(data) for kind, data in codes.items()}
    return Code(best, coded.record + codes[best], coded.record, sizes)
