"""The page Distill: distillations of seconds, with the real worker, and what is asked before."""

import dataclasses
import os
import time
from pathlib import Path
from unittest import mock

import qt
import slicer
from distill_testing import HAS_TORCH, DistillTestCase
from medenhance_testing import slow

from MedEnhancePanels.pages import distill, distill_run
from MedEnhancePanels.tasks import distillation, long_run


class DistillingTestCase(DistillTestCase):
    KIND, TASK = "distill", "distillMR"

    def setUp(self):
        super().setUp()
        self.pick(self.ui.budgetSelector, "smoke")
        self.pick(self.ui.deviceSelector, "cpu")
        self.ui.imagesSpinBox.value = 2
        self.ui.nameEdit.text = "few"

    def begin(self):
        self.assertTrue(self.ui.startButton.enabled, self.ui.whyLabel.text)
        self.ui.startButton.click()
        return self.job()

    def newPanel(self):
        """As after Slicer was started again with the same scene."""
        slicer.util.reloadScriptedModule("MedEnhance")
        self.widget = slicer.util.getModuleWidget("MedEnhance")
        self.widget.enter()
        self.context, self.panel = self.widget.context, self.widget.panels["distill"]
        self.ui = self.panel.ui
        self.widget.showPage("distill")


class ChoiceTest(DistillingTestCase):
    def test_thePageSaysWhatDistillationIsAndAsksForWhatItTakes(self):
        from MedEnhanceLib.core.options import option_of
        from MedEnhanceLib.spg.config import DistillConfig

        self.cohort()
        ui = self.ui
        self.assertIn("does not prove", ui.noticeLabel.text)
        offered = [ui.methodSelector.itemData(at) for at in range(ui.methodSelector.count)]
        self.assertEqual(sorted(offered), sorted(option_of(DistillConfig, "method").choices))
        self.assertEqual((ui.imagesSpinBox.minimum, ui.imagesSpinBox.maximum), (1, 10_000))
        self.assertTrue(ui.startButton.enabled, ui.whyLabel.text)
        self.assertFitsAScreen()
        self.choose("trainMR")
        self.assertEqual(self.visible(ui.shareLabel, ui.roomButton, ui.tableButton), [])
        self.assertFalse(ui.goalSelector.enabled)
        self.assertFitsAScreen()

    def test_thePageSaysWhatWillBeShared(self):
        """Before anything starts, and for the method that is chosen."""
        self.cohort()
        ui = self.ui
        self.assertIn("101 numbers", ui.shareLabel.text)
        self.assertIn("no image of any of them", ui.shareLabel.text)
        self.assertEqual(ui.imagesLabel.text, "Images in all:")
        self.pick(ui.priorSelector, "representative")
        self.assertIn("who is a patient of the cohort", ui.shareLabel.text)
        self.assertIn("who can be recognized", ui.shareLabel.text)
        self.pick(ui.methodSelector, "matching")
        self.assertIn("2 images for each patient", ui.shareLabel.text)

    def test_aPatientAsTheTemplateIsAskedAboutFirst(self):
        self.cohort()
        self.pick(self.ui.priorSelector, "representative")
        with mock.patch("slicer.util.confirmOkCancelDisplay", return_value=False) as asked:
            self.ui.startButton.click()
        self.assertIn("show the anatomy of the most typical patient", asked.call_args.args[0])
        self.assertFalse(self.panel.runs.isRunning)
        self.assertEqual(os.listdir(self.root), [])

    def test_theChoicesAreKeptInTheSceneAndAreWhatTheJobTakes(self):
        from MedEnhanceLib.core.options import config_from_json
        from MedEnhanceLib.jobs.kinds.distill import DistillParams

        folder = self.temporaryFolder()
        table = os.path.join(folder, "patients.csv")
        with open(table, "w", encoding="utf-8") as file:
            file.write("patient,path\n")
        self.assertIn("Choose a folder of patients", self.ui.whyLabel.text)
        for path in (folder, table):
            self.ui.pathEdit.text = path
            self.assertEqual(self.ui.whyLabel.text, "")
        self.pick(self.ui.goalSelector, "sr2")
        with mock.patch.object(distill, "askForFile", return_value=table):
            self.pick(self.ui.priorSelector, "file")
        state = self.context.state
        self.assertEqual((state.distillCohort, state.distillPrior), (table, table))
        state.distillPreset = "cpu"
        self.assertEqual(self.ui.budgetSelector.currentData, "cpu")
        with mock.patch.object(self.context.runner, "submit") as submit:
            distillation.start(self.context.runner, self.root, self.panel.options)
        taken = config_from_json(DistillParams, submit.call_args.args[1])
        self.assertEqual((str(taken.cohort), taken.modality), (table, "MR"))
        self.assertEqual((taken.config.task, taken.config.prior), ("sr2", table))
        self.assertEqual(taken.config.images_per_patient, 2)

    def test_whatTheLibraryWouldRefuseIsReportedBeforeAnythingStarts(self):
        self.ui.pathEdit.text = self.temporaryFolder()
        self.choose("distillCT")
        self.assertIn("no public template for CT", self.ui.whyLabel.text)
        self.choose("distillMR")
        self.context.state.distillPrior = "/gone.nrrd"
        self.assertIn("The file of the template is missing", self.ui.whyLabel.text)
        self.assertFalse(self.ui.startButton.enabled)
        self.assertEqual(self.ui.startButton.toolTip, self.ui.whyLabel.text)


