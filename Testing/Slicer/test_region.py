"""A Markups ROI as the region of a run: first, or alone."""

import numpy as np
import slicer
import vtk
from enhance_testing import EnhanceTestCase
from medenhance_testing import slow
from test_queue import QueueTestCase

from MedEnhanceNodes import provenance, region


class WithRegions:
    def roi(self, node, start, stop, name="Tumor"):
        """A ROI around voxels of a volume, [k, j, i] from start to stop (excluded)."""
        size = (np.array(stop) - start)[::-1].astype(float)
        middle = (np.array(start)[::-1] + (size - 1) / 2).tolist()
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", name)
        roi.SetSize(*(size * node.GetSpacing()).tolist())
        axes = self.ijkToRas(node)[:3, :3] / node.GetSpacing()
        toNode = np.eye(4)
        toNode[:3, :3], toNode[:3, 3] = axes, matrix.MultiplyPoint((*middle, 1.0))[:3]
        roi.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(toNode))
        roi.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        return roi

    def changes(self, output, source):
        return slicer.util.arrayFromVolume(output) - slicer.util.arrayFromVolume(source)


class BoxTest(WithRegions, EnhanceTestCase):
    START, STOP = (2, 3, 4), (5, 9, 12)

    def test_itIsTheSmallestAroundTheRegionWhateverTheGrid(self):
        for turn in ((), (30, 0, 0, 1)):
            node = self.smallVolume(turn=turn)
            roi = self.roi(node, self.START, self.STOP)
            self.assertEqual(region.boxOf(roi, node), ((2, 5), (3, 9), (4, 12)))
            transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
            shift = vtk.vtkTransform()
            shift.Translate(0, 0, 2 if turn else 4)
            shift.RotateZ(20)
            transform.SetMatrixTransformToParent(shift.GetMatrix())
            node.SetAndObserveTransformNodeID(transform.GetID())
            roi.SetAndObserveTransformNodeID(transform.GetID())
            self.assertEqual(region.boxOf(roi, node), ((2, 5), (3, 9), (4, 12)))

    def test_aTurnedRegionLiesWithinIt(self):
        node = self.smallVolume(spacing=(1.0, 1.0, 1.0))
        roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
        roi.SetSize(4.0, 4.0, 2.0)
        turn = vtk.vtkTransform()
        turn.Translate(10, 12, 4)
        turn.RotateZ(45)
        roi.SetAndObserveObjectToNodeMatrix(turn.GetMatrix())
        self.assertEqual(region.boxOf(roi, node), ((3, 6), (9, 16), (7, 14)))

    def test_aNewOneIsPlacedInTheSliceThatIsShownAndChosen(self):
        self.choose(self.smallVolume(shape=(8, 60, 60), modality="MR"))
        self.assertTrue(self.ui.newRoiButton.enabled)
        self.ui.newRoiButton.click()
        self.processEvents(80)
        self.assertIsNotNone(self.panel.options.box)
        self.assertIs(self.ui.roiSelector.currentNode(), self.context.state.roi)
        self.assertTrue(self.context.state.roi.GetSaveWithScene())

    def test_aRegionOutsideIsAProblemUntilItIsMoved(self):
        node = self.smallVolume(modality="MR")
        self.choose(node)
        roi = self.roi(node, (100, 3, 4), (105, 9, 12))
        self.ui.roiSelector.setCurrentNode(roi)
        self.processEvents(80)
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("“Tumor” lies outside “small”", self.ui.problemLabel.text)
        toNode = vtk.vtkMatrix4x4()
        roi.SetAndObserveObjectToNodeMatrix(toNode)
        self.processEvents(100)
        self.assertTrue(self.ui.applyButton.enabled, self.ui.problemLabel.text)
        self.remove(roi)
        self.assertIsNone(self.context.state.roi)


