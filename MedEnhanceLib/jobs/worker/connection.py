"""One worker process and the threads that listen to it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io.atomic import output_error
from MedEnhanceLib.jobs.failures import WorkerError
from MedEnhanceLib.jobs.job import JobSpec
from MedEnhanceLib.jobs.worker.events import event_from_json, read_lines
from MedEnhanceLib.jobs.worker.process import exit_words, kill_tree, start_process
from MedEnhanceLib.runtime.progress import Event

#: A job's events in order; None says that the worker has ended.
Inbox = SimpleQueue[Event | None]
#: Kinds of events that end a job.
LAST = ("result", "error")

_START_SECONDS = 60.0
_DRAIN_SECONDS = 2.0
_TAIL_BYTES = 65_536
_TAIL_LINES = 20
_PIECE = 65_536


class Connection:
    """A running worker. Lines go in by `send`, events come out in the inbox of their job."""

    def __init__(self, command: Sequence[str], log: Path | None = None) -> None:
        """Start `command`; its standard error is kept (the end of it) and appended to `log`.

        Raises OutputError for a log that cannot be written, ConfigError for no such command.
        """
        self.log = log
        self._log_file = _open_log(log)
        try:
            self._process = start_process(command)
        except ConfigError:
            self._log_file.close()
            raise
        self._inboxes: dict[str, Inbox] = {}
        self._lock = threading.Lock()
        self._hello: dict[str, Any] = {}
        self._is_ready = threading.Event()
        self._is_over = False
        self._tail = b""
        self._listener = _thread(self._listen, "worker events")
        self._drain = _thread(self._keep_log, "worker log")
        self._watch = _thread(self._wait_for_end, "worker end")

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def folder(self) -> Path:
        """The worker's private folder, for volumes on their way."""
        return Path(self._hello["folder"])

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def ended_well(self) -> bool:
        """Whether the process ended by its own will: idle, or the end of its stdin."""
        return self._process.poll() == 0

    def wait_ready(self) -> None:
        """Return when the worker has said hello; raises WorkerError where it does not."""
        if not self._is_ready.wait(_START_SECONDS):
            self.kill()
        if not self._hello:
            raise self.lost("the worker did not start")

    def submit(self, spec: JobSpec) -> Inbox:
        """Hand over a job; where its events will arrive."""
        inbox: Inbox = SimpleQueue()
        with self._lock:
            if spec.id in self._inboxes:
                raise ConfigError(
                    f"the id {spec.id!r} is in use", "Give each job an id of its own."
                )
            if self._is_over:
                inbox.put(None)
            else:
                self._inboxes[spec.id] = inbox
                self._send(spec.to_line())
        return inbox

    def cancel(self, job: str) -> None:
        """Ask the worker to stop a job."""
        with self._lock:
            self._send(json.dumps({"v": 1, "cancel": job}).encode("ascii") + b"\n")

    def kill(self) -> None:
        """End the worker and its children at once."""
        kill_tree(self._process)
        self._watch.join()

    def close(self, grace_seconds: float) -> None:
        """End stdin, which stops the worker; kill it where it takes longer than the grace."""
        with self._lock, contextlib.suppress(OSError):
            _pipe(self._process.stdin).close()
        try:
            self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            kill_tree(self._process)
        self._watch.join()

    def lost(self, what: str = "the worker ended during the job") -> WorkerError:
        """The error that says how the worker ended and what it said last."""
        status = self._process.poll()
        how = "no answer" if status is None else exit_words(status)
        lines = self._tail.decode("utf-8", errors="replace").strip().splitlines()
        said = "\n".join(lines[-_TAIL_LINES:])
        message = f"{what} ({how}); its log ends with:\n{said}" if said else f"{what} ({how})"
        log = f" The log is {self.log}." if self.log else ""
        return WorkerError(message, f"Start the job again; see whether memory ran out.{log}")

    def _send(self, line: bytes) -> None:
        # A worker that is gone is noticed, and reported, by `_wait_for_end`.
        with contextlib.suppress(OSError, ValueError):
            left = memoryview(line)
            while left:
                left = left[_pipe(self._process.stdin).write(left) or 0 :]

    def _listen(self) -> None:
        for line in read_lines(_pipe(self._process.stdout).fileno()):
            try:
                fields = json.loads(line or b"")
                if fields["event"] == "hello":
                    self._hello = fields
                    self._is_ready.set()
                else:
                    self._deliver(*event_from_json(fields))
            except (ValueError, TypeError, KeyError, ConfigError) as cause:
                self._note(f"not an event ({cause}): {(line or b'')[:200]!r}\n".encode())
        try:
            self._process.wait(_DRAIN_SECONDS)
        except subprocess.TimeoutExpired:  # it can say nothing any more
            kill_tree(self._process)

    def _deliver(self, job: str | None, event: Event) -> None:
        with self._lock:
            inbox = self._inboxes.get(job or "")
            if inbox is not None and event.kind in LAST:
                del self._inboxes[job or ""]
        if inbox is not None:
            inbox.put(event)
        elif event.kind == "error":
            self._note(f"{event.fields.get('message')}\n".encode())

    def _keep_log(self) -> None:
        with self._log_file as file:
            while piece := os.read(_pipe(self._process.stderr).fileno(), _PIECE):
                self._note(piece)
                with contextlib.suppress(OSError):  # a full disk must not block the worker
                    file.write(piece)

    def _note(self, piece: bytes) -> None:
        self._tail = (self._tail + piece)[-_TAIL_BYTES:]

    def _wait_for_end(self) -> None:
        self._process.wait()
        # A child that outlives the worker may hold the pipes open: do not wait for it for ever.
        for thread, pipe in ((self._listener, "stdout"), (self._drain, "stderr")):
            thread.join(_DRAIN_SECONDS)
            if not thread.is_alive():
                _pipe(getattr(self._process, pipe)).close()
        with self._lock:
            self._is_over = True
            with contextlib.suppress(OSError):
                _pipe(self._process.stdin).close()
            for inbox in self._inboxes.values():
                inbox.put(None)
            self._inboxes.clear()
        self._is_ready.set()


def _open_log(log: Path | None) -> IO[bytes]:
    try:
        return (log or Path(os.devnull)).open("ab", 0)
    except OSError as cause:
        raise output_error(log or Path(os.devnull), cause) from cause


def _thread(work: Any, name: str) -> threading.Thread:
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def _pipe(pipe: Any) -> Any:
    return pipe
