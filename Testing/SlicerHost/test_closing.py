"""Closing Slicer during a run, in order or by a crash: no process and no file is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Opens the module, begins a job, and quits so many milliseconds after that has begun.
_SLICER = """
import sys
root, quit_ms = sys.argv[1:]
sys.path[:0] = [f"{root}/Testing", root]
from SlicerHost import boot
app = boot.start()
from SlicerHost import modules
modules.load(f"{root}/MedEnhance/MedEnhance.py")
import qt, slicer
widget = slicer.util.getModuleWidget("MedEnhance")
runner = widget.context.runner
job = runner.submit("ping", {"count": 1000, "seconds": 600}, title="Ping")
def report():
    if job.reached:
        print("running", job.worker.pid, runner.folder(), flush=True)
        watch.stop()
        qt.QTimer.singleShot(int(quit_ms), app.quit)
watch = qt.QTimer()
watch.timeout.connect(report)
watch.start(20)
app.exec_()
widget.cleanup()
"""
_CLEAN = "from MedEnhanceLib.runtime.locks import remove_abandoned; remove_abandoned()"


def entries(folder):
    return sorted(folder.glob("medenhance-*"))


def isGone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
@pytest.mark.parametrize("crashes", [False, True])
def test_the_worker_ends_with_slicer_and_its_files_go(tmp_path, crashes):
    """After a crash they go at the next start."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _SLICER, str(ROOT), "600000" if crashes else "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as slicer:
        try:
            line = next(line for line in slicer.stdout if line.startswith("running "))
            _word, worker, folder = line.split()
            assert Path(folder).is_dir()
            if crashes:
                slicer.kill()
            assert slicer.wait(30) == (-signal.SIGKILL if crashes else 0)
        finally:
            slicer.kill()
    end = time.monotonic() + 30
    while not isGone(int(worker)) and time.monotonic() < end:
        time.sleep(0.05)
    assert isGone(int(worker))
    assert entries(tmp_path) == [Path(folder)] * crashes
    subprocess.run([sys.executable, "-c", _CLEAN], check=True, env=environment)
    assert entries(tmp_path) == []
