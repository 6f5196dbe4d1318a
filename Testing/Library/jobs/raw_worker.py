"""A worker spoken to through bare pipes, as a front end in any language does."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

_PATIENCE = 120.0
_LIBRARY = str(Path(__file__).resolve().parents[3])


class RawWorker:
    """A worker at the other end of two pipes, lines in and lines out; killed after two minutes."""

    def __init__(self, command: list[str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        self.process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": _LIBRARY},
        )
        self._limit = threading.Timer(_PATIENCE, self.process.kill)
        self._limit.start()
        self._commands, self._events = self.process.stdin, self.process.stdout
        self.hello = self.next()

    @property
    def stderr(self) -> bytes:
        """What it has logged."""
        self._log.seek(0)
        return self._log.read()

    def send(self, line: dict[str, Any] | bytes) -> None:
        data = line if isinstance(line, bytes) else json.dumps(line).encode()
        view = memoryview(data + b"\n")
        while view:
            view = view[self._commands.write(view) :]

    def job(self, job: str, kind: str, **params: Any) -> None:
        self.send({"v": 1, "id": job, "kind": kind, "params": params})

    def ping(self, job: str, count: int = 1, seconds: float = 0.0) -> None:
        self.job(job, "ping", count=count, seconds=seconds)

    def next(self) -> dict[str, Any]:
        line = self._events.readline()
        assert line, f"the worker ended: {self.stderr.decode()}"
        return json.loads(line)

    def until(self, event: str, job: str | None = ...) -> dict[str, Any]:  # type: ignore[assignment]
        """The next event of that kind (of that job); others are passed over."""
        while True:
            fields = self.next()
            if fields["event"] == event and job in (..., fields["job"]):
                return fields

    def rest(self) -> list[dict[str, Any]]:
        """All events up to the end of stdout."""
        return [json.loads(line) for line in self._events]

    def end_stdin(self) -> None:
        self._commands.close()

    def close_events(self) -> None:
        self._events.close()

    def wait(self) -> int:
        return self.process.wait(_PATIENCE)

    def close(self) -> None:
        self._limit.cancel()
        self.process.kill()
        self.process.wait()
        for stream in (self._commands, self._events, self._log):
            stream.close()
