"""Commands, workers and Python without somebody to read their messages."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from Library.jobs.raw_worker import RawWorker

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.core.volume import Volume

_ROOT = Path(__file__).resolve().parents[3]


def run_in_shell(
    arguments: str, redirections: str, unbuffered: str = ""
) -> subprocess.CompletedProcess:
    """Run a command of MedEnhance in a shell, which closes streams of it.

    unbuffered: the variable that CI often sets, with which Python's last flush has nothing to do.
    """
    command = f'exec "{sys.executable}" -P -m MedEnhanceLib {arguments} {redirections}'
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": unbuffered}
    return subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("closed", "options"),
    [("2>&-", ""), ("<&- >&- 2>&-", "--json"), ("2> >(exec true)", "--debug")],
)
def test_a_command_without_stderr_does_its_work(
    scan: Path, tmp_path: Path, closed: str, options: str
) -> None:
    volume = tmp_path / "a.nii"  # without a modality, which a warning says
    nib.save(nib.Nifti1Image(me.load(scan).voxels.T, np.eye(4)), volume)
    ran = run_in_shell(f'convert "{volume}" "{tmp_path}/a.nrrd" {options}', closed)
    assert ran.returncode == 0
    assert me.load(tmp_path / "a.nrrd").is_equal(me.load(volume))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("arguments", "redirections", "status", "said"),
    [
        ("inspect nothing.nii", "2> >(exec true)", 3, ""),
        ("inspect nothing.nii", "2> /dev/full", 3, ""),
        ("inspect nothing.nii --json", "> >(exec true)", 3, "nothing.nii does not exist"),
        ("inspect nothing.nii --json", "> /dev/full", 3, "nothing.nii does not exist"),
        ("models --json", "> /dev/full", 1, "cannot be printed: No space"),
        ("--help", "> >(exec true)", 0, ""),
        ("--help", "> /dev/full", 1, ""),
    ],
)
def test_the_status_is_that_of_the_command_whoever_reads(
    arguments: str, redirections: str, status: int, said: str, unbuffered: str
) -> None:
    ran = run_in_shell(arguments, redirections, unbuffered)
    assert (ran.returncode, said in ran.stderr) == (status, True)
    assert "Traceback" not in ran.stderr


def test_a_batch_and_its_failing_volume_need_no_stderr(scan: Path, tmp_path: Path) -> None:
    (scan.parent / "broken.nii").write_bytes(b"broken")
    batch = f'batch compress "{scan}" "{scan.parent}/broken.nii" --out "{tmp_path}/out" --lossless'
    ran = run_in_shell(f"{batch} --json", "2>&-")
    assert ran.returncode == 1
    counts = json.loads(ran.stdout)
    assert (counts["done"], counts["failed"]) == (1, 1)


def test_a_worker_without_stderr_answers(scan: Path, tmp_path: Path) -> None:
    command = f'exec "{sys.executable}" -m MedEnhanceLib worker 2> >(exec true)'
    worker = RawWorker(["bash", "-c", command])
    worker.job("a", "convert", input=str(scan), output=str(tmp_path / "a.nrrd"))
    assert worker.until("result")["outputs"] == {"output": str(tmp_path / "a.nrrd")}
    worker.job("b", "inspect", input=str(tmp_path / "nothing.nii"))
    assert worker.until("error")["code"] == "input"
    worker.end_stdin()
    assert worker.wait() == 0
    worker.close()


def _closed() -> io.TextIOWrapper:
    stream = io.TextIOWrapper(io.BytesIO())
    stream.close()
    return stream


class _WithoutReader(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


@pytest.mark.parametrize("progress", [True, None])
@pytest.mark.parametrize("stream", [lambda: None, _closed, _WithoutReader])
def test_python_without_stderr_gets_its_result(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    head: Volume,
    stream: Callable[[], Any],
    progress: bool | None,
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's own
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream())
        # An array without a modality: a warning.
        me.compress(
            head.voxels, tmp_path / "a.ucv", spacing=(1, 1, 1), lossless=True, progress=progress
        )
    assert np.array_equal(me.decompress(tmp_path / "a.ucv").voxels, head.voxels)
