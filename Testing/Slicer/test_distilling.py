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

#: Places of the entries of selectors.
_SMOKE, _CPU = 2, 1
_FILE_PRIOR, _PATIENT_PRIOR = 1, 2


class DistillingTestCase(DistillTestCase):
    KIND, TASK = "distill", "distill"

    def setUp(self):
        super().setUp()
        self.ui.budgetSelector.currentIndex = _SMOKE
        self.ui.deviceSelector.currentIndex = _CPU
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
    @slow
    def test_thePageSaysWhatDistillationIsAndAsksForWhatItTakes(self):
        self.cohort()
        self.assertIn("does not prove", self.ui.noticeLabel.text)
        ui = self.ui
        ui.advancedSection.collapsed = False
        self.addCleanup(setattr, ui.advancedSection, "collapsed", True)
        taken = (ui.methodSelector, ui.priorSelector, ui.licenceEdit)
        self.assertEqual(self.visible(*taken, ui.highEdit), [*taken])
        self.assertTrue(ui.goalSelector.enabled)
        ends = [
            (box.minimum, box.maximum) for box in (self.ui.imagesSpinBox, self.ui.heldOutSpinBox)
        ]
        self.assertEqual(ends, [(1, 10_000), (0, 90)])  # as DistillConfig declares them
        self.assertTrue(self.ui.startButton.enabled, self.ui.whyLabel.text)
        self.choose("trainMR")
        self.assertEqual(self.visible(*taken, ui.highEdit), [ui.highEdit])
        self.assertFalse(ui.goalSelector.enabled)

    def test_thePageSaysWhatWillBeShared(self):
        """Before anything starts, and for the method that is chosen."""
        from MedEnhanceLib.core.options import option_of
        from MedEnhanceLib.spg.config import DistillConfig

        declared = option_of(DistillConfig, "method")
        offered = [self.ui.methodSelector.itemData(n) for n in range(len(declared.choices))]
        self.assertEqual(offered, list(declared.choices))
        self.assertEqual(self.ui.methodSelector.toolTip, declared.description)
        self.cohort()
        self.assertEqual(self.context.state.distillMethod, "statistics")
        self.ui.methodSelector.currentIndex = offered.index("matching")
        self.assertIn("2 images for each patient", self.ui.shareLabel.text)
        self.ui.methodSelector.currentIndex = offered.index("statistics")
        self.assertEqual(self.panel.options.fields()["method"], "statistics")
        self.assertIn("101 numbers", self.ui.shareLabel.text)
        self.assertIn("no image of any of them", self.ui.shareLabel.text)
        self.assertEqual(self.ui.imagesLabel.text, "Images in all:")
        self.ui.priorSelector.currentIndex = _PATIENT_PRIOR
        self.assertNotIn("no image of any of them", self.ui.shareLabel.text)
        self.assertIn("who is a patient of the cohort", self.ui.shareLabel.text)
        self.choose("trainMR")
        self.assertEqual(self.visible(self.ui.shareLabel, self.ui.roomButton), [])

    def test_eachHalfFitsAScreen(self):
        self.cohort()
        for task in ("distill", "trainMR"):
            self.choose(task)
            self.assertFitsAScreen()

    def test_aPatientAsThePriorIsAskedAboutFirst(self):
        self.cohort()
        self.ui.priorSelector.currentIndex = _PATIENT_PRIOR
        self.assertIn("who can be recognized", self.ui.warningLabel.text)
        with mock.patch("slicer.util.confirmOkCancelDisplay", return_value=False) as asked:
            self.ui.startButton.click()
        self.assertIn("show the anatomy of the most typical patient", asked.call_args.args[0])
        self.assertFalse(self.panel.runs.isRunning)
        self.assertEqual(os.listdir(self.root), [])

    def test_theChoicesAreKeptInTheScene(self):
        self.ui.goalSelector.currentIndex = 1
        self.ui.priorSelector.currentIndex = _FILE_PRIOR
        self.assertEqual(self.visible(self.ui.priorFileEdit), [])
        self.ui.heldOutSpinBox.value = 30
        self.ui.pathEdit.text = "/patients.csv"
        self.ui.patternEdit.text = "T1*"
        state = self.context.state
        kept = (state.distillTask, state.distillGoal, state.distillPrior, state.distillImages)
        self.assertEqual(kept, ("distill", "sr2", "file", 2))
        self.assertEqual(state.distillHeldOut, 0.3)
        self.assertEqual((state.distillCohort, state.distillPattern), ("/patients.csv", "T1*"))
        self.ui.licenceEdit.text = " CC BY 4.0 "
        self.assertEqual(self.panel.options.fields()["licence"], "CC BY 4.0")
        state.distillHeldOut = 0.5
        self.assertEqual(self.ui.heldOutSpinBox.value, 50)

    def test_patientsMayLieInAFolderOrATable(self):
        from MedEnhanceLib.core.options import config_from_json
        from MedEnhanceLib.jobs.kinds.distill import DistillParams
        from MedEnhancePanels.tasks import distillation
        from MedEnhancePanels.tasks.distillation import Prior

        self.assertIn("Choose a folder of patients", self.ui.whyLabel.text)
        folder = self.temporaryFolder()
        table = os.path.join(folder, "patients.csv")
        with open(table, "w", encoding="utf-8") as file:
            file.write("patient,path\n")
        for path in (table, folder):
            self.ui.pathEdit.text = path
            self.assertEqual(self.ui.whyLabel.text, "")
        self.ui.modalitySelector.currentIndex = 1
        with mock.patch.object(self.context.runner, "submit") as submit:
            distillation.start(
                self.context.runner, self.root, self.panel.cohort, Prior(), self.panel.options
            )
        taken = config_from_json(DistillParams, submit.call_args.args[1])
        self.assertEqual((str(taken.cohort), taken.modality), (folder, "MR"))
        self.assertEqual((taken.config.prior, taken.config.images_per_patient), ("template", 2))

    def test_whatTheLibraryWouldRefuseIsReportedBeforeAnythingStarts(self):
        self.ui.pathEdit.text = self.temporaryFolder()
        self.ui.modalitySelector.currentIndex = 2
        self.assertIn("no public template for CT", self.ui.whyLabel.text)
        self.ui.goalSelector.currentIndex = 3
        self.assertIn("applies to MR only", self.ui.whyLabel.text)
        self.ui.modalitySelector.currentIndex = 0
        self.ui.priorSelector.currentIndex = _FILE_PRIOR
        self.assertIn("Choose the prior's file", self.ui.whyLabel.text)
        self.assertIn("show the prior's anatomy", self.ui.warningLabel.text)
        self.assertFalse(self.ui.startButton.enabled)
        self.assertEqual(self.ui.startButton.toolTip, self.ui.whyLabel.text)

    def test_aRunOfAnotherProcessIsNotResumed(self):
        from MedEnhanceLib.io.atomic import write_json
        from MedEnhanceLib.spg.folder import RunFolder
        from MedEnhancePanels.tasks import long_run

        run = long_run.Run.create(self.root, self.panel.options, "distill")
        run.record |= {"state": "running", "params": {"cohort": "x", "out": run.out}}
        run.save()
        recorded = {"patients": 4, "steps": 12, "config": {"task": "denoise"}, "modality": "MR"}
        with RunFolder(Path(run.out)).owned(overwrite=False):
            write_json(Path(run.out) / "work" / "run.json", recorded, overwrite=False)
            self.panel.runs.list()
            self.waitUntil(lambda: self.ui.statusLabel.text, 20)
            self.assertIn("0 % done: 0 of 4 patients", self.ui.statusLabel.text)
            self.assertIn("Another process", self.ui.statusLabel.text)
            self.assertFalse(self.ui.resumeButton.enabled)
        self.panel.runs.list()
        self.waitUntil(lambda: self.ui.statusLabel.text, 20)
        self.assertNotIn("Another process", self.ui.statusLabel.text)
        self.assertTrue(self.ui.resumeButton.enabled)


