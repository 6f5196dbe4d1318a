"""What was measured is not measured again.

A row is known by the arm's settings or weights, the voxels that went in and the code that measures.
Results of slow arms are kept too, so that a new measure does not run them again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from _common import REPOSITORY
from _enhancement_data import Floats, fingerprint

from MedEnhanceLib.core.volume import Volume

Row = dict[str, Any]
FOLDER = REPOSITORY / "runs" / "enhancement-rows"
RESULTS = REPOSITORY / "runs" / "enhancement-results"
_BENCHMARKS = Path(__file__).parent


def key_of(*parts: object) -> str:
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:32]


@lru_cache(maxsize=8)
def code_hash(*names: str) -> str:
    """Of modules beside this one, or below the repository."""
    digest = hashlib.sha256()
    for name in names:
        path = _BENCHMARKS / name
        digest.update((path if path.is_file() else REPOSITORY / name).read_bytes())
    return digest.hexdigest()[:16]


def measures_code() -> str:
    return code_hash(
        "_enhancement_measures.py",
        "_enhancement_labels.py",
        "_enhancement_lesions.py",
        "_enhancement_texture.py",
        "MedEnhanceLib/core/metrics.py",
    )


class RowStore:
    """Rows of one subject, a JSON line each; several processes may add to it."""

    def __init__(self, subject: str, folder: Path = FOLDER) -> None:
        self._path = folder / (subject.replace("/", "_").replace(" ", "_") + ".jsonl")
        self._rows = dict(self._read())

    def find(self, key: str) -> Row | None:
        return self._rows.get(key)

    def add(self, key: str, row: Row) -> Row:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps({"key": key, "row": row}) + "\n")
        self._rows[key] = row
        return row

    def _read(self) -> Iterable[tuple[str, Row]]:
        if self._path.is_file():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                yield entry["key"], entry["row"]


def run_kept(
    run: Callable[[Volume], Volume], settings: str, volume: Volume, *, keep: bool
) -> tuple[Floats, float]:
    """The result's voxels and the CPU seconds it took, from the shelf where it is there."""
    path = RESULTS / f"{key_of(settings, fingerprint(volume))}.npz"
    if keep and path.is_file():
        stored = np.load(path)
        return stored["voxels"], float(stored["cpu_s"])
    began = time.process_time()
    voxels = run(volume).voxels.astype(np.float32)
    seconds = time.process_time() - began
    if keep:
        RESULTS.mkdir(parents=True, exist_ok=True)
        staged = path.with_suffix(".part.npz")
        np.savez(staged, voxels=voxels, cpu_s=seconds)
        staged.replace(path)
    return voxels, seconds
