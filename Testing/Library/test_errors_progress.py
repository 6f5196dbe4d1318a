"""Errors and monitors: the small contracts that everything relies on."""

from __future__ import annotations

import inspect
import pickle
import threading

import pytest

from MedEnhanceLib import errors
from MedEnhanceLib.errors import Cancelled, MedEnhanceError
from MedEnhanceLib.runtime.progress import Event, Monitor, Steps

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)
         if issubclass(kind, MedEnhanceError)]  # fmt: skip


def test_every_error_has_the_code_and_status_of_the_contract() -> None:
    expected = {
        "MedEnhanceError": ("failed", 1),
        "DeviceLostError": ("device", 1),
        "ConfigError": ("config", 2),
        "InputError": ("input", 3),
        "GeometryError": ("geometry", 3),
        "MissingFileError": ("input", 3),
        "OutputError": ("output", 1),
        "EndingError": ("ending", 2),
        "DependencyError": ("dependency", 4),
        "ModelError": ("model", 4),
        "UnfitModelError": ("model", 3),
        "DeviceMemoryError": ("memory", 5),
        "CodecError": ("codec", 6),
        "NoContainerError": ("container", 3),
        "Cancelled": ("cancelled", 130),
    }
    assert {kind.__name__: (kind.code, kind.exit_status) for kind in KINDS} == expected


@pytest.mark.parametrize("kind", KINDS)
def test_error_survives_the_way_between_processes(kind: type[MedEnhanceError]) -> None:
    back = pickle.loads(pickle.dumps(kind("what", "hint")))
    assert type(back) is kind
    assert (back.message, back.hint) == ("what", "hint")


def test_progress_of_parts_stays_between_nothing_and_all() -> None:
    events: list[Event] = []
    part = Monitor(events.append).part(0.5, 1.0).part(0.0, 0.5)
    for fraction in (-1.0, 0.5, 7.0):
        part.progress(fraction, "work")
    assert [event.fields["fraction"] for event in events] == [0.5, 0.625, 0.75]


def test_a_request_to_cancel_is_followed_at_every_safe_point() -> None:
    flag = threading.Event()
    for cancel in (flag, flag.is_set):
        flag.clear()
        monitor = Monitor(cancel=cancel)
        monitor.check()
        monitor.part(0, 1).progress(0.1, "stage")
        flag.set()
        assert monitor.cancelled
        with pytest.raises(Cancelled):
            monitor.check()
        with pytest.raises(Cancelled):
            monitor.part(0, 1).progress(0.1, "stage")


def test_time_left_is_reported_once_it_can_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("MedEnhanceLib.runtime.progress.time.monotonic", lambda: now[0])
    events: list[Event] = []
    monitor = Monitor(events.append)
    monitor.progress(0.0, "step 1 of 4")
    now[0] += 10
    monitor.progress(0.25, "step 2 of 4")
    now[0] += 10
    monitor.part(0.5, 1.0).progress(0.0, "step 3 of 4")
    assert [event.fields["eta_s"] for event in events] == [None, 30.0, 20.0]


def test_steps_share_what_is_left_by_what_they_are_expected_to_take() -> None:
    events: list[Event] = []
    steps = Steps(Monitor(events.append).part(0.0, 0.5))
    for cost, left in ((1, 3), (1, 1), (2, 6), (1, 0)):  # more is to be done than was expected
        steps.next(cost, left).progress(1.0, "search")
    fractions = [event.fields["fraction"] for event in events]
    assert fractions == pytest.approx([0.125, 0.3125, 0.359375, 0.5], abs=1e-5)


def test_a_warning_is_reported_once_in_a_job_and_names_the_first_file() -> None:
    events: list[Event] = []
    monitor = Monitor(events.append)
    for part in (monitor, monitor.part(0, 0.5), monitor.part(0.5, 1)):
        part.warn("one scanner only")
    monitor.warn("another")
    monitor.warn("a.nii looks like MR", about="taken as MR")
    monitor.part(0, 0.5).warn("b.nii looks like MR", about="taken as MR")
    Monitor(events.append).warn("one scanner only")
    messages = [event.fields["message"] for event in events]
    assert messages == ["one scanner only", "another", "a.nii looks like MR", "one scanner only"]
