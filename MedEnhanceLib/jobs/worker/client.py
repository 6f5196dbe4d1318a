"""Runs jobs in a worker process: the command line's --isolated, scripts, tests."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import IO, Any

from MedEnhanceLib.errors import Cancelled, ConfigError
from MedEnhanceLib.jobs.failures import WorkerError, error_from_json
from MedEnhanceLib.jobs.files import Result
from MedEnhanceLib.jobs.job import JobSpec
from MedEnhanceLib.jobs.worker.events import PROTOCOL, event_from_json, line_of, read_lines
from MedEnhanceLib.jobs.worker.process import (
    exit_words,
    kill_tree,
    start_process,
    worker_command,
)
from MedEnhanceLib.jobs.worker.worker import IDLE_SECONDS
from MedEnhanceLib.jobs.worker.workspace import remove_abandoned
from MedEnhanceLib.runtime.progress import Cancel, Event, Listener, Monitor

#: How long a worker may take to stop a cancelled job before it is killed.
GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.05
_START_SECONDS = 60.0
#: How long what a process said last may take to arrive after its end.
_DRAIN_SECONDS = 2.0
_TAIL_LINES = 20


class Client:
    """A warm worker of one's own, started when first needed and again after it ended.

        with Client() as client:
            result = client.run(JobSpec("convert", {"input": "a.nii", "output": "a.nrrd"}))

    It runs one job at a time, for one thread.
    """

    def __init__(
        self,
        *,
        command: Sequence[str] | None = None,
        idle_seconds: float = IDLE_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        """Prepare; nothing is started yet. command: of the worker, this Python's by default."""
        self._command = list(command or worker_command(idle_seconds))
        self._grace_seconds = grace_seconds
        self._worker: WorkerProcess | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> WorkerProcess:
        """The running worker, started now if there is none; raises WorkerError if it fails."""
        if self._worker is not None and not self._worker.is_alive:
            self.close()
        if self._worker is None:
            self._worker = WorkerProcess(self._command)
            self._worker.wait_ready()
        return self._worker

    def close(self) -> None:
        """Stop what runs, end the worker and remove its folder, however it ended."""
        worker, self._worker = self._worker, None
        if worker is not None and not worker.close(self._grace_seconds):
            remove_abandoned()

    def run(
        self, spec: JobSpec, progress: Listener | None = None, cancel: Cancel | None = None
    ) -> Result:
        """Do the job in the worker, as `run_job` does it here; raises the same errors.

        Besides, WorkerError where the worker dies: it names the exit status and the log's end.
        """
        worker = self.start()
        try:
            return self._follow(worker, spec, progress, Monitor(cancel=cancel))
        except KeyboardInterrupt as cause:
            self.close()
            raise Cancelled("cancelled", "Start again when you like.") from cause
        except BaseException:
            if worker.is_busy:  # the listener failed
                self.close()
            raise

    def _follow(
        self, worker: WorkerProcess, spec: JobSpec, progress: Listener | None, monitor: Monitor
    ) -> Result:
        worker.send(spec.to_line())
        worker.is_busy = True
        deadline: float | None = None
        while True:
            if deadline is None and monitor.cancelled:
                worker.send(line_of({"v": PROTOCOL, "cancel": spec.id}))
                deadline = time.monotonic() + self._grace_seconds
            if deadline is not None and time.monotonic() > deadline:
                worker.kill()
                worker.is_busy = False
                raise Cancelled(
                    f"cancelled; the job did not stop in {self._grace_seconds:g} s, so its worker"
                    " was ended",
                    "Start again when you like.",
                )
            event = worker.next_event(spec.id)
            if event is None:
                continue
            worker.is_busy = event.kind not in ("result", "error")
            if event.kind == "error":
                raise error_from_json(event.fields)
            if progress is not None:
                progress(event)
            if event.kind == "result":
                return Result(event.fields)


class WorkerProcess:
    """A running worker, and the threads that listen to it. is_busy: whether a job runs there."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start `command`; raises ConfigError for no such command."""
        self._process = start_process(command)
        self._said: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
        self._log = deque[str](maxlen=_TAIL_LINES)
        self.is_busy = False
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._listen, self._keep_log)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def wait_ready(self) -> None:
        """Return when the worker has said hello; raises WorkerError where it does not."""
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            fields = self._next("the worker did not start")
            if fields is not None and fields.get("event") == "hello":
                return
        self.kill()
        raise self._lost("the worker did not start")

    def send(self, line: bytes) -> None:
        """Write a line; that the worker is gone says `next_event`."""
        with contextlib.suppress(OSError, ValueError):
            left = memoryview(line)
            while left:
                left = left[_pipe(self._process.stdin).write(left) or 0 :]

    def next_event(self, job: str) -> Event | None:
        """The next event of a job; None where none came for a moment.

        Raises WorkerError where the worker ended.
        """
        fields = self._next("the worker ended during the job")
        if fields is None:
            return None
        try:
            name, event = event_from_json(fields)
        except ConfigError as cause:
            self._log.append(f"not an event ({cause}): {str(fields)[:200]}")
            return None
        if name is None and event.kind == "error":
            self._log.append(str(event.fields.get("message")))
        return event if name == job else None

    def kill(self) -> None:
        """End the worker and its children at once."""
        kill_tree(self._process)

    def close(self, grace_seconds: float) -> bool:
        """End stdin, which stops the worker; whether it ended by itself, and well."""
        with contextlib.suppress(OSError):
            _pipe(self._process.stdin).close()
        try:
            self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        # A child that outlives the worker may hold the pipes open: do not wait for it for ever.
        pipes = (self._process.stdout, self._process.stderr)
        for thread, pipe in zip(self._threads, pipes, strict=True):
            thread.join(_DRAIN_SECONDS)
            if not thread.is_alive():
                _pipe(pipe).close()
        return self._process.returncode == 0

    def _next(self, loss: str) -> Mapping[str, Any] | None:
        """What it says next; None for nothing in a moment. Raises WorkerError, saying `loss`."""
        with contextlib.suppress(Empty):
            return self._said.get(timeout=_POLL_SECONDS)
        if not self.is_alive:
            self._threads[0].join(_DRAIN_SECONDS)
            if self._said.empty():
                self.is_busy = False
                raise self._lost(loss)
        return None

    def _lost(self, what: str) -> WorkerError:
        """The error that says how the worker ended and what it said last."""
        self._threads[1].join(_DRAIN_SECONDS)
        status, said = self._process.poll(), "\n".join(self._log)
        how = "no answer" if status is None else exit_words(status)
        message = f"{what} ({how}); its log ends with:\n{said}" if said else f"{what} ({how})"
        return WorkerError(message, "Start the job again; see whether memory ran out.")

    def _listen(self) -> None:
        for line in read_lines(_pipe(self._process.stdout).fileno()):
            try:
                fields = json.loads(line or b"")
            except ValueError:
                fields = None
            if isinstance(fields, dict):
                self._said.put(fields)
            else:
                self._log.append((line or b"")[:200].decode("utf-8", "replace"))

    def _keep_log(self) -> None:
        pending = b""
        while piece := os.read(_pipe(self._process.stderr).fileno(), 65_536):
            *lines, pending = (pending + piece).split(b"\n")
            self._log.extend(line.decode("utf-8", "replace") for line in lines)
        if pending:
            self._log.append(pending.decode("utf-8", "replace"))


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # all three are pipes
    return stream
