"""A command line in this process, tiny volumes, and stand-ins for trained networks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib import gradprom, hqg, io
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.volume import Volume


@dataclass(frozen=True)
class Ran:
    """What a command gave back and said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self.out
        obj = json.loads(lines[0], parse_constant=_refuse)
        assert isinstance(obj, dict)
        return obj


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run_command(*arguments: str | Path) -> Ran:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return Ran(status, *capsys.readouterr())

    return run_command


@pytest.fixture
def scan(tmp_path: Path, head: Volume) -> Path:
    """A tiny MR on the disk."""
    path = tmp_path / "scan.nii.gz"
    io.save(head, path)
    return path


@dataclass(frozen=True)
class Label:
    value: int
    name: str
    color: str


@dataclass(frozen=True)
class StandInEnhancement:
    volume: Volume
    uncertainty: Volume | None
    model: dict[str, str]
    device: str
    seconds: float


@dataclass(frozen=True)
class StandInSegmentation:
    volume: Volume
    labels: tuple[Label, ...]
    table: list[dict[str, Any]]
    model: dict[str, str]
    seconds: float


LABELS = (Label(1, "grey matter", "#ffb703"), Label(2, "white matter", "#f72585"))


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Stand-ins that need no model and no torch; yields what they were called with.

    What trained networks do is tested where they live; here it matters that a command asks for
    the right thing and tells what came out.
    """
    calls: list[dict[str, Any]] = []

    def enhance(volume: Volume, config: Any, *, guide: Any = None, monitor: Any) -> Any:
        calls.append({"kind": "enhance", "config": config, "guide": guide})
        monitor.progress(0.5, "enhancing")
        monitor.warn("only a stand-in")
        wants = config.uncertainty > 0
        spread = volume.with_voxels(np.ones(volume.shape, np.float32)) if wants else None
        better = volume.with_voxels(volume.voxels + volume.dtype.type(1), did="enhanced")
        return StandInEnhancement(better, spread, {"name": "mr", "sha256": "0" * 64}, "cpu", 0.1)

    def segment(volume: Volume, config: Any, *, monitor: Any) -> Any:
        calls.append({"kind": "segment", "config": config})
        monitor.progress(0.5, "segmenting")
        found = np.digitize(volume.voxels, [300, 600]).astype(np.uint8)
        table = [
            {"label": label.name, "voxels": int((found == label.value).sum()), "volume_ml": 1.5}
            for label in LABELS
        ]
        labels = replace(volume.with_voxels(found), modality="SEG", units="")
        return StandInSegmentation(labels, LABELS, table, {"name": "h", "sha256": "1" * 64}, 0.1)

    monkeypatch.setattr(hqg, "enhance", enhance)
    monkeypatch.setattr(gradprom, "segment", segment)
    yield calls
