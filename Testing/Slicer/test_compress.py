"""The page Compress, driven as a user does, with the real worker."""

import os
import re

import numpy as np
import qt
import slicer
import vtk
from compress_testing import CompressTestCase
from medenhance_testing import slow


class CompressTest(CompressTestCase):
    def test_anEmptyPageSaysWhatIsMissing(self):
        self.ui.pathEdit.text = ""
        self.assertFalse(self.ui.compressButton.enabled)
        self.assertIn("Choose", self.ui.compressButton.toolTip)
        self.assertEqual(self.ui.whyLabel.text, self.ui.compressButton.toolTip)
        self.assertFalse(self.ui.whyLabel.isHidden())
        self.assertIn("Choose a volume", self.ui.estimateLabel.text)
        self.assertFalse(self.ui.openButton.enabled)
        self.assertTrue(self.ui.replaceCheckBox.isHidden())
        self.picture("compress-empty")

    def test_losslessReturnsEveryVoxelAndTheGeometry(self):
        node = self.obliqueVolume()
        self.choose(node)
        job = self.compress()
        self.assertEqual(job.state, "done", job.error)
        self.assertIn("every voxel is equal", self.ui.resultLabel.text)
        self.assertIn("decoded and compared", self.ui.resultLabel.text)
        back = self.openFile().nodes["output"]
        voxels = slicer.util.arrayFromVolume(back)
        self.assertEqual(voxels.dtype, np.int16)
        np.testing.assert_array_equal(voxels, slicer.util.arrayFromVolume(node))
        self.assertSameGrid(node, back)
        self.assertEqual(back.GetAttribute("MedEnhance.modality"), "CT")

    @slow
    def test_theLargestErrorIsHeldAndReportedInTheVolumesUnits(self):
        node = self.obliqueVolume()
        self.choose(node, "maxErrorButton")
        self.ui.maxErrorSpinBox.value = 3
        self.assertIn("HU", self.ui.maxErrorSpinBox.suffix)
        job = self.compress()
        self.assertEqual(job.state, "done", job.error)
        text = self.ui.resultLabel.text
        self.assertTrue(self.ui.whyLabel.isHidden())
        back = slicer.util.arrayFromVolume(self.openFile().nodes["output"])
        error = np.abs(back.astype(int) - slicer.util.arrayFromVolume(node)).max()
        self.assertGreater(error, 0)
        self.assertLessEqual(error, 3)
        self.assertEqual(job.result["max_error"], error)
        self.assertIn(f"{error} HU", text)
        self.assertIn("the error of every voxel is at most 3 HU", self.ui.cardLabel.text)

    @slow
    def test_theRatioIsKept(self):
        node = self.smallVolume((40, 64, 64))
        self.choose(node, "ratioButton")
        self.ui.ratioSpinBox.value = 8.0
        job = self.compress()
        self.assertEqual(job.state, "done", job.error)
        raw = slicer.util.arrayFromVolume(node).nbytes
        self.assertLessEqual(os.path.getsize(self.path), raw / 8)
        self.assertIn("PSNR", self.ui.resultLabel.text)
        self.assertSameGrid(node, self.openFile().nodes["output"])

    @slow
    def test_theQualityIsReached(self):
        node = self.smallVolume((40, 64, 64))
        self.choose(node, "qualityButton")
        self.ui.qualitySpinBox.value = 40.0
        job = self.compress()
        self.assertEqual(job.state, "done", job.error)
        self.assertGreaterEqual(job.result["psnr"], 40.0)
        self.assertIn("PSNR", self.ui.resultLabel.text)
        self.openFile()
        self.assertIn("PSNR", self.ui.cardLabel.text)

    def test_floatsOfASmallRangeGetASmallStep(self):
        node = self.smallVolume(dtype=np.float32)
        slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node) / 1000)
        self.choose(node, "maxErrorButton")
        self.ui.maxErrorSpinBox.value = 0.01
        self.assertAlmostEqual(self.context.state.maxError, 0.01)
        self.assertLess(self.ui.maxErrorSpinBox.singleStep, 0.1)
        self.assertEqual(self.compress().state, "done")
        back = slicer.util.arrayFromVolume(self.openFile().nodes["output"])
        self.assertLessEqual(np.abs(back - slicer.util.arrayFromVolume(node)).max(), 0.01)

    @slow
    def test_aSequenceKeepsItsFrames(self):
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "beating")
        frames = [self.smallVolume(seed=seed) for seed in range(3)]
        for index, frame in enumerate(frames):
            sequence.SetDataNodeAtValue(frame, str(index))
        self.choose(sequence)
        self.assertEqual(self.compress().state, "done")
        back = self.openFile().nodes["output"]
        self.assertIn("3 frames", self.ui.cardLabel.text)
        self.assertEqual(back.GetNumberOfDataNodes(), 3)
        for index, frame in enumerate(frames):
            np.testing.assert_array_equal(
                slicer.util.arrayFromVolume(back.GetNthDataNode(index)),
                slicer.util.arrayFromVolume(frame),
            )

    @slow
    def test_aSequenceKeepsTheTimeBetweenItsFrames(self):
        from MedEnhancePanels.tasks import compression

        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "beating")
        sequence.SetIndexName("trigger")
        sequence.SetIndexUnit("ms")
        for index in range(12):
            sequence.SetDataNodeAtValue(self.smallVolume(seed=index), str(index * 40.0))
        runner, options = self.context.runner, compression.CompressOptions()
        path = os.path.join(self.temporaryFolder(), "beating.ucv")
        done = compression.startCompress(runner, sequence, path, options)
        self.waitUntil(lambda: done.isFinished, 30)
        job = compression.startDecompress(runner, path)
        self.waitUntil(lambda: job.isFinished, 30)
        self.assertEqual(job.state, "done", job.error)
        back = job.nodes["output"]
        times = [float(back.GetNthIndexValue(at)) for at in range(12)]
        np.testing.assert_allclose(times, np.arange(12) * 0.04, atol=1e-9)
        self.assertEqual(back.GetIndexUnit(), "s")
        for at in range(12):
            np.testing.assert_array_equal(
                slicer.util.arrayFromVolume(back.GetNthDataNode(at)),
                slicer.util.arrayFromVolume(sequence.GetNthDataNode(at)),
            )

    @slow
    def test_timesThatAFileCannotKeepAreWarnedOf(self):
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "uneven")
        for index, time in enumerate(("0", "0.5", "2")):
            sequence.SetDataNodeAtValue(self.smallVolume(seed=index), time)
        self.choose(sequence)
        self.assertEqual(self.compress().state, "done")
        self.assertIn("keeps only the order", self.widget.ui.messageLabel.text)
        back = self.openFile().nodes["output"]
        self.assertEqual((back.GetIndexName(), back.GetIndexUnit()), ("frame", ""))
        self.assertEqual([back.GetNthIndexValue(at) for at in range(3)], ["0", "1", "2"])

    def test_framesThatLieElsewhereAreNotGivenOnePlace(self):
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "moving")
        frame = self.smallVolume()
        for index in range(2):
            frame.SetOrigin(float(index), 0.0, 0.0)
            sequence.SetDataNodeAtValue(frame, str(index))
        self.choose(sequence)
        self.assertFalse(self.ui.compressButton.enabled)
        self.assertIn("differs from the first", self.ui.compressButton.toolTip)

    def test_labelsAreKeptOrNothing(self):
        labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
        slicer.util.updateVolumeFromArray(labels, np.arange(60, dtype=np.int16).reshape(3, 4, 5))
        self.ui.maxErrorButton.checked = True
        self.choose(labels)
        self.assertEqual(self.context.state.compressMode, "lossless")
        self.assertFalse(self.ui.maxErrorButton.enabled)
        self.assertFalse(self.ui.ratioButton.enabled)
        from MedEnhancePanels.errors import PanelError
        from MedEnhancePanels.tasks import compression

        with self.assertRaisesRegex(PanelError, "labels"):
            options = compression.CompressOptions("ratio", ratio=10)
            compression.startCompress(self.context.runner, labels, self.path, options)

    def test_anExistingFileIsReplacedOnlyAfterAYes(self):
        with open(self.path, "wb") as file:
            file.write(b"precious")
        self.choose(self.smallVolume())
        self.assertFalse(self.ui.replaceCheckBox.isHidden())
        self.assertFalse(self.ui.compressButton.enabled)
        self.assertIn("exists already", self.ui.compressButton.toolTip)
        from MedEnhancePanels.errors import PanelError
        from MedEnhancePanels.tasks import compression

        with self.assertRaisesRegex(PanelError, "exists already"):
            node = self.context.state.compressVolume
            compression.startCompress(
                self.context.runner, node, self.path, compression.CompressOptions()
            )
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"precious")
        self.ui.replaceCheckBox.checked = True
        self.assertEqual(self.compress().state, "done")
        self.assertGreater(os.path.getsize(self.path), 100)

    @slow
    def test_theSuggestedNameIsFree(self):
        from MedEnhancePanels.tasks import compression

        node = self.smallVolume(name="a/b: c")
        home = os.path.expanduser("~")
        self.ui.pathEdit.text = ""
        self.ui.inputSelector.setCurrentNode(node)
        self.assertEqual(os.path.dirname(self.ui.pathEdit.text), home)
        self.assertEqual(os.path.basename(self.ui.pathEdit.text), "a_b_ c.ucv")
        file = os.path.join(self.folder, "scan.nrrd")
        slicer.util.saveNode(node, file, {})
        self.assertEqual(compression.suggestPath(node), os.path.join(self.folder, "a_b_ c.ucv"))
        open(os.path.join(self.folder, "a_b_ c.ucv"), "wb").close()
        self.assertEqual(compression.suggestPath(node), os.path.join(self.folder, "a_b_ c-2.ucv"))

    @slow
    def test_cancellingLeavesNoFile(self):
        self.choose(self.loadSample())
        self.ui.compressButton.click()
        job = self.newestJob()
        self.waitUntil(lambda: job.fraction > 0.1, 60)
        self.assertFalse(self.ui.compressProgressArea.isHidden())
        self.picture("compress-running")
        self.ui.compressCancelButton.click()
        self.waitUntil(lambda: job.isFinished, 2)
        self.assertEqual(job.state, "cancelled")
        self.assertEqual(os.listdir(self.folder), [])
        self.assertTrue(self.ui.compressProgressArea.isHidden())
        self.assertTrue(self.ui.compressButton.enabled)
        self.choose(self.obliqueVolume())
        self.assertEqual(self.compress().state, "done")

    def test_removingTheVolumeMeanwhileDisturbsNothing(self):
        node = self.obliqueVolume()
        self.choose(node)
        self.ui.compressButton.click()
        slicer.mrmlScene.RemoveNode(node)
        self.processEvents(20)
        job = self.lastJob()
        self.assertIn(job.state, ("done", "cancelled", "failed"))
        self.assertEqual(os.path.exists(self.path), job.state == "done")

    def test_theDifferenceIsShownOnTheInputsGrid(self):
        node = self.obliqueVolume()
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        node.SetAndObserveTransformNodeID(transform.GetID())
        self.choose(node, "maxErrorButton")
        self.compress()
        volumes = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        self.ui.differenceButton.click()
        job = self.lastJob()
        self.assertEqual(job.state, "done", job.error)
        difference = job.nodes["difference"]
        self.assertSameGrid(node, difference)
        self.assertIs(difference.GetParentTransformNode(), transform)
        largest = np.abs(slicer.util.arrayFromVolume(difference)).max()
        self.assertTrue(0 < largest <= 2)
        self.assertEqual(job.result["largest"], largest)
        self.assertIn(f"{largest:.0f} HU", self.widget.ui.messageLabel.text)
        after = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        self.assertEqual(after, volumes + 1)

    def test_theChoicesAreKeptInTheScene(self):
        self.choose(self.smallVolume(), "ratioButton")
        self.ui.ratioSpinBox.value = 12.5
        self.ui.speedComboBox.setCurrentIndex(1)
        state = self.context.state
        self.assertEqual((state.compressMode, state.ratio, state.speed), ("ratio", 12.5, True))
        state.compressMode = "max_error"
        self.assertTrue(self.ui.maxErrorButton.checked)
        self.assertTrue(self.ui.maxErrorSpinBox.enabled)
        state.compressMode, state.psnr, state.embedModel = "psnr", 52.0, True
        self.assertTrue(self.ui.qualityButton.checked)
        self.assertTrue(self.ui.embedCheckBox.checked)
        self.assertEqual(self.ui.qualitySpinBox.value, 52.0)


