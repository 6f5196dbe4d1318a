"""Closing Slicer during a run, in order or by a crash: no process and no file is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
_SLICER = """
import sys
sys.path[:0] = [{testing!r}, {root!r}]
from SlicerHost import boot
app = boot.start()
from SlicerHost import modules
modules.load({module!r})
import qt, slicer
widget = slicer.util.getModuleWidget("MedEnhance")
runner = widget.context.runner
job = runner.submit("ping", {{"count": 1000, "seconds": 600}}, title="Ping")
def report():
    if job.reached:
        print("running", job.worker.pid, runner.folder(), flush=True)
        watch.stop()
        qt.QTimer.singleShot({quit_ms}, app.quit)
watch = qt.QTimer()
watch.timeout.connect(report)
watch.start(20)
app.exec_()
widget.cleanup()
"""


@pytest.fixture
def start_slicer(tmp_path, monkeypatch):
    """Starts a host with a running job; its process, the worker's number, its private folder."""
    from SlicerHost import boot

    if reason := boot.missing():
        pytest.skip(reason)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    started = contextlib.ExitStack()

    def start(quit_ms: int) -> tuple[subprocess.Popen[str], int, Path]:
        code = _SLICER.format(
            testing=str(ROOT / "Testing"),
            root=str(ROOT),
            module=str(ROOT / "MedEnhance/MedEnhance.py"),
            quit_ms=quit_ms,
        )
        process = started.enter_context(
            subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        )
        started.callback(process.kill)
        for line in process.stdout:
            if line.startswith("running "):
                _word, pid, folder = line.split()
                return process, int(pid), Path(folder)
        raise AssertionError(f"ended with {process.wait()}")

    with started:
        yield start


def is_gone(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def left(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.glob("medenhance-*"))


@pytest.mark.slow
def test_closing_in_order_ends_the_worker_and_removes_its_files(start_slicer, tmp_path):
    process, worker, folder = start_slicer(100)
    assert folder.is_dir()
    assert process.wait(30) == 0
    assert is_gone(worker, 30)
    assert left(tmp_path) == []


@pytest.mark.slow
def test_after_a_crash_the_worker_ends_and_the_next_start_cleans_up(start_slicer, tmp_path):
    process, worker, folder = start_slicer(600_000)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert is_gone(worker, 30)
    assert left(tmp_path) == [folder.name]
    code = "from MedEnhanceLib.runtime.locks import remove_abandoned; remove_abandoned()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert left(tmp_path) == []
