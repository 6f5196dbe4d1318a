"""A command line in this process, and tiny volumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from Library.cli.stand_in import stand_in
from Library.conftest import MR

from MedEnhanceLib.cli.main import main


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
def networks(
    monkeypatch: pytest.MonkeyPatch, coarse_pictures: None, default_head: object
) -> list[dict[str, Any]]:
    """Stand-ins for trained networks; gives what they are called with."""
    return stand_in(monkeypatch)


@pytest.fixture
def mr(make_series: Callable) -> Path:
    """A small MR series of a patient."""
    patient = {"PatientID": "P-17", "PatientName": "Doe^Jane", "FrameOfReferenceUID": "1.2.3.99"}
    return make_series((4, 20, 24), SeriesDescription="T1", **MR, **patient)


@pytest.fixture
def two(mr: Path, make_series: Callable) -> Path:
    """A folder with two series of different size."""
    make_series((3, 10, 12), folder=mr / "ct", uid="1.2.3.2", number=2, prefix="ct")
    return mr
