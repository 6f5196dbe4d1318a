"""The filter's Triton kernels without a GPU: by Triton's interpreter, and by its compiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

_SCRIPT = Path(__file__).resolve().parents[2] / "Benchmarks" / "kernels.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("triton") is None, reason="Triton is not installed (pip install triton)"
    ),
]


def said(*options: str) -> dict[str, Any]:
    """What the script prints: a process of its own, as Triton asks for the interpreter once."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(_SCRIPT), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.timeout(600)
def test_they_give_what_pytorch_gives_and_load_each_value_once() -> None:
    for name, row in said("--interpreted").items():
        assert row["far"] < 2e-6, name
        assert row["bytes"] < (1000 if name.startswith("threshold") else 50_000), name


@pytest.mark.timeout(600)
@pytest.mark.parametrize("capability", ["80", "90"])
def test_they_compile_for_cards_and_fit_into_registers(capability: str) -> None:
    for name, row in said("--compiled", capability).items():
        assert row["code"] > 0, name
        assert row["stack"] <= 64, name
