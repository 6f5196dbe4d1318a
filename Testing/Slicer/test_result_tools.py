"""What can be done with a result: keys, renaming, saving, removing, 3D and table."""

import os
from unittest import mock

import numpy as np
import slicer
import vtk
from test_compare import ViewTestCase


class ResultToolsTest(ViewTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        self.source.SetAttribute(self.bridge.MODALITY, "MR")
        self.output = self.makeOutput()
        self.panel = self.widget.panels["enhance"]
        self.ui, self.area = self.panel.ui, self.panel.result
        self.tools = self.area.tools
        self.widget.showPage("enhance")
        self.ui.inputSelector.setCurrentNode(self.source)
        self.processEvents(80)
        self.assertIs(self.area.output, self.output)

    def addSegments(self):
        """A segmentation with its table, as a run leaves them."""
        labels = slicer.vtkOrientedImageData()
        labels.DeepCopy(self.source.GetImageData())
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "parts")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(self.source)
        image = slicer.vtkOrientedImageData()
        image.SetDimensions(20, 24, 8)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        voxels = np.zeros((8, 24, 20), np.uint8)
        voxels[2:6, 6:18, 5:15] = 1
        vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[:] = voxels.ravel()
        segmentation.AddSegmentFromBinaryLabelmapRepresentation(image, "part", (1.0, 0.5, 0.0))
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "volumes")
        self.results.link(self.output, segmentation=segmentation, table=table)
        self.panel.update()
        return segmentation, table

    def opacity(self):
        return self.layers("Red").GetForegroundOpacity()

    # --- keys ---

    def test_keysWorkWhileThePageIsShownAndNotLonger(self):
        keys = {each.key.toString(): each for each in self.panel._shortcuts._made}
        self.assertEqual(sorted(keys), ["Ctrl+Shift+B", "Ctrl+Shift+E", "Ctrl+Shift+P"])
        for key, button in (("P", self.ui.previewButton), ("E", self.ui.applyButton)):
            self.assertIn(f"(Ctrl+Shift+{key})", button.toolTip)
            pressed = []
            button.pressed.connect(lambda pressed=pressed: pressed.append(1))
            with mock.patch.object(self.panel, "_run"), mock.patch.object(self.panel, "_follow"):
                keys[f"Ctrl+Shift+{key}"].activated()
            self.assertEqual(len(pressed), 1)
        self.widget.showPage("compress")
        self.assertEqual(self.panel._shortcuts._made, [])
        self.assertFalse(any(each.enabled for each in keys.values()))
        self.widget.showPage("enhance")
        self.assertEqual(len(self.panel._shortcuts._made), 3)

    def test_theInputIsShownAloneAndTheCorrectionAgain(self):
        toggle = next(
            each.activated
            for each in self.panel._shortcuts._made
            if each.key.toString() == "Ctrl+Shift+B"
        )
        toggle()
        self.assertEqual((self.area.compare.mode, self.opacity()), ("fade", 0.0))
        self.assertTrue(self.ui.inputButton.checked)
        toggle()
        self.assertEqual(self.opacity(), 1.0)
        toggle()
        self.ui.strengthSlider.value = 0.5  # who moves it wants to see it
        self.waitUntil(lambda: not self.area.isBlending, 10)
        self.assertEqual((self.opacity(), self.ui.inputButton.checked), (1.0, False))
        toggle()
        self.ui.compareOffButton.click()
        self.assertFalse(self.ui.inputButton.checked)
        self.context.state.enhancedVolume = None
        toggle()  # nothing to show, and no fault
        self.assertFalse(self.ui.inputButton.checked)

    # --- the menu ---

    def test_aResultIsRenamed(self):
        with mock.patch("qt.QInputDialog.getText", return_value=" better "):
            self.tools.actions["rename"].triggered()
        self.assertEqual(self.output.GetName(), "better")
        with mock.patch("qt.QInputDialog.getText", return_value=""):  # cancelled
            self.tools.actions["rename"].triggered()
        self.assertEqual(self.output.GetName(), "better")

    def test_aResultIsSavedAsDerived(self):
        import MedEnhanceLib

        path = os.path.join(self.temporaryFolder(), "better.nrrd")
        with mock.patch("qt.QFileDialog.getSaveFileName", return_value=path):
            self.tools.actions["save"].triggered()
            self.waitUntil(lambda: not self.context.runner.activeJobs())
            self.assertIn(path, self.widget.ui.messageLabel.text)
            self.assertIn("DERIVED", MedEnhanceLib.load(path).history[0])
            self.tools.actions["save"].triggered()  # what is there stays
            self.assertIn("exists", self.widget.ui.messageLabel.text)
        with mock.patch("qt.QFileDialog.getSaveFileName", return_value=""):
            self.tools.actions["save"].triggered()
        self.assertEqual(self.context.runner.activeJobs(), [])

    def test_aResultIsRemovedWithItsPartsAfterAQuestion(self):
        difference = self.results.linked(self.output, "difference")
        self.ui.fadeButton.click()
        with mock.patch("slicer.util.confirmOkCancelDisplay", return_value=False) as asked:
            self.tools.actions["remove"].triggered()
        self.assertIn("scan enhanced, scan uncertainty, scan difference", asked.call_args.args[0])
        self.assertTrue(self.bridge.isInScene(self.output))
        with mock.patch("slicer.util.confirmOkCancelDisplay", return_value=True):
            self.tools.actions["remove"].triggered()
        self.processEvents(80)
        self.assertFalse(self.bridge.isInScene(self.output) or self.bridge.isInScene(difference))
        self.assertTrue(self.bridge.isInScene(self.source))
        self.assertEqual(self.layers("Red").GetBackgroundVolumeID(), self.source.GetID())
        self.assertFalse(self.ui.resultMenuButton.enabled)

    # --- segments ---

    def test_segmentsAreShownIn3dAndInATable(self):
        page = self.panel.widget
        self.assertFalse(self.ui.show3dButton.isVisibleTo(page))
        self.assertFalse(self.ui.tableButton.isVisibleTo(page))
        segmentation, table = self.addSegments()
        self.assertTrue(self.ui.show3dButton.isVisibleTo(page))
        self.assertFalse(self.ui.show3dButton.checked)
        self.ui.show3dButton.click()
        name = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
        self.assertTrue(segmentation.GetSegmentation().ContainsRepresentation(name))
        self.assertTrue(segmentation.GetDisplayNode().GetVisibility3D())
        self.assertTrue(self.ui.show3dButton.checked)
        self.ui.show3dButton.click()
        self.assertFalse(segmentation.GetDisplayNode().GetVisibility3D())
        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        before = layout.GetViewArrangement()
        self.ui.tableButton.click()
        selection = slicer.app.applicationLogic().GetSelectionNode()
        self.assertEqual(selection.GetActiveTableID(), table.GetID())
        self.assertEqual(layout.GetViewArrangement(), layout.SlicerLayoutFourUpTableView)
        self.assertTrue(self.ui.tableButton.checked)
        self.ui.tableButton.click()
        self.assertEqual(layout.GetViewArrangement(), before)
        for shown in (False, True):
            self.ui.segmentationButton.click()
            self.assertEqual(bool(segmentation.GetDisplayNode().GetVisibility()), shown)
