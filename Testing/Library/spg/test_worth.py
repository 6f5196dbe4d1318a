"""What a distillation can gain: measured before it, and what is done with the answer."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg import worth
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.prepare import prepare
from MedEnhanceLib.spg.worth import Room, room_of

from .conftest import PEOPLE


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worth, "_STEPS", 2)


@pytest.mark.parametrize(
    ("public_db", "statistics_db", "method", "says"),
    [
        (27.0, 29.0, "matching", r"gain 3\.0 dB.*reach 67%.*1\.0 ± 0\.1 dB are left"),
        (27.0, 29.5, "statistics", r"0\.5 ± 0\.1 dB are left; where so little was left"),
        (27.0, 29.9, "statistics", "97%"),
        (29.9, 29.9, "statistics", "almost nothing to gain"),
    ],
)
def test_matching_is_advised_only_where_statistics_leave_something(
    public_db: float, statistics_db: float, method: str, says: str
) -> None:
    room = Room(public_db, statistics_db, full_db=30.0, error_db=0.1, patients=8)
    assert room.method == method
    assert re.search(says, room.sentence)


def test_the_job_says_gain_and_time_and_writes_nothing(people: Path, tmp_path: Path) -> None:
    config = {"preset": "smoke", "device": "cpu"}
    before = sorted(people.parent.rglob("*"))
    found = run_job(JobSpec("distill-estimate", {"cohort": str(people), "config": config})).fields
    assert found["method"] in ("matching", "statistics")
    assert found["patients"] + found["held_out"] == len(PEOPLE)
    assert "Matching takes about" in found["sentence"]
    assert found["seconds_of_matching"] > 0
    assert sorted(people.parent.rglob("*")) == before


def test_the_public_prior_is_measured_as_it_is(
    people: Path, smoke: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with the statistics of all patients, half of whom are measured on."""
    taught: list[Floats] = []

    def trained(images: Floats, *_: object, **__: object) -> None:
        taught.append(images)

    monkeypatch.setattr(worth, "train_network", trained)
    monkeypatch.setattr(worth, "restored_psnr", lambda *_, **__: 30.0)
    cohort = Cohort.from_folder(people)
    prepared = prepare(cohort, smoke, Monitor())
    room_of(prepared, smoke)
    assert np.array_equal(taught[0], prepared.public)
    assert not np.array_equal(taught[0], prepared.prior.images)
    alone = replace(prepared, training=dict(list(prepared.training.items())[:1]))
    with pytest.raises(ConfigError, match="there are 1"):
        room_of(alone, smoke)
