"""The page Train: choices and audit, and runs of seconds with the real worker."""

import itertools
import json
import os
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
from Library.jobs.conftest import brain
from Library.label_maps import write_label_maps
from medenhance_testing import MedEnhanceTestCase, slow

from MedEnhanceLib.core.options import config_from_json, option_of
from MedEnhanceLib.io import save
from MedEnhanceLib.runtime.texts import Text
from MedEnhanceLib.training.jobs.distill import DistillParams
from MedEnhanceLib.training.jobs.train import TrainParams, training_config
from MedEnhanceLib.training.spg.config import DistillConfig
from MedEnhancePages import train
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.job import Job
from MedEnhanceTasks import long_run, training


class TrainTestCase(MedEnhanceTestCase):
    KIND, TASK = "train", "slicesMR"
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        self.models = self.temporaryFolder()
        self.enterContext(mock.patch.dict(os.environ, MEDENHANCE_MODELS=self.models))
        self.showPage("train")
        self.root = Path(self.temporaryFolder())
        self.enterContext(mock.patch.object(long_run, "root", lambda: self.root))
        self.choose(self.TASK)

    def choose(self, task):
        """What is made: a value of the state's trainTask."""
        self.pick(self.ui.taskSelector, task)

    def visible(self, *widgets):
        """Which of them the page shows."""
        return [widget for widget in widgets if widget.isVisibleTo(self.panel.widget)]

    def cohort(self, count=3):
        """A folder with a folder for each patient, chosen on the page."""
        folder = self.temporaryFolder()
        for seed in range(count):
            names = (f"Patient {seed}", "T1.nrrd")
            if self.KIND == "train":
                names = ("lq" if seed == 2 else "hq", f"Patient {seed}.nrrd")
            path = Path(folder, *names)
            path.parent.mkdir(exist_ok=True)
            save(brain(seed), path)
        self.ui.pathEdit.text = folder
        return folder

    def chooseBudget(self):
        """The smallest network, on the processor."""
        self.pick(self.ui.presetSelector, "smoke")
        self.context.state.trainDevice = "cpu"
        self.ui.nameEdit.text = "tiny"

    def train(self, **fields):
        """Begin a training with these fields of its configuration; its job."""
        paramsOf, fields = training.paramsOf, fields or {"steps": 400}

        def withFields(state):
            params = paramsOf(state)
            return params | {"config": params["config"] | fields}

        self.enterContext(mock.patch.object(training, "paramsOf", withFields))
        self.chooseBudget()
        return self.begin()

    def begin(self):
        self.assertTrue(self.ui.startButton.enabled, self.ui.problemLabel.text)
        self.ui.startButton.click()
        job, self.metrics = self.job(), []
        job.onEvent(lambda _job, name, fields: name == "metric" and self.metrics.append(fields))
        return job

    def heldJobs(self):
        """Jobs that are submitted from now on; none starts, and a test ends them."""
        jobs = []

        def submit(kind, params, *, title, dedicated=False):
            jobs.append(Job(self.context.runner, kind, params, title, None, None, dedicated))
            return jobs[-1]

        self.enterContext(mock.patch.object(self.context.runner, "submit", submit))
        return jobs

    def job(self):
        return next(job for job in reversed(self.context.runner.jobs) if job.kind == self.KIND)

    @property
    def folder(self):
        """The folder of the run."""
        return Path(self.context.state.trainRun)

    def record(self):
        return json.loads((self.folder / "run.json").read_text(encoding="utf-8"))

    def buttons(self):
        """The buttons on the page that can be pressed."""
        buttons = slicer.util.findChildren(self.panel.widget, className="QPushButton")
        return [each for each in buttons if each.enabled and each.isVisibleTo(self.panel.widget)]

    def pauseAfter(self, count):
        job = self.job()
        self.waitUntil(lambda: len(self.metrics) >= count or job.isFinished, 120)
        self.assertFalse(job.isFinished, job.error)
        self.widget.ui.jobCancelButton.click()  # which is Pause
        self.assertEqual(self.finish(job).state, "cancelled")