class EstimateTest(CompressTestCase):
    def estimate(self):
        self.waitUntil(lambda: self.ui.estimateLabel.text.startswith("Estimate:"), 60)
        return self.ui.estimateLabel.text

    @slow
    def test_theEstimateIsCloseToTheOutcome(self):
        self.choose(self.loadSample(), "maxErrorButton")
        text = self.estimate()
        self.assertRegex(text, r"from \d+ blocks, \d+% of the volume")
        estimated = float(re.search(r"([\d.]+) times smaller", text).group(1))
        self.picture("compress-ready")
        job = self.compress()
        self.assertLess(abs(estimated - job.result["ratio"]), 0.35 * job.result["ratio"])
        self.picture("compress-done")

    @slow
    def test_aChangeCancelsTheOldEstimate(self):
        self.choose(self.loadSample())
        runner = self.context.runner
        self.waitUntil(lambda: any(job.kind == "estimate" for job in runner.activeJobs()), 10)
        first = next(job for job in runner.activeJobs() if job.kind == "estimate")
        self.ui.maxErrorButton.checked = True
        self.waitUntil(lambda: first.isFinished, 5)
        self.assertEqual(first.state, "cancelled")
        self.assertIn("error", self.estimate())

    @slow
    def test_changedVoxelsAreEstimatedAgainAndNothingElse(self):
        node = self.smallVolume()
        self.choose(node)
        before = self.estimate()
        self.context.state.noiseMap = True
        self.processEvents(800)
        self.assertEqual(self.context.runner.activeJobs(), [])
        self.assertEqual(self.ui.estimateLabel.text, before)
        slicer.util.arrayFromVolume(node)[:] = 7
        slicer.util.arrayFromVolumeModified(node)
        self.assertNotEqual(self.ui.estimateLabel.text, before)
        self.assertNotEqual(self.estimate(), before)

    @slow
    def test_aPageThatIsNotShownEstimatesNothing(self):
        self.widget.exit()
        self.choose(self.smallVolume())
        self.processEvents(800)
        self.assertEqual(self.context.runner.activeJobs(), [])


