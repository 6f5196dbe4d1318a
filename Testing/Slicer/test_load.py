"""The page Load: volumes in, judged by the library, described truly, warned about."""

import os
import shutil
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
import vtk
from medenhance_testing import MedEnhanceTestCase
from MedEnhancePanels import bridge, card, load, loading, samples
from MedEnhancePanels.errors import PanelError

_SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


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

    def sharedData(self, name):
        """A path among the open volumes beside the project; skips where they are not here."""
        path = _SHARED / name
        if not path.exists():
            self.skipTest(f"the open volumes beside the project (../shared/data/{name}) are absent")
        return str(path)

    def use(self, patch):
        """Something exchanged until the end of the test."""
        patch.start()
        self.addCleanup(patch.stop)

    def message(self):
        ui = self.widget.ui
        return "" if ui.messageFrame.isHidden() else ui.messageLabel.text


class LoadTest(LoadTestCase):
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

    def test_theCardIsTheLibrarys(self):
        from MedEnhanceLib import io
        from MedEnhanceLib.io.card import card as library_card

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

    def test_theCardOfAnObliqueVolumeIsTheLibrarys(self):
        from MedEnhanceLib.geometry import Geometry
        from MedEnhanceLib.io import save
        from MedEnhanceLib.io.card import card as library_card
        from MedEnhanceLib.volume import Volume

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

    def test_aSequenceBecomesASequenceNodeWithItsFrames(self):
        from MedEnhanceLib.io import save
        from MedEnhanceLib.volume import Volume

        voxels = np.arange(3 * 4 * 5 * 6, dtype=np.int16).reshape(3, 4, 5, 6)
        path = os.path.join(self.temporaryFolder(), "frames.nii")
        save(Volume(voxels, modality="MR"), path)
        node = self.open(path).nodes["output"]
        self.assertTrue(node.IsA("vtkMRMLSequenceNode"))
        self.assertEqual(card.describe(node).frames, 3)
        self.assertEqual(card.describe(node).bytes, voxels.nbytes)
        self.assertFalse(self.panel.ui.framesLabel.isHidden())
        self.assertEqual(self.panel.ui.framesLabel.text, "3")

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

    def test_aCompressedFileIsOpened(self):
        node = self.smallVolume()
        path = os.path.join(self.temporaryFolder(), "small.ucv")
        self.widget.logic.compress(node, path, lossless=True)
        back = self.open(path).nodes["output"]
        self.assertIs(self.panel.node, back)
        voxels = slicer.util.arrayFromVolume
        self.assertTrue(np.array_equal(voxels(back), voxels(node)))

    def test_otherFormatsAreLeftToSlicer(self):
        path = os.path.join(self.temporaryFolder(), "picture.bmp")
        with open(path, "w", encoding="utf-8") as file:
            file.write("no volume")
        self.assertFalse(loading.isForTheLibrary(path))
        self.assertIsNone(self.panel.openPath(path))
        self.assertIn("neither by MedEnhance nor by Slicer", self.message())
        self.assertIn(".nii.gz", self.message())
        node = self.volume()
        with mock.patch.object(slicer.util, "loadNodeFromFile", return_value=node):
            self.panel.openPath(path)
        self.assertIs(self.panel.node, node)

    def test_aGuessedModalityIsToldInWordsOfThePage(self):
        node = self.open(samples.samplePath(samples.SAMPLES[0])).nodes["output"]
        self.assertIn("modality=", node.GetAttribute("MedEnhance.notes"))
        text = self.panel.ui.warningsLabel.text
        self.assertIn("taken as MR by its values", text)
        self.assertNotIn("--modality", text)

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