class EstimateTest(DistillingTestCase):
    def test_whatCanBeGainedIsMeasuredOnRequestForTheseChoicesAlone(self):
        self.cohort()
        submitted = []

        def submit(kind, params, **options):
            submitted.append(FakeJob(kind, params, options))
            return submitted[-1]

        sentence = "Full data would gain 0.3 dB over the public prior; statistics reach 60 % of it."
        with mock.patch.object(self.context.runner, "submit", submit):
            self.ui.roomButton.click()
            [job] = submitted
            self.assertEqual(job.kind, "distill-estimate")
            self.assertTrue(job.options["own"], "nobody waits behind it")
            self.assertIn("can take minutes", self.ui.roomLabel.text)
            self.assertFalse(self.ui.roomButton.enabled)
            job.end({"sentence": sentence, "advice": "statistics"})
            self.assertEqual(self.ui.roomLabel.text, sentence)
            self.picture("distill-estimate")
            self.ui.imagesSpinBox.value = 3
            self.assertEqual(self.visible(self.ui.roomLabel), [])
            self.ui.roomButton.click()
            self.ui.imagesSpinBox.value = 2
            self.assertEqual(submitted[-1].state, "cancelled")
        self.ui.nameEdit.text = " "
        self.assertFalse(self.ui.roomButton.enabled)


@dataclasses.dataclass
class FakeJob:
    """A job that ends when the test says so."""

    kind: str
    params: dict
    options: dict
    state, isFinished, error = "running", False, None

    def onFinished(self, callback):
        self._callback = callback

    def cancel(self):
        self.state = "cancelled"

    def end(self, result):
        self.state, self.isFinished, self.result = "done", True, result
        self._callback(self)


