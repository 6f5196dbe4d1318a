"""Bytes are shared among blocks for the least loss; low ratios take equal steps."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress
from MedEnhanceLib.unicompress.allocation import ratio
from MedEnhanceLib.unicompress.allocation.rate import Curve, allocate


def exponential(variance: float, count: int = 400) -> Curve:
    """The textbook's curve: six decibels for a bit."""
    sizes = np.linspace(17, count, 40)
    return Curve(sizes, variance * 2.0 ** (-sizes / 25), None)


def test_equal_blocks_get_equal_shares() -> None:
    shares = allocate([exponential(100.0)] * 4, 800)
    assert [share.size for share in shares] == pytest.approx([200] * 4, abs=5)


def test_the_budget_is_kept_and_used() -> None:
    curves = [exponential(v) for v in (1, 50, 1e4, 1e6)]
    for budget in (80, 300, 700, 1400):
        total = sum(share.size for share in allocate(curves, budget))
        assert budget - 4 <= total <= budget


def test_no_other_split_of_two_blocks_is_better() -> None:
    curves = [exponential(10.0), exponential(4000.0)]
    shares = allocate(curves, 500)

    def loss(sizes: tuple[int, int]) -> float:
        return sum(
            float(np.interp(s, c.sizes, c.losses)) for s, c in zip(sizes, curves, strict=True)
        )

    best = min(loss((first, 500 - first)) for first in range(100, 400))
    assert loss((shares[0].size, shares[1].size)) < 1.01 * best


def test_a_block_that_is_cheap_without_loss_is_coded_so() -> None:
    curves = [exponential(100.0), Curve(exponential(100.0).sizes, exponential(100.0).losses, 60)]
    shares = allocate(curves, 300)
    assert (shares[1].exact, shares[1].size) == (True, 60)
    assert shares[0].size >= 235


def test_a_block_without_a_curve_takes_its_exact_code() -> None:
    nothing = np.empty(0)
    shares = allocate([exponential(9.0), Curve(nothing, nothing, 100)], 250)
    assert (shares[1].exact, shares[1].size) == (True, 100)


def test_more_bytes_never_give_a_worse_result() -> None:
    curves = [exponential(v) for v in (3, 700, 2e5)]

    def loss(budget: int) -> float:
        return sum(
            float(np.interp(share.size, curve.sizes, curve.losses))
            for share, curve in zip(allocate(curves, budget), curves, strict=True)
        )

    losses = [loss(budget) for budget in range(60, 900, 40)]
    assert all(after <= before * 1.001 for before, after in itertools.pairwise(losses))


@pytest.fixture(scope="module")
def noisy() -> Volume:
    """[16, 60, 64]: waves with noise of 40, about 7.4 bits a voxel."""
    rng = np.random.default_rng(2)
    k, j, i = np.indices((16, 60, 64))
    values = 300 * np.sin(j / 9 + k / 5) + 300 * np.cos(i / 7) + rng.normal(0, 40, k.shape)
    return Volume(np.rint(values).astype(np.int16))


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [2.5, 4.0, 6.0])
def test_equal_steps_win_at_low_ratios(
    noisy: Volume, wanted: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Parity takes bytes: a bound of whole numbers may just miss a ratio.
    config = CompressConfig(ratio=wanted, repair="off")
    done = compress(noisy, tmp_path / "a.ucv", config)
    assert done.ratio >= wanted
    error = np.abs(decompress(done.path).voxels.astype(int) - noisy.voxels)
    assert error.max() == done.max_error
    monkeypatch.setattr(ratio, "code_within", lambda *_, **__: None)
    other = compress(noisy, tmp_path / "b.ucv", config)
    assert done.psnr is not None
    assert other.psnr is not None
    assert done.psnr >= other.psnr
    if wanted < 5:
        assert done.psnr > other.psnr + 1
        assert done.max_error < other.max_error


@pytest.mark.slow
def test_high_ratios_do_without(noisy: Volume, tmp_path: Path) -> None:
    done = compress(noisy, tmp_path / "a.ucv", CompressConfig(ratio=40.0, speed="fast"))
    assert set(done.block_types) <= {"video (AV1)", "wavelet (SPERR)"}


@pytest.mark.slow
def test_floats_do_without(noisy: Volume, tmp_path: Path) -> None:
    floats = Volume(noisy.voxels.astype(np.float32))
    done = compress(floats, tmp_path / "a.ucv", CompressConfig(ratio=6.0, speed="fast"))
    assert done.ratio >= 6
