"""Two checkpoints of a patient's distillation, so that one that is damaged is not the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.nets.checkpoint import load_checkpoint, save_checkpoint
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.folder import CHECKPOINTS


class Checkpoints:
    """The last two, each written whole or not at all, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._paths = [folder / name for name in CHECKPOINTS]
        self._next = 0

    def save(self, step: int, parts: dict[str, Any], notes: dict[str, Any]) -> None:
        """Write in place of the older one."""
        save_checkpoint(self._paths[self._next], step=step, notes=notes, **parts)
        self._next = 1 - self._next

    def load(self, parts: dict[str, Any], monitor: Monitor) -> tuple[int, dict[str, Any]] | None:
        """Restore the later one that is whole: the next step and the notes; None where none is.

        Raises ConfigError for those of another configuration or other data, ModelError where
        there are some and all are damaged.
        """
        faults: list[ModelError] = []
        found: list[tuple[int, int]] = []
        for place, path in enumerate(self._paths):
            if path.exists():
                try:
                    found.append((load_checkpoint(path, **parts), place))
                except ModelError as fault:
                    faults.append(fault)
        if not found:
            if faults:
                raise faults[0]
            return None
        for damaged in faults:
            monitor.warn(f"{damaged.message}; going on from the one before")
        _, place = max(found)
        notes: dict[str, Any] = {}
        step = load_checkpoint(self._paths[place], notes=notes, **parts)
        self._next = 1 - place
        return step, notes
