"""Durations: declared for each preset, and known from earlier runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from MedEnhanceLib.training.jobs.durations import expected_duration
from MedEnhanceLib.training.jobs.runs import LongRun
from MedEnhanceLib.training.jobs.train import training_config

TRAININGS = (
    {"method": "hqg"},
    {"method": "slices"},
    {"method": "head"},
)


def params_of(preset: str, **params: Any) -> dict[str, Any]:
    return {"config": {"preset": preset}, **params}


@pytest.mark.parametrize("training", TRAININGS, ids=str)
def test_quick_takes_minutes_and_lies_between_its_neighbors(training: dict[str, Any]) -> None:
    minutes = [
        expected_duration("train", params_of(preset, **training), []).seconds / 60
        for preset in ("smoke", "quick", "cpu", "full")
    ]
    assert minutes == sorted(minutes)
    assert 3 <= minutes[1] <= 10


def test_a_quick_training_of_thin_slices_goes_on_from_the_shipped_model_of_its_size() -> None:
    slices = training_config("slices", {"preset": "quick", "modality": "MR"})
    assert (slices.start, slices.steps, slices.name) == ("mr-slices", 400, "own-mr-slices")
    assert training_config("slices", {"preset": "quick", "start": ""}).start == ""
    assert training_config("slices", {"preset": "cpu"}).start == ""


def test_matching_is_timed_by_the_patient(tmp_path: Path) -> None:
    config = {"preset": "cpu", "method": "matching"}
    params = {"config": config, "cohort": "patients", "out": "out"}
    assert expected_duration("distill", params, []).is_of_patient
    run = LongRun.create(tmp_path, "distill", "set")
    run.record |= {"state": "done", "seconds": 300.0, "params": params}
    (run.out / "manifest.json").write_text('{"patients": 5}')
    assert expected_duration("distill", params, [run]).seconds == 60
    statistics = {"config": {"preset": "full", "method": "statistics"}}
    assert expected_duration("distill", statistics, [run]).seconds == 60
