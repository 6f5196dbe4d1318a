"""The page Load: volumes in, judged by the library, described truly, warned about."""

import os
from unittest import mock

import numpy as np
import qt
import slicer
import vtk
from medenhance_testing import MedEnhanceTestCase, slow

from MedEnhancePanels.nodes import bridge, card, provenance
from MedEnhancePanels.tasks import files, samples


class LoadTestCase(MedEnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.panel = self.widget.panels["load"]
        self.widget.showPage("load")

    def volume(self, voxels=None, spacing=(1.0, 1.0, 1.0), name="scan"):
        if voxels is None:
            voxels = np.arange(6 * 8 * 10, dtype=np.int16).reshape(6, 8, 10)
        node = slicer.util.addVolumeFromArray(voxels, name=name)
        node.SetSpacing(spacing)
        return node

    def open(self, path, **more):
        """Load a path through the page, to its end."""
        job = self.panel.openPath(str(path), **more)
        self.waitUntil(lambda: job.isFinished, 60)
        return job

    def use(self, patch):
        """Something exchanged until the end of the test."""
        patch.start()
        self.addCleanup(patch.stop)

    def message(self):
        ui = self.widget.ui
        return "" if ui.messageFrame.isHidden() else ui.messageLabel.text


class LoadTest(LoadTestCase):
    @slow
    def test_theSampleIsLoadedChosenAndDescribed(self):
        job = self.panel.openSample(samples.SAMPLES[0])
        self.waitUntil(lambda: job.isFinished, 60)
        node = self.panel.node
        self.assertIs(node, job.nodes["output"])
        self.assertIs(self.context.state.inputVolume, node)
        self.assertEqual(node.GetImageData().GetDimensions(), (197, 233, 189))
        self.assertEqual(bridge.modalityOf(node), "MR")
        self.assertFalse(self.panel.ui.cardBox.isHidden())
        self.assertTrue(self.panel.ui.progressFrame.isHidden())
        self.assertIn("197 × 233 × 189", self.panel.ui.sizeLabel.text)
        self.assertFalse(os.path.exists(job.folder))

    @slow
    def test_aSampleThatIsWornIsMadeWhenItIsOpenedAndSaysSo(self):
        clean = slicer.util.loadVolume(samples.samplePath(samples.SAMPLES[0]))
        sample = next(one for one in samples.SAMPLES if one.name == "MNI152T1-noisy")
        job = self.panel.openSample(sample)
        self.assertEqual(job.title, "Load MNI152T1-noisy")
        self.waitUntil(lambda: job.isFinished, 60)
        node = self.panel.node
        self.assertEqual((node.GetName(), bridge.modalityOf(node)), ("MNI152T1-noisy", "MR"))
        before, after = (slicer.util.arrayFromVolume(one)[:, :9, :9] for one in (clean, node))
        self.assertEqual(float(before.max()), 0)
        self.assertGreater(float(after.std()), 5)
        self.assertIn("degraded (rician", node.GetDescription())
        self.assertTrue(provenance.historyOf(node))

    @slow
    def test_aStatedModalityIsTaken(self):
        path = samples.samplePath(samples.SAMPLES[0])
        node = self.open(path, modality="PT", name="stated").nodes["output"]
        self.assertEqual(bridge.modalityOf(node), "PT")
        self.assertEqual(node.GetName(), "stated")
        self.assertEqual(node.GetAttribute("MedEnhance.notes"), "")

    @slow
    def test_theCardIsTheLibrarys(self):
        from MedEnhanceLib import io
        from MedEnhanceLib.io.describe import card as library_card

        path = samples.samplePath(samples.SAMPLES[0])
        node = self.open(path, modality="MR").nodes["output"]
        ours, theirs = card.describe(node), library_card(io.load(path, modality="MR"))
        self.assertEqual(list(ours.size), theirs["shape"][::-1])
        self.assertEqual(list(ours.spacing), theirs["spacing"])
        self.assertEqual(list(ours.extentMm), theirs["size_mm"])
        self.assertEqual(list(ours.range), theirs["range"])
        for name in ("orientation", "frames", "bytes", "modality"):
            self.assertEqual(getattr(ours, name), theirs[name], name)
        self.assertEqual(ours.type, theirs["dtype"])

    @slow
    def test_theCardOfAnObliqueVolumeIsTheLibrarys(self):
        from MedEnhanceLib.core.geometry import Geometry
        from MedEnhanceLib.core.volume import Volume
        from MedEnhanceLib.io import save
        from MedEnhanceLib.io.describe import card as library_card

        turn = np.radians(12.0)
        direction = (
            (np.cos(turn), -np.sin(turn), 0.0),
            (np.sin(turn), np.cos(turn), 0.0),
            (0.0, 0.0, -1.0),
        )
        geometry = Geometry((0.7, 0.8, 4.0), (3.0, -4.0, 5.0), direction)
        voxels = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)
        volume = Volume(voxels, geometry, modality="MR")
        path = os.path.join(self.temporaryFolder(), "oblique.nrrd")
        save(volume, path)
        node = self.open(path).nodes["output"]
        ours, theirs = card.describe(node), library_card(volume)
        self.assertEqual(ours.orientation, theirs["orientation"])
        codes = {caution.code for caution in ours.warnings}
        self.assertTrue({"oblique", "thick", "leftHanded"} <= codes, codes)
        self.assertTrue(any("12.0° off" in fact for fact in theirs["warnings"]))
        self.assertIn("12.0° off", self.panel.ui.warningsLabel.text)

    @slow
    def test_aSequenceBecomesASequenceNodeWithItsFrames(self):
        from MedEnhanceLib.core.volume import Volume
        from MedEnhanceLib.io import save

        voxels = np.arange(3 * 4 * 5 * 6, dtype=np.int16).reshape(3, 4, 5, 6)
        path = os.path.join(self.temporaryFolder(), "frames.nii")
        save(Volume(voxels, modality="MR"), path)
        node = self.open(path).nodes["output"]
        self.assertTrue(node.IsA("vtkMRMLSequenceNode"))
        self.assertEqual(card.describe(node).frames, 3)
        self.assertEqual(card.describe(node).bytes, voxels.nbytes)
        self.assertIn("3 frames of ", self.panel.ui.sizeLabel.text)

    @slow
    def test_brokenFilesGiveASentenceWithARemedy(self):
        folder = self.temporaryFolder()
        files = {
            "empty.nii.gz": b"",
            "noise.nii.gz": b"\x1f\x8b" + bytes(300),
            "text.nrrd": b"this is no volume\n",
            "cut.mha": b"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\n",
        }
        for name, content in files.items():
            path = os.path.join(folder, name)
            with open(path, "wb") as file:
                file.write(content)
            with self.subTest(name):
                job = self.open(path)
                self.assertEqual(job.state, "failed")
                self.assertTrue(job.error.hint)
                self.assertNotIn("Traceback", self.message())
                self.assertIn(job.error.hint, self.message())
                self.assertIsNone(self.panel.node)
        job = self.open(os.path.join(folder, "absent.nii.gz"))
        self.assertIn("absent.nii.gz", self.message())

    @slow
    def test_aCompressedFileComesAsAPreviewAndThenInFull(self):
        node = self.smallVolume((40, 96, 96))
        path = os.path.join(self.temporaryFolder(), "small.ucv")
        self.widget.logic.compress(node, path, lossless=True)
        self.panel.openPath(path)
        self.waitUntil(lambda: self.panel.node is not None, 60)
        back = self.panel.node
        self.assertIn("preview", {caution.code for caution in card.describe(back).warnings})
        self.panel.updateCard()
        self.assertFalse(self.panel.ui.enhanceButton.enabled)
        self.waitUntil(lambda: self.panel._job is None, 60)
        self.assertIs(self.panel.node, back)
        voxels = slicer.util.arrayFromVolume
        self.assertTrue(np.array_equal(voxels(back), voxels(node)))
        self.waitUntil(lambda: self.panel.ui.enhanceButton.enabled, 2)

    @slow
    def test_aDamagedCompressedFileHasARemedyOnThePages(self):
        path = os.path.join(self.temporaryFolder(), "damaged.ucv")
        self.widget.logic.compress(self.smallVolume(), path, lossless=True)
        with open(path, "r+b") as file:
            file.truncate(os.path.getsize(path) // 2)
        self.panel.openPath(path)
        self.waitUntil(lambda: self.panel._job is None, 60)
        self.assertIn("page Compress", self.message())
        self.assertIsNone(self.panel.node)

    def test_otherFormatsAreLeftToSlicer(self):
        path = os.path.join(self.temporaryFolder(), "picture.bmp")
        with open(path, "w", encoding="utf-8") as file:
            file.write("no volume")
        self.assertFalse(files.isForTheLibrary(path))
        self.assertIsNone(self.panel.openPath(path))
        self.assertIn("neither by MedEnhance nor by Slicer", self.message())
        self.assertIn(".nii.gz", self.message())
        node = self.volume()
        with mock.patch.object(slicer.util, "loadNodeFromFile", return_value=node):
            self.panel.openPath(path)
        self.assertIs(self.panel.node, node)

    @slow
    def test_aGuessedModalityIsReportedInWordsOfThePage(self):
        node = self.open(samples.samplePath(samples.SAMPLES[0])).nodes["output"]
        self.assertIn("no modality", node.GetAttribute("MedEnhance.notes"))
        text = self.panel.ui.warningsLabel.text
        self.assertIn("by its values it looks like MR", text)
        self.assertNotIn("--modality", text)

    @slow
    def test_aLossyFileSaysSoOnTheCardAndGoesOnSayingIt(self):
        path = os.path.join(self.temporaryFolder(), "lossy.ucv")
        node = self.smallVolume((40, 64, 64))
        self.context.logic.compress(node, path, ratio=40)
        self.panel.openPath(path)
        self.waitUntil(lambda: self.panel.node not in (None, node), 60)
        self.waitUntil(lambda: self.panel._job is None, 60)
        text = self.panel.ui.warningsLabel.text
        self.assertIn("Lossy: compressed 40 times", text)
        self.assertIn("PSNR", text)
        self.assertIn("compressed to a ratio of 40", text)
        self.panel.ui.modalityComboBox.activated.emit(card.MODALITIES.index("MR"))
        self.assertIn("Lossy", self.panel.node.GetAttribute("MedEnhance.notes"))

    @slow
    def test_whatAFileSaidOfItsModalityIsRemembered(self):
        from MedEnhanceLib.core.volume import Volume
        from MedEnhanceLib.io import save

        path = os.path.join(self.temporaryFolder(), "said.nrrd")
        save(Volume(np.arange(480, dtype=np.int16).reshape(6, 8, 10), modality="MR"), path)
        node = self.open(path).nodes["output"]
        self.assertEqual(node.GetAttribute(card.FILE_MODALITY), "MR")
        self.panel.ui.modalityComboBox.activated.emit(card.MODALITIES.index("PT"))
        label = self.panel.ui.warningsLabel
        self.waitUntil(lambda: "The file says MR, but PET is selected" in label.text, 2)

    def test_aCancelledLoadLeavesNoNodeAndNoMessage(self):
        before = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode")
        job = self.panel.openPath(samples.samplePath(samples.SAMPLES[0]))
        self.assertFalse(self.panel.ui.progressFrame.isHidden())
        self.assertFalse(self.panel.ui.openFileButton.enabled)
        self.panel.ui.cancelButton.click()
        self.waitUntil(lambda: job.isFinished, 10)
        self.assertEqual(job.state, "cancelled")
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLVolumeNode"), before)
        self.assertEqual(self.message(), "")
        self.assertTrue(self.panel.ui.openFileButton.enabled)

    def test_theChosenNodeFollowsTheScenesState(self):
        first, second = self.volume(name="first"), self.volume(name="second")
        self.panel.ui.inputSelector.setCurrentNode(first)
        self.assertIs(self.context.state.inputVolume, first)
        self.context.state.inputVolume = second
        self.processEvents()
        self.assertIs(self.panel.node, second)
        slicer.mrmlScene.RemoveNode(second)
        self.processEvents()
        self.assertIsNone(self.panel.node)
        self.assertFalse(self.panel.ui.emptyLabel.isHidden())

    def test_theCardFollowsTheNode(self):
        node = self.volume()
        self.panel.ui.inputSelector.setCurrentNode(node)
        self.assertIn("0 to 479", self.panel.ui.typeLabel.text)
        slicer.util.updateVolumeFromArray(node, np.full((4, 5, 6), 7.5, np.float32))
        self.waitUntil(lambda: "6 × 5 × 4" in self.panel.ui.sizeLabel.text, 2)
        self.assertIn("float32", self.panel.ui.typeLabel.text)
        node.SetName("renamed")
        self.waitUntil(lambda: self.panel.ui.cardBox.title == "renamed", 2)

    def test_aCorrectedModalityStaysWithTheNode(self):
        node = self.volume(np.zeros((4, 5, 6), np.uint8))
        self.panel.ui.inputSelector.setCurrentNode(node)
        self.assertIn("not known", self.panel.ui.warningsLabel.text)
        index = card.MODALITIES.index("MR")
        self.panel.ui.modalityComboBox.setCurrentIndex(index)
        self.panel.ui.modalityComboBox.activated.emit(index)
        self.assertEqual(bridge.modalityOf(node), "MR")
        self.waitUntil(lambda: "not known" not in self.panel.ui.warningsLabel.text, 2)

    def test_observersGoWithTheNode(self):
        node = self.volume()
        self.panel.ui.inputSelector.setCurrentNode(node)
        self.assertEqual(len(self.panel._observed), 3)
        self.panel.ui.inputSelector.setCurrentNode(None)
        self.assertEqual(self.panel._observed, [])


class ScreenshotTest(LoadTestCase):
    @slow
    def test_screenshots(self):
        self.screenshot(self.widget.parent, "load-empty", height=600)
        job = self.panel.openSample(samples.SAMPLES[0])
        self.waitUntil(lambda: job.isFinished, 60)
        self.screenshot(self.widget.parent, "load-ready", height=600)
        node = self.volume(spacing=(0.9, 0.9, 4.0), name="FLAIR")
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "to MNI")
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 10.0)
        transform.SetMatrixTransformToParent(matrix)
        node.SetAndObserveTransformNodeID(transform.GetID())
        node.SetAttribute(bridge.MODALITY, "PT")
        self.panel.ui.inputSelector.setCurrentNode(node)
        self.screenshot(self.widget.parent, "load-warnings", height=600)
        self.useDarkPalette()
        self.screenshot(self.widget.parent, "load-warnings-dark", height=600)

    def useDarkPalette(self):
        """As Slicer's dark style: light text on dark gray."""
        light = qt.QPalette(qt.QApplication.palette())
        self.addCleanup(qt.QApplication.setPalette, light)
        dark = qt.QPalette()
        for role, gray in (
            (qt.QPalette.Window, 46),
            (qt.QPalette.Base, 32),
            (qt.QPalette.AlternateBase, 40),
            (qt.QPalette.Button, 60),
            (qt.QPalette.WindowText, 235),
            (qt.QPalette.Text, 235),
            (qt.QPalette.ButtonText, 235),
        ):
            dark.setColor(role, qt.QColor(gray, gray, gray))
        qt.QApplication.setPalette(dark)
