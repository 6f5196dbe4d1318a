"""Jobs: each ends once, in time, and leaves nothing behind, whatever happens."""

import os
import time
from pathlib import Path
from unittest import mock

import qt
import slicer
from medenhance_testing import MedEnhanceTestCase, slow

from MedEnhancePanels import runner as module
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.runner import Runner, sharedRunner
from MedEnhancePanels.waiting import wait
from MedEnhancePanels.worker import pythonExecutable

#: How a worker begins that stands in for the real one.
WORKER = """
import json, os, shutil, sys, time
def report(job, event, **more):
    print(json.dumps({"v": 1, "job": job, "event": event, **more}), flush=True)
def orders():
    for line in sys.stdin:
        fields = json.loads(line)
        if "kind" in fields:  # no cancel
            report(fields["id"], "started")
            yield fields["id"], fields["kind"], fields["params"]
"""


class RunnerTest(MedEnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.runner = sharedRunner()

    def ping(self, seconds=0.0, **more):
        return self.runner.submit("ping", {"count": 3, "seconds": seconds}, title="Ping", **more)

    @slow
    def test_aJobRunsToItsResultWithStepsBetweenEvents(self):
        turns, seen = [], []

        def before(job):
            for step in range(50):
                time.sleep(0.005)
                turns.append(("before", step))
                yield

        def after(job):
            turns.append(("after", job.result["count"]))
            yield

        job = self.ping(before=before, after=after)
        self.assertLess(len(turns), 50)  # submit returned before they were through
        job.onEvent(lambda job, name, fields: seen.append(name))
        self.finish(job)
        self.assertEqual((job.state, job.fraction), ("done", 1.0))
        self.assertEqual(turns[-1], ("after", 3))
        self.assertIn("progress", seen)
        self.assertFalse(os.path.exists(job.folder))

    @slow
    def test_jobsWaitForEachOtherAndOneOfTheirOwnDoesNot(self):
        first, second = self.ping(1.0), self.ping()
        self.finish(self.ping(dedicated=True))
        self.finish(second)
        self.assertTrue(first.isFinished)
        self.assertLessEqual(first.ended, second.ended)

    def test_everyJobBehindOneThatCrashesGetsItsTurn(self):
        """As a queue of volumes of which two are too large for the memory."""
        dies = f"""{WORKER}
for job, kind, params in orders():
    if params["dies"]:
        os._exit(9)
    report(job, "result")
"""
        runner = Runner([pythonExecutable(), "-c", dies])
        try:
            jobs = [runner.submit("ping", {"dies": dies}, title="P") for dies in (1, 1, 1, 0)]
            self.waitUntil(lambda: not runner.activeJobs())
        finally:
            runner.shutdown()
        self.assertEqual([job.state for job in jobs], ["failed", "failed", "failed", "done"])

    def test_jobsThatEndedAndTheirTitlesAreForgotten(self):
        """A title has the name of a node, which may be a patient's."""
        for title in ("Patient", "Next"):
            job = self.runner.submit("", {}, title=title, before=lambda _job: iter(()))
            self.assertEqual(self.finish(job).state, "done")
        self.assertEqual(self.runner.jobs, [job])

    def test_whatJsonCannotSayFailsTheJobInsteadOfWaitingForever(self):
        for value in (float("nan"), object()):
            job = self.finish(self.runner.submit("ping", {"count": value}, title="Ping"))
            self.assertEqual((job.state, job.error.code), ("failed", "config"))

    @slow
    def test_aWorkerRunsNoPythonFilesOfTheCurrentFolder(self):
        """Slicer may be started in a folder of downloaded data."""
        folder = self.temporaryFolder()
        for name in ("json", "multiprocessing", "numpy", "sitecustomize", "MedEnhanceLib"):
            with open(os.path.join(folder, f"{name}.py"), "w") as file:
                file.write("open(__file__ + '.ran', 'w')")
        paths = os.environ.get("PYTHONPATH", "") + os.pathsep
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder)
        with mock.patch.dict(os.environ, {"PYTHONPATH": paths}):
            runner = Runner()
            try:
                self.assertEqual(self.finish(runner.submit("ping", {}, title="P")).state, "done")
            finally:
                runner.shutdown()
        self.assertEqual([name for name in os.listdir(folder) if name.endswith(".ran")], [])

    def test_temporaryFilesOfPanelAndWorkersLieWhereSlicersSettingsSay(self):
        folder = self.temporaryFolder()
        self.addCleanup(setattr, slicer.app, "temporaryPath", slicer.app.temporaryPath)
        slicer.app.temporaryPath = folder
        asks = f"{WORKER}\nimport tempfile\nfor job, *_rest in orders():\n"
        asks += "    report(job, 'result', at=tempfile.gettempdir())"
        runner = Runner([pythonExecutable(), "-c", asks])
        job = runner.submit("ping", {}, title="Ping")
        self.assertEqual(Path(job.folder).parent.parent, Path(folder))
        self.assertEqual(self.finish(job).result["at"], folder)
        runner.shutdown()
        self.assertEqual(os.listdir(folder), [])

    def test_noProgramOfTheCurrentFolderIsTakenForPython(self):
        """Windows looks there first; so does a PATH that names it."""
        folder = self.temporaryFolder()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(folder)
        with open("PythonSlicer", "w"):
            os.chmod("PythonSlicer", 0o700)
        with mock.patch.dict(os.environ, PATH="."):
            executable = pythonExecutable()
        self.assertTrue(os.path.isabs(executable))
        self.assertNotEqual(os.path.dirname(executable), folder)

    def test_aWorkerThatCannotStartIsAnErrorWithARemedy(self):
        broken = [pythonExecutable(), "-c", "raise SystemExit('broken')"]
        for command in (["/no/such/python"], broken):
            runner = Runner(command)
            job = runner.submit("ping", {}, title="Ping")
            self.finish(job)
            self.assertEqual((job.state, job.error.code), ("failed", "worker"))
            self.assertTrue(job.error.hint)
            runner.shutdown()

    def test_aKilledWorkerLackedMemoryOnlyWhereTheSystemCountedIt(self):
        kill, crash = "os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 11)"
        for end, kills, code, said in (
            (kill, (5, 6), "memory", "The memory ran out.*choose a smaller region"),
            (kill, (5, 5), "worker", r"The system or another program ended .* \(signal 9\)"),
            (crash, (5, 6), "worker", r"process crashed \(signal 11\)"),
            ("sys.exit(3)", (0, 0), "worker", "ended with status 3"),
        ):
            counts = mock.patch("MedEnhancePanels.worker.memory_kills", side_effect=kills)
            runner = Runner([pythonExecutable(), "-c", f"{WORKER}\nsys.stdin.readline()\n{end}"])
            with counts:
                job = self.finish(runner.submit("ping", {}, title="Ping"))
            self.assertEqual(job.error.code, code)
            self.assertRegex(job.error.text, said)
            runner.shutdown()

    def test_aWorkerThatDoesNotListenIsKilledAndItsFolderIsRemoved(self):
        """After the grace time, and when Slicer closes."""
        deaf = f"""{WORKER}
import MedEnhanceLib.runtime.locks as locks
workspace = locks.Workspace()
report(json.loads(sys.stdin.readline())["id"], "started")
time.sleep(600)
"""
        self.enterContext(mock.patch.multiple(module, GRACE_MS=1000, CLOSING_MS=100))
        runner = Runner([pythonExecutable(), "-c", deaf])
        for isClosed in (False, True):
            job = runner.submit("ping", {}, title="Ping")
            self.waitUntil(lambda job=job: job.state == "running")
            self.assertEqual(len(self._leftFolders()), 2, "the runner's and the worker's")
            (runner.shutdown if isClosed else job.cancel)()
            self.finish(job)
            self.assertEqual(job.state, "cancelled")
            self.assertEqual(len(self._leftFolders()), 0 if isClosed else 1)

    def test_aFaultInAStepFailsTheJobAndCancellingClosesIt(self):
        def after(job):
            yield 0.5
            raise ZeroDivisionError("here")

        job = self.finish(self.ping(after=after))
        self.assertEqual((job.state, job.error.code), ("failed", "internal"))
        self.assertIn("here", job.error.message)
        self.assertIn("Traceback", job.error.details)
        closed = []

        def before(job):
            try:
                while True:
                    yield 0.1
            finally:
                closed.append(True)

        job = self.ping(before=before)
        self.processEvents()
        job.cancel()
        self.assertEqual((job.state, closed), ("cancelled", [True]))

    def test_whoeverWaitsCanCancelInADialog(self):
        job, dialogs = self.ping(60.0), []

        def press(*_event):
            if job.reached and not dialogs:
                dialogs.extend(self.dialogs())
                self.click(slicer.util.findChildren(dialogs[0], className="QPushButton")[0])
                self.assertTrue(dialogs[0].visible, "stopping takes a moment")

        job.onEvent(press)
        with self.assertRaises(PanelError):
            wait(job)
        self.assertEqual((self.dialogs(), job.state), ([], "cancelled"))

    def dialogs(self):
        windows = qt.QApplication.topLevelWidgets()
        return [each for each in windows if each.inherits("QProgressDialog") and each.visible]
