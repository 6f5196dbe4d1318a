"""The page Jobs: what runs and ran since Slicer was started."""

import os
import tempfile
from pathlib import Path
from unittest import mock

import qt
import slicer
from medenhance_testing import MedEnhanceTestCase, slow

from MedEnhanceLib.jobs.job import JOBS
from MedEnhancePanels.job import Job
from MedEnhancePanels.pages import jobs


class JobsTest(MedEnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.temporaryFolder()
        self.use(mock.patch.object(JOBS["ping"], "is_question", False))  # it is work here
        for job in list(self.context.runner.jobs):
            self.context.runner.forget(job)
        self.panel = jobs.JobsPanel(self.context)
        self.addCleanup(self.panel.cleanup)

    def use(self, patch):
        patch.start()
        self.addCleanup(patch.stop)

    def ping(self, seconds=0.0, count=3, title="Ping", **params):
        params = {"count": count, "seconds": seconds, **params}
        return self.context.runner.submit("ping", params, title=title)

    def finish(self, job):
        self.waitUntil(lambda: job.isFinished, 20)
        self.processEvents()
        return job

    def cell(self, row, column):
        return self.panel.ui.jobTable.item(row, column).text()

    def restart(self):
        """The page as a later start of Slicer shows it."""
        for job in list(self.context.runner.jobs):
            self.context.runner.forget(job)
        panel = jobs.JobsPanel(self.context)
        self.addCleanup(panel.cleanup)
        return panel

    def test_nothingYet(self):
        self.assertEqual(self.panel.ui.jobTable.rowCount, 0)
        self.assertFalse(self.panel.ui.emptyLabel.isHidden())
        self.assertTrue(self.panel.ui.detailBox.isHidden())
        self.assertFalse(self.panel.ui.cancelButton.enabled)

    @slow
    def test_aJobIsFollowedToItsEnd(self):
        job = self.ping(2.0, count=20)
        self.waitUntil(lambda: job.fraction > 0.2, 20)
        self.assertIn("Running", self.cell(0, 1))
        self.assertIn("%", self.cell(0, 1))
        self.assertTrue(self.panel.ui.cancelButton.enabled)
        self.assertFalse(self.panel.ui.progressBar.isHidden())
        self.assertGreater(self.panel.ui.progressBar.value, 10)
        self.finish(job)
        self.assertEqual(self.cell(0, 1), "Done")
        self.assertTrue(self.panel.ui.progressBar.isHidden())
        self.assertFalse(self.panel._timer.isActive())

    @slow
    def test_theNewestIsOnTopAndTheChoiceStays(self):
        self.finish(self.ping(title="first"))
        self.finish(self.ping(title="second"))
        self.assertEqual([self.cell(row, 0) for row in (0, 1)], ["second", "first"])
        self.panel.ui.jobTable.selectRow(1)
        self.finish(self.ping(title="third"))
        self.assertEqual(self.panel.selected.title, "first")

    @slow
    def test_cancel(self):
        job = self.ping(60, count=100)
        self.waitUntil(lambda: job.isRunning, 20)
        self.panel.ui.cancelButton.click()
        self.finish(job)
        self.assertEqual(self.cell(0, 1), "Cancelled")
        self.assertTrue(self.panel.ui.messageLabel.isHidden())

    @slow
    def test_anErrorIsASentenceWithDetailsBelow(self):
        runner = self.context.runner
        files = {
            "input": "/nowhere.nii",
            "output": str(Path(tempfile.gettempdir(), "never-written.nii")),
        }
        job = runner.submit("convert", files, title="Convert nothing")
        self.finish(job)
        self.assertEqual(self.cell(0, 1), "Failed")
        self.assertIn("/nowhere.nii", self.panel.ui.messageLabel.text)
        self.assertNotIn("Traceback", self.panel.ui.messageLabel.text)
        self.assertTrue(self.panel.ui.traceButton.collapsed)
        self.assertIn("Traceback", self.panel.ui.traceEdit.plainText)
        self.assertNotIn("Traceback", self.panel.ui.logEdit.plainText)

    @slow
    def test_nothingOfAJobIsKeptOnTheDisk(self):
        """A job's title names a volume, and often the patient."""
        self.finish(self.ping(title="Enhance DOE^JANE"))
        slicer.app.userSettings().sync()
        settings = Path(slicer.app.slicerUserSettingsFilePath).parent
        kept = [path for path in settings.rglob("*") if path.is_file()]
        self.assertEqual([path for path in kept if b"JANE" in path.read_bytes()], [])
        panel = self.restart()
        self.assertEqual(panel.ui.jobTable.rowCount, 0)
        self.assertFalse(panel.ui.cancelButton.enabled)

    @slow
    def test_clearForgetsWhatEndedAndKeepsWhatRuns(self):
        self.finish(self.ping(title="old"))
        running = self.ping(30, count=100, title="running")
        self.waitUntil(lambda: running.isRunning, 20)
        self.panel.ui.clearButton.click()
        self.assertEqual(self.panel.ui.jobTable.rowCount, 1)
        self.assertEqual(self.cell(0, 0), "running")
        running.cancel()
        self.finish(running)

    @slow
    def test_reportAndFolderAreOpened(self):
        job = self.finish(self.ping())
        self.assertTrue(self.panel.ui.reportButton.isHidden())
        self.assertTrue(self.panel.ui.folderButton.isHidden())
        page = os.path.join(self.folder, "index.html")
        with open(page, "w", encoding="utf-8") as file:
            file.write("<p>report</p>")
        job.result = {"outputs": {"output": os.path.join(self.folder, "index.html")}}
        job.result["outputs"]["report"] = page
        self.panel.refresh()
        opened = []
        with mock.patch.object(jobs, "openPath", opened.append):
            self.panel.ui.reportButton.click()
            self.panel.ui.folderButton.click()
        self.assertEqual(opened, [page, self.folder])

    @slow
    def test_theAccountOfARecoveryIsNoReportToOpen(self):
        job = self.ping()
        job.onFinished(lambda job: job.result.update(report={"blocks": 120, "lost": [1, 2]}))
        self.finish(job)
        self.assertTrue(self.panel.ui.reportButton.isHidden())

    def test_longLinesAreWrapped(self):
        ui = self.panel.ui
        for edit in (ui.logEdit, ui.traceEdit, self.widget.ui.messageDetails):
            self.assertEqual(edit.lineWrapMode, qt.QPlainTextEdit.WidgetWidth)

    def ended(self, title, kind="ping", *, made="", **result):
        """A job that has ended, without the work; made: the name of a volume that came out."""
        job = Job(self.context.runner, kind, {}, title, None, None, False)
        job.state, job.started, job.ended, job.result = "done", 1.0, 2.0, result
        if made:
            job.nodes = {"output": self.smallVolume(name=made)}
        self.context.runner.jobs.append(job)
        self.addCleanup(self.context.runner.forget, job)
        return job

    def test_jobsOnOneVolumeDifferByTheirResult(self):
        for name in ("scan enhanced", "scan enhanced_1", ""):
            self.ended("Enhance scan", made=name)
        self.ended("Load scan", made="scan")
        self.panel.refresh()
        titles = [self.cell(row, 0) for row in range(4)]
        of = "Enhance scan → scan enhanced"
        self.assertEqual(titles, ["Load scan", "Enhance scan", f"{of}_1", of])
        self.panel.ui.jobTable.selectRow(2)
        self.assertIn("Result: scan enhanced_1", self.panel.ui.stateLabel.text)

    def test_theNewestIsSelectedWhenThePageOpens(self):
        self.ended("old")
        self.ended("new")
        self.panel.refresh()
        self.panel.ui.jobTable.selectRow(1)
        self.panel.refresh()
        self.assertEqual(self.panel.selected.title, "old")
        self.panel.enter()
        self.assertEqual(self.panel.selected.title, "new")

    @slow
    def test_theComputerIsChecked(self):
        self.panel.ui.checkButton.click()
        self.waitUntil(lambda: self.panel._check.isFinished, 60)
        self.assertIn("Computes on", self.panel.ui.computerLabel.text)
        self.assertTrue(self.panel.ui.checkButton.enabled)

    def test_nothingListensAfterCleanup(self):
        before = len(self.context.runner.listeners)
        panel = jobs.JobsPanel(self.context)
        panel.cleanup()
        self.assertEqual(len(self.context.runner.listeners), before)

    @slow
    def test_questionsAndPreviewsAreNotListed(self):
        self.finish(self.context.runner.submit("models", {"action": "list"}, title="Models"))
        self.assertEqual(self.panel.ui.jobTable.rowCount, 0)

        def before(job):
            yield 0.5
            job.params = {"input": "/no.ucv", "output": "/no.nrrd", "preview": True}

        runner = self.context.runner
        self.finish(runner.submit("decompress", {}, title="Preview", before=before))
        self.assertEqual(self.panel.ui.jobTable.rowCount, 0)

    @slow
    def test_aJobThatIsForgottenAtItsEndIsNotListed(self):
        job = self.ping(1.0, count=10)
        job.onFinished(self.context.runner.forget)
        self.waitUntil(lambda: job.isRunning, 20)
        self.assertEqual(self.panel.ui.jobTable.rowCount, 1)
        self.finish(job)
        self.assertEqual(self.panel.ui.jobTable.rowCount, 0)

    def test_durations(self):
        self.assertEqual(jobs.durationText(3.2), "3 s")
        self.assertEqual(jobs.durationText(125), "2 min 5 s")
        self.assertEqual(jobs.durationText(7380), "2 h 3 min")


class JobsScreenshotTest(MedEnhanceTestCase):
    @slow
    def test_screenshots(self):
        panel = self.widget.panels["jobs"]
        runner = self.context.runner
        for job in list(runner.jobs):
            runner.forget(job)
        self.widget.showPage("jobs")
        panel.refresh()
        self.screenshot(self.widget.parent, "jobs-empty", height=700)
        sample = self.widget.panels["load"].openSample(self.sampleOfOurs())
        self.waitUntil(lambda: sample.isFinished, 60)
        failed = self.widget.panels["load"].openPath(os.path.join(os.sep, "scans", "broken.nii"))
        self.waitUntil(lambda: failed.isFinished, 60)
        self.context.clearMessage()
        panel.refresh()  # an earlier test's end removed the panel's listeners
        panel.ui.jobTable.selectRow(0)
        self.screenshot(self.widget.parent, "jobs-ready", height=700)

    def sampleOfOurs(self):
        from MedEnhancePanels.tasks import samples

        return samples.SAMPLES[0]
