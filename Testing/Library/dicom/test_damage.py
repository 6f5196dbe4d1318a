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
    ("seed", "cases"), [(1, 100), pytest.param(2, 250, marks=pytest.mark.slow)]
)
def test_no_damage_is_a_crash_or_a_hang(seed: int, cases: int) -> None:
    """A process of its own reads the files, so that it is seen if it dies."""
    ended = subprocess.run(
        [sys.executable, "-m", "Library.dicom.damage", str(seed), str(cases)],
        cwd=_TESTING.parent,
        env=os.environ | {"PYTHONPATH": str(_TESTING), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout)
    assert found["wrong"] == []
    counts = found["counts"]
    assert sum(counts.values()) == cases
    assert counts["error"] > cases // 4
    assert counts["original"] > cases // 20
