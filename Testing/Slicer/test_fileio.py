""".ucv files through Slicer's own ways of loading and saving."""

import os

import numpy as np
import slicer
from medenhance_testing import MedEnhanceTestCase


class FileTest(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        self.path = os.path.join(self.temporaryFolder(), "scan.ucv")

    def test_aVolumeIsSavedAndLoadedLikeAnyOther(self):
        node = self.smallVolume((24, 40, 36), spacing=(0.7, 0.8, 2.5))
        self.assertTrue(slicer.util.saveNode(node, self.path, {}))
        back = slicer.util.loadNodeFromFile(self.path, None, {})
        self.assertIsNot(back, node)
        self.assertEqual(back.GetName(), "scan")
        np.testing.assert_array_equal(
            slicer.util.arrayFromVolume(back), slicer.util.arrayFromVolume(node)
        )
        self.assertEqual(back.GetSpacing(), node.GetSpacing())
        self.assertEqual(back.GetOrigin(), node.GetOrigin())
        self.assertIsNone(back.GetAttribute("MedEnhance.preview"))

    def test_otherFormatsAreSavedAsBefore(self):
        node = self.smallVolume()
        path = os.path.join(os.path.dirname(self.path), "scan.nrrd")
        self.assertTrue(slicer.util.saveNode(node, path, {}))
        with open(path, "rb") as file:
            self.assertEqual(file.read(4), b"NRRD")

    def test_aPreviewIsThereBeforeTheWholeVolume(self):
        k, j, i = np.ogrid[:200, :200, :200]
        node = slicer.util.addVolumeFromArray(((k + 2 * j + i) // 8 + 1).astype(np.uint8))
        self.assertTrue(slicer.util.saveNode(node, self.path, {}))
        seen = []

        def look(job):
            shown = [
                each
                for each in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
                if each.GetAttribute("MedEnhance.preview") == "true"
            ]
            if shown and not seen:
                seen.append(slicer.util.arrayFromVolume(shown[0]).copy())

        self.context.runner.onChange(look)
        self.addCleanup(self.context.runner.offChange, look)
        back = slicer.util.loadNodeFromFile(self.path, None, {"name": "brain"})
        whole = slicer.util.arrayFromVolume(node)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(back), whole)
        self.assertEqual(back.GetName(), "brain")
        self.assertEqual(len(seen), 1, "no preview was there")
        np.testing.assert_array_equal(seen[0][100], whole[100])
        isOther = seen[0] != whole
        self.assertGreater(isOther.mean(), 0.5)
        self.assertEqual(set(seen[0][isOther]), {whole.min()})

    def test_aDamagedFileIsToldWithItsRemedyAndLeavesNothing(self):
        node = self.smallVolume((70, 70, 70))
        self.assertTrue(slicer.util.saveNode(node, self.path, {}))
        with open(self.path, "r+b") as file:
            file.seek(os.path.getsize(self.path) // 3)
            file.write(b"\0" * 40)
        count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        with self.assertRaisesRegex(RuntimeError, "recover"):
            slicer.util.loadNodeFromFile(self.path, None, {})
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"), count)

    def test_aSequenceIsLoadedAsOne(self):
        from MedEnhancePanels import compression, runner

        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "beating")
        for index in range(2):
            sequence.SetDataNodeAtValue(self.smallVolume(seed=index), str(index))
        job = compression.startCompress(
            self.context.runner, sequence, self.path, compression.CompressOptions()
        )
        runner.wait(job)
        back = slicer.util.loadNodeFromFile(self.path, None, {})
        self.assertTrue(back.IsA("vtkMRMLSequenceNode"))
        self.assertEqual(back.GetNumberOfDataNodes(), 2)

    def test_savingReplacesBecauseSlicersDialogAsked(self):
        self.assertTrue(slicer.util.saveNode(self.smallVolume(seed=1), self.path, {}))
        second = self.smallVolume(seed=2)
        self.assertTrue(slicer.util.saveNode(second, self.path, {}))
        back = slicer.util.loadNodeFromFile(self.path, None, {})
        np.testing.assert_array_equal(
            slicer.util.arrayFromVolume(back), slicer.util.arrayFromVolume(second)
        )

    def test_whatCannotBeWrittenIsTold(self):
        node = self.smallVolume()
        node.SetAndObserveImageData(None)
        with self.assertLogs(level="ERROR") as caught:
            self.assertFalse(slicer.util.saveNode(node, self.path, {}))
        self.assertIn("has no voxels", "\n".join(caught.output))
        self.assertFalse(os.path.exists(self.path))

    def test_colourVolumesAreNotOffered(self):
        from MedEnhancePanels import fileio

        vector = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode")
        self.assertFalse(fileio.canWriteObject(vector))
        self.assertTrue(fileio.canWriteObject(self.smallVolume()))
        self.assertTrue(fileio.canLoadFile("/any/Where/SCAN.UCV"))
        self.assertFalse(fileio.canLoadFile("/any/where/scan.nrrd"))

    def test_aLoadedVolumeIsSavedWithTheScene(self):
        node = self.smallVolume()
        voxels = slicer.util.arrayFromVolume(node).copy()
        self.assertTrue(slicer.util.saveNode(node, self.path, {}))
        slicer.mrmlScene.Clear(0)
        slicer.util.loadNodeFromFile(self.path, None, {})
        bundle = os.path.join(os.path.dirname(self.path), "scene.mrb")
        self.assertTrue(slicer.util.saveScene(bundle, {}))
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(bundle, {})
        np.testing.assert_array_equal(
            slicer.util.arrayFromVolume(slicer.util.getNode("scan")), voxels
        )
