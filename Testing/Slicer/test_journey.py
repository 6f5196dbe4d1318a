"""One user's way through the whole module, from opening a file to a scene that comes back."""

import os
from unittest import mock

import numpy as np
import qt
import slicer
import vtk
from medenhance_testing import MedEnhanceTestCase, slow

#: Slices and margins of the sample that a CPU enhances in a few seconds.
_PART = (slice(60, 76), slice(40, 140), slice(30, 130))


class JourneyTest(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        self.runner = self.context.runner
        self.folder = self.temporaryFolder()

    def page(self, name):
        self.widget.showPage(name)
        self.processEvents(80)
        return self.widget.panels[name]

    def geometry(self, node):
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        return slicer.util.arrayFromVTKMatrix(matrix)

    def voxels(self, node):
        return slicer.util.arrayFromVolume(node).copy()

    def load(self):
        """Load the sample as Slicer does, and keep a part of it in its place."""
        whole = self.loadSample()
        part = slicer.util.addVolumeFromArray(self.voxels(whole)[_PART].copy(), name="brain")
        matrix = self.geometry(whole)
        matrix[:3, 3] += matrix[:3, :3] @ [_PART[2].start, _PART[1].start, _PART[0].start]
        part.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
        part.CreateDefaultDisplayNodes()
        slicer.mrmlScene.RemoveNode(whole)
        slicer.util.setSliceViewerLayers(background=part, fit=True)
        return part

    def choose(self, node):
        panel = self.page("enhance")
        self.widget.ui.inputSelector.setCurrentNode(node)
        self.processEvents(80)
        return panel

    def idle(self, panel, seconds=120):
        self.waitUntil(lambda: panel.job is None, seconds)

    @slow
    def test_fromAFileToASceneThatComesBack(self):
        brain = self.load()
        original, grid = self.voxels(brain), self.geometry(brain)
        panel = self.choose(brain)
        self.assertTrue(panel.ui.applyButton.enabled)

        panel.ui.previewButton.click()
        preview = panel.job
        self.idle(panel)
        self.assertEqual(preview.state, "done")
        first, end = preview.params["slices"]
        slab = self.voxels(preview.nodes["output"])

        panel.ui.applyButton.click()
        cancelled = panel.job
        self.waitUntil(lambda: cancelled.reached, 60)
        self.widget.ui.jobCancelButton.click()
        self.idle(panel, 5)
        self.assertEqual(cancelled.state, "cancelled")

        panel.ui.segmentCheckBox.checked = True
        panel.ui.applyButton.click()
        job = panel.job
        self.idle(panel)
        self.assertEqual(job.state, "done", job.error)
        enhanced = job.nodes["output"]
        np.testing.assert_array_equal(self.geometry(enhanced), grid)
        np.testing.assert_array_equal(self.voxels(enhanced)[first:end], slab)
        np.testing.assert_array_equal(self.voxels(brain), original)
        result = self.voxels(enhanced)

        path = os.path.join(self.folder, "brain.ucv")
        compress = self.page("compress")
        self.widget.ui.inputSelector.setCurrentNode(enhanced)
        compress.ui.losslessButton.checked = True
        with mock.patch.object(qt.QFileDialog, "getSaveFileName", return_value=path):
            compress.ui.compressButton.click()
        self.waitUntil(lambda: os.path.exists(path) and not self.runner.activeJobs(), 60)
        back = slicer.util.loadNodeFromFile(path, "MedEnhanceCompressedVolume", {})
        np.testing.assert_array_equal(self.voxels(back), result)
        np.testing.assert_allclose(self.geometry(back), grid, rtol=0, atol=1e-9)

        scene = os.path.join(self.folder, "scene.mrb")
        name = chosen = enhanced.GetName()
        segmentation = job.nodes["segmentation"].GetName()
        self.assertTrue(slicer.util.saveScene(scene))
        slicer.mrmlScene.Clear(0)
        self.processEvents(80)
        slicer.util.loadScene(scene)
        self.processEvents(80)
        again = slicer.util.getNode(name)
        np.testing.assert_array_equal(self.voxels(again), result)
        np.testing.assert_allclose(self.geometry(again), grid, rtol=0, atol=1e-6)
        self.assertEqual(again.GetNodeReference("MedEnhance.input").GetName(), "brain")
        linked = again.GetNodeReference("MedEnhance.segmentation")
        self.assertEqual(linked.GetName(), segmentation)
        self.assertEqual(self.context.state.inputVolume.GetName(), chosen)
        self.assertTrue(self.context.state.segment)
