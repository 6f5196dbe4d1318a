"""A command line in this process, and tiny volumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.cli.stand_in import stand_in

from MedEnhanceLib import io
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.report import figures


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


@pytest.fixture(autouse=True)
def coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are looked at elsewhere; here they only have to be there."""
    monkeypatch.setattr(figures, "DPI", 40)


@pytest.fixture
def scan(tmp_path: Path, head: Volume) -> Path:
    """A tiny MR on the disk."""
    path = tmp_path / "scan.nii.gz"
    io.save(head, path)
    return path


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stand-ins for trained networks; gives what they are called with."""
    return stand_in(monkeypatch)


@pytest.fixture
def mr(make_series: Callable, rng: np.random.Generator) -> Path:
    """A small MR series of a patient."""
    stored = rng.integers(0, 1000, (4, 20, 24), dtype=np.uint16)
    return make_series(
        stored,
        Modality="MR",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4",
        RescaleIntercept=None,
        RescaleSlope=None,
        PatientID="P-17",
        PatientName="Doe^Jane",
        FrameOfReferenceUID="1.2.3.99",
        SeriesDescription="T1",
    )


@pytest.fixture
def two(mr: Path, make_series: Callable, rng: np.random.Generator, tmp_path: Path) -> Path:
    """A folder with two series of different size."""
    stored = rng.integers(0, 1000, (3, 10, 12), dtype=np.uint16)
    make_series(stored, folder=tmp_path / "series" / "ct", uid="1.2.3.2", number=2, prefix="ct")
    return tmp_path / "series"
