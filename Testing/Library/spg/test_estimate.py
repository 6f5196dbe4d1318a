"""How long a distillation will take is told before it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from MedEnhanceLib.errors import Cancelled, ConfigError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg import estimate
from MedEnhanceLib.spg.config import DistillConfig, LoopConfig
from MedEnhanceLib.spg.estimate import seconds_of_a_patient

from .conftest import PEOPLE


@pytest.fixture
def a_second_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine on which every step takes a second."""

    def timed(work: Callable[[], None], device: str) -> float:
        work()
        return 1.0

    monkeypatch.setattr(estimate, "_seconds", timed)


@pytest.mark.usefixtures("a_second_each")
@pytest.mark.parametrize("task", ["denoise", "undersample"])
def test_a_patient_takes_the_time_of_its_steps(smoke: DistillConfig, task: str) -> None:
    assert seconds_of_a_patient(replace(smoke, task=task), "MR", "cpu") == smoke.loop.steps


@pytest.mark.usefixtures("a_second_each")
def test_a_loop_of_single_steps_is_timed_too(smoke: DistillConfig) -> None:
    loop = LoopConfig(outer=1, inner=1, teaching=0, patch=16, batch=4)
    assert seconds_of_a_patient(replace(smoke, loop=loop), "CT", "cpu") == 1.0


def test_a_cancel_is_heard_between_steps(smoke: DistillConfig) -> None:
    with pytest.raises(Cancelled):
        seconds_of_a_patient(smoke, "MR", "cpu", Monitor(cancel=lambda: True))


def test_the_job_counts_those_who_are_distilled(people: Path) -> None:
    config = {"preset": "smoke", "held_out": 0.25, "device": "cpu"}
    told = run_job(JobSpec("distill-estimate", {"cohort": str(people), "config": config})).fields
    assert (told["patients"], told["held_out"]) == (2, 2)
    assert told["names"] == sorted(PEOPLE)
    assert told["seconds"] == pytest.approx(2 * told["seconds_per_patient"], abs=0.01)
    assert told["seconds"] > 0
    assert told["device"] == "cpu"


def test_the_job_takes_a_number_of_patients_for_a_cohort() -> None:
    config = {"preset": "smoke", "device": "cpu"}
    told = run_job(JobSpec("distill-estimate", {"patients": 10, "config": config})).fields
    assert (told["patients"], told["held_out"]) == (8, 2)
    with pytest.raises(ConfigError, match="patients is None"):
        run_job(JobSpec("distill-estimate", {"config": config}))
