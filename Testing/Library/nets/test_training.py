"""What training loops share: when a training has run away, and when its steps are saved."""

from __future__ import annotations

import json
import math

import pytest

from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.nets.training import Journal, LossWatch, training_steps
from MedEnhanceLib.runtime.progress import Event, Monitor


def first_alarm(watch: LossWatch, values: list[float], kind: object = None) -> int | None:
    return next((index for index, value in enumerate(values) if watch.observe(value, kind)), None)


def test_losses_far_above_their_median_for_long_are_an_alarm() -> None:
    assert first_alarm(LossWatch(patience=10), [1.0] * 100 + [6.0] * 30) == 109


@pytest.mark.parametrize(
    "values",
    [
        [1.0] * 100 + [4.9] * 200,  # not so far
        [1.0] * 100 + ([50.0] * 9 + [1.0]) * 20,  # not for long
        [1.0] * 40 + [50.0] * 9,  # too early to know
        [math.exp(-step / 50) for step in range(500)],
    ],
)
def test_what_is_no_alarm(values: list[float]) -> None:
    assert first_alarm(LossWatch(patience=10), values) is None


def test_steps_with_other_terms_have_a_median_of_their_own() -> None:
    watch = LossWatch(patience=10)
    for _ in range(100):
        assert not watch.observe(1.0, "cycle")
        assert not watch.observe(20.0, "unpaired")
        assert watch.is_calm
    assert first_alarm(watch, [20.0] * 10, "cycle") == 9


def test_the_watch_is_not_calm_after_a_loss_that_is_far_off() -> None:
    watch = LossWatch()
    first_alarm(watch, [1.0] * 60)
    assert watch.is_calm
    watch.observe(10.0)
    assert not watch.is_calm
    watch.observe(1.0)
    assert watch.is_calm


def test_what_another_process_requests_is_done_here_too() -> None:
    """A signal may reach one process first: all save the same step and stop there."""
    saved: list[int] = []
    requests = iter([(False, False), (False, True), (True, False)])
    steps = training_steps(0, 9, saved.append, 1e9, Monitor(), agree=lambda _: next(requests))
    done = []
    with pytest.raises(Cancelled):
        done.extend(steps)
    assert done == [0, 1]
    assert saved == [1, 2]


def test_a_cancel_during_a_step_saves_the_next_one() -> None:
    saved: list[int] = []
    cancelled = False
    monitor = Monitor(cancel=lambda: cancelled)
    with pytest.raises(Cancelled):
        for number in training_steps(0, 9, saved.append, 1e9, monitor):
            cancelled = number == 3
    assert saved == [4]


@pytest.mark.parametrize(("start", "says"), [(0, "no checkpoint was written"), (4, "as it was")])
def test_a_cancel_before_any_step_saves_nothing_and_says_so(start: int, says: str) -> None:
    saved: list[int] = []
    with pytest.raises(Cancelled, match=says):
        list(training_steps(start, 9, saved.append, 1e9, Monitor(cancel=lambda: True)))
    assert not saved


def test_a_cancel_after_a_step_says_that_it_is_saved() -> None:
    requests = iter([(False, False), (True, False)])
    with pytest.raises(Cancelled, match="after step 1 of 9; the checkpoint is written"):
        list(training_steps(0, 9, lambda _: None, 1e9, Monitor(), agree=lambda _: next(requests)))


def test_a_watch_goes_on_with_the_median_of_its_checkpoint() -> None:
    watch, again = LossWatch(patience=10), LossWatch(patience=10)
    kind = ("cycle", "kl")
    first_alarm(watch, [1.0] * 60 + [9.0] * 4, kind)
    again.restore(json.loads(json.dumps(watch.to_json())))
    assert not again.is_calm
    assert first_alarm(again, [9.0] * 10, kind) == 5


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
