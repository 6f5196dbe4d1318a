"""The block-matching filter: it computes what its description says; slabs and threads agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from Library.filters import reference

from MedEnhanceLib import native
from MedEnhanceLib.core import arrays
from MedEnhanceLib.filters import block_matching_run
from MedEnhanceLib.filters.block_matching import (
    CT_ROUNDS,
    MR_ROUNDS,
    BlockMatchingFilter,
    Round,
    window_for,
)
from MedEnhanceLib.filters.native_engine import NativeEngine
from MedEnhanceLib.filters.regions import Air

SIGMA = np.float32(0.1)
#: Largest difference between C and the reference, in σ: float32 rounding of sums of 32 blocks.
AGREE = 1e-4


@pytest.fixture
def engine(native_path: Path) -> NativeEngine:
    return NativeEngine(native.Library(native_path))


def phantom(*shape: int) -> np.ndarray:
    """Rings around an axis that leans: edges in all directions, and much that repeats."""
    k, j, i = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")
    radius = np.hypot(j - shape[1] / 2 + 0.3 * k, i - shape[2] / 2)
    return (0.5 + 0.4 * np.sign(np.sin(radius / 3))).astype(np.float32)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, SIGMA, shape).astype(np.float32)


def flat(values: np.ndarray, sigma: float = SIGMA) -> np.ndarray:
    return np.full_like(values, sigma)


def error(image: np.ndarray, clean: np.ndarray) -> float:
    return float(np.sqrt(np.mean((image - clean) ** 2)))


@pytest.mark.parametrize(
    ("rounds", "spacing"),
    [
        (MR_ROUNDS[:1], (1, 1, 1)),
        (CT_ROUNDS, (1, 1, 1)),
        ((Round(step=3, keep=60),), (1, 1, 4)),
        ((Round(step=3, keep=7),), (1, 4, 1)),
        ((Round(step=2, keep=16, apart=2),), (4, 1, 1)),
    ],
    ids=str,
)
def test_it_computes_what_its_description_says(
    engine: NativeEngine, rounds: tuple, spacing: tuple
) -> None:
    """In blocks one by one, whose groups come from all candidates."""
    clean = phantom(9, 13, 18)
    noisy, level = clean + noise(*clean.shape), flat(clean)
    level[:, :6] *= 0.5
    spectrum = np.linspace(0.2, 1.8, 64)
    ours = BlockMatchingFilter(
        noisy, level, spectrum, rounds=rounds, spacing=spacing, engine=engine
    ).denoised()
    expected = reference.denoised(noisy, level, spectrum, rounds, spacing)
    assert np.abs(ours - expected).max() < AGREE * SIGMA


def test_of_equally_near_blocks_the_first_are_in_the_group(engine: NativeEngine) -> None:
    noisy = np.sign(noise(8, 11, 20))
    noisy[:, :, :13] = 0  # hundreds of equal blocks
    rounds, level = (Round(step=4, keep=48),), flat(noisy, 1e-3)  # hardly smoothed before
    ours = BlockMatchingFilter(noisy, level, rounds=rounds, engine=engine).denoised()
    expected = reference.denoised(noisy, level, np.ones(64), rounds, (1, 1, 1))
    assert np.abs(ours - expected).max() < 0.1 * level[0, 0, 0]


def test_every_width_with_fused_sums_gives_the_same_bits(
    engine: NativeEngine, native_path: Path
) -> None:
    noisy = phantom(8, 24, 30) + noise(8, 24, 30)
    plain, *fused = (
        BlockMatchingFilter(
            noisy, flat(noisy), engine=NativeEngine(native.Library(native_path, width)), threads=1
        ).denoised()
        for width in engine.library.widths
    )
    for result in fused:
        assert np.array_equal(result, fused[0])
        assert np.abs(result - plain).max() < AGREE * SIGMA


def test_threads_and_slabs_change_no_bit(engine, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = phantom(15, 16, 20) + noise(15, 16, 20)
    rounds = (Round(step=4, keep=8), Round(step=3, keep=8))
    monkeypatch.setattr(block_matching_run, "REFERENCES_IN_BAND", {"threshold": 30, "grouped": 7})
    one = BlockMatchingFilter(
        noisy, flat(noisy), rounds=rounds, engine=engine, threads=1
    ).denoised()
    monkeypatch.setattr(arrays, "SLICES_AT_ONCE", 3)
    three = BlockMatchingFilter(
        noisy, flat(noisy), rounds=rounds, engine=engine, threads=3
    ).denoised()
    assert np.array_equal(one, three)


@pytest.mark.parametrize("shape", [(1, 24, 24), (2, 24, 24), (3, 24, 24), (12, 3, 24), (12, 24, 2),
                                   (4, 4, 4), (1, 1, 1), (5, 6, 70)])  # fmt: skip
def test_small_and_thin_volumes(engine, shape: tuple[int, ...]) -> None:
    noisy = 1 + noise(*shape)
    rounds = (Round(step=4),)
    result = BlockMatchingFilter(
        noisy, flat(noisy), rounds=rounds, engine=engine, threads=1
    ).denoised()
    assert result.shape == shape and np.isfinite(result).all()
    if noisy.size > 500:
        assert (result - 1).std() < 0.5 * SIGMA


def test_without_noise_nothing_changes(engine) -> None:
    noisy = phantom(6, 20, 20) + noise(6, 20, 20)
    level = flat(noisy)
    level[:, :, :9] = 0
    assert np.array_equal(
        BlockMatchingFilter(noisy, flat(noisy, 0), engine=engine, threads=1).denoised(), noisy
    )
    mixed = BlockMatchingFilter(
        noisy, level, rounds=MR_ROUNDS[:1], engine=engine, threads=1
    ).denoised()
    assert np.array_equal(mixed[:, :, :9], noisy[:, :, :9])
    assert not np.array_equal(mixed[:, :, 9:], noisy[:, :, 9:])


@pytest.mark.parametrize("part", [slice(0, 1), slice(6, 8), slice(14, 15)])
def test_some_slices_equal_those_of_the_whole(engine: NativeEngine, part: slice) -> None:
    noisy = phantom(15, 16, 20) + noise(15, 16, 20)
    air = Air(noisy, mean=0.4, largest=2.0)
    part_of = BlockMatchingFilter(noisy, flat(noisy), rounds=CT_ROUNDS, engine=engine, air=air)
    whole = part_of.denoised()
    with part_of.run(part) as run:
        some = [run.finished(slab)[1] for slab in run.slabs()]
    assert np.array_equal(np.concatenate(some), whole[part])


def test_a_known_spectrum_removes_more_than_white(engine) -> None:
    clean = phantom(8, 32, 32)
    smooth = noise(8, 33, 33)
    smooth = (smooth[:, 1:, 1:] + smooth[:, :-1, 1:] + smooth[:, 1:, :-1] + smooth[:, :-1, :-1]) / 2
    blocks = np.lib.stride_tricks.sliding_window_view(smooth, (4, 4, 4)).reshape(-1, 64)
    spectrum = ((blocks @ reference.COSINES.T) ** 2).mean(axis=0) / SIGMA**2
    known, white = (
        BlockMatchingFilter(
            clean + smooth, flat(clean), s, rounds=CT_ROUNDS, engine=engine, threads=1
        ).denoised()
        for s in (spectrum, None)
    )
    assert error(known, clean) < 0.9 * error(white, clean)


def test_less_is_searched_along_thick_slices() -> None:
    assert window_for((1, 1, 1)) == native.MOST_WINDOW
    assert window_for((1, 1, 3.3)) == (3, 11, 16)
    assert window_for((0.5, 0.5, 5)) == (3, 11, 16)
    assert window_for((4, 1, 1)) == (7, 11, 6)
