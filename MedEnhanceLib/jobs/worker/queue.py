"""The worker's jobs: one runs, the others wait in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from typing import Literal

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.job import JobSpec


class JobQueue:
    """Handed between the thread that reads jobs and the one that runs them.

    `stop` may also be called by a signal handler: the lock is reentrant.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._waiting: deque[JobSpec] = deque()
        self._running: str | None = None
        self._cancel = False
        self._stopped = False

    def add(self, spec: JobSpec) -> None:
        """Let a job wait for its turn; raises ConfigError where its id is in use."""
        with self._changed:
            if spec.id == self._running or any(spec.id == other.id for other in self._waiting):
                raise ConfigError(
                    f"the id {spec.id!r} is in use", "Give each job an id of its own."
                )
            self._waiting.append(spec)
            self._changed.notify_all()

    def take(self, idle_seconds: float) -> JobSpec | None:
        """The next job, now running; None where none came in time, or after `stop`."""
        with self._changed:
            self._running, self._cancel = None, False
            self._changed.wait_for(lambda: bool(self._waiting) or self._stopped, idle_seconds)
            if self._stopped or not self._waiting:
                self._stopped = True
                return None
            spec = self._waiting.popleft()
            self._running = spec.id
            return spec

    def release(self) -> None:
        """Free the id of the running job, which has ended."""
        with self._changed:
            self._running = None

    def cancel(self, job: str) -> Literal["running", "waiting", "unknown"]:
        """Stop a job at its next safe point, or drop it where it waits; what it was doing."""
        with self._changed:
            if job == self._running:
                self._cancel = True
                return "running"
            for spec in self._waiting:
                if spec.id == job:
                    self._waiting.remove(spec)
                    return "waiting"
            return "unknown"

    def stop(self) -> None:
        """Stop the running job at its next safe point, and begin no other."""
        with self._changed:
            self._stopped = True
            self._cancel = True
            self._changed.notify_all()

    def drop_waiting(self) -> list[str]:
        """Forget the jobs that wait; their ids."""
        with self._changed:
            dropped = [spec.id for spec in self._waiting]
            self._waiting.clear()
            return dropped

    @property
    def is_cancelled(self) -> bool:
        """Whether the running job is to stop."""
        return self._cancel
