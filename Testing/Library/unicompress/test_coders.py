"""Every lossless coder: exact, read by the second reader too, and refusing damaged data."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from MedEnhanceLib.unicompress.codecs.integers import Indices
from MedEnhanceLib.unicompress.codecs.lossless import CODERS, Coder
from MedEnhanceLib.unicompress.codecs.registry import BLOCK_TYPES, FOREIGN_ERRORS

from . import minimal_reader

WIDTHS = ("u1", "u2", "u4", "u8")
SHAPE = (3, 5, 40)


def blocks(width: str) -> list[Indices]:
    """Indices of zeros, steps, rare peaks, the largest numbers, and noise."""
    dtype, rng = np.dtype(width), np.random.default_rng(0)
    zeros, noise = np.zeros(SHAPE, dtype), rng.integers(0, 200, SHAPE).astype(dtype)
    steps = zeros + (np.arange(SHAPE[2]) // 15).astype(dtype)
    peaks = np.where(noise > 190, noise, zeros)
    largest = np.where(noise > 100, np.iinfo(dtype).max, zeros).astype(dtype)
    return [zeros, steps, peaks, largest, noise]


@pytest.mark.parametrize("speed", ["fast", "normal"])
@pytest.mark.parametrize("coder", CODERS, ids=lambda coder: coder.name)
def test_a_coder_is_exact_for_both_readers(coder: Coder, speed: Literal["fast", "normal"]) -> None:
    second, count = minimal_reader.INDEX_TYPES[coder.id], 0
    for width in WIDTHS:
        for indices in blocks(width):
            before, data = indices.copy(), coder.encode(indices, speed)
            assert np.array_equal(indices, before), "the indices were changed"
            if data is not None:
                count += 1
                plain = coder.decode(data, SHAPE, indices.dtype)
                assert (plain.dtype, plain.shape) == (indices.dtype, SHAPE)
                assert np.array_equal(plain, indices)
                assert np.array_equal(second(data, SHAPE, indices.dtype, _no_model), indices)
    assert count > 3


@pytest.mark.parametrize("coder", CODERS, ids=lambda coder: coder.name)
def test_a_coder_refuses_data_of_another_block_and_what_was_cut(coder: Coder) -> None:
    taller = SHAPE[0] + 1, *SHAPE[1:]
    for indices in blocks("u1"):
        data = coder.encode(indices, "fast")
        if not data:  # nothing has no size
            continue
        for wrong, shape in ((data[:-1], SHAPE), (b"", SHAPE), (data, taller)):
            with pytest.raises(FOREIGN_ERRORS):
                coder.decode(wrong, shape, indices.dtype)


def test_ids_are_those_of_block_types() -> None:
    assert len({coder.id for coder in CODERS}) == len(CODERS)
    assert all(BLOCK_TYPES[coder.id].name == coder.name for coder in CODERS)


def _no_model(role: str) -> bytes:
    raise AssertionError(f"a coder without a model asks for {role}")
