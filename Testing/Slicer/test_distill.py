"""The page Distill: trainings of seconds, with the real worker, paused, resumed and finished."""

import os

import numpy as np
import slicer
from distill_testing import HAS_TORCH, DistillTestCase
from medenhance_testing import slow


class PageTest(DistillTestCase):
    def test_anEmptyPageSaysWhatItDoesAndWhatIsMissing(self):
        self.assertIn("Trains an enhancer", self.ui.noticeLabel.text)
        self.assertFalse(self.ui.startButton.enabled)
        self.assertIn("Choose the folder", self.ui.whyLabel.text)
        self.assertEqual(self.ui.startButton.toolTip, self.ui.whyLabel.text)
        self.assertTrue(self.ui.resumeArea.isHidden())
        self.picture("distill-empty")

    def test_theChoicesAreKeptInTheScene(self):
        self.chooseBudget()
        self.choose("trainCT")
        state = self.context.state
        self.assertEqual(
            (state.distillTask, state.distillPreset, state.distillName),
            ("trainCT", "smoke", "tiny"),
        )
        state.distillPreset = "full"
        self.assertEqual(self.ui.budgetSelector.currentData, "full")

    def test_aDamagedRecordIsReportedAndHidesNoOtherRun(self):
        from MedEnhancePanels.errors import PanelError
        from MedEnhancePanels.tasks import long_run

        for name, text in (("a", "{"), ("b", "{}")):
            os.makedirs(os.path.join(self.root, name))
            with open(os.path.join(self.root, name, "run.json"), "w", encoding="utf-8") as file:
                file.write(text)
            with self.assertRaisesRegex(PanelError, "no readable run"):
                long_run.Run.open(os.path.join(self.root, name))
        self.assertEqual(long_run.runsIn(self.root), [])

    def test_aLineOfLossesThatWasCutShortIsLeftOut(self):
        from MedEnhancePanels.tasks import long_run

        run = long_run.Run.create(self.root, self.panel.options)
        run.keepMetric("cycle", 0.5, 20)
        with open(os.path.join(run.folder, "metrics.csv"), "a", encoding="utf-8") as file:
            file.write("40,cyc\n\0\0\n")
        run.keepMetric("cycle", 0.25, 60)
        self.assertEqual(run.metrics(), [("cycle", 0.5, 20), ("cycle", 0.25, 60)])

    def test_aRunThatNobodyEndedIsOfferedAsInterrupted(self):
        from MedEnhancePanels.tasks import long_run

        run = long_run.Run.create(self.root, self.panel.options)
        run.save()
        self.assertEqual(long_run.runsIn(self.root), [], "it does not say yet what it works on")
        run.record |= {"state": "running", "params": {"data": "data", "out": "out"}}
        run.save()
        self.widget.exit()
        self.widget.enter()
        self.assertFalse(self.ui.resumeArea.isHidden())
        self.assertIn("interrupted", self.ui.runSelector.currentText)


class CurveTest(DistillTestCase):
    def test_lossesBecomeATableASeriesEachAndAChart(self):
        from MedEnhancePanels.pages.distill_run import curvesOf
        from MedEnhancePanels.tasks import long_run

        run = long_run.Run.create(self.root, self.panel.options)
        run.save()
        for step, value in ((0, 1.0), (20, 0.5), (40, 0.25)):
            run.keepMetric("cycle", value, step)
        run.keepMetric("adversarial", 3.0, 40)
        run.keepMetric("cycle", 0.4, 20)  # a run that went back to its checkpoint
        names, table = curvesOf(run)
        self.assertEqual(names, ["cycle", "adversarial"])
        np.testing.assert_array_equal(table[:, 0], [0, 20, 40])
        np.testing.assert_array_equal(table[:, 1], [1.0, 0.4, 0.25])
        np.testing.assert_array_equal(table[:, 2], [np.nan, np.nan, 3.0])
        self.panel.runs.recall(run.folder)
        self.ui.plotButton.click()
        chart = self.panel.runs.plot["chart"]
        self.assertEqual(chart.GetNumberOfPlotSeriesNodes(), 2)
        self.assertEqual(chart.GetNthPlotSeriesNode(0).GetYColumnName(), "cycle")
        self.assertEqual(
            slicer.app.applicationLogic().GetSelectionNode().GetActivePlotChartID(), chart.GetID()
        )
        count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode")
        self.ui.plotButton.click()
        after = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLPlotSeriesNode")
        self.assertEqual(after, count, "the same nodes")


