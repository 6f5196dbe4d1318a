"""What the tests of files share: a small volume, a disk that is full."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume


@pytest.fixture
def ct(rng: np.random.Generator, oblique_geometry: Geometry) -> Volume:
    """Small, int16, HU, oblique, with a history."""
    return Volume(
        rng.integers(-1000, 2000, (4, 6, 5), dtype=np.int16),
        oblique_geometry,
        modality="CT",
        units="HU",
        source="ct",
        history=("DERIVED: first step", "DERIVED: second step"),
    )


@pytest.fixture(scope="session")
def full_disk() -> Iterator[Path]:
    """A folder on a disk of 256 KiB; skips where no such disk can be mounted.

    It lies outside pytest's own folders: the disk of a killed run stays mounted, and the next run
    would fail at removing it.
    """
    folder = Path(tempfile.mkdtemp(prefix="medenhance-disk-"))
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        folder.rmdir()
        pytest.skip("mounting a small disk needs Linux and root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()
