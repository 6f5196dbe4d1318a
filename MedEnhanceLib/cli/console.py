"""Output of commands: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from MedEnhanceLib.errors import Cancelled, MedEnhanceError, OutputError
from MedEnhanceLib.runtime.text import duration_text, printable, traceback_text

if TYPE_CHECKING:
    from MedEnhanceLib.runtime.progress import Event, Listener


Answer = TypeVar("Answer")
#: Interval of the lines of progress in a log file.
LINE_SECONDS = 10.0
#: How long work may take to stop after SIGTERM.
_PATIENCE_SECONDS = 1.5
_LOOK_SECONDS = 0.05


class Console:
    """A printer of results, errors and progress, for people or as one JSON object.

    Attributes:
        as_json: whether stdout gets exactly one JSON object.
        debug: whether errors come with their traceback.
    """

    def __init__(self, *, as_json: bool = False, debug: bool = False) -> None:
        self.as_json, self.debug = as_json, debug
        self.command = ""
        self.warnings: list[str] = []
        self._stdout: TextIO = sys.stdout
        self._bar: Listener | None = None
        self._progress: dict[str, Any] = {"fraction": 0.0, "stage": "loading"}

    def only_results_on_stdout(self) -> contextlib.AbstractContextManager[object]:
        """Redirect what libraries print to stderr, if stdout gets JSON."""
        self._stdout = sys.stdout
        return contextlib.redirect_stdout(sys.stderr if self.as_json else sys.stdout)

    def run(self, kind: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Run a job with progress; Ctrl-C stops it at its next safe point."""
        with self.listening():
            from MedEnhanceLib.jobs import JobSpec, run_job

            spec = JobSpec(kind, {name: each for name, each in params.items() if each is not None})
            result = interruptible(lambda cancel: run_job(spec, self.show_event, cancel))
            return dict(result.fields)

    def show_event(self, event: Event) -> None:
        """Show a job's event: move the bar, print warnings."""
        if event.kind == "warning":
            message = str(event.fields["message"])
            if message in self.warnings:  # a second job of the command read the same file
                return
            self.warnings.append(message)
        if event.kind == "log" and not (self.debug or event.fields.get("is_news")):
            return
        if self._bar is not None:
            self._bar(event)
        elif event.kind == "progress":
            self._progress = dict(event.fields)
        elif event.kind in ("warning", "log"):
            begin = "" if event.fields.get("is_news") else f"{event.kind}: "
            self.note(f"{begin}{event.fields['message']}")

    def _print_progress(self, ended: threading.Event) -> None:
        """Print a line of progress where no bar can be drawn: in a log file.

        Every LINE_SECONDS, if the stage or the time left, or else the share, is another one.
        """
        began, said = time.monotonic(), ""
        while not ended.wait(LINE_SECONDS):
            seconds, now = int(time.monotonic() - began), self._progress
            share, stage, eta = f"{now['fraction']:.0%}", now["stage"], now.get("eta_s")
            remaining = f", about {duration_text(eta)} left" if eta is not None else ""
            if (line := f"{stage}{remaining or share}") != said:
                said = line
                self.note(f"{seconds // 60}:{seconds % 60:02}: {share} {stage}{remaining}")

    def note(self, text: str) -> None:
        """Print a line on stderr."""
        print(printable(text), file=sys.stderr, flush=True)

    def report(
        self, fields: Mapping[str, Any], text: str, fault: MedEnhanceError | None = None
    ) -> int:
        """Report the result: `fields` as JSON, or `text` for people. Returns the exit status.

        Args:
            fields: of the JSON object, besides `ok`, `command` and `warnings`.
            text: without a line break at its end.
            fault: the error of a failed part; it decides the exit status. None gives 0.
        """
        fields = {**fields, **({"warnings": self.warnings} if self.warnings else {})}
        if fault is not None:
            if not self.as_json:
                self._print(text)
            return self.fail(fault, None, fields)
        if self.as_json:
            self._print_json({"ok": True, "command": self.command, **fields})
        else:
            self._print(text)
        return 0

    def fail(
        self,
        error: MedEnhanceError,
        cause: BaseException | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> int:
        """Report the error; returns its exit status. If stdout takes no JSON, it goes to stderr.

        Args:
            error: its message and hint are shown.
            cause: its traceback is printed with --debug; None for the error of a part.
            fields: further ones of the JSON object.
        """
        is_printed = False
        if self.debug and cause is not None:
            self.note(traceback_text(cause).rstrip())
        if self.as_json:
            reason = {"code": error.code, "message": error.message, "hint": error.hint}
            with contextlib.suppress(BrokenPipeError, OutputError):
                self._print_json(
                    {"ok": False, "command": self.command, **(fields or {}), "error": reason}
                )
                is_printed = True
        lines = [f"error: {error.message}", *filter(None, [error.hint])]
        if error.code == "internal" and not self.debug:
            lines.append("For the details, run the same command with --debug.")
        if not is_printed:
            self.note("\n".join(lines))
        return error.exit_status

    def _print_json(self, fields: Mapping[str, Any]) -> None:
        from MedEnhanceLib.core.manifest import as_json  # imports numpy, which is slow for help

        text = json.dumps(as_json(fields), allow_nan=False)
        self._print(text)

    def _print(self, text: str) -> None:
        """Print on stdout; OutputError if that fails, BrokenPipeError if the reader is gone."""
        try:
            print(printable(text), file=self._stdout, flush=True)
        except BrokenPipeError:
            raise
        except OSError as cause:
            raise OutputError(
                f"the result cannot be printed: {cause.strerror}",
                "Send stdout elsewhere; files that the command wrote are complete.",
            ) from cause

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Show progress during the work: a bar on a terminal, else lines."""
        if not sys.stderr.isatty():
            ended = threading.Event()
            threading.Thread(target=self._print_progress, args=[ended], daemon=True).start()
            try:
                yield
            finally:
                ended.set()
            return
        from MedEnhanceLib.jobs.bar import progress_bar

        with progress_bar() as self._bar:
            yield


def interruptible(work: Callable[[threading.Event], Answer]) -> Answer:
    """Do work in a thread of its own, so that this thread can answer signals at any time.

    The first Ctrl-C asks the work to stop, the second one ends the process. SIGTERM, which
    schedulers send, ends it if the work has not stopped in time. No incomplete file is left under
    its final name.
    """
    cancel = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        return work(cancel)
    deadline = math.inf

    def on_signal(number: int, frame: object) -> None:  # noqa: ARG001 - signal's signature
        nonlocal deadline
        is_second = cancel.is_set()
        cancel.set()  # first of all: the second signal may come within this function
        if is_second or number == signal.SIGTERM:
            deadline = time.monotonic() + (0 if is_second else _PATIENCE_SECONDS)
        if not is_second:
            note = f"within {_PATIENCE_SECONDS:g} s"
            note = note if number == signal.SIGTERM else "Ctrl-C again to stop at once"
            print(f"\nstopping … ({note})", file=sys.stderr, flush=True)

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(work, cancel)
            while not wait([future], timeout=_LOOK_SECONDS).done:
                if time.monotonic() > deadline:
                    os._exit(Cancelled.exit_status)
        return future.result()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
