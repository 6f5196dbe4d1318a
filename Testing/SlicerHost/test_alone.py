"""Tests of the module after which PySide6 is not fit for others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).resolve().parents[1] / "Slicer/test_accessibility.py"


@pytest.mark.slow
def test_the_order_of_the_tab_key_in_a_process_of_its_own() -> None:
    outer = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST")}
    options = ["-q", "-n", "0", "-m", "slow or not slow", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(_TESTS), "-k", "theTabKeyGoesDownThePage"],
        env=outer | {"MEDENHANCE_TEST_ALONE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "1 passed" in done.stdout
    assert "skipped" not in done.stdout
