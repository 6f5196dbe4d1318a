"""Findings of an enhancement in words, and a run's log with them."""

from __future__ import annotations

from typing import Any

import pytest

from MedEnhanceLib.core.findings import describe, history_of
from MedEnhanceLib.runtime.texts import text

_UNSURE = {
    "sigma": 2.83,
    "interval": [1.1, 6.94],
    "sigma_used": 1.1,
    "units": "HU",
    "share_removed": 0.8584,
    "reason": text("like_anatomy").to_json(),
    "changed": 0.262,
}
_SURE = {"sigma": 19.49, "share_removed": 1.0, "changed": 18.3}


@pytest.mark.parametrize(
    ("noise", "strength", "says"),
    [
        (
            _UNSURE,
            1.0,
            "found: ±2.83 HU (1 SD; likely ±1.1 to ±6.94); filtered: little, because noise and "
            "anatomy look alike",
        ),
        (
            _UNSURE,
            0.0,
            "found: ±2.83 HU (1 SD; likely ±1.1 to ±6.94); filtered: 0 %, because the strength is "
            "0",
        ),
        (
            _SURE,
            0.5,
            "found: ±19.5 (1 SD); filtered: 50 %, because the strength is 0.5",
        ),
        (
            _SURE | {"sigma": 6000.0, "measured": 58.3, "is_stated": True, "changed": 267.0},
            1.0,
            "stated: ±6000 (1 SD); filtered: 100 %",
        ),
        (
            _UNSURE | {"share_removed": 0.5, "ct_share": 0.5, "changed": 0.5},
            1.0,
            "found: ±2.83 HU (1 SD; likely ±1.1 to ±6.94); filtered: 50 % of ±1.1, because faint "
            "lesions are to stay visible in CT and noise and anatomy look alike",
        ),
        (
            _SURE | {"reason": "it is not sure", "interval": [15.6, 40.4]},
            1.0,
            "found: ±19.5 (1 SD; likely ±15.6 to ±40.4); filtered: 100 % (uncertain, "
            "because it is not sure)",
        ),
    ],
)
def test_levels_are_standard_deviations_and_shares_are_of_one_of_them(
    noise: dict[str, Any], strength: float, says: str
) -> None:
    assert _lines({"noise": noise}, strength)[1:] == [f"noise {says}"]


def _lines(measured: dict[str, Any], strength: float = 1.0) -> list[str]:
    return list(map(str, describe(measured, strength)))


def test_what_cannot_be_read_is_left_out() -> None:
    unreadable = {"noise": {"sigma": "much"}, "scanner": 7, "sequence": {}, "taken_as": 1}
    assert _lines(unreadable | {"bias_field": {"corrected": True}}) == ["bias field corrected (N4)"]
    for fact in ({"corrected": False}, {}, 7):
        assert _lines({"bias_field": fact}) == []


def test_a_history_has_the_findings_without_advice() -> None:
    noise = _SURE | {"verdict": "uncertain", "places": [[1, 2, 3]], "reason": "r"}
    measured = {"taken_as": {"guessed_modality": "MR"}, "noise": noise, "bias_field": {"corrected": True}}
    lines = _lines(measured)
    assert "to measure σ in even tissue: medenhance noise INPUT --at 1,2,3 (" in lines[3]
    assert "state it with --modality" in lines[1]
    assert history_of(measured) == ", ".join([lines[0], lines[2], lines[4]])


def test_thin_slices_say_what_was_assumed_of_the_thick_ones() -> None:
    slices = {"before": 6, "after": 12, "spacing_before_mm": 3.0, "spacing_after_mm": 1.5}
    slices |= {"thickness_mm": 2.5, "profile": "box"}
    line = (
        "slices restored: 6 of 3 mm became 12 of 1.5 mm; the given slices were taken as 2.5 mm "
        "thick, with a box profile"
    )
    assert _lines({"slices": slices}) == [line]
    detail = "0 % of the network's detail was added; the rest is interpolation"
    assert _lines({"slices": slices}, 0.0) == [line, detail]


def test_at_strength_0_nothing_is_said_to_be_corrected() -> None:
    measured = {
        "noise": _SURE | {"mean_changed": 6.0, "mean_changed_by_noise": 2.0},
        "bias_field": {"corrected": True},
    }
    verdict, line = _lines(measured, 0.0)
    assert verdict == "nothing removed: the strength is 0 (the result is the input)"
    assert line.endswith("filtered: 0 %, because the strength is 0")
    half = _lines(measured, 0.5)
    assert "bias field corrected (N4)" in half
    assert "the mean of all frames changed by ±3 in tissue; noise alone explains about ±1" in half


def test_what_did_not_change_is_the_input_and_what_hardly_did_nearly() -> None:
    little, nothing = (_lines({"noise": _SURE | {"changed": c}}) for c in (1e-3, 0.0))
    assert "filtered: little" in little[1] and "filtered: 0 %" in nothing[1]
    assert little[0] == "removed ±0.001, about 5 % of the error (the result is nearly the input)"
    assert nothing[0] == "nothing removed (the result is the input)"


@pytest.mark.parametrize(
    ("noise", "strength", "says"),
    [
        (
            {"verdict": "clean", "snr": 85.2, "changed": 0.0},
            1.0,
            "clean (SNR 85): hardly anything to do",
        ),
        ({"verdict": "clean", "changed": 0.2}, 1.0, "clean (±19.5): hardly anything to do"),
        ({"verdict": "removed", "changed": 18.0}, 1.0, "removed ±18, about 60 % of the error"),
        ({"verdict": "removed", "changed": 18.0}, 0.5, "removed ±9, about 40 % of the error"),
        ({"verdict": "removed", "changed": 19.4}, 1.0, "removed ±19.4 of noise ±19.5"),
        ({"verdict": "removed", "units": "HU"}, 1.0, "removed ±18.3 HU of noise ±19.5"),
        ({"verdict": "removed", "is_stated": True}, 1.0, "removed ±18.3 of the stated ±19.5"),
        (
            {"verdict": "removed", "mean_changed": 8.0, "mean_changed_by_noise": 2.0},
            0.5,
            "removed ±9.15, about 40 % of the error, but the mean of all frames changed 4 times as "
            "much as noise explains",
        ),
        (
            {"verdict": "removed", "mean_changed": 7.0, "mean_changed_by_noise": 3.0},
            1.0,
            "removed ±18.3, about 65 % of the error, but the mean of all frames changed 2.3 times "
            "as much as noise explains",
        ),
        (  # as of frames that repeat each other
            {"verdict": "removed", "mean_changed": 6.0, "mean_changed_by_noise": 2.5},
            1.0,
            "removed ±18.3, about 65 % of the error",
        ),
        (
            {"verdict": "uncertain", "reason": "r"},
            1.0,
            "uncertain, removed ±18.3: r",
        ),
    ],
)
def test_the_verdict_comes_first(noise: dict[str, Any], strength: float, says: str) -> None:
    assert _lines({"noise": _SURE | noise}, strength)[0] == says


def test_before_the_run_there_is_no_verdict() -> None:
    assert _lines({"noise": {"sigma": 2.0, "share_removed": 1.0, "verdict": "removed"}}) == [
        "noise found: ±2 (1 SD); filtered: 100 %"
    ]
