"""No volume of a training passes as held out; differences are paired before a gate sees them."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def shared() -> ModuleType:
    return importlib.import_module("_denoising")


CARD = {
    "training": {
        "config": {
            "high_quality": ["mr/open_ms/C??/T1.nii.gz", "mr/studyforrest/T1.nii.gz"],
            "leave_out": ["mr/open_ms/C07", "mr/studyforrest"],
        }
    },
    "data": [{"name": "MNI152 template"}],
}


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        ("mr/open_ms/C19/T1.nii.gz", "volume"),
        ("mr/open_ms/C07/T1.nii.gz", "collection"),
        ("mr/studyforrest/T1.nii.gz", "none"),
        ("sample template", "collection"),
        ("mr/sts/STS_003/MR_T1.nii.gz", "none"),
    ],
)
def test_a_card_states_what_it_saw_of_a_volume(shared: ModuleType, path: str, origin: str) -> None:
    assert shared.origin_in_card(shared.Model(None, CARD), path) == origin


def test_a_gate_fails_at_one_bad_volume_though_the_mean_is_good(shared: ModuleType) -> None:
    rows = [
        {"subject": name, "seed": 0, "case": "5 %", "arm": arm, "psnr": psnr}
        for name, gain in (("a", 1.0), ("b", -0.5))
        for arm, psnr in (("filter", 30.0), ("network", 30.0 + gain))
    ]
    arms = ("network", "filter")
    entry = shared.gain_gate("MR", rows, ["5 %"], arms, mean=0.1, least=-0.02)
    assert entry["value"] == pytest.approx(0.25)
    assert entry["least"] == pytest.approx(-0.5)
    assert not entry["pass"]
    assert shared.gain_gate("MR", rows, ["5 %"], arms, mean=0.1)["pass"]
    assert not shared.gain_gate("MR", [], [], arms, mean=0.1)["pass"]