class TrainPageTest(TrainTestCase):
    def test_anEmptyPageSaysWhatItDoesAndWhatIsMissing(self):
        ui = self.ui
        self.assertFalse(ui.startButton.enabled)
        self.assertIn("Choose the folder", ui.problemLabel.text)
        self.assertEqual(ui.startButton.toolTip, ui.problemLabel.text)
        self.assertEqual(ui.pathEdit.placeholderText, "A folder")
        hidden = (ui.aboutDetails, ui.fileButton, ui.runsArea)
        self.assertEqual(self.visible(ui.aboutLabel, *hidden), [ui.aboutLabel])

    def test_aSetOrVolumesTeachThinSlices(self):
        folder, state = self.cohort(), self.context.state
        params = training.paramsOf(state)
        self.assertEqual(params["data"], folder)
        self.assertEqual((params["method"], params["config"]["modality"]), ("slices", "MR"))
        self.assertEqual(params["config"]["files"], ["hq/**/*.nrrd"])
        Path(folder, "manifest.json").write_text('{"format": "medenhance-distilled"}')
        config = training.paramsOf(state)["config"]
        self.assertNotIn("files", config, "the set says itself where its volumes are")

    def test_labelMapsTeachASegmentationModelWithoutImages(self):
        ui = self.ui
        self.choose("labelsMR")
        self.assertEqual(ui.pathLabel.text, "Label maps:")
        self.assertIn("without images", ui.aboutLabel.text)
        self.assertIn("whole numbers up to 255", ui.aboutDetails.text)
        self.assertFalse(ui.startButton.enabled)
        ui.pathEdit.text = folder = str(write_label_maps(Path(self.temporaryFolder())))
        ui.nameEdit.text = "mine"
        self.pick(ui.presetSelector, "quick")
        with mock.patch.object(self.context.runner, "submit") as submit:
            ui.startButton.click()
        taken = config_from_json(TrainParams, submit.call_args.args[1])
        self.assertEqual((taken.method, taken.data), ("head", folder))
        self.assertEqual(taken.config["name"], "mine")
        self.assertEqual(taken.config["preset"], "quick")

    def test_hqgNetLearnsFromTwoFoldersOrFromAMeasuredScanner(self):
        ui, low, good = self.ui, self.temporaryFolder(), self.temporaryFolder()
        self.choose("trainMR")
        labels = ui.pathLabel.text, ui.goodLabel.text, ui.presetLabel.text
        self.assertEqual(labels, ("Low quality:", "High quality:", "Effort:"))
        self.assertIn("without pairs", ui.aboutLabel.text)
        self.assertIn("who may differ", ui.aboutDetails.text)
        save(brain(0), Path(good, "a.nrrd"))
        scanner = Path(low, "scanner.json")
        scanner.write_text("{}")
        table = Path(low, "rows.csv")
        table.touch()
        for first, second in (("", ""), (low, ""), ("", good), (str(table), good), (good, scanner)):
            ui.pathEdit.text, ui.goodEdit.text = first, str(second)
            self.assertIn("low and of high quality", ui.problemLabel.text)
        ui.nameEdit.text = "mine"
        ui.goodEdit.text = good
        self.pick(ui.deviceSelector, "cpu")
        taken = []
        for path in (low, str(scanner)):
            ui.pathEdit.text = low
            with mock.patch.object(train, "askForFile", return_value=path):
                ui.fileButton.click()
            with mock.patch.object(self.context.runner, "submit") as submit:
                ui.startButton.click()
            params = config_from_json(TrainParams, submit.call_args.args[1])
            self.assertEqual(params.method, "hqg")
            taken.append(training_config(params.method, params.config))
            (pattern,) = taken[-1].high_quality
            self.assertEqual([*Path(params.data).glob(pattern)], [Path(good, "a.nrrd")])
        self.assertEqual([each.low_quality for each in taken], [low, ""])
        self.assertEqual([each.scanner for each in taken], ["", str(scanner)])
        self.assertEqual((taken[0].name, taken[0].device), ("mine", "cpu"))
        self.assertEqual(self.context.state.device, "auto", "that of Enhance")

    def test_aFormHasOnlyWhatItsTaskTakesInOneColumn(self):
        ui, page = self.ui, self.panel.widget
        ui.advancedSection.collapsed = False
        self.addCleanup(setattr, ui.advancedSection, "collapsed", True)
        parts = (ui.goodLabel, ui.goodEdit, ui.fileButton, ui.presetLabel, ui.licenseEdit)
        for task, shown in {
            "slicesMR": parts[3:4],
            "distillMR": parts[2:],
            "trainMR": parts[:4],
            "labelsMR": parts[3:4],
            "scannerMR": parts[:2],
        }.items():
            self.choose(task)
            self.processEvents(50)
            self.assertEqual(self.visible(*parts), list(shown), task)
            boxes = self.visible(ui.deviceSelector, ui.licenseEdit)
            columns = {box.mapTo(page, qt.QPoint(0, 0)).x() for box in boxes}
            self.assertLessEqual(len(columns), 1, "the fields of Advanced stand in one column")
            rows = self.visible(ui.pathEdit, ui.goodEdit, ui.presetSelector, ui.nameEdit)
            edges = [(row.mapTo(page, qt.QPoint(0, 0)).y(), row.height) for row in rows]
            gaps = [low - high - side for (high, side), (low, _side) in itertools.pairwise(edges)]
            self.assertLess(max(gaps), 12, "a row that is hidden leaves no gap")

    def test_aRunThatNobodyEndedIsOffered(self):
        for name, state in (("tiny", "running"), ("broken", "failed")):
            run = long_run.Run.create(self.root, self.KIND, name)
            run.record |= {"state": state, "params": {"data": "data", "out": "out"}}
            run.save()
        self.widget.exit()
        self.widget.enter()
        self.assertFalse(self.ui.runsArea.isHidden())
        self.assertRegex(self.ui.runSelector.currentText, r"^interrupted, [\d-]+ [\d:]+: tiny")
        self.assertTrue(self.ui.resumeButton.enabled)
        self.pick(self.ui.runSelector, str(run.folder))
        self.assertFalse(self.ui.resumeButton.enabled, "what failed left no checkpoint")
        self.assertIn("broken: failed", self.ui.resultLabel.text)
        Path(run.out, "checkpoint.safetensors").touch()
        self.panel.runs.list()
        self.panel.update()
        self.assertTrue(self.ui.resumeButton.enabled)

    def test_aRunIsRemovedWithItsFolderAfterAQuestion(self):
        """Its files go in steps; a folder with files of somebody else stays."""
        runs = [long_run.Run.create(self.root, self.KIND, name) for name in ("old", "kept")]
        for run in runs:
            run.record |= {"state": "done", "params": {"data": "data", "out": "out"}}
            run.save()
            Path(run.out, "checkpoint.safetensors").write_bytes(bytes(20_000))
        self.panel.enter()
        self.pick(self.ui.runSelector, str(runs[0].folder))
        self.assertFalse(self.ui.resultBox.isHidden())
        self.enterContext(mock.patch.object(type(slicer.app), "testingEnabled", lambda _app: False))
        asked = self.enterContext(mock.patch.object(qt.QMessageBox, "question"))
        for asked.return_value in (qt.QMessageBox.No, qt.QMessageBox.Yes):
            self.assertTrue(runs[0].folder.is_dir())
            self.ui.removeButton.click()
        for words in ("run old with", str(runs[0].folder), "20.", "model in it is deleted"):
            self.assertIn(words, asked.call_args.args[2])
        self.waitUntil(lambda: self.panel.job is None)
        self.assertEqual([path.name for path in self.root.iterdir()], [runs[1].folder.name])
        self.assertTrue(self.ui.resultBox.isHidden())
        self.assertEqual(self.context.state.trainRun, "")
        Path(runs[1].folder, "thesis.txt").touch()
        self.ui.removeButton.click()
        self.waitUntil(lambda: self.panel.job is None)
        self.assertIn("thesis.txt, which MedEnhance did not write", self.message)
        self.assertTrue(Path(runs[1].out, "checkpoint.safetensors").is_file())

    def test_thePageSaysHowLongEachTaskTakes(self):
        ui = self.ui
        for box in (ui.taskSelector, ui.presetSelector):
            for value in [box.itemData(at) for at in range(box.count)]:
                self.pick(box, value)
                self.assertRegex(ui.aboutLabel.text, r"It takes about \d+ \S+.* on two cores\.$")
        self.choose("slicesMR")
        self.cohort()
        self.pick(ui.presetSelector, "quick")
        for seconds, number in ((600.0, 1), (1200.0, 2)):
            run = long_run.Run.create(self.root, "train", "earlier")
            run.record |= {"state": "done", "seconds": seconds, "created": number}
            run.record["params"] = training.paramsOf(self.context.state) | {"out": "out"}
            run.save()
        self.panel.enter()
        self.assertIn("about 20 min, as before on this computer.", ui.aboutLabel.text)
        self.pick(ui.presetSelector, "cpu")
        self.assertIn("on two cores", ui.aboutLabel.text)

    def test_whatATrainingCameToIsSaidAndKeptAndItsNameIsTaken(self):
        self.cohort()
        self.chooseBudget()
        jobs, ui, said = self.heldJobs(), self.ui, "No gain beyond chance: use mr-slices."
        ui.startButton.click()
        jobs[0].finish("failed", PanelError("broken.nrrd cannot be read"))
        for text in (self.message, ui.resultLabel.text, self.record()["error"]):
            self.assertIn("broken.nrrd", text)
        ui.startButton.click()
        self.assertFalse(ui.taskSelector.isEnabled() or ui.deviceSelector.isEnabled())
        jobs[1].result = {"outputs": {"model": "tiny"}, "sentence": said}
        jobs[1].finish("done")
        Path(self.models, "tiny").mkdir()
        jobs[2].finish("done")
        self.assertIn(f"tiny is trained, and listed on the page Models. {said}", self.message)
        self.assertIn(said, ui.resultLabel.text)
        self.assertIn("installed already", ui.problemLabel.text)


