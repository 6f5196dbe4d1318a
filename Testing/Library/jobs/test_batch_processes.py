"""A batch in several processes: those that die, a cancel, and a batch that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import MedEnhanceLib as me  # noqa: N813
from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.jobs import JobSpec, run_job

pytestmark = pytest.mark.slow


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two volumes whose enhancement takes seconds."""
    folder, rng = tmp_path / "scans", np.random.default_rng(0)
    folder.mkdir()
    square = 300 * (np.indices((24, 96, 96)).sum(axis=0) // 24 % 2)
    for name in "ab":
        voxels = (400 + square + rng.normal(0, 30, square.shape)).astype(np.int16)
        me.save(
            me.Volume.from_array(voxels, spacing=(1, 1, 1), modality="MR"),
            folder / f"{name}.nii.gz",
        )
    return folder


def _batch(scans: Path, cancel: Any = None) -> dict[str, Any]:
    """Run the batch of enhancements in two processes."""
    fields = {"inputs": [str(scans)], "output": str(scans.parent / "out"), "workers": 2}
    return run_job(JobSpec("batch", fields | {"task": "enhance"}), cancel=cancel).fields


def _working(process: psutil.Process) -> Iterator[psutil.Process]:
    """Yield the processes of a batch that run jobs."""
    for each in process.children():
        try:
            if "spawn_main" in " ".join(each.cmdline()) and each.cpu_times().user > 0.5:
                yield each
        except psutil.Error:
            continue


@pytest.mark.parametrize(("kills", "outcome"), [(1, "done"), (4, "failed")])
def test_a_job_whose_process_dies_runs_again_once(scans: Path, kills: int, outcome: str) -> None:
    """With one volume, so that its process is the only one that is ended."""
    (scans / "b.nii.gz").unlink()
    killed, end = [], threading.Event()

    def kill() -> None:
        while not end.wait(0.05) and len(killed) < kills:
            for each in _working(psutil.Process()):
                each.kill()
                killed.append(each)
                break

    killer = threading.Thread(target=kill)
    killer.start()
    fields = _batch(scans)
    end.set()
    killer.join()
    assert [row["status"] for row in fields["rows"]] == [outcome]
    assert len(killed) == min(kills, 2)
    if outcome == "failed":
        assert "the process lost the job" in fields["rows"][0]["message"]


def test_a_cancel_ends_the_jobs_and_their_rows_say_so(scans: Path) -> None:
    cancel, cancelled_at = threading.Event(), list[float]()

    def cancel_at_work() -> None:
        while len([*_working(psutil.Process())]) < 2:
            time.sleep(0.1)
        cancelled_at.append(time.monotonic())
        cancel.set()

    threading.Thread(target=cancel_at_work, daemon=True).start()
    with pytest.raises(Cancelled):
        _batch(scans, cancel)
    assert time.monotonic() - cancelled_at[0] < 10
    assert not [*_working(psutil.Process())]
    assert not [*(scans.parent / "out").glob("*.nii.gz")]
    assert "cancelled" in (scans.parent / "out" / "batch.jsonl").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_processes_end_with_a_batch_that_is_killed(scans: Path) -> None:
    command = [sys.executable, "-m", "MedEnhanceLib", "batch", "enhance", str(scans)]
    batch = subprocess.Popen([*command, "--out", str(scans.parent / "out"), "--workers", "2"])
    children: list[psutil.Process] = []
    end = time.monotonic() + 60
    while len(children) < 2 and time.monotonic() < end:
        time.sleep(0.1)
        children = [*_working(psutil.Process(batch.pid))]
    os.kill(batch.pid, signal.SIGKILL)
    batch.wait()
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert len(children) == 2 and not alive
