"""Sentences of a result on its noise and its change: in Python, and as a warning of the job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from Library.hqg.conftest import brain

import MedEnhanceLib as me  # noqa: N813 - the name of the documentation
from MedEnhanceLib import hqg

_NOISE = {"sigma": 335.0, "share_removed": 1.0}


def test_a_result_says_in_words_what_was_found() -> None:
    result = me.enhance(brain(), device="cpu", noise=1.0, strength="full")
    (line,) = result.findings
    assert line.startswith("noise stated: ±1 (1 SD); removed: all; tissue changed by ±")
    half = result.at_strength(0.5).findings[0]
    assert "removed: 50 %, because the strength is 0.5" in half


@pytest.mark.parametrize(
    ("measured", "strength", "is_warned"),
    [
        ({"noise": _NOISE | {"changed": 422.0}}, 1.0, True),
        ({"noise": _NOISE | {"changed": 350.0}}, 1.0, False),
        ({"noise": _NOISE | {"changed": 422.0}}, 0.5, False),
        ({"noise": _NOISE | {"changed": 422.0}, "blur": {"undone": True}}, 1.0, False),
        ({"noise": _NOISE | {"changed": 422.0}, "bias_field": {}}, 1.0, False),
        ({}, 1.0, False),
    ],
)
def test_a_change_that_exceeds_the_noise_is_warned_of(
    measured: dict[str, Any], strength: float, is_warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = hqg.enhance(brain(), hqg.EnhanceConfig(device="cpu", noise=1e-12))
    result = replace(result, measured=measured, strength=strength)
    monkeypatch.setattr(hqg, "enhance", lambda *_, **__: result)
    warnings = me.enhance(brain(), device="cpu").report["warnings"]
    text = "the change is larger than the noise that was measured"
    assert any(each.startswith(text) for each in warnings) == is_warned
