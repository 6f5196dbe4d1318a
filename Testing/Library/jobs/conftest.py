"""Workers to talk to, each with a temporary folder of the test's own."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from Library.jobs.raw_worker import RawWorker

from MedEnhanceLib import io
from MedEnhanceLib.core.volume import Volume


@pytest.fixture(autouse=True)
def temp_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's workers make their folders, and nobody else does."""
    folder = tmp_path / "temp"
    folder.mkdir()
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def start_worker(temp_root: Path) -> Iterator[Callable[..., RawWorker]]:
    """Start a real worker; all are ended after the test. Those that end earlier leave no file."""
    workers: list[RawWorker] = []

    def start(*, idle_seconds: float = 600, odd: bool = False) -> RawWorker:
        arguments = ["-m", "MedEnhanceLib", "worker", "--idle-seconds", f"{idle_seconds:g}"]
        if odd:  # it also knows jobs which misbehave
            arguments = [str(Path(__file__).with_name("odd_worker.py"))]
        workers.append(RawWorker([sys.executable, *arguments]))
        return workers[-1]

    yield start
    running = [worker for worker in workers if worker.process.poll() is None]
    for worker in workers:
        worker.close()
    assert running or list(temp_root.iterdir()) == []


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """After a call of it, no job may read a volume any more."""

    def must_not_be_called(*_: object, **__: object) -> Volume:
        raise AssertionError("the input was read")

    return lambda: monkeypatch.setattr("MedEnhanceLib.io.volume_files.load", must_not_be_called)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A small brain on the disk."""
    path = tmp_path / "scan.nii.gz"
    io.save(brain(5), path)
    return path


def brain(seed: int) -> Volume:
    """Something smooth with an edge, [8, 48, 44], that looks like an MR."""
    k, j, i = np.mgrid[-1:1:8j, -1:1:48j, -1:1:44j]
    inside = (k**2 + j**2 + i**2) < 0.8
    voxels = inside * (600 + 200 * np.sin((4 + seed) * i) * np.cos(3 * j))
    noise = np.random.default_rng(seed).normal(0, 4, inside.shape)
    return Volume(np.abs(voxels + noise).astype(np.int16), modality="MR", source="brain")
