"""The worker: jobs come in as JSON lines on stdin, events go out as JSON lines on stdout.

The protocol is described in docs/jobs.md. Only events reach the real stdout: it and stdin are moved
to private descriptors first, and all prints, in Python or in C, go to stderr. The main thread runs
the jobs, one after another; a second thread reads stdin at the same time, so that a cancel line is
noticed during a job.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from queue import Empty, SimpleQueue
from typing import Any, TextIO, cast

from MedEnhanceLib._version import __version__
from MedEnhanceLib.errors import Cancelled, ConfigError, DeviceLostError, MedEnhanceError
from MedEnhanceLib.jobs.events import check_version, parse_line, read_lines, write_line
from MedEnhanceLib.jobs.failures import InternalError, error_to_json
from MedEnhanceLib.jobs.files import KeptVolumes
from MedEnhanceLib.jobs.job import JobSpec, run_job
from MedEnhanceLib.jobs.worker import IDLE_SECONDS
from MedEnhanceLib.runtime.locks import Workspace, remove_abandoned
from MedEnhanceLib.runtime.progress import Event
from MedEnhanceLib.runtime.text import traceback_text
from MedEnhanceLib.runtime.tolerance import Messages

#: How long a job may continue after the end of stdin, as no client is left to kill the worker.
ORPHAN_SECONDS = 10.0


def main(idle_seconds: float = IDLE_SECONDS, orphan_seconds: float = ORPHAN_SECONDS) -> int:
    """Serve until stdin ends, the idle time is over, or a signal stops it; returns the status."""
    commands, events = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr = cast(TextIO, Messages(sys.stderr))
    faulthandler.enable(2)
    remove_abandoned()
    with Workspace() as workspace:
        return Worker(commands, events, workspace).serve(idle_seconds, orphan_seconds)


class Worker:
    """A server of jobs, one after another in the order in which they came.

    State that both threads use changes in single steps; a signal handler may call `_stop`, too.
    """

    def __init__(self, commands: int, events: int, workspace: Workspace) -> None:
        """Take two file descriptors, and the private folder that clients are informed of."""
        self._commands, self._events, self._workspace = commands, events, workspace
        self._writing = threading.Lock()
        self._kept = KeptVolumes()
        self._queue: SimpleQueue[JobSpec | None] = SimpleQueue()
        self._waiting: dict[str, JobSpec] = {}
        self._running: str | None = None
        self._is_stopped = self._is_cancelled = False
        self._signalled = self._lost_device = False
        self._finished = threading.Event()

    def serve(self, idle_seconds: float, orphan_seconds: float) -> int:
        """Run jobs until there is a reason to stop; returns the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        hello = {
            "version": __version__,
            "pid": os.getpid(),
            "folder": str(self._workspace.folder),
            "idle_s": idle_seconds,
        }
        self._write({"job": None, "event": "hello", **hello})
        threading.Thread(
            target=self._read, args=(orphan_seconds,), name="commands", daemon=True
        ).start()
        # A lost card is lost for this process: the client sends waiting jobs to a new one.
        while not self._lost_device and (spec := self._next(idle_seconds)) is not None:
            self._run(spec)
        for job in [*self._waiting] if not self._lost_device else ():
            self._drop(
                job,
                "the worker ended before the job began",
                "Send it to a new one, and keep stdin open until the job's last event.",
            )
        self._finished.set()
        return Cancelled.exit_status if self._signalled else 0

    def _next(self, idle_seconds: float) -> JobSpec | None:
        """Return the next job, marked as running; None if none came in time, or after `_stop`."""
        while True:
            try:
                spec = self._queue.get(timeout=idle_seconds)
            except Empty:
                self._is_stopped = True
            if self._is_stopped or spec is None:
                return None
            if self._waiting.get(spec.id) is not spec:  # it was canceled while it waited
                continue
            # In this order, so that a cancel that comes now applies to the running job.
            self._is_cancelled, self._running = self._is_stopped, spec.id
            if self._waiting.pop(spec.id, None) is not None:
                return spec

    def _run(self, spec: JobSpec) -> None:
        def report(event: Event) -> None:
            if event.kind in ("result", "error"):
                self._running = None  # a client may use the id again after this event
            self._send(spec.id, event)

        try:
            run_job(spec, progress=report, cancel=lambda: self._is_cancelled, kept=self._kept)
        except MedEnhanceError as error:
            if isinstance(error, InternalError):
                sys.stderr.write(traceback_text(error))
            self._lost_device = isinstance(error, DeviceLostError)
            report(Event("error", error_to_json(error)))

    def _read(self, orphan_seconds: float) -> None:
        for line in read_lines(self._commands):
            if line != b"":
                self._obey(line)
        self._stop()
        if not self._finished.wait(orphan_seconds):
            self._workspace.remove()
            os._exit(Cancelled.exit_status)

    def _obey(self, line: bytes | None) -> None:
        fields: dict[str, Any] = {}
        try:
            fields = parse_line(line)
            if "cancel" in fields:
                self._cancel(fields)
                return
            spec = JobSpec.from_json(fields)
            if self._holds(spec.id):
                raise ConfigError(
                    f"the id {spec.id!r} is in use", "Give each job an id of its own."
                )
            self._waiting[spec.id] = spec
            self._queue.put(spec)
        except MedEnhanceError as error:
            job = fields.get("id")
            # An error is the last event of a job: it must not be sent for a job that continues.
            is_known = isinstance(job, str) and not self._holds(job)
            self._send(job if is_known else None, Event("error", error_to_json(error)))

    def _cancel(self, fields: dict[str, Any]) -> None:
        """Stop a job at its next safe point, or drop it if it has not begun."""
        check_version(fields)
        job = fields["cancel"]
        if set(fields) != {"v", "cancel"} or not isinstance(job, str):
            raise ConfigError("not a cancel line", 'Send {"v": 1, "cancel": "<id>"}.')
        if job == self._running:
            self._is_cancelled = True
        elif self._waiting.pop(job, None) is not None:
            self._drop(job, "cancelled before it began", "Start again when you like.")
        else:
            self._send(
                job, Event("log", {"message": "nothing to cancel: there is no job with this id"})
            )

    def _holds(self, job: str) -> bool:
        """Return whether a job of this id runs or waits."""
        return job == self._running or job in self._waiting

    def _drop(self, job: str, message: str, hint: str) -> None:
        self._send(job, Event("error", error_to_json(Cancelled(message, hint))))

    def _send(self, job: str | None, event: Event) -> None:
        self._write({"job": job, "event": event.kind, **event.fields})

    def _write(self, fields: dict[str, Any]) -> None:
        """Write a line, from either thread; stop if the reader is gone."""
        try:
            with self._writing:
                write_line(self._events, fields)
        except OSError:
            self._stop()

    def _stop(self) -> None:
        """Stop the running job at its next safe point, and begin no other."""
        self._is_stopped = self._is_cancelled = True
        self._queue.put(None)

    def _on_signal(self, number: int, _: object) -> None:
        self._signalled = True
        signal.signal(number, signal.SIG_DFL)  # a second one ends a job that does not listen
        self._stop()
