"""Gates: pairs before means, the better peer, no volume of a training, lesions not lost."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def shared() -> ModuleType:
    return import_module("_denoising")


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
    unmeasured = shared.gain_gate("MR", [], [], arms, mean=0.1)
    assert (unmeasured["value"], unmeasured["pass"]) == (None, None)  # no failure


def rows_with(**psnr: float) -> list[dict[str, Any]]:
    names = {"ours": "ours", "bm4d": "BM4D", "informed": "BM4D, true σ"}
    return [
        {"subject": subject, "modality": "MR", "case": "Rician 10 %", "seed": 0,
         "arm": names[arm], "psnr_foreground": value, "cpu_s_per_mvoxel": 1.0}
        for subject in ("one", "two") for arm, value in psnr.items()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("peers", "name", "lead"),
    [
        ({"bm4d": 30.0, "informed": 30.8}, "BM4D, true σ", 0.2),
        ({"bm4d": 30.6, "informed": 30.1}, "BM4D", 0.4),
        ({"bm4d": 30.5}, "BM4D", 0.5),
    ],
)
def test_the_gate_takes_the_better_bm4d(peers: dict[str, float], name: str, lead: float) -> None:
    gates = import_module("_enhancement_gates").gates(rows_with(ours=31.0, **peers))
    title = f"MR, Rician 10 %: ours above {name}, PSNR, dB"
    assert [g["value"] for g in gates if g["name"] == title] == [pytest.approx(lead)]


def test_volumes_of_planted_lesions_show_what_is_lost() -> None:
    lesion_rows = import_module("_slices_lesions").lesion_rows
    thin, times = np.full((48, 64, 64), 0.5, np.float32), 4
    make = import_module("_slices_references").Reference
    reference = make("made", "", "MR", thin, 1.0, (1.0, 1.0))
    arms = {"thick": lambda slices: np.repeat(slices, times, axis=0), "lost": lambda _: thin}
    rows = lesion_rows(reference, times, arms, 0)
    assert {row["volume_change"] for row in rows if row["arm"] == "lost"} == {-1}
    thick = {row["diameter_mm"]: row for row in rows if row["arm"] == "thick"}
    assert 0 < thick[8]["volume_error"] < thick[3]["volume_error"]


@pytest.mark.parametrize(
    ("thick", "bound", "is_met"),
    [(0.4, "spline", False), (0.1, "thick", False), (0.35, "spline", True)],
)
def test_volumes_are_compared_with_the_better_of_thick_slices_and_the_spline(
    thick: float, bound: str, is_met: bool
) -> None:
    errors = {"thick": thick, "spline": 0.2, "ours": 0.15 if is_met else 0.3}
    rows = [{"arm": arm, "volume_error": error} for arm, error in errors.items()]
    entry = import_module("_slices_lesions").volume_gate(rows)
    assert entry["bound"].startswith(f"< {bound}'s")
    assert entry["pass"] is is_met
