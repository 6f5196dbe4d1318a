"""A scanner that is measured on the page Train, and inverted on Enhance."""

import os
import typing
from pathlib import Path
from unittest import mock

import qt
import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import copyOfModel, slow
from test_train import TrainTestCase

from MedEnhanceLib.core.options import config_from_json, option_of
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.io import save
from MedEnhanceLib.jobs.kinds.measure_scanner import ScannerParams
from MedEnhanceNodes import provenance
from MedEnhanceTasks import enhancement, long_run


class ScannerChoiceTest(EnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.choose(self.smallVolume(name="scan", modality="MR"))
        self.ui.scannerEdit.text = "/a/scanner.json"

    @property
    def chosen(self):
        config = self.panel.options.config
        return config.scanner, config.scanner_without

    def box(self, step):
        return slicer.util.findChild(self.panel.widget, f"{step}StepCheckBox")

    def test_whatAScannerChangesIsSaidAndStepsAreLeftOut(self):
        ui = self.ui
        self.assertEqual(self.chosen, ("/a/scanner.json", ()))
        self.assertIn("contrast, sharpness and intensities change", ui.planLabel.text)
        self.assertIn("no longer those measured", ui.scannerEdit.toolTip)
        for box in (ui.biasFieldCheckBox, ui.uncertaintyCheckBox, ui.roiSelector):
            self.assertIn("while a scanner is inverted", box.toolTip)
            self.assertFalse(box.enabled, box.objectName)
        for step in typing.get_args(
            typing.get_args(option_of(EnhanceConfig, "scanner_without").hint)[0]
        ):
            self.box(step).checked = False
            self.assertEqual(self.chosen[1][-1:], (step,))
        preview = enhancement._Preview(
            self.runner, self.panel.target, self.panel.options, 3, None, None
        )
        self.assertIsNone(preview.options.config.scanner, "it needs the whole volume")
        ui.scannerEdit.text = ""
        self.assertTrue(ui.stepsArea.isHidden() and ui.uncertaintyCheckBox.enabled)
        self.assertEqual(self.chosen, (None, ()))

    def test_theChoiceGoesWithAnotherModalityAndWithTheScene(self):
        self.choose(self.smallVolume(name="other", modality="MR"))
        self.assertEqual(self.chosen[0], "/a/scanner.json")
        for change in (
            lambda: self.choose(self.smallVolume(name="chest", modality="CT")),
            lambda: slicer.mrmlScene.Clear(0),
        ):
            self.ui.scannerEdit.text = "/a/scanner.json"
            self.assertEqual(self.chosen, ("/a/scanner.json", ()))
            self.box("field").checked = False
            change()
            self.choose(self.smallVolume(name="scan", modality="MR"))
            self.assertEqual((self.ui.scannerEdit.text, self.chosen[0]), ("", None))

    def test_itIsForTheChosenVolumeAloneAndNotForFrames(self):
        other = self.smallVolume(name="other", modality="MR")
        self.assertIsNone(self.panel.optionsFor(other).config.scanner)
        self.choose(self.sequenceOf("frames", range(3), modality="MR"))
        self.assertIsNone(self.chosen[0])
        self.assertIn("Not available for several frames", self.ui.scannerEdit.toolTip)


class ModelChoiceTest(EnhanceTestCase):
    """Models are chosen where there is a choice: those that invert a scanner, or of thin slices."""

    def setUp(self):
        super().setUp()
        self.models = self.temporaryFolder()
        self.enterContext(mock.patch.dict(os.environ, MEDENHANCE_MODELS=self.models))
        self.choose(self.smallVolume(name="scan", modality="MR"))

    def install(self, name, **fields):
        copyOfModel("mr-slices", os.path.join(self.models, name), **fields)
        self.panel.update()

    @property
    def offered(self):
        """Texts of the box, none where it is hidden."""
        box = self.ui.modelComboBox
        isShown = box.isVisibleTo(self.panel.widget)
        return [box.itemText(at) for at in range(box.count)] if isShown else []

    @property
    def model(self):
        return self.panel.options.config.model

    def test_aModelThatInvertsAScannerTakesThePlaceOfItsFile(self):
        ui = self.ui
        self.assertEqual(self.offered, [])
        self.install("old", kind="enhancer", scanner={"modality": "MR"})
        self.assertEqual(self.offered, ["Scanner model: none", "Scanner model: old"])
        self.assertEqual((self.model, self.panel.options.inverts), ("auto", False))
        ui.scannerEdit.text = "/a/scanner.json"
        ui.uncertaintyCheckBox.checked = True
        self.pick(ui.modelComboBox, "old")
        config = self.panel.options.config
        self.assertEqual((config.model, config.scanner, config.uncertainty), ("old", None, False))
        self.assertIn("contrast, sharpness and intensities change", ui.planLabel.text)
        self.assertIn("Runs model old on the", ui.planLabel.text)
        self.assertIn("is chosen above", ui.scannerEdit.toolTip)
        self.assertTrue(ui.stepsArea.isHidden())
        for box in (ui.biasFieldCheckBox, ui.uncertaintyCheckBox, ui.roiSelector):
            self.assertIn("while a scanner is inverted", box.toolTip)
        preview = enhancement._Preview(
            self.runner, self.panel.target, self.panel.options, 3, None, None
        )
        self.assertEqual(preview.options.config.model, "auto", "it needs the whole volume")
        other = self.smallVolume(name="other", modality="MR")
        self.assertFalse(self.panel.optionsFor(other).inverts)
        self.choose(self.smallVolume(name="chest", modality="CT"))
        self.assertEqual((self.offered, self.panel.options.inverts), ([], False))
        self.choose(other)
        self.assertEqual(self.model, "auto", "the choice goes with another modality")

    def test_oneOfSeveralModelsMakesThinSlices(self):
        self.install("mine")
        self.assertEqual(self.offered, [])
        self.pick(self.ui.taskComboBox, "slices")
        self.assertEqual(self.offered, ["Model: mr-slices (default)", "Model: mine"])
        self.assertIn("Runs model mr-slices on the", self.ui.planLabel.text)
        self.pick(self.ui.modelComboBox, "mine")
        self.assertEqual((self.model, self.panel.options.inverts), ("mine", False))
        self.assertIn("Runs model mine on the", self.ui.planLabel.text)
        self.pick(self.ui.taskComboBox, "noise")
        self.assertEqual((self.offered, self.model), ([], "auto"))
        self.assertNotIn("Runs model", self.ui.planLabel.text)


class ScannerRunTest(TrainTestCase):
    KIND, TASK = "scanner", "scannerMR"

    def test_twoFoldersAreChosenAndMeasured(self):
        ui, state, good = self.ui, self.context.state, self.temporaryFolder()
        labels = ui.pathLabel.text, ui.goodLabel.text
        self.assertEqual(labels, ("Low quality:", "High quality:"))
        shown = self.visible(ui.goodEdit, ui.presetSelector, ui.advancedSection, ui.fileButton)
        self.assertEqual(shown, [ui.goodEdit])
        ui.pathEdit.text = self.temporaryFolder()
        self.assertIn("low and of high quality", ui.problemLabel.text)
        with mock.patch.object(qt.QFileDialog, "getExistingDirectory", return_value=good):
            ui.goodButton.click()
        jobs = self.heldJobs()
        ui.startButton.click()
        taken = config_from_json(ScannerParams, jobs[0].params)
        self.assertEqual((taken.low_quality, taken.high_quality), (ui.pathEdit.text, good))
        self.assertEqual((taken.modality, Path(taken.out)), ("MR", self.folder / "out"))
        self.assertEqual(self.visible(ui.startButton, ui.cancelButton), [ui.cancelButton])
        jobs[0].warnings.append("a pool has 3 volumes")
        jobs[0].result = {"outputs": {}, "sentence": "Noise 0.03."}
        jobs[0].finish("done")
        self.assertIn("A pool has 3 volumes.", self.message)
        self.assertIn("Noise 0.03.", ui.resultLabel.text)
        with mock.patch.object(qt.QDesktopServices, "openUrl") as opened:
            self.panel.runs.actions["page"].trigger()
        page = qt.QUrl.fromLocalFile(str(self.folder / "out/index.html"))
        opened.assert_called_once_with(page)
        state.scannerFor = "CT"  # the volume that Enhance showed before
        self.choose(self.smallVolume(modality="MR"))
        ui.trainButton.click()
        self.assertEqual(state.page, "enhance")
        scanner = self.widget.panels["enhance"].options.config.scanner
        self.assertEqual(scanner, str(self.folder / "out/scanner.json"))

    def test_aMeasurementThatWasStoppedIsNotResumed(self):
        self.ui.pathEdit.text = self.ui.goodEdit.text = self.temporaryFolder()
        jobs = self.heldJobs()
        self.ui.startButton.click()
        jobs[0].finish("cancelled")  # as below the pages
        run = long_run.Run.open(self.folder)
        self.assertEqual(run.state, "cancelled")
        run.record["state"] = "running"  # as after a crash
        self.assertFalse(run.is_resumable)
        self.assertEqual(self.visible(self.ui.openButton, self.ui.trainButton), [])

    @slow
    def test_whatWasMeasuredIsInvertedAndTheResultIsMarked(self):
        from Library.scanner.test_scanner import phantom, scanned

        for edit, first in ((self.ui.pathEdit, 0), (self.ui.goodEdit, 6)):
            edit.text = self.temporaryFolder()
            for seed in range(first, first + 3):
                volume = phantom(seed) if first else scanned(phantom(seed), seed)
                save(volume, Path(edit.text, f"{seed}.nrrd"))
        self.ui.startButton.click()
        job = self.finish(self.job())
        self.assertEqual(job.state, "done", job.error)
        self.assertIn("3 volumes against 3: noise 0.0", self.ui.resultLabel.text)
        self.assertTrue((self.folder / "out/index.html").is_file())
        self.choose(slicer.util.loadVolume(str(Path(self.ui.pathEdit.text, "0.nrrd"))))
        self.ui.trainButton.click()
        self.showPage("enhance")
        self.ui.applyButton.click()
        job = self.finish(self.panel.job)
        self.assertEqual(job.state, "done", job.error)
        output = job.nodes["output"]
        self.assertEqual(output.GetName(), "0 enhanced, scanner inverted")
        self.assertIn("intensities are not those measured", provenance.historyOf(output)[-1])
        self.assertIn("scanner inverted", self.ui.factsLabel.text.lower())
