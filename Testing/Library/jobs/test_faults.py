"""A kill or a full disk costs the user nothing; faulting.py strikes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib import io
from MedEnhanceLib.core.volume import Volume

_POINTS = 3
JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "convert": ("convert", {"input": "in/scan.nii.gz", "output": "out/result.nii.gz"}),
    "compress": (
        "compress",
        {"input": "in/scan.nii.gz", "output": "out/result.ucv", "config": {"lossless": True}},
    ),
    "convert to DICOM": ("convert", {"input": "in/ct", "output": "out/result", "dicom": True}),
}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the program forks")
@pytest.mark.parametrize("job", JOBS)
def test_nothing_is_lost_and_the_error_is_clear(
    job: str, head: Volume, make_series: Callable, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    io.save(head, tmp_path / "in" / "scan.nii.gz")
    make_series(np.ones((3, 8, 9), np.uint16), folder=tmp_path / "in" / "ct")
    kind, params = JOBS[job]
    params = params | {name: str(tmp_path / params[name]) for name in ("input", "output")}
    program = Path(__file__).with_name("faulting.py")
    ran = subprocess.run(
        [sys.executable, program, tmp_path, kind, json.dumps(params), str(_POINTS)],
        env={**os.environ, "PYTHONPATH": str(program.parents[3]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == []
