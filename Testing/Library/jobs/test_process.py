"""How a worker's process is started and ended."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import pytest

import MedEnhanceLib
from MedEnhanceLib.jobs.worker import process


def _python_path(monkeypatch: pytest.MonkeyPatch, library: Path, inherited: str) -> str:
    """PYTHONPATH as a worker sees it, were the library at `library`."""
    monkeypatch.setattr(process, "_LIBRARY", library)
    monkeypatch.setenv("PYTHONPATH", inherited)
    code = "import os, sys; sys.stdout.write(os.environ['PYTHONPATH'])"
    started = process.start_process([sys.executable, "-c", code])
    out, _ = started.communicate(timeout=30)
    return out.decode()


def test_a_worker_finds_the_library_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Path(MedEnhanceLib.__file__).parents[1]
    assert _python_path(monkeypatch, library, "elsewhere") == f"{library}{os.pathsep}elsewhere"


def test_site_packages_do_not_come_before_the_standard_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = Path(sysconfig.get_path("purelib")).resolve()
    assert _python_path(monkeypatch, installed, "elsewhere") == "elsewhere"


def test_the_current_folder_is_not_on_a_worker_s_path() -> None:
    assert process.worker_command(60)[1] == "-P"


def test_killing_what_has_ended_is_fine() -> None:
    started = process.start_process([sys.executable, "-c", ""])
    started.communicate(timeout=30)
    process.kill_tree(started)
    assert started.returncode == 0
