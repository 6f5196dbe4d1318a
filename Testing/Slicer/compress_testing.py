"""What tests of the page Compress share: the page, a file to write, and what a user does there."""

import os

import numpy as np
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
        self.ui.fileEdit.text = ""
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
        """Pick a volume, a mode and a destination as a user does."""
        self.ui.inputSelector.setCurrentNode(node)
        getattr(self.ui, button).checked = True
        self.ui.pathEdit.text = self.path

    def newestJob(self):
        """The one that a button began, whatever the page asked by itself since."""
        jobs = reversed(self.context.runner.jobs)
        return next(job for job in jobs if job.kind not in ("estimate", "inspect"))

    def lastJob(self, seconds=60):
        job = self.newestJob()
        self.waitUntil(lambda: job.isFinished, seconds)
        return job

    def compress(self):
        self.assertTrue(self.ui.compressButton.enabled, self.ui.compressButton.toolTip)
        self.ui.compressButton.click()
        return self.lastJob()

    def openFile(self, path=None):
        """Pick a file, wait for its card, open it; the job."""
        self.ui.fileEdit.text = path or self.path
        self.waitUntil(lambda: self.ui.cardLabel.text != "Reading…", 20)
        self.assertTrue(self.ui.openButton.enabled, self.ui.cardLabel.text)
        self.ui.openButton.click()
        self.waitUntil(lambda: self.ui.openButton.enabled, 60)
        return self.lastJob()

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