class TrainingTest(TrainTestCase):
    def losses(self):
        """Steps and losses that the run has measured."""
        rows = map(json.loads, (self.folder / "out/metrics.jsonl").read_text().splitlines())
        return np.array([(row["step"], row["value"]) for row in rows if row["name"] == "loss"])

    @slow
    def test_aRunIsPausedResumedInANewPageAndFinished(self):
        self.context.runner.shutdown()  # the next worker knows this test's folder of models
        self.cohort()
        job = self.train(steps=60)
        names = [button.text for button in self.buttons() if button.text in ("Pause", "Cancel")]
        self.assertEqual(names, ["Pause"], "one button pauses the run")
        self.pauseAfter(2)
        folder = self.folder
        self.assertEqual(self.record()["state"], "paused")
        before = self.losses()

        self.reload("train")
        self.assertIn("paused", self.ui.resultLabel.text)
        self.ui.resumeButton.click()
        job = self.finish(self.job(), 180)
        self.assertEqual(job.state, "done", job.error)
        self.assertTrue(any("resumed at step" in line for line in job.log), job.log)
        self.assertEqual(self.folder, folder)
        values = self.losses()
        np.testing.assert_array_equal(values[: len(before)], before)
        np.testing.assert_array_equal(values[:, 0], [*range(0, 60, 20), 59])
        self.assertEqual(self.record()["state"], "done")
        self.waitUntil(lambda: os.path.isdir(os.path.join(self.models, "tiny")), 60)
        self.waitUntil(lambda: "is trained, and listed" in self.message)
        self.assertRegex(self.message, r"dB (better|worse) than the shipped mr-slices")
        self.assertFalse(self.ui.resumeButton.enabled)

    @slow
    def test_oneRunAtATimeWhateverTheSceneAndACancelledOneIsNotOfferedAgain(self):
        self.cohort()
        job = self.train()
        self.assertFalse(self.ui.startButton.enabled)
        with self.assertRaisesRegex(PanelError, "is in progress"):
            training.start(self.context.runner, self.context.state)
        self.waitUntil(lambda: self.metrics, 120)
        folder = self.folder
        slicer.mrmlScene.Clear(0)
        self.processEvents(100)
        self.assertFalse(job.isFinished)
        self.enterContext(mock.patch.object(type(slicer.app), "testingEnabled", lambda _app: False))
        asked = self.enterContext(mock.patch.object(qt.QMessageBox, "question"))
        for asked.return_value in (qt.QMessageBox.No, qt.QMessageBox.Yes):
            self.assertFalse(job.wantsCancel)
            self.ui.cancelButton.click()
        self.finish(job)
        self.assertEqual(long_run.Run.open(folder).state, "cancelled")
        self.assertIn("cancelled", self.ui.resultLabel.text)
        self.assertFalse(self.ui.resumeButton.enabled)
        with self.assertRaisesRegex(PanelError, "cannot be resumed"):
            long_run.resume(self.context.runner, folder)


