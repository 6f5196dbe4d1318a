"""What tests of the page Compress share: the page, a file to write, and what a user does there."""

import os
from unittest import mock

import numpy as np
import qt
import slicer
import vtk
from medenhance_testing import MedEnhanceTestCase


class CompressTestCase(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        self.widget.showPage("compress")
        self.panel = self.widget.panels["compress"]
        self.ui = self.panel.ui
        self.folder = self.temporaryFolder()
        self.path = os.path.join(self.folder, "scan.ucv")

    def tearDown(self):
        self.context.clearMessage()
        super().tearDown()

    def obliqueVolume(self, **options):
        """A CT whose axes are those of no patient."""
        node = self.smallVolume((24, 40, 36), name="oblique", spacing=(0.7, 0.8, 2.5), **options)
        turn = vtk.vtkTransform()
        turn.RotateWXYZ(20, 1, 2, 3)
        rows = [
            [turn.GetMatrix().GetElement(row, column) for column in range(3)] for row in range(3)
        ]
        node.SetIJKToRASDirections(rows)
        node.SetOrigin(-12.5, 30.25, 7.0)
        node.SetAttribute("MedEnhance.modality", "CT")
        return node

    def picture(self, name):
        """The whole panel, as high as the page needs."""
        height = self.panel.widget.sizeHint.height() + 180
        self.screenshot(self.widget.parent, name, height=height)

    def choose(self, node, button="losslessButton"):
        """Pick a volume and a mode as a user does."""
        self.widget.ui.inputSelector.setCurrentNode(node)
        getattr(self.ui, button).checked = True

    def press(self):
        """Press Compress, and choose the path in the dialog; the job."""
        self.assertTrue(self.ui.compressButton.enabled, self.ui.compressButton.toolTip)
        with mock.patch.object(qt.QFileDialog, "getSaveFileName", return_value=self.path):
            self.ui.compressButton.click()
        return self.panel._job

    def compress(self):
        """Press Compress and wait for the end; the job."""
        return self.finished(self.press())

    def finished(self, job, seconds=60):
        self.waitUntil(lambda: job.isFinished, seconds)
        return job

    def opened(self, path=None):
        """What Slicer's own loader makes of a file."""
        return slicer.util.loadNodeFromFile(path or self.path, "MedEnhanceCompressedVolume", {})

    def assertSameGrid(self, first, second):
        for node in (first, second):
            self.assertIsNotNone(node)
        np.testing.assert_allclose(first.GetSpacing(), second.GetSpacing(), rtol=1e-12)
        np.testing.assert_allclose(first.GetOrigin(), second.GetOrigin(), rtol=1e-12)
        matrices = [vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()]
        for node, matrix in zip((first, second), matrices, strict=True):
            node.GetIJKToRASDirectionMatrix(matrix)
        arrays = [slicer.util.arrayFromVTKMatrix(matrix) for matrix in matrices]
        np.testing.assert_allclose(*arrays, atol=1e-12)
