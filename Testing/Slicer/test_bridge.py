"""Voxels and geometry between nodes and the worker's files."""

import errno
import os
from unittest import mock

import numpy as np
import slicer
from medenhance_testing import MedEnhanceTestCase, finished

import MedEnhanceLib
from MedEnhanceLib.io import stepwise
from MedEnhanceNodes import bridge, sending
from MedEnhancePanels.errors import PanelError


class BridgeTest(MedEnhanceTestCase):
    def makeNode(self, dtype=np.int16, name="scan"):
        spacing, turn = (0.7, 1.1, 3.3), (17, 3, 1, 2)
        return self.smallVolume((5, 6, 7), dtype=dtype, name=name, spacing=spacing, turn=turn)

    def path(self, name="volume.nrrd"):
        return os.path.join(self.temporaryFolder(), name)

    def test_voxelsAndGeometryGoToTheLibraryAndBack(self):
        back = self.path("back.nrrd")
        for dtype in (np.int16, np.float64):
            node = self.makeNode(dtype)
            path = self.path(f"{np.dtype(dtype)}.nrrd")
            finished(sending.sendVolume(node, path))
            volume = MedEnhanceLib.load(path)
            self.assertEqual(volume.dtype, np.dtype(dtype))
            self.assertTrue(np.array_equal(volume.voxels, slicer.util.arrayFromVolume(node)))
            affine = volume.geometry.affine_ras
            np.testing.assert_allclose(affine, self.ijkToRas(node), rtol=0, atol=1e-12)
            MedEnhanceLib.save(volume, back, overwrite=True)
            new = finished(bridge.receiveVolume(back, "returned"))
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(new), volume.voxels)
            np.testing.assert_allclose(self.ijkToRas(new), self.ijkToRas(node), rtol=0, atol=1e-12)
            for _way in range(2):
                copy = bridge.newVolumeLike(node, "copy")
                np.testing.assert_array_equal(self.ijkToRas(copy), self.ijkToRas(node))
                node.SetIJKToRASMatrix(bridge.matrixOf(node))  # as readers of files do

    def test_theRangeLeavesOutWhatIsNoNumberAndFollowsTheVoxels(self):
        node = self.makeNode(np.float32)
        voxels = slicer.util.arrayFromVolume(node)
        voxels[:], voxels[0, 0, 0], voxels[1, 1, 1] = 3, np.nan, -7
        slicer.util.arrayFromVolumeModified(node)
        self.assertEqual(bridge.rangeOf(node.GetImageData()), (-7.0, 3.0))
        voxels[2, 2, 2] = 50
        slicer.util.arrayFromVolumeModified(node)
        self.assertEqual(bridge.rangeOf(node.GetImageData()), (-7.0, 50.0))

    def test_aFullDiskIsReportedWithTheRemedy(self):
        path, full = self.path(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        broken = mock.patch.object(stepwise, "steps", side_effect=full)
        with broken, self.assertRaises(OSError) as caught:
            finished(sending.sendVolume(self.makeNode(), path))
        error = PanelError.fromException(caught.exception)
        self.assertEqual(error.code, "output")
        self.assertIn(path, error.message)
        self.assertIn("Free some space", error.hint)

    def test_aSequenceTravelsAsFramesAndReturnsAsASequence(self):
        sequence = self.sequenceOf("beats", range(3), shape=(5, 6, 7), turn=(17, 3, 1, 2))
        path, back = self.path(), self.path("back.nrrd")
        finished(sending.sendVolume(sequence, path))
        volume = MedEnhanceLib.load(path)
        self.assertEqual((volume.shape, volume.frame_interval_s), ((3, 5, 6, 7), 1.0))
        MedEnhanceLib.save(volume, back)
        new = finished(bridge.receiveVolume(back, "beats returned"))
        self.assertEqual(new.GetNumberOfDataNodes(), 3)
        for old, fresh in zip(bridge.frameNodes(sequence), bridge.frameNodes(new), strict=True):
            self.assertSameVoxels(old, fresh)

    def test_aNameWithBracketsIsNoPattern(self):
        """Slicer numbers series so; where names are patterns, "CT [1]" is never found."""
        self.assertEqual(bridge.uniqueName("CT [1]"), "CT [1]")
        self.makeNode(name="CT [1]")
        self.assertEqual(bridge.uniqueName("CT [1]"), "CT [1]_1")
        self.assertEqual(bridge.uniqueName("CT 1"), "CT 1")

    def test_theUsersWordAboutTheModalityComesFirst(self):
        node, hounsfield = self.makeNode(), np.linspace(-1000, 1500, 210).reshape(5, 6, 7)
        slicer.util.updateVolumeFromArray(node, hounsfield.astype(np.int16))
        self.assertEqual(bridge.modalityOf(node), "CT")
        node.SetAttribute(bridge.MODALITY, "MR")
        self.assertEqual(bridge.modalityOf(node), "MR")