class DicomTest(LoadTestCase):
    def test_aSeriesIsLoadedWithItsGeometry(self):
        from MedEnhanceLib import io

        folder = self.sharedData("dicom/STS_025/MR_T1_series")
        node = self.open(folder).nodes["output"]
        volume = io.load(folder)
        self.assertTrue(np.array_equal(slicer.util.arrayFromVolume(node), volume.voxels))
        self.assertEqual(tuple(node.GetSpacing()), volume.geometry.spacing)
        self.assertEqual(bridge.modalityOf(node), "MR")

    def test_missingSlicesAreNamedAndNothingIsLoaded(self):
        job = self.open(self.sharedData("dicom/STS_025_missing"))
        self.assertEqual(job.error.code, "geometry")
        self.assertIn("slices are missing", self.message())
        self.assertIn("Export or copy", self.message())
        self.assertIsNone(self.panel.node)

    def test_oneOfSeveralSeriesIsChosenFromAList(self):
        folder = os.path.join(self.temporaryFolder(), "study")
        for series in ("CT_series", "MR_T1_series"):
            source = self.sharedData(f"dicom/STS_025/{series}")
            shutil.copytree(source, os.path.join(folder, series))
        self.assertEqual(self.open(folder).state, "failed")
        self.assertEqual(self.message(), "")
        self.assertFalse(self.panel.ui.seriesBox.isHidden())
        self.assertEqual(self.panel.ui.seriesList.count, 2)
        rows = [self.panel.ui.seriesList.item(row).text() for row in range(2)]
        self.panel.ui.seriesList.setCurrentRow(next(i for i in (0, 1) if rows[i].startswith("MR")))
        self.panel.ui.loadSeriesButton.click()
        self.waitUntil(lambda: self.panel.node is not None, 60)
        self.assertEqual(self.panel.node.GetImageData().GetDimensions(), (75, 55, 25))
        self.assertTrue(self.panel.ui.seriesBox.isHidden())

    def test_aColourImageIsRefusedWithARemedy(self):
        self.open(self.sharedData("dicom/odd/examples_ybr_color.dcm"))
        self.assertIn("colour", self.message())