class DistillingTestCase(TrainTestCase):
    KIND, TASK = "distill", "distillMR"

    def read(self, name):
        """What the menu Open shows of a result, in a window of its own."""
        self.panel.runs.actions[name].trigger()
        (browser,) = slicer.util.findChildren(self.panel.widget, className="QTextBrowser")
        text = browser.toPlainText()
        browser.window().close()
        self.deleteWhatIsDue()
        return text

    def setUp(self):
        super().setUp()
        self.chooseBudget()
        self.ui.volumesSpinBox.value = 2


class ChoiceTest(DistillingTestCase):
    def test_thePageSaysWhatItIsAndWhatWillBeShared(self):
        """Before anything starts, and for the method that is chosen."""
        self.cohort()
        ui = self.ui
        self.assertIn("does not prove", ui.aboutDetails.text)
        self.assertEqual(self.visible(ui.aboutDetails), [])
        offered = [ui.methodSelector.itemData(at) for at in range(ui.methodSelector.count)]
        self.assertEqual(sorted(offered), sorted(option_of(DistillConfig, "method").choices))
        self.assertTrue(ui.startButton.enabled, ui.problemLabel.text)
        self.picture("train-ready")  # as high as Slicer's scroll area makes the panel
        self.assertLessEqual(self.widget.parent.height, 900, "it fits a usual screen")
        for words in ("101 averages over only 3 patients", "no patient image", "sends nothing"):
            self.assertIn(words, ui.aboutLabel.text)
        self.assertEqual(ui.aboutIcon.accessibleName, "Warning")
        ui.aboutDetailsButton.click()
        self.assertEqual(self.visible(ui.aboutDetails), [ui.aboutDetails])
        for words in ("cohort: 3. Averages over only 3 patients tell", "nobody may use this set"):
            self.assertIn(words, ui.aboutDetails.text)
        self.pick(ui.methodSelector, "matching")
        self.assertIn("volumes for each patient", ui.aboutLabel.text)

    def test_theChoicesAreKeptInTheSceneAndAreWhatTheJobTakes(self):
        self.assertIn("Choose a folder with a folder", self.ui.problemLabel.text)
        folder = self.cohort()
        table = os.path.join(self.temporaryFolder(), "patients.csv")
        Path(table).write_text(f"patient,path\na,{folder}/Patient 0\nb,{folder}/Patient 1\n")
        self.ui.licenseEdit.text = " CC BY 4.0"
        for path, why in (("/x", "/x does not exist: choose another."), (folder, ""), (table, "")):
            self.ui.pathEdit.text = path
            self.assertEqual(self.ui.problemLabel.text, why)
        self.ui.pathEdit.text = ""
        for path in (table, ""):  # "": the dialog is cancelled
            with mock.patch.object(train, "askForFile", return_value=path):
                self.ui.fileButton.click()
        state = self.context.state
        self.assertEqual(state.trainData, table)
        state.trainPreset = "cpu"
        self.assertEqual(self.ui.presetSelector.currentData, "cpu")
        with mock.patch.object(self.context.runner, "submit") as submit:
            training.start(self.context.runner, self.context.state)
        taken = config_from_json(DistillParams, submit.call_args.args[1])
        self.assertEqual((str(taken.cohort), taken.modality), (table, "MR"))
        self.assertEqual((taken.config.method, taken.config.prior), ("statistics", "synthetic"))
        self.assertEqual((taken.config.volumes, taken.config.license), (2, "CC BY 4.0"))

    def test_tooFewPatientsAreCountedBeforeAnythingStarts(self):
        for count in range(5):
            self.cohort(count)
            self.pick(self.ui.methodSelector, "matching")
            self.assertEqual(self.ui.startButton.enabled, count >= 2)
            self.assertEqual("Nobody is held out" in self.ui.aboutDetails.text, count in (2, 3))
            said = f"needs 2 patients or more; the cohort has {count}. Give a folder for each"
            self.assertEqual(said in self.ui.problemLabel.text, count < 2)
        self.assertIn("cohort: 4. Held out for the audit: 2.", self.ui.aboutDetails.text)
        table = os.path.join(self.temporaryFolder(), "patients.csv")
        Path(table).write_text("patient,path\na,\n")
        self.ui.pathEdit.text = table
        self.assertIn("line 2: no path", self.ui.problemLabel.text)


