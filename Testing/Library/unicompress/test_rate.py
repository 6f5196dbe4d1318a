"""The bytes of a file are shared so that nothing better could be had for them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

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
