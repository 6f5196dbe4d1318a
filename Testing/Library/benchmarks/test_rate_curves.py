"""Bjøntegaard's differences and PSNR at equal bytes, on curves whose answer is known."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest

#: Rates a factor of two apart, 3 dB each: a line over the logarithm of the rate.
LINE = [(1000.0, 30.0), (2000.0, 33.0), (4000.0, 36.0), (8000.0, 39.0)]


@pytest.fixture
def curves() -> Any:
    return import_module("_compression_curves")


def test_half_the_bytes_are_a_bd_rate_of_minus_a_half(curves: Any) -> None:
    halved = [(rate / 2, psnr) for rate, psnr in LINE]
    assert curves.bd_rate(halved, LINE) == pytest.approx(-0.5, abs=1e-9)
    assert curves.bd_rate(LINE, halved) == pytest.approx(1.0, abs=1e-9)


def test_a_decibel_more_is_a_bd_psnr_of_one(curves: Any) -> None:
    better = [(rate, psnr + 1) for rate, psnr in LINE]
    assert curves.bd_psnr(better, LINE) == pytest.approx(1.0, abs=1e-9)
    assert curves.bd_psnr(LINE, better) == pytest.approx(-1.0, abs=1e-9)


def test_curves_at_other_rates_are_compared_where_both_were_measured(curves: Any) -> None:
    between = [(rate * 1.5, psnr + 3 * np.log2(1.5) + 0.7) for rate, psnr in LINE]
    assert curves.bd_psnr(between, LINE) == pytest.approx(0.7, abs=1e-6)


def test_a_difference_that_grows_along_the_curve_counts_as_its_mean(curves: Any) -> None:
    steeper = [(rate, psnr + step) for (rate, psnr), step in zip(LINE, (0, 1, 2, 3), strict=True)]
    assert curves.bd_psnr(steeper, LINE) == pytest.approx(1.5, abs=1e-9)


def test_curves_that_share_no_rates_have_no_difference(curves: Any) -> None:
    far = [(rate * 100, psnr + 40) for rate, psnr in LINE]
    assert curves.bd_psnr(far, LINE) is None
    assert curves.bd_rate(far, LINE) is None
    assert curves.bd_rate(LINE[:2], LINE) is None


def test_the_order_of_points_and_points_that_are_beaten_change_nothing(curves: Any) -> None:
    shuffled = [LINE[2], LINE[0], (3000.0, 31.0), LINE[3], LINE[1]]
    assert curves.bd_rate(shuffled, LINE) == pytest.approx(0.0, abs=1e-12)


def test_psnr_between_points_lies_on_the_line_over_the_logarithm(curves: Any) -> None:
    assert curves.psnr_at(LINE, 2000) == pytest.approx(33.0)
    assert curves.psnr_at(LINE, 2000 * 2**0.5) == pytest.approx(34.5)


def test_psnr_is_told_at_the_ends_and_not_beyond_them(curves: Any) -> None:
    assert curves.psnr_at(LINE, 1000) == pytest.approx(30.0)
    assert curves.psnr_at(LINE, 8000) == pytest.approx(39.0)
    assert curves.psnr_at(LINE, 999) is None
    assert curves.psnr_at(LINE, 8001) is None
    assert curves.psnr_at([], 1000) is None


def test_of_two_points_with_the_same_bytes_the_better_counts(curves: Any) -> None:
    assert curves.psnr_at([*LINE, (4000.0, 36.5)], 4000) == pytest.approx(36.5)
