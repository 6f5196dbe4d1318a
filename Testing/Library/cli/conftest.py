"""A command line in this process, and tiny volumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from Library.cli.stand_in import stand_in

from MedEnhanceLib import io
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.report import sheet
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


@pytest.fixture(autouse=True)
def coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are looked at elsewhere; here they only have to be there."""
    monkeypatch.setattr(sheet, "DPI", 40)


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