class DecompressTest(CompressTestCase):
    def test_aPartHasItsPlaceInThePatient(self):
        node = self.obliqueVolume()
        self.choose(node)
        self.compress()
        self.ui.fileEdit.text = self.path
        self.waitUntil(lambda: self.ui.openButton.enabled, 20)
        self.ui.regionCheckBox.checked = True
        self.ui.slicesFrom.value, self.ui.slicesUntil.value = 5, 9
        self.ui.columnsFrom.value = 30
        part = self.openFile().nodes["output"]
        whole = slicer.util.arrayFromVolume(node)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(part), whole[5:10, :, 30:])
        corner = [vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()]
        for each, matrix in zip((part, node), corner, strict=True):
            each.GetIJKToRASMatrix(matrix)
        np.testing.assert_allclose(
            corner[0].MultiplyPoint((0, 0, 0, 1)), corner[1].MultiplyPoint((30, 0, 5, 1)), atol=1e-9
        )
        self.picture("compress-open")

    @slow
    def test_aPreviewIsShownFirstAndGoesWithACancelledOpening(self):
        self.choose(self.loadSample())
        self.ui.speedComboBox.setCurrentIndex(1)
        self.compress()
        self.ui.fileEdit.text = self.path
        self.waitUntil(lambda: self.ui.openButton.enabled, 20)
        count = self.countNodes()
        selection = slicer.app.applicationLogic().GetSelectionNode()
        self.ui.openButton.click()
        preview = self.newestJob()
        self.waitUntil(lambda: preview.isFinished, 30)
        self.assertEqual(preview.state, "done", preview.error)
        node = preview.nodes["output"]
        self.assertEqual(selection.GetActiveVolumeID(), node.GetID())
        self.assertEqual(node.GetAttribute("MedEnhance.preview"), "true")
        self.ui.openCancelButton.click()
        self.waitUntil(lambda: self.ui.openButton.enabled, 5)
        self.assertEqual(self.countNodes(), count)
        whole = self.openFile().nodes["output"]
        self.assertIsNone(whole.GetAttribute("MedEnhance.preview"))

    def countNodes(self):
        """Volumes, and what shows them."""
        kinds = ("vtkMRMLScalarVolumeNode", "vtkMRMLScalarVolumeDisplayNode")
        return [slicer.mrmlScene.GetNumberOfNodesByClass(kind) for kind in kinds]

    @slow
    def test_aPreviewThatIsRemovedWhileItComesInEndsTheOpening(self):
        from MedEnhancePanels.tasks import compression

        self.choose(self.loadSample())
        self.ui.speedComboBox.setCurrentIndex(1)
        self.compress()
        runner = self.context.runner
        card = self.wait(compression.startInspect(runner, self.path)).result["card"]
        count = self.countNodes()
        job = compression.startPreviewLoad(runner, self.path, card, "coming")

        def remove(*_arguments):
            node = slicer.mrmlScene.GetFirstNodeByName("coming")
            if node is not None and job.fraction > 0.96:
                slicer.mrmlScene.RemoveNode(node)

        job.onEvent(remove)
        self.waitUntil(lambda: job.isFinished, 30)
        self.assertEqual((job.state, job.nodes), ("cancelled", {}))
        self.assertEqual(self.countNodes(), count)

    def wait(self, job):
        self.waitUntil(lambda: job.isFinished, 30)
        return job

    def test_theLastVoxelIsNeverBeforeTheFirst(self):
        self.choose(self.obliqueVolume())
        self.compress()
        self.ui.fileEdit.text = self.path
        self.waitUntil(lambda: self.ui.openButton.enabled, 20)
        self.ui.slicesUntil.value = 3
        self.ui.slicesFrom.value = 10
        self.assertGreaterEqual(self.ui.slicesUntil.value, 10)

    @slow
    def test_aDamagedFileReportsTheRemedyAndWhatIsIntactCanBeOpened(self):
        node = self.smallVolume((70, 70, 70))
        self.choose(node)
        self.compress()
        self.damage(os.path.getsize(self.path) // 10)
        job = self.openFile()
        self.assertEqual(job.state, "failed")
        message = self.widget.ui.messageLabel.text
        self.assertIn("scan.ucv", message)
        self.assertIn("recover", message)
        self.assertNotIn("Traceback", message)
        self.assertFalse(self.ui.recoverButton.isHidden())
        self.picture("compress-error")
        self.ui.recoverButton.click()
        job = self.lastJob()
        self.assertEqual(job.state, "done", job.error)
        self.assertIn("could not be read", self.widget.ui.messageLabel.text)
        notes = job.nodes["output"].GetAttribute("MedEnhance.notes")
        self.assertRegex(notes, r"^\d+ of \d+ blocks could not be read and holds? the lowest value")
        back = slicer.util.arrayFromVolume(job.nodes["output"])
        whole = slicer.util.arrayFromVolume(node)
        self.assertGreater((back == whole).mean(), 0.5)
        mask = job.nodes["mask"]
        (segment,) = mask.GetSegmentation().GetSegmentIDs()
        lost = slicer.util.arrayFromSegmentBinaryLabelmap(mask, segment, job.nodes["output"])
        np.testing.assert_array_equal(back[lost == 0], whole[lost == 0])
        self.assertEqual(set(back[lost == 1]), {whole.min()})
        self.assertEqual(lost.sum(), job.result["report"]["lost_voxels"])

    @slow
    def test_damageThatParityRepairsIsAWarning(self):
        node = self.smallVolume((70, 70, 70))
        self.choose(node)
        self.compress()
        self.damage(40)
        job = self.openFile()
        self.assertEqual(job.state, "done", job.error)
        message = self.widget.ui.messageLabel.text
        self.assertIn("was loaded", message)
        self.assertIn("scan.ucv is damaged", message)
        self.assertIn("write it anew", message)
        back = slicer.util.arrayFromVolume(job.nodes["output"])
        np.testing.assert_array_equal(back, slicer.util.arrayFromVolume(node))
        self.assertIn("repaired", job.nodes["output"].GetAttribute("MedEnhance.notes"))

    def damage(self, count):
        """Zero bytes of the file."""
        with open(self.path, "r+b") as file:
            file.seek(os.path.getsize(self.path) // 3)
            file.write(b"\0" * count)

    @slow
    def test_whyNothingCanBeCompressedIsWrittenOnThePage(self):
        self.choose(self.smallVolume())
        self.assertTrue(self.ui.whyLabel.isHidden())
        open(os.path.join(self.folder, "file"), "wb").close()
        for path, why in (
            ("", "No file is chosen"),
            (os.path.join(self.folder, "scan.nrrd"), "does not end in .ucv"),
            (os.path.join(self.folder, "file", "scan.ucv"), "does not exist"),
        ):
            self.ui.pathEdit.text = path
            self.assertIn(why, self.ui.whyLabel.text)
            self.assertFalse(self.ui.whyLabel.isHidden())

    def test_typedPathsMeanTheHomeFolder(self):
        home = os.path.expanduser("~")
        for text in ("~/scan.ucv", "scan.ucv"):
            self.ui.pathEdit.text = text
            self.assertEqual(self.panel.path, os.path.join(home, "scan.ucv"))
            self.ui.fileEdit.text = text
            self.assertEqual(self.panel._decompress.path, os.path.join(home, "scan.ucv"))

    @slow
    def test_whatIsOpenedIsChosenAndItsMessageGoesWithThePage(self):
        node = self.smallVolume()
        self.choose(node)
        self.compress()
        opened = self.openFile().nodes["output"]
        self.assertIs(self.context.state.inputVolume, opened)
        message = self.widget.ui.messageFrame
        self.assertFalse(message.isHidden())
        self.ui.fileEdit.text = os.path.join(self.folder, "other.ucv")
        self.assertTrue(message.isHidden())
        self.context.message("info", "x is ready")
        self.widget.showPage("load")
        self.assertTrue(message.isHidden())
        self.context.message("error", "x failed")
        self.widget.showPage("compress")
        self.assertFalse(message.isHidden())

    def test_whatIsNoContainerIsReportedSo(self):
        path = os.path.join(self.folder, "text.ucv")
        with open(path, "w", encoding="utf-8") as file:
            file.write("nothing")
        self.ui.fileEdit.text = path
        self.waitUntil(lambda: self.ui.cardLabel.text not in ("", "Reading…"), 20)
        self.assertIn("text.ucv was not compressed by MedEnhance", self.ui.cardLabel.text)
        self.assertTrue(self.ui.recoverButton.isHidden())
        self.assertFalse(self.ui.openButton.enabled)
        self.ui.fileEdit.text = os.path.join(self.folder, "absent.ucv")
        self.assertIn("does not exist", self.ui.cardLabel.text)

    def test_thePageCanBeReadOnADarkTheme(self):
        self.choose(self.obliqueVolume())
        panel = self.widget.parent
        before = qt.QPalette(panel.palette)
        panel.palette = qt.QPalette(qt.QColor(45, 45, 48))
        self.picture("compress-dark")
        panel.palette = before
