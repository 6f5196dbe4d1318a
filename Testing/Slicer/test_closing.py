"""Closing Slicer during a run, in order or by a crash: no process and no file is left behind."""

import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

from medenhance_testing import ROOT, MedEnhanceTestCase, slow

#: Opens the module in a host, begins a job, and some milliseconds after it has begun quits, or
#: reloads the module before that.
_SLICER = """
import sys
root, quit_ms, *reloads = sys.argv[1:]
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
        qt.QTimer.singleShot(int(quit_ms), end)
def end():
    if reloads:
        widget.onReload()
        print(job.state, slicer.modules.MedEnhanceWidget.context.runner.jobs, flush=True)
    app.quit()
watch = qt.QTimer()
watch.timeout.connect(report)
watch.start(20)
app.exec_()
slicer.modules.MedEnhanceWidget.cleanup()
"""
#: What the module does when it begins, in Slicer's temporary folder.
_CLEAN = """
import sys
from pathlib import Path
from MedEnhanceLib.runtime.locks import remove_abandoned
remove_abandoned(parent=Path(sys.argv[1]))
"""


@unittest.skipUnless("SlicerHost" in sys.modules, "the host alone is started by a test")
class ClosingTest(MedEnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.folder = Path(self.temporaryFolder())
        self.environment = os.environ | {"TMPDIR": str(self.folder), "PYTHONPATH": str(ROOT)}

    def startSlicer(self, quitMs, *reloads):
        """Start a Slicer with a running job; its process, the worker's number, its folder."""
        command = [sys.executable, "-c", _SLICER, str(ROOT), str(quitMs), *reloads]
        pipe = {"stdout": subprocess.PIPE, "text": True}
        slicer = self.enterContext(subprocess.Popen(command, env=self.environment, **pipe))
        self.addCleanup(slicer.kill)
        line = next(line for line in slicer.stdout if line.startswith("running "))
        _word, worker, folder = line.split()
        self.assertTrue(Path(folder).is_dir())
        return slicer, int(worker), Path(folder)

    def waitUntilGone(self, process):
        import psutil

        end = time.monotonic() + 30
        while psutil.pid_exists(process) and time.monotonic() < end:
            if psutil.Process(process).status() == psutil.STATUS_ZOMBIE:
                return
            time.sleep(0.05)
        self.assertFalse(psutil.pid_exists(process))

    def left(self):
        return sorted(self.folder.rglob("medenhance-*"))

    @slow
    def test_inOrderTheWorkerEndsAndItsFilesGo(self):
        slicer, worker, _folder = self.startSlicer(100)
        self.assertEqual(slicer.wait(30), 0)
        self.waitUntilGone(worker)
        self.assertEqual(self.left(), [])

    @slow
    def test_aReloadOfTheModuleEndsTheJobThatItsPagesWouldNotKnow(self):
        slicer, worker, _folder = self.startSlicer(100, "reload")
        self.assertIn("cancelled []", slicer.stdout.read())
        self.assertEqual(slicer.wait(30), 0)
        self.waitUntilGone(worker)
        self.assertEqual(self.left(), [])

    @slow
    def test_afterACrashTheWorkerEndsAndTheNextStartCleansUp(self):
        slicer, worker, folder = self.startSlicer(600_000)
        slicer.kill()
        self.assertEqual(slicer.wait(30), -signal.SIGKILL)
        self.waitUntilGone(worker)
        self.assertEqual(self.left(), [folder])
        command = [sys.executable, "-c", _CLEAN, str(folder.parent)]
        subprocess.run(command, check=True, env=self.environment)
        self.assertEqual(self.left(), [])