class WarningsTest(LoadTestCase):
    def codes(self, node, **more):
        more.setdefault("models", [types.SimpleNamespace(kind="enhancer", modality="MR")])
        return {caution.code for caution in card.describe(node, **more).warnings}

    def mr(self, **more):
        node = self.volume(**more)
        node.SetAttribute(bridge.MODALITY, "MR")
        return node

    def test_aPlainVolumeHasNone(self):
        self.assertEqual(self.codes(self.mr()), set())
        self.panel.ui.inputSelector.setCurrentNode(self.mr())
        self.assertTrue(self.panel.ui.warningsFrame.isHidden())

    def test_grids(self):
        self.assertEqual(self.codes(self.mr(voxels=np.eye(8, dtype=np.int16)[None])), {"oneSlice"})
        self.assertEqual(self.codes(self.mr(spacing=(1.0, 1.0, 4.0))), {"thick"})
        self.assertEqual(self.codes(self.mr(spacing=(1e-5, 1e-5, 1e-5))), {"microscopy"})
        self.assertEqual(self.codes(self.mr(voxels=np.ones((3, 4, 5), np.int16))), {"constant"})

    def test_transforms(self):
        node = self.mr()
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
        node.SetAndObserveTransformNodeID(transform.GetID())
        self.assertEqual(self.codes(node), set())
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 10.0)
        transform.SetMatrixTransformToParent(matrix)
        self.assertEqual(self.codes(node), {"transformed"})
        for name, code in (("warp", "warped"), ("1: acquisition transform", "uneven")):
            bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", name)
            spline = vtk.vtkThinPlateSplineTransform()
            bent.SetAndObserveTransformToParent(spline)
            node.SetAndObserveTransformNodeID(bent.GetID())
            self.assertEqual(self.codes(node), {code})

    def test_aTransformThatMovesIsSeenWithoutAsking(self):
        node = self.mr()
        self.panel.ui.inputSelector.setCurrentNode(node)
        self.assertTrue(self.panel.ui.warningsFrame.isHidden())
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
        node.SetAndObserveTransformNodeID(transform.GetID())
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(1, 3, 5.0)
        transform.SetMatrixTransformToParent(matrix)
        self.waitUntil(lambda: "move" in self.panel.ui.warningsLabel.text, 2)

    def test_whatIsNoIntensityVolume(self):
        labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
        slicer.util.updateVolumeFromArray(labels, np.eye(6, dtype=np.int16)[None].repeat(3, 0))
        labels.SetAttribute(bridge.MODALITY, "MR")
        self.assertEqual(self.codes(labels), {"labels"})
        colour = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
        slicer.util.updateVolumeFromArray(colour, np.ones((3, 4, 5, 3), np.uint8))
        colour.SetAttribute(bridge.MODALITY, "MR")
        self.assertEqual(self.codes(colour), {"colour"})
        self.panel.ui.inputSelector.setCurrentNode(colour)
        self.assertFalse(self.panel.ui.enhanceButton.enabled)
        self.assertFalse(self.panel.ui.compressButton.enabled)

    def test_aNodeWithoutVoxelsIsNoFault(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow")
        self.assertIsNone(card.describe(node))
        self.panel.ui.inputSelector.setCurrentNode(node)
        self.assertTrue(self.panel.ui.cardBox.isHidden())
        self.assertIn("hollow", self.panel.ui.warningsLabel.text)

    def test_missingDicomFiles(self):
        node = self.mr()
        node.SetAttribute("DICOM.instanceUIDs", " ".join(f"1.2.{i}" for i in range(6)))
        self.assertEqual(self.codes(node), set())
        node.SetAttribute("DICOM.instanceUIDs", " ".join(f"1.2.{i}" for i in range(8)))
        self.assertEqual(self.codes(node), {"missing"})

    def test_modelsAndModalities(self):
        node = self.mr()
        self.assertEqual(self.codes(node, models=[]), {"model"})
        node.SetAttribute(bridge.MODALITY, "CT")
        self.assertEqual(self.codes(node), {"model"})
        text = card.describe(node, [types.SimpleNamespace(kind="enhancer", modality="MR")])
        self.assertIn("MR", text.warnings[0].remedy)
        node.SetAttribute(bridge.MODALITY, "OT")
        self.assertEqual(self.codes(node), {"modality"})
        self.assertTrue({"MR", "CT"} <= {model.modality for model in load.installedModels()})

    def test_memory(self):
        node = self.mr()
        self.assertEqual(self.codes(node, freeBytes=1_000), {"memory"})
        self.assertEqual(self.codes(node, freeBytes=1_000_000), set())
        self.assertGreater(load.freeMemory(), 0)

    def test_theCardOfALargeVolumeIsCheap(self):
        import time

        node = self.mr(voxels=np.ones((200, 400, 400), np.int16))
        card.describe(node)
        began = time.perf_counter()
        card.describe(node)
        self.assertLess(time.perf_counter() - began, 0.05)


class SampleDataTest(LoadTestCase):
    """Slicer's own samples; its SampleData module is stood in for, so that nothing is fetched."""

    def setUp(self):
        super().setUp()
        self.folder = self.temporaryFolder()
        self.cache = os.path.join(self.folder, "cache")
        manager = slicer.mrmlScene.GetCacheManager()
        previous = manager.GetRemoteCacheDirectory()
        manager.SetRemoteCacheDirectory(self.cache)
        self.addCleanup(manager.SetRemoteCacheDirectory, previous)
        self.registered = []
        self.uri = "file:///nowhere/at/all.nrrd"
        test = self

        class Logic:
            def sourceForSampleName(self, name):
                if name == "CTChest":
                    return None
                return types.SimpleNamespace(uris=[test.uri], fileNames=[f"{name}.nrrd"])

            def downloadSamples(self, name):
                path = os.path.join(test.cache, f"{name}.nrrd")
                return [slicer.util.loadNodeFromFile(path, "VolumeFile", {})]

            @staticmethod
            def registerCustomSampleDataSource(**fields):
                test.registered.append(fields)

        self.use(
            mock.patch.dict(sys.modules, SampleData=types.SimpleNamespace(SampleDataLogic=Logic))
        )
        self.use(mock.patch.object(slicer.modules, "sampledata", object(), create=True))

    def sample(self, name):
        return next(sample for sample in samples.SAMPLES if sample.name == name)

    def cached(self):
        return [name for name in os.listdir(self.cache) if not name.startswith(".")]

    def fetch(self, name):
        self.panel.openSample(self.sample(name))
        self.waitUntil(lambda: self.panel._download is None, 20)

    def test_ourSampleIsRegisteredWithItsHash(self):
        samples.registerSampleData()
        (fields,) = self.registered
        self.assertEqual(fields["category"], "MedEnhance")
        self.assertTrue(fields["uris"].startswith("file://"))
        algorithm, _colon, digest = fields["checksums"].partition(":")
        path = samples.samplePath(samples.SAMPLES[0])
        self.assertEqual(algorithm, "SHA256")
        self.assertEqual(slicer.util.computeChecksum(algorithm, path), digest)

    def test_aSampleIsFetchedIntoSlicersCacheAndLoaded(self):
        from MedEnhanceLib.io import save
        from MedEnhanceLib.volume import Volume

        path = Path(self.folder) / "there.nrrd"
        save(Volume(np.ones((3, 4, 5), np.int16), modality="MR"), path)
        self.uri = path.as_uri()
        self.fetch("MRHead")
        self.assertEqual(self.panel.node.GetImageData().GetDimensions(), (5, 4, 3))
        self.assertEqual(bridge.modalityOf(self.panel.node), "MR")
        self.assertEqual(self.cached(), ["MRHead.nrrd"])
        path.unlink()  # a second time it comes from the cache
        self.fetch("MRHead")
        self.assertEqual(self.message(), "")

    def test_withoutNetworkASentenceSaysWhatWorks(self):
        self.fetch("CTACardio")
        self.assertIn("could not be downloaded", self.message())
        self.assertIn("needs no network", self.message())
        self.assertTrue(self.panel.ui.sampleButton.enabled)
        self.assertTrue(self.panel.ui.progressFrame.isHidden())
        self.assertEqual(self.cached(), [])

    def test_aSampleThatThisSlicerLacks(self):
        self.fetch("CTChest")
        self.assertIn("has no sample CTChest", self.message())

    def test_ADamagedSampleOfOursIsRefused(self):
        path = os.path.join(self.folder, "mni.nii.gz")
        with open(path, "wb") as file:
            file.write(b"not what it was")
        self.use(mock.patch.object(samples, "samplePath", lambda _sample: path))
        with self.assertRaises(PanelError) as caught:
            samples.checkedPath(samples.SAMPLES[0])
        self.assertIn("damaged", caught.exception.message)


class ScreenshotTest(LoadTestCase):
    def test_screenshots(self):
        self.screenshot(self.widget.uiWidget, "load-empty", height=600)
        job = self.panel.openSample(samples.SAMPLES[0])
        self.waitUntil(lambda: job.isFinished, 60)
        self.screenshot(self.widget.uiWidget, "load-ready", height=600)
        node = self.volume(spacing=(0.9, 0.9, 4.0), name="FLAIR")
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "to MNI")
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 10.0)
        transform.SetMatrixTransformToParent(matrix)
        node.SetAndObserveTransformNodeID(transform.GetID())
        node.SetAttribute(bridge.MODALITY, "PT")
        self.panel.ui.inputSelector.setCurrentNode(node)
        self.screenshot(self.widget.uiWidget, "load-warnings", height=600)
        self.useDarkPalette()
        self.screenshot(self.widget.uiWidget, "load-warnings-dark", height=600)

    def useDarkPalette(self):
        """As Slicer's dark style: light text on dark grey."""
        light = qt.QPalette(qt.QApplication.palette())
        self.addCleanup(qt.QApplication.setPalette, light)
        dark = qt.QPalette()
        for role, grey in (
            (qt.QPalette.Window, 46),
            (qt.QPalette.Base, 32),
            (qt.QPalette.AlternateBase, 40),
            (qt.QPalette.Button, 60),
            (qt.QPalette.WindowText, 235),
            (qt.QPalette.Text, 235),
            (qt.QPalette.ButtonText, 235),
        ):
            dark.setColor(role, qt.QColor(grey, grey, grey))
        qt.QApplication.setPalette(dark)
