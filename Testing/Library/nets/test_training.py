"""What training loops share: when a training has run away, and when its steps are saved."""

from __future__ import annotations

import math

import pytest

from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.nets.training import Journal, LossWatch, training_steps
from MedEnhanceLib.runtime.progress import Event, Monitor


def first_alarm(watch: LossWatch, values: list[float]) -> int | None:
    return next((index for index, value in enumerate(values) if watch.observe(value)), None)


def test_losses_far_above_their_median_for_long_are_an_alarm() -> None:
    assert first_alarm(LossWatch(), [1.0] * 100 + [6.0] * 70) == 149


@pytest.mark.parametrize(
    "values",
    [
        [1.0] * 100 + [4.9] * 200,  # not so far
        [1.0] * 100 + ([50.0] * 49 + [1.0]) * 5,  # not for long
        [1.0] * 40 + [50.0] * 49,  # too early to know
        [math.exp(-step / 50) for step in range(500)],
    ],
)
def test_what_is_no_alarm(values: list[float]) -> None:
    assert first_alarm(LossWatch(), values) is None


def test_the_watch_is_not_calm_after_a_loss_that_is_far_off() -> None:
    watch = LossWatch()
    first_alarm(watch, [1.0] * 60)
    assert watch.is_calm
    watch.observe(10.0)
    assert not watch.is_calm
    watch.observe(1.0)
    assert watch.is_calm


def test_a_cancel_during_a_step_saves_the_next_one() -> None:
    saved: list[int] = []
    cancelled = False
    monitor = Monitor(cancel=lambda: cancelled)
    with pytest.raises(Cancelled, match="after step 4 of 9; the checkpoint is written"):
        for number in training_steps(0, 9, saved.append, 1e9, monitor):
            cancelled = number == 3
    assert saved == [4]


@pytest.mark.parametrize(("start", "says"), [(0, "no checkpoint was written"), (4, "as it was")])
def test_a_cancel_before_any_step_saves_nothing_and_says_so(start: int, says: str) -> None:
    saved: list[int] = []
    with pytest.raises(Cancelled, match=says):
        list(training_steps(start, 9, saved.append, 1e9, Monitor(cancel=lambda: True)))
    assert not saved


def test_a_journal_forgets_what_is_done_anew(tmp_path) -> None:
    reported: list[Event] = []
    journal = Journal(tmp_path / "metrics.jsonl", 0, Monitor(reported.append))
    for step in range(0, 60, 20):
        journal.add({"loss": float(step)})
        journal.report(step)
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"name": "lo')  # the process was killed here
    again = Journal(tmp_path / "metrics.jsonl", 40, Monitor())
    assert [step for step, _ in again.curves["loss"]] == [0, 20]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    values = [event.fields["value"] for event in reported]
    assert values[0] == 0
    assert 0 < values[1] < 20  # a running mean
    fresh = Journal(tmp_path / "metrics.jsonl", 0, Monitor())
    assert not fresh.curves
