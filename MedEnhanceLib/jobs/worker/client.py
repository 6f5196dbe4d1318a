"""Runs jobs in a worker process: the command line's --isolated, scripts, tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty

from MedEnhanceLib.errors import Cancelled, MedEnhanceError
from MedEnhanceLib.jobs.failures import InternalError, error_from_json
from MedEnhanceLib.jobs.files import Result
from MedEnhanceLib.jobs.job import JobSpec
from MedEnhanceLib.jobs.worker.connection import LAST, Connection
from MedEnhanceLib.jobs.worker.process import worker_command
from MedEnhanceLib.jobs.worker.worker import IDLE_SECONDS
from MedEnhanceLib.jobs.worker.workspace import remove_abandoned
from MedEnhanceLib.runtime.progress import Cancel, Event, Listener, Monitor

#: How long a worker may take to stop a cancelled job before it is killed.
GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.05


class Client:
    """A warm worker of one's own, started when first needed and again after it ended.

        with Client() as client:
            result = client.run(JobSpec("convert", {"input": "a.nii", "output": "a.nrrd"}))

    Threads may share it; the worker runs one job at a time, in the order they came. Where a
    cancelled job does not stop in time the worker is killed, and with it the jobs that waited.
    """

    def __init__(
        self,
        *,
        command: Sequence[str] | None = None,
        idle_seconds: float = IDLE_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
        log: Path | None = None,
    ) -> None:
        """Prepare; nothing is started yet.

        command: how to start the worker, this Python's by default. log: a file that its standard
        error is appended to; the end of it goes into the message where the worker dies.
        """
        self._command = list(command or worker_command(idle_seconds))
        self._grace_seconds = grace_seconds
        self._log = log
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Connection:
        """The running worker, started now if there is none; raises WorkerError if it fails."""
        with self._lock:
            if self._connection is not None and not self._connection.is_alive:
                self._close()
            if self._connection is None:
                self._connection = Connection(self._command, self._log)
                try:
                    self._connection.wait_ready()
                except MedEnhanceError:
                    self._close()
                    raise
            return self._connection

    def close(self, grace_seconds: float | None = None) -> None:
        """Stop what runs, end the worker and remove its folder, however it ended.

        grace_seconds: how long it may take before it is killed; None: as the client was made with.
        """
        with self._lock:
            self._close(grace_seconds)

    def submit(self, spec: JobSpec) -> RunningJob:
        """Hand a job over and return at once."""
        return RunningJob(self, spec, self._grace_seconds)

    def run(
        self, spec: JobSpec, progress: Listener | None = None, cancel: Cancel | None = None
    ) -> Result:
        """Do the job in the worker, as `run_job` does it here; raises the same errors.

        Besides, WorkerError where the worker dies: it names the exit status and the log's end.
        """
        return self.submit(spec).wait(progress, cancel)

    def _close(self, grace_seconds: float | None = None) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close(self._grace_seconds if grace_seconds is None else grace_seconds)
            if not connection.ended_well:
                remove_abandoned()


class RunningJob:
    """A job that was handed to a worker."""

    def __init__(self, client: Client, spec: JobSpec, grace_seconds: float) -> None:
        """Submit `spec` to the client's worker."""
        self.spec = spec
        self._client = client
        self._grace_seconds = grace_seconds
        self._may_submit_again = True
        self._is_over = False
        self._submit()

    def events(self) -> Iterator[Event]:
        """Every event as it comes, `result` or `error` last; raises WorkerError for a lost one."""
        while not self._is_over:
            event = self._next(None)
            if event is not None:
                yield event

    def cancel(self) -> None:
        """Ask the job to stop at its next safe point; returns at once."""
        self._may_submit_again = False
        self._connection.cancel(self.spec.id)

    def wait(self, progress: Listener | None = None, cancel: Cancel | None = None) -> Result:
        """Follow the job to its end, in this thread; its result, or its error raised."""
        try:
            return self._follow(progress, Monitor(cancel=cancel))
        except KeyboardInterrupt as cause:
            raise Cancelled("cancelled", "Start again when you like.") from cause
        finally:
            if not self._is_over:
                self.stop()

    def stop(self) -> Event | None:
        """Cancel and wait for the end; the last event, or None where it took killing the worker."""
        self.cancel()
        deadline = time.monotonic() + self._grace_seconds
        while (left := deadline - time.monotonic()) > 0:
            event = self._next(left)
            if event is not None and event.kind in LAST:
                return event
        self._is_over = True
        self._connection.kill()
        return None

    def _follow(self, progress: Listener | None, monitor: Monitor) -> Result:
        while True:
            if monitor.cancelled:
                event = self.stop()
                if event is None:
                    raise Cancelled(
                        f"cancelled; the job did not stop in {self._grace_seconds:g} s, so its"
                        " worker was ended",
                        "Start again when you like.",
                    )
            else:
                event = self._next(_POLL_SECONDS)
            if event is None:
                continue
            if event.kind == "error":
                raise self._error(event)
            if progress is not None:
                progress(event)
            if event.kind == "result":
                return Result(event.fields)

    def _submit(self) -> None:
        self._connection = self._client.start()
        self._inbox = self._connection.submit(self.spec)

    def _next(self, seconds: float | None) -> Event | None:
        """The next event; None where none came in `seconds`."""
        try:
            event = self._inbox.get(timeout=seconds)
        except Empty:
            return None
        if event is not None:
            self._may_submit_again = False
            self._is_over = event.kind in LAST
            return event
        if not (self._may_submit_again and self._connection.ended_well):
            self._is_over = True
            raise self._connection.lost()
        # It went home for want of work just before the job reached it.
        self._may_submit_again = False
        self._submit()
        return None

    def _error(self, event: Event) -> MedEnhanceError:
        error = error_from_json(event.fields)
        log = self._connection.log
        if isinstance(error, InternalError) and log is not None:
            error.hint = f"{error.hint} The log is {log}."
        return error
