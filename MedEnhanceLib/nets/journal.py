"""What a training measured, step by step: told as events and kept in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.runtime.progress import Monitor

Curves = dict[str, list[tuple[int, float]]]
_DECAY = 0.95


class Journal:
    """Smooths the losses, tells them as metrics and keeps them, a JSON line each.

    path: None keeps nothing. start: the step that the training goes on with: what was kept of
    later ones belongs to steps that are done anew.
    """

    def __init__(self, path: Path | None, start: int, monitor: Monitor) -> None:
        self.curves: Curves = {}
        self._path, self._monitor = path, monitor
        self._smooth: dict[str, tuple[float, float]] = {}
        if path is None:
            return
        for name, value, step in _read(path) if start else []:
            if step < start:
                self.curves.setdefault(name, []).append((step, value))
        rows = [(n, v, s) for n, curve in self.curves.items() for s, v in curve]
        with atomic_write(path, overwrite=True) as temporary:
            temporary.write_text("".join(_line(*row) for row in rows), encoding="utf-8")

    def hear(self, values: Mapping[str, float]) -> None:
        """A step's losses, which enter their running means."""
        for name, value in values.items():
            total, weight = self._smooth.get(name, (0.0, 0.0))
            self._smooth[name] = (_DECAY * total + value, _DECAY * weight + 1)

    def tell(self, step: int) -> None:
        """Tell the running means at this step."""
        means = {name: total / weight for name, (total, weight) in self._smooth.items()}
        self.measured(means, step)

    def measured(self, values: Mapping[str, float], step: int) -> None:
        """Tell values as they are."""
        for name, value in values.items():
            self.curves.setdefault(name, []).append((step, value))
            self._monitor.metric(name, value, step)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.writelines(_line(name, value, step) for name, value in values.items())


def _line(name: str, value: float, step: int) -> str:
    return json.dumps({"name": name, "value": value, "step": step}) + "\n"


def _read(path: Path) -> list[tuple[str, float, int]]:
    """The rows of a journal; a line that a killed process left half-written ends it."""
    rows: list[tuple[str, float, int]] = []
    with suppress(OSError, ValueError, KeyError):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows.append((row["name"], row["value"], row["step"]))
    return rows