class EstimateTest(DistillingTestCase):
    def test_whatCanBeGainedIsMeasuredOnRequestForTheseChoicesAlone(self):
        self.cohort()
        submitted = []

        def submit(kind, params, **options):
            submitted.append(FakeJob(kind, params, options))
            return submitted[-1]

        sentence = "Full data would gain 0.3 dB over the public prior; statistics reach 60 % of it."
        with mock.patch.object(self.context.runner, "submit", submit):
            self.assertTrue(self.ui.roomButton.enabled)
            self.ui.roomButton.click()
            [job] = submitted
            self.assertEqual(job.kind, "distill-estimate")
            self.assertTrue(job.options["own"], "nobody waits behind it")
            self.assertIn("can take minutes", self.ui.roomLabel.text)
            job.end({"sentence": sentence, "advice": "statistics"})
            self.assertEqual(self.ui.roomLabel.text, sentence)
            self.picture("distill-room")
            self.ui.imagesSpinBox.value = 3
            self.assertEqual(self.visible(self.ui.roomLabel), [])
            self.ui.roomButton.click()
            self.assertEqual(self.ui.roomButton.text, "Stop the estimate")
            self.ui.roomButton.click()
            self.assertEqual(submitted[-1].state, "cancelled")
            self.assertEqual(self.visible(self.ui.roomLabel), [])
            self.assertEqual(self.ui.roomButton.text, "Estimate what can be gained")
        self.ui.nameEdit.text = " "
        self.assertFalse(self.ui.roomButton.enabled)


