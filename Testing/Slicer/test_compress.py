"""The page Compress, driven as a user does, with the real worker."""

import os
import re
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
from medenhance_testing import MedEnhanceTestCase, slow

from MedEnhanceLib.unicompress.config import CompressConfig
from MedEnhanceNodes import preview
from MedEnhancePages import compress
from MedEnhancePanels.errors import PanelError
from MedEnhanceTasks import compression

OPENED = "scan was opened from scan.ucv and verified by its checksums."


class CompressTest(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        self.showPage("compress")
        self.folder = self.temporaryFolder()
        self.path = os.path.join(self.folder, "scan.ucv")

    def obliqueVolume(self):
        turn, spacing = (20, 1, 2, 3), (0.7, 0.8, 2.5)
        return self.smallVolume((24, 40, 36), modality="CT", spacing=spacing, turn=turn)

    def choose(self, node, mode="lossless"):
        """Pick a volume and a mode as a user does."""
        self.widget.ui.inputSelector.setCurrentNode(node)
        self.pick(self.ui.modeSelector, mode)

    def press(self):
        """Press Compress, and choose the path in the dialog; the job."""
        self.assertTrue(self.ui.compressButton.enabled, self.ui.compressButton.toolTip)
        with mock.patch.object(qt.QFileDialog, "getSaveFileName", return_value=self.path):
            self.ui.compressButton.click()
        return self.panel.job

    def compress(self):
        """Press Compress and wait for the end; the job."""
        return self.finish(self.press())

    def opened(self):
        """What Slicer's own loader makes of the file."""
        return slicer.util.loadNodeFromFile(self.path, "MedEnhanceCompressedVolume", {})

    def test_anEmptyPageSaysWhatIsMissing(self):
        self.assertFalse(self.ui.compressButton.enabled)
        self.assertIn("Choose a volume", self.ui.compressButton.toolTip)
        self.assertEqual(self.ui.problemLabel.text, self.ui.compressButton.toolTip)
        self.assertFalse(self.ui.problemLabel.isHidden())
        for lack in ("Packages are missing.", ""):
            with mock.patch.object(compress.dependencies, "missingText", return_value=lack):
                self.panel.update()
            self.assertEqual(self.ui.estimateLabel.text, lack)

    def test_figuresAreTranslatedAndHaveUnits(self):
        figures = {"file_bytes": 2000, "ratio": 3, "max_error": 2, "psnr": 50}
        with mock.patch.object(compression, "_", lambda text: f"«{text}»"):
            text = compression.resultText(figures, "HU", self.path)
        self.assertIn("«largest error 2 HU», PSNR 50.0 dB", text)
        self.choose(self.smallVolume(modality="MR"), "maxError")
        self.assertEqual(self.ui.valueSpinBox.suffix, " intensity units")
        self.choose(self.smallVolume(modality="CT", dtype=np.float32), "maxError")
        (edit,) = slicer.util.findChildren(self.ui.valueSpinBox, className="QLineEdit")
        for text in ("3 HU", "3. HU", "3.5 HU"):  # as it is typed
            edit.text = text
            self.assertEqual(edit.text, text)
        self.assertEqual(self.panel.config.max_error, 3.5)

    def test_theChosenModeIsSeenWithItsValueAndWhatItGuarantees(self):
        self.choose(self.smallVolume(modality="CT"))
        ui, field = self.ui, self.ui.valueSpinBox
        self.assertTrue(field.isHidden() and ui.codecRow.isHidden())
        self.assertIn("restored exactly", ui.guaranteeLabel.text)
        shown = {}
        for mode, value in (("maxError", 3), ("psnr", 50.5), ("ratio", 20)):
            self.context.state.compressMode = mode  # as a scene that is loaded has it
            self.assertEqual(ui.modeSelector.currentData, mode)
            self.assertFalse(field.isHidden())
            field.value = value
            shown[mode] = (field.text, field.accessibleName == ui.modeSelector.currentText)
            isBounded = "not bounded" not in ui.guaranteeLabel.text
            self.assertEqual(
                (ui.codecRow.isHidden(), isBounded), (mode != "ratio", mode == "maxError")
            )
        texts = {"maxError": "3 HU", "psnr": "50.5 dB", "ratio": "20.0"}
        self.assertEqual(shown, {mode: (text, True) for mode, text in texts.items()})
        values = [self.context.state.maxError, self.panel.config.ratio, self.context.state.psnr]
        self.assertEqual(values, [3, 20, 50.5], "each keeps its own")

    def test_losslessReturnsEveryVoxelAndTheGeometry(self):
        node = self.obliqueVolume()
        self.choose(node)
        job = self.compress()
        self.assertEqual(job.state, "done", job.error)
        self.assertIn("compressed and verified equal", self.message)
        back = self.opened()
        self.assertEqual(self.message, OPENED)
        voxels = slicer.util.arrayFromVolume(back)
        self.assertEqual(voxels.dtype, np.int16)
        np.testing.assert_array_equal(voxels, slicer.util.arrayFromVolume(node))
        np.testing.assert_allclose(self.ijkToRas(back), self.ijkToRas(node), rtol=1e-12, atol=1e-12)
        self.assertEqual(back.GetAttribute("MedEnhance.modality"), "CT")
        part = self.widget.logic.decompress(self.path, ((5, 11), None, None))
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(part), voxels[5:11])
        corner = (self.ijkToRas(node) @ (0, 0, 5, 1))[:3]
        np.testing.assert_allclose(part.GetOrigin(), corner, atol=1e-9)

    @slow
    def test_theLargestErrorIsHeldAndReportedInTheVolumesUnits(self):
        node = self.obliqueVolume()
        self.choose(node, "maxError")
        self.ui.valueSpinBox.value = 3
        self.assertIn("HU", self.ui.valueSpinBox.suffix)
        job = self.compress()
        self.assertEqual(job.state, "done", job.error)
        self.assertTrue(self.ui.problemLabel.isHidden())
        said, back = self.message, slicer.util.arrayFromVolume(self.opened())
        error = np.abs(back.astype(int) - slicer.util.arrayFromVolume(node)).max()
        self.assertGreater(error, 0)
        self.assertLessEqual(error, 3)
        self.assertEqual(job.result["max_error"], error)
        self.assertIn(f"{error} HU", said)
        self.pick(self.ui.modeSelector, "psnr")
        self.ui.valueSpinBox.value = 40.0
        self.assertGreaterEqual(self.compress().result["psnr"], 40.0)
        self.assertIn("PSNR", self.message)

    def test_theImplicitNetworkIsACodecOfRatiosThatItAllows(self):
        node, ui, box = self.obliqueVolume(), self.ui, self.ui.codecSelector
        self.choose(node)
        self.assertTrue(ui.codecRow.isHidden(), "it is a codec of a ratio")
        self.pick(ui.modeSelector, "ratio")
        self.assertEqual((self.panel.config.block_type, self.panel.config.ratio), ("auto", 10.0))
        self.pick(box, "implicit")
        self.assertEqual((self.panel.config.block_type, ui.valueSpinBox.value), ("implicit", 100.0))
        self.assertIn("no estimate", ui.estimateLabel.text)
        self.assertTrue(ui.compressButton.enabled)
        ui.valueSpinBox.value = 5
        self.assertEqual(self.panel.config.ratio, 100.0)
        node.SetAttribute("MedEnhance.modality", "PT")
        self.processEvents(80)
        self.assertIn("CT, MR and EM", ui.problemLabel.text)
        self.pick(ui.modeSelector, "lossless")
        self.assertTrue(ui.compressButton.enabled and self.panel.config.lossless)
        with mock.patch.object(compression, "startEstimate", side_effect=PanelError("none")):
            self.waitUntil(lambda: ui.estimateLabel.text == "none")
        self.pick(ui.modeSelector, "ratio")
        self.pick(ui.modeSelector, "lossless")
        self.assertEqual(ui.estimateLabel.text, "Estimating…")

    @slow
    def test_theImplicitNetworkWritesAFileThatOpenReads(self):
        node = self.smallVolume((32, 96, 96), modality="CT")
        self.choose(node, "ratio")
        self.pick(self.ui.codecSelector, "implicit")
        job = self.compress()
        self.assertEqual(set(job.result["block_types"]), {"implicit"}, self.message)
        self.assertGreaterEqual(job.result["ratio"], 100)
        self.context.message("info", "old news")
        with mock.patch.object(compress, "askForFile", return_value=self.path):
            self.ui.openButton.click()
        back = self.context.state.inputVolume
        self.assertEqual((back.GetName(), self.message), ("scan", OPENED))
        self.assertTrue(preview.isShown(back))
        self.assertEqual(back.GetImageData().GetDimensions(), node.GetImageData().GetDimensions())

    def test_aFileThatCannotBeOpenedIsReported(self):
        Path(self.path).write_bytes(b"nothing")
        with mock.patch.object(compress, "askForFile", return_value=self.path):
            self.ui.openButton.click()
        self.assertIn("scan.ucv", self.message)
        self.assertIsNone(self.context.state.inputVolume)

    @slow
    def test_aSequenceKeepsTheTimeBetweenItsFrames(self):
        sequence = self.sequenceOf("beating", np.arange(12) * 40.0, unit="ms")
        runner, options = self.context.runner, CompressConfig(lossless=True)
        self.finish(compression.startCompress(runner, sequence, self.path, options))
        job = self.finish(compression.startDecompress(runner, self.path))
        self.assertEqual(job.state, "done", job.error)
        back = job.nodes["output"]
        times = [float(back.GetNthIndexValue(at)) for at in range(12)]
        np.testing.assert_allclose(times, np.arange(12) * 0.04, atol=1e-9)
        self.assertEqual(back.GetIndexUnit(), "s")
        for at in range(12):
            self.assertSameVoxels(back.GetNthDataNode(at), sequence.GetNthDataNode(at))

    @slow
    def test_timesThatAFileCannotKeepAreWarnedOf(self):
        self.choose(self.sequenceOf("uneven", (0, 0.5, 2)))
        self.assertEqual(self.compress().state, "done")
        self.assertIn("keeps only the order", self.message)
        back = self.opened()
        self.assertEqual((back.GetIndexName(), back.GetIndexUnit()), ("frame", ""))
        self.assertEqual([back.GetNthIndexValue(at) for at in range(3)], ["0", "1", "2"])

    def test_aSingleFrameHasNoTimesToLose(self):
        single = self.sequenceOf("single", (0,), modality="MR")
        options = CompressConfig(lossless=True)
        job = compression.startCompress(self.context.runner, single, self.path, options)
        self.assertEqual(job.warnings, [])
        self.assertEqual(self.finish(job).state, "done")

    def test_framesThatLieElsewhereAreNotGivenOnePlace(self):
        moves = {"change": lambda frame, at: frame.SetOrigin(at, 0, 0)}
        self.choose(self.sequenceOf("moving", (0, 1), **moves))
        self.assertFalse(self.ui.compressButton.enabled)
        self.assertIn("differs from the first", self.ui.compressButton.toolTip)

    def test_labelsAreKeptOrNothing(self):
        named = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
        values = np.arange(8000, dtype=np.int16).reshape(20, 20, 20)
        slicer.util.updateVolumeFromArray(named, values)
        for labels in (named, slicer.util.addVolumeFromArray(values % 5, name="scalars")):
            self.choose(self.smallVolume(), "maxError")
            self.choose(labels)
            self.assertEqual(self.context.state.compressMode, "lossless")
            self.assertEqual(self.ui.modeSelector.count, 1)
            with self.assertRaisesRegex(PanelError, "labels"):
                options = CompressConfig(ratio=10)
                compression.startCompress(self.context.runner, labels, self.path, options)

    def test_anExistingFileIsReplacedOnlyWhereTheDialogHasAsked(self):
        Path(self.path).write_bytes(b"precious")
        node, options = self.smallVolume(), CompressConfig(lossless=True)
        self.choose(node)
        with self.assertRaisesRegex(PanelError, "exists"):
            compression.startCompress(self.context.runner, node, self.path, options)
        chosen, self.path = self.path, self.path.removesuffix(".ucv")
        self.press()  # the dialog has asked about a name without the ending
        self.assertIn("exists", self.message)
        self.assertEqual(Path(chosen).read_bytes(), b"precious")
        self.path = chosen
        self.assertEqual(self.compress().state, "done")
        self.assertGreater(os.path.getsize(self.path), 100)

    def test_theSuggestedNameIsFree(self):
        node = self.smallVolume(name="a/b: c")
        home = os.path.expanduser("~")
        self.assertEqual(os.path.dirname(compression.suggestPath(node)), home)
        slicer.util.saveNode(node, os.path.join(self.folder, "scan.nrrd"), {})
        beside = os.path.join(self.folder, "a_b_ c.ucv")
        self.assertEqual(compression.suggestPath(node), beside)
        open(beside, "wb").close()
        self.assertEqual(compression.suggestPath(node), os.path.join(self.folder, "a_b_ c-2.ucv"))

    @slow
    def test_cancellingLeavesNoFile(self):
        self.choose(self.loadSample())
        job = self.press()
        self.waitUntil(lambda: job.fraction > 0.1, 60)
        self.assertFalse(self.widget.ui.jobFrame.isHidden())
        self.widget.ui.jobCancelButton.click()
        self.assertEqual(self.finish(job).state, "cancelled")
        self.assertEqual((job.error.text, job.error.details), ("Cancelled.", ""))
        self.assertEqual(os.listdir(self.folder), [])
        self.assertTrue(self.widget.ui.jobFrame.isHidden())
        self.assertTrue(self.ui.compressButton.enabled)
        self.choose(self.obliqueVolume())
        self.assertEqual(self.compress().state, "done")

    def estimate(self):
        self.waitUntil(lambda: self.ui.estimateLabel.text.startswith("Estimate:"), 60)
        return self.ui.estimateLabel.text

    @slow
    def test_theEstimateIsCloseToTheOutcome(self):
        self.choose(self.loadSample(), "maxError")
        text = self.estimate()
        self.assertRegex(text, r"measured on \d+% of the volume")
        estimated = float(re.search(r"([\d.]+) times smaller", text).group(1))
        self.picture("compress-ready")
        job = self.compress()
        self.assertLess(abs(estimated - job.result["ratio"]), 0.35 * job.result["ratio"])

    @slow
    def test_aChangeCancelsTheOldEstimate(self):
        self.choose(self.loadSample())
        runner = self.context.runner
        self.waitUntil(lambda: any(job.kind == "estimate" for job in runner.activeJobs()))
        first = next(job for job in runner.activeJobs() if job.kind == "estimate")
        self.pick(self.ui.modeSelector, "maxError")
        self.assertEqual(self.finish(first).state, "cancelled")
        self.assertIn("error", self.estimate())