class DistillationTest(DistillingTestCase):
    def setUp(self):
        super().setUp()
        if not HAS_TORCH:
            self.skipTest("distillation needs torch")

    @slow
    def test_aDistillationIsPausedResumedInANewPageAndFinished(self):
        self.cohort(5)
        self.context.state.distillMethod = "matching"
        self.pick(self.ui.priorSelector, "representative")
        with mock.patch("slicer.util.confirmOkCancelDisplay", return_value=True):
            job = self.begin()
        self.waitUntil(lambda: job.metrics or job.isFinished, 120)
        self.assertTrue(any("the prior is patient" in each for each in job.warnings), job.warnings)
        self.picture("distill-running")
        self.pauseAfter(1)
        self.assertEqual(self.record()["state"], "paused")
        self.assertIn("paused", self.ui.resultLabel.text)
        self.assertTrue(self.ui.distilledArea.isHidden())
        self.newPanel()
        self.ui.resumeButton.click()
        job = self.job()
        self.waitUntil(lambda: job.isFinished, 180)
        self.assertEqual(job.state, "done", job.error)
        folder = self.runFolder()
        self.assertEqual(self.ui.imageGallery.count, 6)
        self.assertIn(
            "6 images from 3 patients; 2 patients were held out", self.ui.resultLabel.text
        )
        self.assertTrue(self.ui.auditLabel.text)
        self.assertIn("few is finished", self.widget.ui.messageLabel.text)
        self.assertNothingIdentifiesPatients(os.path.join(folder, "out"))
        names, _table = distill_run.curvesOf(long_run.Run.open(folder))
        self.assertIn("alignment of patient 1", names)
        self.assertTrue(self.ui.resumeArea.isHidden())
        self.picture("distill-done")
        self.checkThatThePatientIsShownToTheUserAlone(folder)

    def checkThatThePatientIsShownToTheUserAlone(self, folder):
        self.assertFalse(os.path.exists(os.path.join(folder, "out", "prior")))
        self.assertIn(os.path.join(folder, "out-confidential"), self.ui.resultLabel.text)
        with mock.patch.object(qt.QDesktopServices, "openUrl") as opened:
            self.ui.resultButton.click()
        opened.assert_called_once_with(qt.QUrl.fromLocalFile(os.path.join(folder, "out")))

    def assertNothingIdentifiesPatients(self, folder):
        """No file of a result has a patient's name, in its name or in its bytes."""
        for place, _folders, files in os.walk(folder):
            for name in files:
                with open(os.path.join(place, name), "rb") as file:
                    content = file.read()
                self.assertNotIn("Patient ", os.path.join(place, name))
                self.assertFalse(b"Patient " in content, os.path.join(place, name))


class AuditTest(DistillingTestCase):
    def finished(self, audit, figures=None):
        """A run that a worker finished, with this audit, and the figures of its attacks."""
        from MedEnhanceLib.io.atomic import write_json

        run = long_run.Run.create(self.root, self.panel.options)
        run.record |= {"state": "done", "seconds": time.time() % 1}
        run.save()
        picture = qt.QImage(32, 32, qt.QImage.Format_Grayscale16)
        picture.fill(qt.Qt.gray)
        for name in ("images/0000.png", "images/0001.png"):
            os.makedirs(os.path.dirname(os.path.join(run.out, name)), exist_ok=True)
            self.assertTrue(picture.save(os.path.join(run.out, name)))
        manifest = {"images": 4, "patients": 2, "held_out": 2, "audit": audit}
        write_json(Path(run.out) / "manifest.json", manifest, overwrite=False)
        if figures is not None:
            os.makedirs(os.path.join(run.out, "audit"))
            write_json(Path(run.out) / "audit" / "audit.json", figures, overwrite=False)
        self.panel.runs.recall(run.folder)
        return run

    def test_theAuditIsReportedInPlainWordsAndAnAlarmIsAWarning(self):
        summary = "ALARM: the images give away their patients (copies).\n\n- **Copies** ALARM. 3."
        self.finished({"alarm": True, "summary": summary})
        self.assertEqual(self.ui.imageGallery.count, 2)
        self.assertVerdict("Alarm", "Leak found: do not share", "missed other leaks")
        self.picture("distill-alarm")
        self.finished({"alarm": False, "summary": "No leak detected."})
        self.assertVerdict("Warning", "These attacks found no leak", "no proof")
        self.finished({"alarm": None, "summary": "Not audited: too few."})
        self.assertVerdict("Warning", "Not audited", "as the patients' own")
        self.finished({})
        self.assertVerdict("Warning", "Not audited", "as the patients' own")

    def test_aCleanAuditHasTheWeightOfWhatItCouldHaveFound(self):
        for blind, word, text in (
            (1, "Information", "by the 4 of 7 attacks"),
            (3, "Warning", "by the 2 of 7 attacks"),
            (5, "Warning", "none of 7 attacks"),
        ):
            findings = [{"is_blind": place < blind} for place in range(5)]
            figures = {"findings": findings, "not_run": [{}, {}]}
            self.finished({"alarm": False, "summary": "No leak."}, figures)
            self.assertVerdict(word, text)

    def assertVerdict(self, word, *texts):
        self.assertEqual(self.ui.auditIcon.accessibleName, word)
        for text in texts:
            self.assertIn(text, self.ui.auditLabel.text.replace("&#x27;", "'"))
