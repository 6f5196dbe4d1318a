"""The scripts measure what docs/results.md states; what in them can be wrong is tested here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "Benchmarks"


@pytest.fixture(scope="session", autouse=True)
def scripts_on_the_path() -> Iterator[None]:
    """Last, and only for these tests: scripts carry names of packages (dicom, compression)."""
    sys.path.append(str(SCRIPTS))
    importlib.invalidate_caches()
    yield
    sys.path.remove(str(SCRIPTS))
