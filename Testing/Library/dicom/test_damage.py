"""Damaged files are errors or volumes, never a crash or a hang; most of them are errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_TESTING = Path(__file__).resolve().parents[2]
_SECONDS = 280


@pytest.mark.timeout(_SECONDS + 15)
@pytest.mark.parametrize(
    ("seeds", "cases"), [((1,), 300), pytest.param((1, 2), 3_000, marks=pytest.mark.slow)]
)
def test_no_damage_is_a_crash_or_a_hang(seeds: tuple[int, ...], cases: int) -> None:
    """Processes of their own read the files, so that one that dies is seen."""
    environment = os.environ | {"PYTHONPATH": str(_TESTING), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "Library.dicom.damage", str(seed), str(cases)],
            cwd=_TESTING.parent,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in seeds
    ]
    try:
        ended = [process.communicate(timeout=_SECONDS) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (_, complaints) in zip(running, ended, strict=True):
        assert process.returncode == 0, complaints[-3000:]
    found = [json.loads(said) for said, _ in ended]
    assert [one["wrong"] for one in found] == [[] for _ in seeds]
    counts = [
        {kind: one["counts"][kind] for kind in ("error", "original", "other")} for one in found
    ]
    assert sum(sum(one.values()) for one in counts) == len(seeds) * cases
    assert all(one["error"] > cases // 4 for one in counts)
    assert all(one["original"] > cases // 20 for one in counts)
