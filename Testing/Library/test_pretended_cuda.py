"""Everything that runs on a GPU runs on a pretended one, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).resolve().parents[1] / "PretendedCuda"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_devices_are_kept_apart_on_pretended_cards() -> None:
    # One thread: the tensors are so small that a second one only waits.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    options = ("-n", "0", "-m", "", "-q", "-rs", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", str(_TESTS), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    summary = done.stdout.splitlines()
    if " passed" not in summary[-1]:
        pytest.skip(next(line for line in summary if line.startswith("SKIPPED")))