class DistillationTest(DistillingTestCase):
    @slow
    def test_aDistillationShowsSlicesAndAuditAndNamesNobody(self):
        self.cohort(5)
        self.context.state.distillMethod = "matching"
        job = self.finish(self.begin(), 300)
        self.assertEqual(job.state, "done", job.error)
        folder = self.folder
        self.assertEqual(self.ui.imageGallery.count, 3)
        for words in ("used: 3, held out: 2", f"set: {folder / 'out'}\n", "out-confidential"):
            self.assertIn(words, self.ui.resultLabel.text)
        self.assertIn("tiny is finished", self.message)
        for path in (folder / "out").rglob("*"):  # none has a patient's name
            self.assertTrue(path.is_dir() or b"Patient " not in path.read_bytes(), path)
        self.assertIn("alignment of patient 1", {each["name"] for each in self.metrics})
        with mock.patch.object(qt.QDesktopServices, "openUrl") as opened:
            self.panel.runs.actions["folder"].trigger()
        opened.assert_called_once_with(qt.QUrl.fromLocalFile(str(folder / "out")))


class AuditTest(DistillingTestCase):
    def finished(self, audit):
        """A run that a worker finished, with this audit."""
        run = long_run.Run.create(self.root, self.KIND, "tiny")
        run.record |= {"state": "done", "seconds": 0.5}
        run.save()
        picture = qt.QImage(32, 32, qt.QImage.Format_Grayscale16)
        picture.fill(qt.Qt.gray)
        Path(run.out, "images").mkdir(parents=True)
        for number in range(2):
            self.assertTrue(picture.save(str(run.out / f"images/000{number}.png")))
        counts = {"volumes": 4, "patients": 2, "held_out": 2}
        manifest = {"format": "medenhance-distilled", "modality": "CT", "audit": audit} | counts
        Path(run.out, "manifest.json").write_text(json.dumps(manifest))
        Path(run.out, "PRIVACY.md").write_text("# The sheet")
        self.panel.runs.recall(str(run.folder))
        return run

    def test_theAuditIsReportedInPlainWordsAndThePrivacySheetIsRead(self):
        leak = Text("alarm", {"alarms": 1, "attacks": 3, "names": "copies"}).to_json()
        self.finished({"alarm": True, "weight": "severe", "verdict": leak})
        self.assertVerdict("Severe warning", leak["sentence"])
        self.assertEqual(self.ui.imageGallery.count, 2)
        self.assertEqual(self.read("privacy"), "The sheet")
        run = self.finished({"alarm": False, "weight": "info", "verdict": "It found none."})
        self.assertVerdict("Information", "It found none.")
        Path(run.out, "PRIVACY.md").unlink()
        self.panel.runs.actions["privacy"].trigger()
        self.assertIn("was moved or removed", self.message)
        self.assertNotIn("hand over", self.ui.resultLabel.text)
        self.ui.trainButton.click()
        self.assertEqual(self.ui.taskSelector.currentData, "slicesCT")
        self.assertEqual(training.paramsOf(self.context.state)["data"], str(run.out))

    def assertVerdict(self, word, text):
        self.assertEqual(self.ui.auditIcon.accessibleName, word)
        self.assertEqual(self.ui.auditLabel.text, text)
