"""Contract of lossless coders: exact, read by the second reader too, refusing damaged data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np
import pytest
from Library.unicompress.minimal_reader import INDEX_TYPES

from MedEnhanceLib.core.arrays import Shape
from MedEnhanceLib.unicompress.codecs import lossless
from MedEnhanceLib.unicompress.codecs.block_types import FOREIGN_ERRORS
from MedEnhanceLib.unicompress.codecs.integers import Indices
from MedEnhanceLib.unicompress.codecs.lossless import Coder

SHAPE = (3, 5, 40)
_SHAPES = (SHAPE, (1, 1, 1), (1, 1, 40), (1, 40, 1), (7, 1, 3))
_WIDTHS = ("u1", "u2", "u4", "u8")


def blocks(width: str, shape: Shape = SHAPE) -> Iterator[Indices]:
    """Yield read-only indices: zeros, steps, rare peaks, the largest numbers, noise, a view."""
    dtype, rng = np.dtype(width), np.random.default_rng(0)
    zeros, noise = np.zeros(shape, dtype), rng.integers(0, 200, shape).astype(dtype)
    largest = np.where(noise > 100, np.iinfo(dtype).max, zeros).astype(dtype)
    steps = zeros + (np.arange(shape[2]) // 15).astype(dtype)
    peaks = np.where(noise > 190, noise, zeros)
    for indices in (zeros, steps, peaks, largest, noise, np.asfortranarray(noise)[:, ::-1]):
        indices.flags.writeable = False
        yield indices


class CoderTests:
    """Contract of every coder of indices.

    Attributes:
        name: of the coder, in CODERS.
    """

    name: ClassVar[str]

    @pytest.fixture
    def coder(self) -> Coder:
        """Return the coder."""
        return next(each for each in lossless.CODERS if each.name == self.name)

    @pytest.mark.parametrize("speed", ["fast", "normal"])
    def test_indices_come_back_exactly_or_are_not_coded(
        self, coder: Coder, speed: Literal["fast", "normal"]
    ) -> None:
        second, count = INDEX_TYPES.get(coder.id), 0
        for shape in _SHAPES:
            for indices in (each for width in _WIDTHS for each in blocks(width, shape)):
                data = coder.encode(indices, speed)
                assert coder.encode(indices, speed) == data, "depends on the run"
                if data is None:
                    continue
                count += 1
                plain = coder.decode(data, shape, indices.dtype)
                assert (plain.dtype, plain.shape) == (indices.dtype, shape)
                assert np.array_equal(plain, indices)
                if second is not None:
                    other = second(data, shape, indices.dtype, _no_model)
                    assert np.array_equal(other, indices)
        assert count > 3

    def test_data_of_another_block_and_damaged_ones_are_refused(self, coder: Coder) -> None:
        taller = SHAPE[0] + 1, *SHAPE[1:]
        for indices in blocks("u1"):
            data = coder.encode(indices, "fast")
            if data:  # nothing has no size
                for wrong, shape in ((data[:-1], SHAPE), (b"", SHAPE), (data, taller)):
                    with pytest.raises(FOREIGN_ERRORS):
                        coder.decode(wrong, shape, indices.dtype)
        rng = np.random.default_rng(0)
        for size in (1, 9, 200):
            with pytest.raises(FOREIGN_ERRORS):
                coder.decode(rng.bytes(size), SHAPE, np.dtype("u1"))


def _no_model(role: str) -> bytes:
    raise AssertionError(f"a coder without a model asks for {role}")
