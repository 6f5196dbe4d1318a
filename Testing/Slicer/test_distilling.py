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
_SCENE_PRIOR, _FILE_PRIOR, _PATIENT_PRIOR = 1, 2, 3


class DistillingTestCase(DistillTestCase):
    KIND, TASK = "distill", "distill"

    def setUp(self):
        super().setUp()
        # Estimates start processes of their own; they are tested apart.
        self.panel._estimate._settle.setInterval(3_600_000)
        self.ui.budgetSelector.currentIndex = _SMOKE
        self.ui.deviceSelector.currentIndex = _CPU
        self.ui.imagesSpinBox.value = 2
        self.ui.nameEdit.text = "few"

    def cohort(self, count=4, first=0):
        seeds = range(first, first + count)
        nodes = [self.brain(f"T1 of {seed}", f"Patient {seed}", seed) for seed in seeds]
        self.waitUntil(lambda: self.ui.cohortTable.rowCount == count, 5)
        return nodes

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
        self.panel._estimate._settle.setInterval(3_600_000)
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
        self.assertIn("4 patients, 4 volumes", self.ui.cohortLabel.text)
        self.assertEqual(self.ui.cohortTable.cellWidget(0, 2).currentText, "Distill")
        self.choose("trainMR")
        self.assertEqual(self.visible(*taken, ui.highEdit), [ui.highEdit])
        self.assertFalse(ui.goalSelector.enabled)
        self.assertEqual(self.ui.cohortTable.cellWidget(0, 2).currentText, "Good")

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

    @slow
    def test_volumesOfNobodyAreRefusedOrLeftOut(self):
        self.cohort()
        nobodys = self.smallVolume(name="nobody's")
        self.waitUntil(lambda: self.ui.cohortTable.rowCount == 5, 5)
        self.assertIn("4 patients", self.ui.cohortLabel.text)
        nobodys.SetAttribute("MedEnhance.distillAs", "use")
        self.panel.exit()
        self.panel.enter()
        self.assertFalse(self.ui.startButton.enabled)
        self.assertIn("nobody's: the patient is not known", self.ui.whyLabel.text)

    @slow
    def test_whatTheLibraryWouldRefuseIsReportedBeforeAnythingStarts(self):
        node = self.cohort()[0]
        self.context.state.distillMethod = "matching"
        self.ui.imagesSpinBox.value = 10
        self.assertIn("Patient 0 has 8 slices; at least 10", self.ui.whyLabel.text)
        self.ui.imagesSpinBox.value = 2
        self.ui.modalitySelector.currentIndex = 2
        self.assertIn("no public template for CT", self.ui.whyLabel.text)
        self.ui.goalSelector.currentIndex = 3
        self.assertIn("applies to MR only", self.ui.whyLabel.text)
        self.ui.modalitySelector.currentIndex = 0
        node.SetAttribute("MedEnhance.modality", "CT")
        self.panel.enter()
        self.assertIn("neither all MR nor all CT", self.ui.whyLabel.text)
        self.assertFalse(self.ui.startButton.enabled)
        self.assertEqual(self.ui.startButton.toolTip, self.ui.whyLabel.text)

    def test_aPriorOfTheCohortHasToBeDeclared(self):
        """So that the audit knows whom the images show."""
        nodes = self.cohort()
        self.ui.priorSelector.currentIndex = _SCENE_PRIOR
        self.assertIn("Choose the prior's volume", self.ui.whyLabel.text)
        self.ui.priorVolumeSelector.setCurrentNode(nodes[1])
        self.assertIn("choose “A patient of the cohort”", self.ui.whyLabel.text)
        self.ui.cohortTable.cellWidget(1, 2).currentIndex = 1
        self.assertEqual(self.ui.whyLabel.text, "")
        self.assertIn("show the prior's anatomy", self.ui.cohortLabel.text)
        self.ui.priorSelector.currentIndex = _FILE_PRIOR
        self.assertIn("Choose the prior's file", self.ui.whyLabel.text)

    def test_aPatientAsThePriorIsAskedAboutFirst(self):
        self.cohort()
        self.ui.priorSelector.currentIndex = _PATIENT_PRIOR
        self.assertIn("Choose the patient", self.ui.whyLabel.text)
        self.ui.priorPatientSelector.setEditText("Patient 2")
        self.assertIn("who can be recognized", self.ui.cohortLabel.text)
        with mock.patch("slicer.util.confirmOkCancelDisplay", return_value=False) as asked:
            self.ui.startButton.click()
        self.assertIn("show the anatomy of patient Patient 2", asked.call_args.args[0])
        self.assertFalse(self.panel.runs.isRunning)
        self.assertEqual(os.listdir(self.root), [])

    def test_theChoicesAreKeptInTheScene(self):
        node = self.smallVolume(name="public")
        self.ui.goalSelector.currentIndex = 1
        self.ui.priorSelector.currentIndex = _SCENE_PRIOR
        self.ui.priorVolumeSelector.setCurrentNode(node)
        self.ui.heldOutSpinBox.value = 30
        self.ui.folderButton.checked = True
        self.ui.pathEdit.text = "/patients.csv"
        self.ui.patternEdit.text = "T1*"
        state = self.context.state
        kept = (state.distillTask, state.distillGoal, state.distillPrior, state.distillImages)
        self.assertEqual(kept, ("distill", "sr2", "scene", 2))
        self.assertIs(state.distillPriorVolume, node)
        self.assertEqual(state.distillHeldOut, 0.3)
        self.assertEqual((state.distillCohort, state.distillPattern), ("/patients.csv", "T1*"))
        self.ui.licenceEdit.text = " CC BY 4.0 "
        self.assertEqual(self.panel.options.fields()["licence"], "CC BY 4.0")
        state.distillHeldOut = 0.5
        self.assertEqual(self.ui.heldOutSpinBox.value, 50)

    def test_patientsMayLieInAFolderOrATable(self):
        self.ui.folderButton.checked = True
        self.assertIn("Choose a folder of patients", self.ui.whyLabel.text)
        folder = self.temporaryFolder()
        table = os.path.join(folder, "patients.csv")
        with open(table, "w", encoding="utf-8") as file:
            file.write("patient,path\n")
        for path in (table, folder):
            self.ui.pathEdit.text = path
            self.assertEqual(self.ui.whyLabel.text, "")
        self.ui.modalitySelector.currentIndex = 1
        params = self.paramsOf(self.panel.cohort)
        self.assertEqual(params["cohort"], folder)
        self.assertEqual(params["modality"], "MR")
        self.assertEqual(params["config"]["prior"], "template")

    def test_aRunThatWasMovedFindsItsCohortAndItsPrior(self):
        from MedEnhancePanels.tasks import long_run

        run = long_run.Run.create(self.root, self.panel.options, "distill")
        old = os.path.join(self.root, "old")
        params = {
            "cohort": os.path.join(old, "data"),
            "out": os.path.join(old, "out"),
            "config": {"prior": os.path.join(old, "prior", "prior.nrrd")},
        }
        run.record |= {"state": "paused", "params": params}
        run.save()
        with mock.patch.object(long_run, "begin") as begin:
            long_run.resume(self.context.runner, run.folder)
        settled = begin.call_args.args[1].record["params"]
        self.assertEqual(settled["cohort"], os.path.join(run.folder, "data"))
        self.assertEqual(settled["out"], os.path.join(run.folder, "out"))
        self.assertEqual(
            settled["config"]["prior"], os.path.join(run.folder, "prior", "prior.nrrd")
        )

    def test_messagesNameThePatientsOfTheScene(self):
        from MedEnhancePanels.tasks import distillation, long_run

        self.cohort()
        params = self.paramsOf(self.panel.cohort)
        run = long_run.Run.open(os.path.dirname(params["out"]))
        said = distillation.withNames(run, "patient patient-001 and patient-003: one; patient-009")
        self.assertEqual(said, "patient Patient 1 and Patient 3: one; patient-009")
        other = long_run.Run.create(self.root, self.panel.options, "distill")
        self.assertEqual(distillation.withNames(other, "patient-001"), "patient-001")

    def paramsOf(self, cohort):
        """What would be sent to the worker."""
        from MedEnhancePanels.tasks import distillation, long_run
        from MedEnhancePanels.tasks.distillation import Prior

        with mock.patch.object(long_run, "begin") as begin:
            distillation.start(self.context.runner, self.root, cohort, Prior(), self.panel.options)
        return begin.call_args.args[1].record["params"]

    def test_theLibraryTakesWhatThePageSends(self):
        from MedEnhanceLib.core.options import config_from_json
        from MedEnhanceLib.jobs.kinds.distill import DistillEstimateParams, DistillParams
        from MedEnhancePanels.tasks import distillation
        from MedEnhancePanels.tasks.distillation import Prior

        self.cohort()
        params = self.paramsOf(self.panel.cohort)
        taken = config_from_json(DistillParams, params)
        self.assertEqual(taken.config.images_per_patient, 2)
        prior = Prior("patient", patient="Patient 1")
        asked = distillation.estimateParams(self.panel.cohort, prior, self.panel.options)
        taken = config_from_json(DistillEstimateParams, asked)
        self.assertEqual((taken.patients, taken.modality), (4, "MR"))
        self.assertEqual(taken.config.prior, "patient:patient-001")

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


#: What a `distill-estimate` job may find.
FOUND = {
    "seconds": 4000.0,
    "seconds_per_patient": 400.0,
    "patients": 10,
    "device": "cpu",
    "names": ["A", "B"],
}


class EstimateTest(DistillingTestCase):
    def test_withoutACudaDeviceThePageSaysSoAndHowLongItTakes(self):
        from MedEnhancePanels.pages.distill_choices import estimateText

        text = estimateText(FOUND, isChosen=False)
        self.assertIn("No CUDA device was found, so it runs on the processor", text)
        self.assertIn("about 67 minutes for 10 patients (about 7 minutes per patient)", text)
        text = estimateText(FOUND | {"device": "cuda"}, isChosen=False)
        self.assertIn("On CUDA: about 67 minutes", text)
        self.assertNotIn("no CUDA", estimateText(FOUND, isChosen=True))

    def test_thePageAsksAndLetsTheUserGoOn(self):
        self.cohort()
        self.ui.deviceSelector.currentIndex = 0
        submitted = []

        def submit(kind, params, **options):
            submitted.append(FakeJob(kind, params, options))
            return submitted[-1]

        self.panel._estimate._settle.setInterval(0)
        with mock.patch.object(self.context.runner, "submit", submit):
            self.ui.imagesSpinBox.value = 3
            self.assertIn("Estimating the time", self.ui.estimateLabel.text)
            self.assertTrue(self.ui.startButton.enabled)
            self.waitUntil(lambda: submitted, 5)
        [job] = submitted
        self.assertEqual(job.kind, "distill-estimate")
        self.assertTrue(job.options["own"], "nobody waits behind it")
        self.assertEqual(job.params["patients"], 4)
        job.end(FOUND)
        self.assertIn("No CUDA device was found", self.ui.estimateLabel.text)
        self.picture("distill-ready")
        self.assertTrue(self.ui.startButton.enabled)
        self.choose("trainMR")
        self.assertTrue(self.ui.estimateLabel.isHidden())

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
            self.assertEqual(job.kind, "distill-room")
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

    def test_theEstimateOfTheGainGetsCopiesOfTheCohortThatGoWithIt(self):
        nodes = self.cohort()
        with mock.patch("MedEnhancePanels.tasks.distillation.ROOM", "ping"):
            self.ui.roomButton.click()
            job = self.job("ping")
            folder = job.folder
            self.waitUntil(lambda: job.params, 10)
            self.assertEqual(job.params["cohort"], os.path.join(folder, "data"))
            self.assertEqual(set(job.params), {"cohort", "pattern", "modality", "config"})
            self.waitUntil(lambda: len(list(Path(folder).rglob("*.nrrd"))) == 4 or job.isFinished)
            self.assertTrue((Path(folder) / "data" / "patient-001").is_dir())
        self.waitUntil(lambda: job.isFinished, 60)
        self.assertIn("could not be estimated", self.ui.roomLabel.text)
        self.assertFalse(os.path.exists(folder))
        self.assertIsNone(nodes[0].GetAttribute("MedEnhance.distilledAs"))

    def test_patientsOfAFolderCanBeChosenOnceTheyAreKnown(self):
        self.ui.folderButton.checked = True
        self.ui.pathEdit.text = self.temporaryFolder()
        jobs = []
        self.panel._estimate._settle.setInterval(0)
        with mock.patch.object(
            self.context.runner, "submit", lambda *a, **o: jobs.append(FakeJob(*a, o)) or jobs[-1]
        ):
            self.ui.imagesSpinBox.value = 3
            self.waitUntil(lambda: jobs, 5)
        jobs[0].end(FOUND)
        self.assertEqual(self.ui.priorPatientSelector.count, 2)
        self.assertEqual(self.ui.priorPatientSelector.itemText(1), "B")


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
        self.ui.priorPatientSelector.setEditText("Patient 3")
        with mock.patch("slicer.util.confirmOkCancelDisplay", return_value=True):
            job = self.begin()
        self.waitUntil(lambda: job.metrics or job.isFinished, 120)
        self.assertIn("The prior is patient Patient 3", self.ui.newsLabel.text)
        self.picture("distill-running")
        self.pauseAfter(1)
        self.assertEqual(self.record()["state"], "paused")
        self.assertIn("paused", self.ui.resultLabel.text)
        self.assertTrue(self.ui.distilledArea.isHidden())
        self.assertNothingIdentifiesPatients(self.runFolder())

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
        self.assertFalse(os.path.exists(os.path.join(folder, "data")), "copies were left behind")
        self.assertNothingIdentifiesPatients(folder)
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
        self.assertIn("patient-003: Patient 3", self.widget.ui.messageDetails.plainText)
        with mock.patch("MedEnhancePanels.pages.distill_run.openPath") as opened:
            self.ui.resultButton.click()
        opened.assert_called_once_with(os.path.join(folder, "out"))

    def assertNothingIdentifiesPatients(self, folder):
        """No file of a run has a patient's or a node's name, in its name or in its bytes."""
        for place, _folders, files in os.walk(folder):
            for name in files:
                with open(os.path.join(place, name), "rb") as file:
                    content = file.read()
                for word in ("Patient ", "T1 of"):
                    self.assertNotIn(word, os.path.join(place, name))
                    self.assertFalse(word.encode() in content, os.path.join(place, name))


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
