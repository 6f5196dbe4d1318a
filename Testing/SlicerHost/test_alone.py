"""Tests of the module after which PySide6 is not fit for others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_TESTS = Path(__file__).resolve().parents[1] / "Slicer"


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        "test_accessibility.py",
        "test_module.py::LeakTest::test_openingClosingAndReloadingDoesNotGrow",
    ],
)
def test_it_holds_in_a_process_of_its_own(place: str) -> None:
    outer = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST")}
    options = ["-q", "-n", "0", "-m", "slow or not slow", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(_TESTS / place)],
        env=outer | {"MEDENHANCE_TEST_ALONE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout
