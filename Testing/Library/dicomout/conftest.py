"""What the tests of written DICOM share: an examiner that knows the standard."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Examine = Callable[[Path], list[str]]


@pytest.fixture(scope="session")
def examine() -> Examine:
    """Give the errors that dciodvfy finds in a file; skips where it is not installed."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (package dicom3tools in Debian) is not installed")

    def errors(path: Path) -> list[str]:
        done = subprocess.run(
            [program, "-new", str(path)], capture_output=True, text=True, check=False
        )
        said = (done.stdout + done.stderr).splitlines()
        assert said, "dciodvfy said nothing: it names at least the class of the object"
        if done.returncode < 0:
            return [f"dciodvfy died of signal {-done.returncode}", *said[-1:]]
        return [line for line in said if line.startswith("Error")]

    return errors
