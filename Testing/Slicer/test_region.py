"""Enhancing a part: what lies in an ROI or a segment changes, nothing else, and it is recorded."""

import json
import os
from unittest import mock

import numpy as np
import slicer
import vtk
from enhance_testing import SHAPE, EnhanceTestCase
from medenhance_testing import slow


class RegionTest(EnhanceTestCase):
    def setUp(self):
        super().setUp()
        from MedEnhancePanels.nodes import provenance, region

        self.region, self.provenance = region, provenance

    def roi(self, volume, center, size, angle=0.0):
        """An ROI around a voxel (i, j, k) of a volume, of a size in mm, along the volume's axes and
        turned about the third."""
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "spot")
        toRas, toWorld = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(toRas)
        if volume.GetParentTransformNode() is not None:
            volume.GetParentTransformNode().GetMatrixTransformToWorld(toWorld)
        vtk.vtkMatrix4x4.Multiply4x4(toWorld, toRas, toWorld)
        axes = slicer.util.arrayFromVTKMatrix(toWorld)[:3, :3] / np.asarray(volume.GetSpacing())
        turn = vtk.vtkTransform()
        turn.RotateZ(angle)
        axes = axes @ slicer.util.arrayFromVTKMatrix(turn.GetMatrix())[:3, :3]
        place = np.eye(4)
        place[:3, :3] = axes
        place[:3, 3] = toWorld.MultiplyPoint((*center, 1.0))[:3]
        matrix = slicer.util.vtkMatrixFromArray(place)
        node.SetAndObserveObjectToNodeMatrix(matrix)
        node.SetSize(*size)
        return node

    def segmentation(self, volume, mask):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "parts")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        identifier = node.GetSegmentation().AddEmptySegment("", "lesion")
        slicer.util.updateSegmentBinaryLabelmapFromArray(
            mask.astype(np.uint8), node, identifier, volume
        )
        return node, identifier

    # --- which voxels ---

    def test_aNewBoxIsTheMiddleOfTheVolumeAndTheRegion(self):
        volume = self.brain()  # turned, and under a transform
        self.choose(volume)
        self.ui.newBoxButton.click()
        node = self.ui.regionSelector.currentNode()
        self.assertIs(self.context.state.region, node)
        self.assertTrue(node.GetDisplayNode().GetHandlesInteractive())
        shape = np.array(SHAPE)
        found = np.array(self.region.partOf(volume, node).box)
        np.testing.assert_allclose(found[:, 1] - found[:, 0], shape / 2, atol=1)
        np.testing.assert_allclose(found.sum(axis=1), shape, atol=1)

    def test_anRoiHasTheVoxelsWhoseCentersLieInIt(self):
        volume = self.brain()  # turned, and under a transform
        found = self.region.partOf(volume, self.roi(volume, (30, 20, 6), (4.0, 6.0, 2.2)))
        self.assertEqual(found.box, ((5, 8), (17, 24), (28, 33)))
        self.assertTrue(found.mask.all())
        self.assertEqual(found.outer, ((0, 12), (0, 48), (4, 57)))
        turned = self.region.partOf(volume, self.roi(volume, (30, 20, 6), (9.0, 9.0, 3.0), 45.0))
        k, j, i = np.indices(SHAPE)
        away = np.abs(i - 30) + np.abs(j - 20)
        expected = (away <= 9 / np.sqrt(2)) & (np.abs(k - 6) * 1.1 <= 1.5)
        mask = np.zeros(SHAPE, bool)
        mask[self.region.slicesOf(turned.box)] = turned.mask
        np.testing.assert_array_equal(mask, expected)

    def test_aSegmentHasItsVoxels(self):
        volume = self.brain()
        mask = np.zeros(SHAPE, bool)
        mask[3:6, 10:30, 20:31] = True
        mask[4, 12, 25] = False
        node, identifier = self.segmentation(volume, mask)
        found = self.region.partOf(volume, node, identifier)
        self.assertEqual(found.box, ((3, 6), (10, 30), (20, 31)))
        np.testing.assert_array_equal(found.mask, mask[3:6, 10:30, 20:31])

    def test_aRegionElsewhereIsRefused(self):
        volume = self.brain()
        with self.assertRaises(Exception) as caught:
            self.region.partOf(volume, self.roi(volume, (300, 20, 6), (4.0, 4.0, 4.0)))
        self.assertIn("Nothing of Brain lies in the region spot", caught.exception.text)
        node, identifier = self.segmentation(volume, np.zeros(SHAPE, bool))
        with self.assertRaises(Exception) as caught:
            self.region.partOf(volume, node, identifier)
        self.assertIn("lies in the region lesion", caught.exception.text)

    # --- runs ---

    def test_onlyTheRegionChangesAndItSaysSo(self):
        volume = self.brain()
        before = slicer.util.arrayFromVolume(volume).copy()
        self.choose(volume)
        turned = self.roi(volume, (30, 20, 6), (10.0, 12.0, 4.0), 30.0)
        self.ui.regionSelector.setCurrentNode(turned)
        part = self.region.partOf(volume, self.context.state.region)
        self.assertFalse(part.mask.all())
        sent = []
        real = self.bridge.sendVolume
        with mock.patch.object(
            self.bridge, "sendVolume", side_effect=lambda *a, **k: sent.append(k) or real(*a, **k)
        ):
            job = self.apply()
        self.assertEqual(job.state, "done", self.message)
        self.assertEqual(sent, [{"box": part.outer}])  # and no more than that
        output = job.nodes["output"]
        after = slicer.util.arrayFromVolume(output)
        inside = np.zeros(before.shape, bool)
        inside[self.region.slicesOf(part.box)] = part.mask
        np.testing.assert_array_equal(after[~inside], before[~inside])
        changed = (after != before)[inside].mean()
        self.assertGreater(changed, 0.5)
        np.testing.assert_array_equal(self.ijkToRas(output), self.ijkToRas(volume))
        difference = slicer.util.arrayFromVolume(job.nodes["difference"])
        self.assertEqual(np.abs(difference[~inside]).max(), 0)
        self.assertIn("restricted to the region spot", self.provenance.historyOf(output)[-1])
        manifest = json.loads(output.GetAttribute("MedEnhance.manifest"))
        self.assertEqual(manifest["region"]["voxels"], int(part.mask.sum()))
        self.assertEqual(manifest["config"]["bias_correction"], "none")
        self.assertIn("in spot only", self.ui.factsLabel.text)
        self.ui.strengthSlider.value = 0.5  # a blend of it is one too
        self.waitUntil(lambda: not self.panel.result.isBlending, 10)
        blended = slicer.util.arrayFromVolume(output)
        np.testing.assert_array_equal(blended[~inside], before[~inside])

    @slow
    def test_itIsWhatTheLibraryMakesOfThatPart(self):
        volume = self.brain()
        mask = np.zeros(SHAPE, bool)
        mask[4:8, 20:40, 20:40] = True
        node, identifier = self.segmentation(volume, mask)
        output = self.widget.logic.enhance(volume, region=node, regionSegment=identifier)
        part = self.region.partOf(volume, node, identifier)
        whole = slicer.util.arrayFromVolume(volume)
        crop = slicer.util.addVolumeFromArray(whole[self.region.slicesOf(part.outer)].copy())
        crop.SetName("Brain")
        crop.SetSpacing(volume.GetSpacing())
        crop.SetAttribute(self.bridge.MODALITY, self.bridge.modalityOf(volume))
        expected = self.libraryResult(crop, "--bias-correction", "none")
        made = slicer.util.arrayFromVolume(output)[4:8, 20:40, 20:40]
        np.testing.assert_array_equal(made, expected[part.inOuter])

    def test_whatNeedsTheWholeVolumeIsRefusedInScripts(self):
        volume = self.brain()
        roi = self.roi(volume, (30, 20, 6), (4.0, 4.0, 4.0))
        for options in ({"uncertainty": True}, {"segment": True}, {"biasCorrection": "n4"}):
            with self.assertRaises(Exception) as caught:
                self.widget.logic.enhance(volume, region=roi, **options)
            self.assertIn("need the whole volume", caught.exception.text)

    @slow
    def test_anInputThatChangesMeanwhileFailsTheRun(self):
        volume = self.brain()
        self.choose(volume)
        self.ui.regionSelector.setCurrentNode(self.roi(volume, (30, 20, 6), (10.0, 12.0, 4.0)))
        self.ui.applyButton.click()
        job = self.panel.job
        self.waitUntil(lambda: job.reached, 60)
        slicer.util.updateVolumeFromArray(volume, slicer.util.arrayFromVolume(volume) + 1)
        self.waitUntil(lambda: self.panel.job is None, 60)
        self.assertIn("was changed during the run", self.message)
        self.assertEqual(job.nodes, {})

    # --- the page ---

    def test_thePageOffersWhatARegionCanHave(self):
        volume = self.smallVolume()
        volume.SetAttribute(self.bridge.MODALITY, "MR")
        self.choose(volume)
        self.ui.advancedButton.collapsed = False
        self.ui.uncertaintyCheckBox.checked = True
        roi = self.roi(volume, (10, 10, 4), (4.0, 4.0, 4.0))
        self.ui.regionSelector.setCurrentNode(roi)
        self.assertTrue(self.ui.applyButton.enabled)
        for box in (
            self.ui.uncertaintyCheckBox,
            self.ui.noiseMapCheckBox,
            self.ui.segmentCheckBox,
            self.ui.biasCorrectionCheckBox,
        ):
            self.assertFalse(box.enabled)
            self.assertIn("needs the whole volume", box.toolTip)
        self.assertEqual(self.panel.options.uncertainty, 0)
        self.assertFalse(self.ui.regionSegmentComboBox.isVisibleTo(self.panel.widget))
        slicer.mrmlScene.RemoveNode(roi)
        self.processEvents(80)
        self.assertIsNone(self.context.state.region)
        self.assertTrue(self.ui.uncertaintyCheckBox.checked)

    def test_ofASegmentationASegmentIsChosen(self):
        volume = self.smallVolume()
        volume.SetAttribute(self.bridge.MODALITY, "MR")
        self.choose(volume)
        self.ui.advancedButton.collapsed = False
        mask = np.zeros((8, 24, 20), bool)
        mask[2:5, 4:12, 4:12] = True
        node, identifier = self.segmentation(volume, mask)
        self.ui.regionSelector.setCurrentNode(node)
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("Choose the segment", self.ui.problemLabel.text)
        box = self.ui.regionSegmentComboBox
        self.assertTrue(box.isVisibleTo(self.panel.widget))
        box.currentIndex = box.findText("lesion")
        box.activated.emit(box.currentIndex)
        self.assertEqual(self.context.state.regionSegment, identifier)
        self.assertTrue(self.ui.applyButton.enabled)
        path = os.path.join(self.temporaryFolder(), "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(path)
        self.processEvents(80)
        self.assertEqual(self.panel.options.region.GetName(), "parts")
        self.assertEqual(box.currentText, "lesion")
        self.context.state.task = "slices"
        self.assertIsNone(self.panel.options.region)
