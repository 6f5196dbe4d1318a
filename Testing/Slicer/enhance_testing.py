"""What tests of the page Enhance share: a small brain, the page, the library to compare with."""

import functools
import os
from unittest import mock

import numpy as np
import slicer
import vtk
from medenhance_testing import SAMPLE, MedEnhanceTestCase

from MedEnhanceLib.io import stepwise
from MedEnhanceNodes import bridge, results, sending
from MedEnhancePanels import dependencies, worker

#: A part of the sample that the model takes a fraction of a second for.
PART = np.s_[60:72, 84:148, 60:124]


@functools.cache
def sampleVoxels():
    """The brain that ships with MedEnhance; Slicer takes most of a second to load it."""
    node = slicer.util.loadVolume(str(SAMPLE))
    voxels = slicer.util.arrayFromVolume(node).copy()
    slicer.mrmlScene.RemoveNode(node)
    return voxels


class EnhanceTestCase(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        if dependencies.missing():
            self.skipTest(dependencies.missingText())
        self.bridge, self.results = bridge, results
        self.runner = self.context.runner
        self.showPage("enhance")
        self.ui.advancedButton.collapsed = True

    def brain(self, name="Brain", part=PART):
        """A small, turned, noisy part of the sample under a transform, in a study, as shown."""
        voxels = sampleVoxels()[part]
        noise = np.random.default_rng(0).normal(0, 20, (2, *voxels.shape))
        voxels = np.hypot(voxels + noise[0], noise[1]).round().clip(0, 255).astype(voxels.dtype)
        voxels[:, 0] = 0  # air
        node = slicer.util.addVolumeFromArray(voxels, name=name)
        node.SetSpacing(1.0, 1.0, 1.1)
        self.turn(node, 10, 0, 0, 1)
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        shift = vtk.vtkTransform()
        shift.Translate(3, 2, 1)
        transform.SetMatrixTransformToParent(shift.GetMatrix())
        node.SetAndObserveTransformNodeID(transform.GetID())
        display = node.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(200.0, 120.0)
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        self.study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), f"{name}'s study")
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), self.study)
        slicer.util.setSliceViewerLayers(background=node)
        bounds = [0.0] * 6
        node.GetRASBounds(bounds)
        middle = np.reshape(bounds, (3, 2)).mean(axis=1).tolist()
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *middle, 1)  # as Slicer fits views
        return node

    def replaceWorker(self, program):
        """Have a program, in Python, do the jobs until the end of the test."""
        self.waitUntil(lambda: not self.runner.activeJobs())
        command = [worker.pythonExecutable(), "-c", program]
        fields = {"_command": command, "_workers": [], "_shared": None}
        self.enterContext(mock.patch.multiple(self.runner, **fields))
        self.addCleanup(self.runner.shutdown)

    def setModality(self, node, modality):
        node.SetAttribute(bridge.MODALITY, modality)
        self.processEvents(80)

    def apply(self, seconds=240, button=None):
        """Press Apply, or another button, and wait for the result; the job."""
        (button or self.ui.applyButton).click()
        job = self.panel.job
        self.assertIsNotNone(job, self.message)
        self.waitUntil(lambda: self.panel.job is None, seconds)
        self.assertEqual(job.state, "done", self.message)
        return job

    def slowApply(self):
        """Press Apply for a run that takes seconds, and wait until the worker is at it."""
        self.ui.uncertaintyCheckBox.checked = self.ui.segmentCheckBox.checked = True
        self.ui.forceSegmenterCheckBox.checked = True  # so small a part is unlike a brain
        self.ui.applyButton.click()
        job = self.panel.job
        self.waitUntil(lambda: job.reached and job.fraction > 0.01, 60)
        return job

    def nodeIDs(self):
        scene = slicer.mrmlScene
        return {scene.GetNthNode(at).GetID() for at in range(scene.GetNumberOfNodes())}

    def libraryResult(self, node):
        """What the library makes of the same voxels, without a panel and a worker."""
        from MedEnhanceLib.jobs import JobSpec, run_job

        folder = self.temporaryFolder()
        source, output = (os.path.join(folder, name) for name in ("in.nrrd", "out.nrrd"))
        list(sending.sendVolume(node, source))
        run_job(JobSpec("enhance", {"input": source, "output": output}))
        return np.array(stepwise.NrrdFile(output).voxels)
