"""Concordance, shares of features that stay, and what is recommended from them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest


@pytest.fixture
def module() -> Any:
    return import_module("_downstream_statistics")


def test_concordance_of_equal_figures_is_one(module: Any) -> None:
    assert module.concordance([1, 2, 3], [1, 2, 3]) == 1
    assert module.concordance([5, 5, 5], [5, 5, 5]) == 1


def test_concordance_falls_with_a_shift_although_figures_correlate(module: Any) -> None:
    # Variances 2/3 each, covariance 2/3, means one apart: 2 · 2/3 / (4/3 + 1).
    assert module.concordance([1, 2, 3], [2, 3, 4]) == pytest.approx(4 / 7)


def test_concordance_falls_with_another_scale(module: Any) -> None:
    # Variances 2/3 and 8/3, covariance 4/3, means two apart: 8/3 / (10/3 + 4).
    assert module.concordance([1, 2, 3], [2, 4, 6]) == pytest.approx(4 / 11)


def test_concordance_of_opposite_figures_is_minus_one(module: Any) -> None:
    assert module.concordance([-1, 0, 1], [1, 0, -1]) == pytest.approx(-1)


def test_concordance_with_a_constant_is_zero(module: Any) -> None:
    assert module.concordance([1, 2, 3], [2, 2, 2]) == 0


def test_a_feature_is_kept_up_to_its_share_and_not_beyond(module: Any) -> None:
    before = {"a": 100.0, "b": -20.0, "c": 0.0, "d": 10.0}
    after = {"a": 105.0, "b": -18.9, "c": 0.0, "d": 10.0}
    assert module.share_within(before, after) == 0.75  # b changed by 5.5 %
    assert module.share_within(before, after | {"c": 1e-9}) == 0.5  # of nothing, nothing is near


def test_the_strongest_that_passes_with_all_weaker_ones_is_taken(module: Any) -> None:
    good, bad = {"dice_change": 0.004, "within": 0.96}, {"dice_change": 0.004, "within": 0.94}
    outcomes = [
        module.Outcome(strength=32, **good),  # stronger than one that fails: not trusted
        module.Outcome(strength=4, **good),
        module.Outcome(strength=16, **bad),
        module.Outcome(strength=8, **good),
    ]
    assert module.strongest(outcomes).strength == 8
    assert module.strongest(outcomes[2:3]) is None


def test_what_was_not_measured_forbids_nothing(module: Any) -> None:
    assert module.Outcome(strength=4, dice_change=None, within=0.99).passes
    assert module.Outcome(strength=4, dice_change=0.001, within=None).passes
    assert not module.Outcome(strength=4, dice_change=0.005, within=None).passes