@dataclasses.dataclass
class FakeJob:
    """A job that ends when the test says so."""

    kind: str
    params: dict
    options: dict
    state = "running"

    def onFinished(self, callback):
        self._callback = callback

    def cancel(self):
        self.state = "cancelled"

    def end(self, result):
        self.state, self.result = "done", result
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
        self.ui.priorSelector.currentIndex = _PATIENT_PRIOR
        with mock.patch("slicer.util.confirmOkCancelDisplay", return_value=True):
            job = self.begin()
        self.waitUntil(lambda: job.metrics or job.isFinished, 120)
        self.assertIn("The prior is patient", self.ui.newsLabel.text)
        self.picture("distill-running")
        self.pauseAfter(1)
        self.assertEqual(self.record()["state"], "paused")
        self.assertIn("paused", self.ui.resultLabel.text)
        self.assertTrue(self.ui.distilledArea.isHidden())
        self.newPanel()
        self.waitUntil(lambda: self.ui.statusLabel.text, 30)
        self.assertRegex(self.ui.statusLabel.text, r"\d+ % done: \d of 3 patients")
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
        self.assertGreater(len(self.panel.runs.plot.values("alignment of patient 1")), 1)
        self.assertTrue(self.ui.resumeArea.isHidden())
        self.picture("distill-done")
        self.checkThatThePatientIsShownToTheUserAlone(folder)

    def checkThatThePatientIsShownToTheUserAlone(self, folder):
        self.assertFalse(os.path.exists(os.path.join(folder, "out", "prior")))
        self.assertEqual(self.ui.priorGallery.count, 2)
        self.assertIn("shows a patient", self.ui.priorTitle.text)
        self.ui.confidentialButton.click()
        self.assertIn(os.path.join(folder, "out-confidential"), self.widget.ui.messageLabel.text)
        with mock.patch("MedEnhancePanels.pages.distill_run.openPath") as opened:
            self.ui.resultButton.click()
        opened.assert_called_once_with(os.path.join(folder, "out"))

    def assertNothingIdentifiesPatients(self, folder):
        """No file of a result has a patient's name, in its name or in its bytes."""
        for place, _folders, files in os.walk(folder):
            for name in files:
                with open(os.path.join(place, name), "rb") as file:
                    content = file.read()
                self.assertNotIn("Patient ", os.path.join(place, name))
                self.assertFalse(b"Patient " in content, os.path.join(place, name))