class RegionTest(WithRegions, QueueTestCase):
    def setUp(self):
        super().setUp()
        self.node = self.smallVolume(name="A", modality="MR", turn=(20, 1, 0, 0))
        self.choose(self.node)
        self.ui.uncertaintyCheckBox.checked = self.ui.biasFieldCheckBox.checked = False
        self.ui.roiSelector.setCurrentNode(self.roi(self.node, (2, 3, 4), (5, 9, 12)))
        self.processEvents(80)
        self.inside = np.zeros(slicer.util.arrayFromVolume(self.node).shape, bool)
        self.inside[2:5, 3:9, 4:12] = True

    def runs(self):
        return [job for job in self.runner.activeJobs() if job.kind == "enhance"]

    def test_aloneChangesOnlyTheRegionOfAWholeResult(self):
        self.pick(self.ui.roiUseComboBox, "alone")
        self.processEvents(80)
        for box in (
            self.ui.segmentCheckBox,
            self.ui.uncertaintyCheckBox,
            self.ui.biasFieldCheckBox,
        ):
            self.assertFalse(box.enabled)
            self.assertIn("needs the whole volume", box.toolTip)
        self.ui.applyButton.click()
        job = self.panel.job
        self.assertEqual(job.title, "Enhance a region of A")
        self.release()
        output = job.nodes["output"]
        np.testing.assert_array_equal(self.changes(output, self.node), self.inside)
        np.testing.assert_array_equal(self.ijkToRas(output), self.ijkToRas(self.node))
        (step,) = provenance.historyOf(output)
        self.assertTrue(
            step.endswith(
                "only voxels i 4:12, j 3:9, k 2:5 (stop excluded), the others are the input's"
            )
        )
        self.assertTrue(self.ui.strengthSlider.enabled, self.ui.strengthSlider.toolTip)
        self.ui.strengthSlider.value = 0.0
        self.waitUntil(lambda: self.panel.result.job is None)
        self.assertFalse(self.changes(output, self.node).any())

    @slow
    def test_firstShowsTheRegionAndThenFillsTheSameNode(self):
        seen = []
        self.ui.uncertaintyCheckBox.checked = False
        self.ui.applyButton.click()
        first, whole = self.runs()
        first.onFinished(lambda job: seen.append(self.changes(job.nodes["output"], self.node)))
        self.release()
        np.testing.assert_array_equal(seen[0], self.inside)
        self.assertEqual((first.state, whole.state), ("done", "done"))
        self.assertIs(whole.nodes["output"], first.nodes["output"])
        self.assertTrue((self.changes(whole.nodes["output"], self.node) == 1).all())
        self.assertNotIn("only voxels", provenance.historyOf(whole.nodes["output"])[-1])
        self.assertEqual(self.message, "A enhanced is ready.")

    def test_cancellingTheRegionEndsTheRestToo(self):
        self.ui.applyButton.click()
        first, whole = self.runs()
        self.widget.ui.jobCancelButton.click()
        self.release()
        self.assertEqual((first.state, whole.state), ("cancelled", "cancelled"))
        self.assertEqual(self.message, "A: Cancelled.")
        self.assertEqual(slicer.util.getNodes("A enhanced*"), {})

    def test_thinSlicesAreOfAWholeVolume(self):
        self.pick(self.ui.roiUseComboBox, "alone")
        self.pick(self.ui.taskComboBox, "slices")
        self.processEvents(80)
        self.assertFalse(self.ui.roiSelector.enabled)
        self.assertIn("thin slices", self.ui.roiSelector.toolTip)
        self.assertIsNone(self.panel.options.box)


class LibraryTest(WithRegions, EnhanceTestCase):
    @slow
    def test_theRegionHasTheVoxelsOfAWholeRunAndItsManifestStatesIt(self):
        node = self.brain()
        self.choose(node)
        self.ui.roiSelector.setCurrentNode(self.roi(node, (2, 8, 8), (9, 40, 50)))
        self.pick(self.ui.roiUseComboBox, "alone")
        self.processEvents(80)
        output = self.apply().nodes["output"]
        box = np.s_[2:9, 8:40, 8:50]
        expected = slicer.util.arrayFromVolume(node).copy()
        expected[box] = self.libraryResult(node)[box]
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(output), expected)
        config = provenance.part(output, "config")
        stated = [config[axis] for axis in ("slices", "rows", "columns")]
        self.assertEqual(stated, [[2, 9], [8, 40], [8, 50]])
