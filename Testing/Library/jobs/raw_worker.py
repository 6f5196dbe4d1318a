"""A worker spoken to through bare pipes, as a front end in any language does."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from pathlib import Path
from typing import Any

_PATIENCE = 120.0
_LIBRARY = str(Path(__file__).resolve().parents[3])


class RawWorker:
    """A worker at the other end of three pipes: bytes in, lines out."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": _LIBRARY},
        )
        self.lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.stderr = b""
        self._threads = [threading.Thread(target=work) for work in (self._read, self._drain)]
        for thread in self._threads:
            thread.start()

    def greet(self) -> None:
        """Wait for its first line."""
        self.hello = self.next()

    def send(self, line: dict[str, Any] | bytes) -> None:
        data = line if isinstance(line, bytes) else json.dumps(line).encode()
        assert self.process.stdin is not None
        view = memoryview(data + b"\n")
        while view:
            view = view[self.process.stdin.write(view) :]

    def ping(self, job: str, count: int = 1, seconds: float = 0.0) -> None:
        params = {"count": count, "seconds": seconds}
        self.send({"v": 1, "id": job, "kind": "ping", "params": params})

    def job(self, job: str, kind: str) -> None:
        self.send({"v": 1, "id": job, "kind": kind})

    def next(self) -> dict[str, Any]:
        line = self.lines.get(timeout=_PATIENCE)
        assert line is not None, f"the worker ended: {self.stderr.decode()}"
        return json.loads(line)

    def until(self, event: str, job: str | None = ...) -> dict[str, Any]:  # type: ignore[assignment]
        """The next event of that kind (of that job); others are passed over."""
        while True:
            fields = self.next()
            if fields["event"] == event and job in (..., fields["job"]):
                return fields

    def rest(self) -> list[dict[str, Any]]:
        """All events up to the end of stdout."""
        events = []
        while (line := self.lines.get(timeout=_PATIENCE)) is not None:
            events.append(json.loads(line))
        return events

    def end_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self) -> int:
        return self.process.wait(_PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        pending = b""
        while piece := self._chunk(self.process.stdout):
            *lines, pending = (pending + piece).split(b"\n")
            for line in lines:
                self.lines.put(line)
        self.lines.put(None)

    def _drain(self) -> None:
        while piece := self._chunk(self.process.stderr):
            self.stderr += piece

    @staticmethod
    def _chunk(pipe: Any) -> bytes:
        try:
            return pipe.read(65536) or b""
        except ValueError:  # closed by the test
            return b""