class WarningTest(DistillingTestCase):
    def test_aWarningOfARunIsShownOnce(self):
        from MedEnhancePanels.tasks import long_run

        self.cohort()
        run = long_run.Run.create(self.root, self.panel.options, "distill")
        run.record["params"] = {"cohort": "x", "out": run.out}
        job = self.context.runner.submit("ping", {"count": 200, "seconds": 60}, title="Ping")
        self.panel.runs.begin(long_run.LongRun(run, job))
        job.keepLog("reading patients")
        for warning in ("patient-001 has few slices", "the GPU is busy."):
            self.context.runner._onWarning(job, {"message": warning})
        newest, *warnings = self.ui.newsLabel.text.splitlines()
        self.assertEqual(newest, "reading patients")
        self.assertEqual(warnings, ["Patient-001 has few slices.", "The GPU is busy."])
        job.cancel()
        self.waitUntil(lambda: job.isFinished, 20)


class AuditTest(DistillingTestCase):
    def finished(self, audit, figures=None):
        """A run that a worker finished, with this audit, and the figures of its attacks."""
        from MedEnhanceLib.io.atomic import write_json
        from MedEnhancePanels.tasks import long_run

        run = long_run.Run.create(self.root, self.panel.options, "distill")
        run.record |= {"state": "done", "seconds": time.time() % 1}
        run.save()
        picture = qt.QImage(32, 32, qt.QImage.Format_Grayscale16)
        picture.fill(qt.Qt.gray)
        for name in ("prior/0000.png", "images/0000.png", "images/0001.png"):
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
        run = self.finished({"alarm": True, "summary": summary})
        self.assertEqual((self.ui.priorGallery.count, self.ui.imageGallery.count), (1, 2))
        self.assertEqual(self.ui.priorTitle.text, "Prior")
        self.assertFalse(self.ui.confidentialButton.enabled)
        self.assertVerdict("red", "Leak found: do not share", "missed other leaks")
        self.assertEqual(self.warnedOf(run), "warning")
        self.picture("distill-alarm")
        run = self.finished({"alarm": False, "summary": "No leak detected."})
        self.assertVerdict("amber", "These attacks found no leak", "no proof")
        self.assertEqual(self.warnedOf(run), "info")
        run = self.finished({"alarm": None, "summary": "Not audited: too few."})
        self.assertVerdict("gray", "Not audited", "as the patients' own")
        self.assertEqual(self.warnedOf(run), "warning")
        self.finished({})
        self.assertVerdict("gray", "Not audited", "as the patients' own")

    def test_aCleanAuditHasTheColorOfWhatItCouldHaveFound(self):
        for blind, color, text in (
            (1, "green", "by the 4 of 7 attacks"),
            (3, "amber", "by the 2 of 7 attacks"),
            (5, "gray", "none of 7 attacks"),
        ):
            findings = [{"is_blind": place < blind} for place in range(5)]
            figures = {"findings": findings, "not_run": [{}, {}]}
            self.finished({"alarm": False, "summary": "No leak."}, figures)
            self.assertVerdict(color, text)

    def assertVerdict(self, color, *texts):
        from MedEnhancePanels.pages.widgets import COLORS

        self.assertIn(COLORS[color], self.ui.auditFrame.styleSheet)
        for text in texts:
            self.assertIn(text, self.ui.auditLabel.text.replace("&#x27;", "'"))

    def warnedOf(self, run):
        """How the end of the run is reported."""
        with mock.patch.object(self.context, "_showMessage") as show:
            self.panel.runs._reportDistilled(run)
        return show.call_args.args[0]