class TrainingTest(DistillTestCase):
    def setUp(self):
        super().setUp()
        if not HAS_TORCH:
            self.skipTest("trainings need torch")

    def errors(self):
        """Steps and errors that the run has measured."""
        from MedEnhancePanels.pages.distill_run import curvesOf
        from MedEnhancePanels.tasks import long_run

        names, table = curvesOf(long_run.Run.open(self.runFolder()))
        return table[:, [0, 1 + names.index("error")]]

    @slow
    def test_aRunIsPausedResumedInANewPageAndFinished(self):
        self.context.runner.shutdown()  # the next worker knows this test's folder of models
        self.cohort()
        job = self.start(steps=150)
        self.assertTrue(self.ui.pauseButton.enabled and not self.ui.pauseButton.isHidden())
        self.waitUntil(lambda: job.metrics, 120)
        self.picture("train-running")
        self.pauseAfter(2)
        folder = self.runFolder()
        self.assertEqual(self.record()["state"], "paused")
        self.assertTrue(os.path.isfile(os.path.join(folder, "out", "checkpoint.safetensors")))
        self.assertIn("paused", self.ui.resultLabel.text)
        self.picture("train-paused")
        before = self.errors()

        slicer.util.reloadScriptedModule("MedEnhance")
        self.widget = slicer.util.getModuleWidget("MedEnhance")
        self.widget.enter()
        self.context, self.panel = self.widget.context, self.widget.panels["distill"]
        self.ui = self.panel.ui
        self.widget.showPage("distill")
        self.assertIn("paused", self.ui.resultLabel.text)
        self.assertTrue(self.ui.resumeButton.enabled)
        self.ui.resumeButton.click()
        job = self.job()
        self.waitUntil(lambda: job.isFinished, 180)
        self.assertEqual(job.state, "done", job.error)
        self.assertTrue(any("resumed at step" in line for line in job.log), job.log)
        self.assertEqual(self.runFolder(), folder)
        values = self.errors()
        np.testing.assert_array_equal(values[: len(before)], before)
        np.testing.assert_array_equal(values[:, 0], [0, 50, 100, 149])
        self.assertEqual(self.record()["state"], "done")
        self.waitUntil(lambda: os.path.isdir(os.path.join(self.models, "tiny")), 60)
        self.waitUntil(lambda: "Choose it on the page" in self.widget.ui.messageLabel.text, 30)
        self.picture("train-done")
        self.assertTrue(self.ui.resumeArea.isHidden())

    @slow
    def test_aCancelledRunIsNotOfferedAgain(self):
        self.cohort()
        job = self.start()
        self.waitUntil(lambda: job.metrics, 120)
        self.ui.cancelButton.click()
        self.waitUntil(lambda: job.isFinished, 60)
        self.assertEqual(self.record()["state"], "cancelled")
        self.assertIn("cancelled", self.ui.resultLabel.text)
        self.assertTrue(self.ui.resumeArea.isHidden())
        self.assertTrue(self.ui.startButton.enabled)
        from MedEnhancePanels.errors import PanelError
        from MedEnhancePanels.tasks import long_run

        with self.assertRaisesRegex(PanelError, "cannot be resumed"):
            long_run.resume(self.context.runner, self.runFolder())

    @slow
    def test_closingTheSceneDisturbsNoRunAndTheFolderIsFoundAgain(self):
        self.cohort()
        job = self.start()
        self.waitUntil(lambda: job.metrics, 120)
        folder = self.runFolder()
        slicer.mrmlScene.Clear(0)
        self.processEvents(100)
        self.assertFalse(job.isFinished)
        self.assertTrue(self.ui.pauseButton.enabled and not self.ui.pauseButton.isHidden())
        self.ui.rootEdit.text = self.root
        self.ui.plotButton.click()
        self.assertIn("chart", self.panel.runs.plot)
        self.pauseAfter(1)
        self.assertEqual(self.ui.runSelector.count, 1)
        self.assertEqual(self.ui.runSelector.itemData(0), folder)

    @slow
    def test_whatFailsSaysWhyAndStaysResumable(self):
        data = self.temporaryFolder()
        os.mkdir(os.path.join(data, "hq"))
        with open(os.path.join(data, "hq", "broken.nrrd"), "w", encoding="utf-8") as file:
            file.write("nothing")
        self.ui.pathEdit.text = data
        job = self.start(steps=10)
        self.waitUntil(lambda: job.isFinished, 60)
        self.assertEqual(job.state, "failed")
        self.assertIn("broken.nrrd", self.widget.ui.messageLabel.text)
        self.assertIn("broken.nrrd", self.ui.resultLabel.text)
        self.assertEqual(self.record()["state"], "failed")
        self.assertEqual(self.ui.runSelector.count, 1)

    def test_oneRunAtATime(self):
        self.cohort()
        self.start()
        self.assertFalse(self.ui.startButton.enabled)
        from MedEnhancePanels.errors import PanelError
        from MedEnhancePanels.tasks import distillation

        with self.assertRaisesRegex(PanelError, "is in progress"):
            distillation.start(self.context.runner, self.root, self.panel.options)
        self.ui.cancelButton.click()
        self.waitUntil(lambda: self.job().isFinished, 10)
