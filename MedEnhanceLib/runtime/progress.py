"""Progress and cancellation of long work: every method takes a `Monitor`."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.runtime.shared_setting import refuse_torn_process

if TYPE_CHECKING:  # it reads a file, and this module is imported by whoever imports the library
    from MedEnhanceLib.runtime.texts import Text

EventKind = Literal["started", "progress", "log", "metric", "draft", "warning", "result", "error"]


@dataclass(frozen=True)
class Event:
    """An event of a job.

    Attributes:
        kind: see EventKind.
        fields: values for JSON, by kind: progress has `fraction` in [0, 1], `stage` and `eta_s`
            (None while unknown); log and warning have `message`, a warning that holds for further
            jobs also `about`, one of a key also `text`; metric has `name`, `value`, `step`; draft
            `shape`, `dtype` and `voxels` in base64.
    """

    kind: EventKind
    fields: Mapping[str, Any] = field(default_factory=dict)


Answer = TypeVar("Answer")
#: The hint after a cancel at a safe point; work that has kept something has its own.
NOTHING_WRITTEN = "Nothing was written; start again when you like."
#: Interval of the checks for a cancel during work without safe points.
LOOK_SECONDS = 0.05
#: How long a process waits at its end for work that was canceled.
_EXIT_SECONDS = 10.0


Listener = Callable[[Event], None]
Cancel = Callable[[], bool] | threading.Event


class _Pace:
    """An estimate of the time left from the pace of the current stage alone, as stages differ."""

    def __init__(self) -> None:
        self._stage, self._began, self._start = "", time.monotonic(), 0.0

    def seconds_left(self, fraction: float, stage: str) -> float | None:
        """Estimate the seconds until the end, at this stage's pace; None while unknown."""
        now = time.monotonic()
        stage = "".join(letter for letter in stage if not letter.isdigit())  # "step 3 of 9"
        if stage != self._stage:
            self._stage, self._began, self._start = stage, now, fraction
        advance, elapsed = fraction - self._start, now - self._began
        return elapsed * (1 - fraction) / advance if advance > 0.02 and elapsed > 0.5 else None


class Monitor:
    """A channel from a job to its caller, for events, and back, for a request to cancel.

    Args:
        progress: called with each Event, in the job's own thread; None for no listener.
        cancel: a function that returns whether to stop, or an object with `is_set()`
            (threading.Event); polled at every safe point.
    """

    def __init__(self, progress: Listener | None = None, cancel: Cancel | None = None) -> None:
        refuse_torn_process()  # which all work calls first
        self._listener = progress
        self._cancel = cancel
        self._start, self._end = 0.0, 1.0
        self._pace: _Pace | None = _Pace()
        self._warned: dict[str, str] = {}

    def part(self, start: float, end: float, *, is_typical: bool = True) -> Monitor:
        """Return a monitor for a share of this work: its 0…1 is this monitor's start…end.

        Args:
            start: of the share, 0 to 1.
            end: of the share.
            is_typical: whether the time of the whole work follows from its pace; otherwise no time
                is estimated.
        """
        part = Monitor(self._listener, self._cancel)
        span = self._end - self._start
        part._start, part._end = self._start + start * span, self._start + end * span
        part._pace, part._warned = self._pace if is_typical else None, self._warned
        return part

    def without_progress(self) -> Monitor:
        """Return a monitor for work within a step: it warns and can cancel, as this one."""
        part, listener = self.part(0, 1), self._listener
        if listener is not None:
            part._listener = lambda event: listener(event) if event.kind != "progress" else None
        return part

    @property
    def has_listener(self) -> bool:
        """Whether the caller gave a listener."""
        return self._listener is not None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of the whole job so far."""
        return tuple(self._warned.values())

    @property
    def can_be_cancelled(self) -> bool:
        """Whether the caller gave a way to cancel."""
        return self._cancel is not None

    @property
    def cancelled(self) -> bool:
        """Whether the user asked to stop."""
        if self._cancel is None:
            return False
        return self._cancel() if callable(self._cancel) else self._cancel.is_set()

    def check(self) -> None:
        """Raise Cancelled where the user asked to stop: a safe point."""
        if self.cancelled:
            raise Cancelled("cancelled", NOTHING_WRITTEN)

    def progress(self, fraction: float, stage: str) -> None:
        """Report how far the work is, in [0, 1], and what it does.

        Also a safe point, except at the end of the whole work: its results are written by then.
        """
        overall = self._start + min(max(fraction, 0.0), 1.0) * (self._end - self._start)
        if round(overall, 5) < 1:
            self.check()
        eta = self._pace.seconds_left(overall, stage) if self._pace else None
        self.emit("progress", fraction=round(overall, 5), stage=stage, eta_s=eta)

    def log(self, message: str, *, is_news: bool = False) -> None:
        """Report a line for the log; is_news: commands print it, though nobody asked for a log."""
        self.emit("log", message=message, **({"is_news": True} if is_news else {}))

    def warn(self, warning: str | Text, *, about: str = "", is_general: bool = False) -> None:
        """Report a fallback or another warning; the same text is reported once in a job.

        Args:
            warning: its message; line feeds, as in names, are escaped.
            about: a key under which texts that differ, as by file name, count as the same.
            is_general: whether it holds for further jobs of the process: Python logs it once.
        """
        message = str(warning).replace("\n", "\\n")
        if (about or message) in self._warned:
            return
        self._warned[about or message] = message
        besides: dict[str, Any] = {"about": about} if is_general else {}
        if not isinstance(warning, str):
            besides["text"] = warning.to_json()
        self.emit("warning", message=message, **besides)

    def metric(self, name: str, value: float, step: int) -> None:
        """Report a point of a curve.

        Args:
            name: of the curve: a loss, a score.
            value: in the unit of the curve.
            step: of the training, or another whole number to plot the value over.
        """
        self.emit("metric", name=name, value=float(value), step=int(step))

    def emit(self, kind: EventKind, /, **fields: Any) -> None:
        """Report an event of any kind; fields: see `Event`."""
        if self._listener is not None:
            self._listener(Event(kind, fields))


class Steps:
    """Progress of work whose number of steps is not known in advance.

    Each step gets the share of the remaining range that its cost has of the expected remaining
    cost. So progress follows time if the expectation holds, and never goes back if it changes.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor, self._done = monitor, 0.0

    def next(self, cost: float, remaining: float) -> Monitor:
        """Return the monitor of the next step.

        cost: expected for this step, in any unit.
        remaining: expected for all later steps, in the same unit; 0 for the last step.
        """
        start = self._done
        self._done = 1 - (1 - start) * remaining / (cost + remaining)
        return self._monitor.part(start, self._done)


def attend(work: Callable[[], Answer], monitor: Monitor | None) -> Answer:
    """Run `work` that has no safe points, as in another library, so that it can be canceled.

    After a cancel, which raises Cancelled, `work` ends in the background and its result is dropped:
    it must have no side effects.
    """
    if monitor is None or not monitor.can_be_cancelled:
        return work()
    answer = Future[Answer]()

    def run() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            answer.set_exception(error)

    thread = threading.Thread(target=run, name="attended", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK_SECONDS)
        try:
            monitor.check()
        except Cancelled:
            # A library that is torn down in the middle of its work aborts the process.
            atexit.register(thread.join, _EXIT_SECONDS)
            raise
    return answer.result()
