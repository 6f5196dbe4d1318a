"""How long work reports and is stopped; every method takes a `Monitor` and knows no door."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from MedEnhanceLib.errors import Cancelled

EventKind = Literal["started", "progress", "log", "metric", "preview", "warning", "result", "error"]


@dataclass(frozen=True)
class Event:
    """Something that a job says.

    kind: see EventKind. fields, by kind: progress has `fraction` in [0, 1], `stage` and `eta_s`
    (None while unknown); log and warning have `message`; metric has `name`, `value`, `step`;
    preview has `path`, `caption`. All of them can be written as JSON.
    """

    kind: EventKind
    fields: Mapping[str, Any] = field(default_factory=dict)


Answer = TypeVar("Answer")
#: How often a cancel is looked for where work has no safe points.
_LOOK_SECONDS = 0.05
#: How long the end of a process may wait for work that was cancelled.
_EXIT_SECONDS = 10.0


class _HasIsSet(Protocol):
    def is_set(self) -> bool: ...


Listener = Callable[[Event], None]
Cancel = Callable[[], bool] | _HasIsSet


class _Pace:
    """How fast work goes, measured anew in each stage: some of them take no time for their share.

    A reading that is over at once would promise that the network after it is as fast. Nor does the
    first step of a stage count for long: much is done for the first time in it.
    """

    def __init__(self) -> None:
        self._stage, self._began, self._start = "", time.monotonic(), 0.0
        self._is_first = False

    def seconds_left(self, fraction: float, stage: str) -> float | None:
        """Until all is done, at the pace of this stage; None while that is not known."""
        now = time.monotonic()
        stage = "".join(letter for letter in stage if not letter.isdigit())  # "step 3 of 9"
        if stage != self._stage:
            self._stage, self._began, self._start = stage, now, fraction
            self._is_first = True
        done, elapsed = fraction - self._start, now - self._began
        if self._is_first and done > 0:
            self._is_first, self._began, self._start = False, now, fraction
        return elapsed * (1 - fraction) / done if done > 0.02 and elapsed > 0.5 else None


class Monitor:
    """Carries events out of a job and the wish to stop into it.

    progress: called with each Event, in the job's own thread; None hears nothing.
    cancel: a function that tells whether to stop, or an object with `is_set()`
        (threading.Event); polled at every safe point.
    """

    def __init__(self, progress: Listener | None = None, cancel: Cancel | None = None) -> None:
        self._listener = progress
        self._cancel = cancel
        self._start, self._end = 0.0, 1.0
        self._pace = _Pace()
        self._warned: set[str] = set()

    def part(self, start: float, end: float) -> Monitor:
        """A monitor for a share of this work: its 0…1 is this one's start…end."""
        part = Monitor(self._listener, self._cancel)
        span = self._end - self._start
        part._start, part._end = self._start + start * span, self._start + end * span
        part._pace, part._warned = self._pace, self._warned
        return part

    @property
    def can_be_cancelled(self) -> bool:
        """Whether anybody could ask to stop."""
        return self._cancel is not None

    @property
    def cancelled(self) -> bool:
        """Whether the user asked to stop."""
        if self._cancel is None:
            return False
        return self._cancel() if callable(self._cancel) else self._cancel.is_set()

    def check(self) -> None:
        """A safe point: raises Cancelled where the user asked to stop."""
        if self.cancelled:
            raise Cancelled("cancelled", "Nothing was written; start again when you like.")

    def progress(self, fraction: float, stage: str) -> None:
        """Tell how far the work is, in [0, 1]; a safe point as well."""
        self.check()
        overall = self._start + min(max(fraction, 0.0), 1.0) * (self._end - self._start)
        eta = self._pace.seconds_left(overall, stage)
        self._tell("progress", fraction=round(overall, 5), stage=stage, eta_s=eta)

    def log(self, message: str) -> None:
        """A line for the log."""
        self._tell("log", message=message)

    def warn(self, message: str) -> None:
        """Something the user should know: a fallback, a doubt. The same is told once in a job."""
        if message not in self._warned:
            self._warned.add(message)
            self._tell("warning", message=message)

    def metric(self, name: str, value: float, step: int) -> None:
        """A figure that develops: a loss, a score."""
        self._tell("metric", name=name, value=float(value), step=int(step))

    def preview(self, path: str, caption: str) -> None:
        """A picture that is ready to be looked at."""
        self._tell("preview", path=path, caption=caption)

    def _tell(self, kind: EventKind, **fields: Any) -> None:
        if self._listener is not None:
            self._listener(Event(kind, fields))


#: Threads that nobody waits for any more.
_left: list[threading.Thread] = []


@atexit.register
def _wait_for_what_was_left() -> None:
    """A library that is torn down in the middle of its work aborts the whole process."""
    end = time.monotonic() + _EXIT_SECONDS
    for thread in _left:
        thread.join(max(0.0, end - time.monotonic()))


def attend(work: Callable[[], Answer], monitor: Monitor | None) -> Answer:
    """What `work` returns, for work of others that knows no safe points.

    After a cancel it is not waited for: it ends in the background, and what it gives is dropped.
    So it may change nothing that outlives it.
    """
    if monitor is None or not monitor.can_be_cancelled:
        return work()
    answers: list[Answer] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="attended", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_SECONDS)
        if monitor.cancelled:
            _left[:] = [*filter(threading.Thread.is_alive, _left), thread]
        monitor.check()
    if errors:
        raise errors[0]
    return answers[0]
