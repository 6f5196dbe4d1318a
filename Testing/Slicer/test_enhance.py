"""The page Enhance as a user drives it, over the real worker and the models that ship."""

import json
import os
import subprocess

import numpy as np
import slicer
import vtk
from medenhance_testing import MedEnhanceTestCase

#: A part of the sample that the model takes a fraction of a second for.
_CORNER, _SHAPE = (60, 84, 60), (12, 64, 64)


class EnhanceTestCase(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        from MedEnhancePanels import bridge, results

        self.bridge, self.results = bridge, results
        self.panel = self.widget.panels["enhance"]
        self.ui = self.panel.ui
        self.runner = self.context.runner
        self.widget.showPage("enhance")
        for section in (self.ui.advancedButton, self.ui.batchButton, self.ui.logButton):
            section.collapsed = True

    def picture(self, name):
        """The page as it is, in a panel of ordinary width that scrolls if it must."""
        widget = self.panel.widget
        height = widget.layout().totalHeightForWidth(400) + 10
        if self.ui.resultButton.isVisibleTo(widget):
            height += 60  # a collapsible section asks for less than its wrapped lines need
        window = widget.window()
        window.resize(window.width + 400 - widget.width, window.height + height - widget.height)
        self.processEvents(20)
        self.screenshot(widget, name, 400, height)

    def brain(self, name="Brain"):
        """A small, turned part of the sample under a transform, in a study, as it is shown."""
        part = tuple(slice(at, at + size) for at, size in zip(_CORNER, _SHAPE, strict=True))
        whole = self.loadSample()
        voxels = slicer.util.arrayFromVolume(whole)[part].copy()
        slicer.mrmlScene.RemoveNode(whole)
        node = slicer.util.addVolumeFromArray(voxels, name=name)
        node.SetSpacing(1.0, 1.0, 1.1)
        node.SetOrigin(12.3, -45.6, 7.8)
        turn = vtk.vtkTransform()
        turn.RotateZ(10)
        matrix = slicer.util.arrayFromVTKMatrix(turn.GetMatrix())[:3, :3]
        node.SetIJKToRASDirections(matrix.tolist())
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
        return node

    def choose(self, node):
        self.ui.inputSelector.setCurrentNode(node)
        self.processEvents(80)

    def apply(self, seconds=60):
        """Press Apply and wait for the end; the job."""
        self.ui.applyButton.click()
        job = self.panel.job
        self.assertIsNotNone(job, self.message)
        self.waitUntil(lambda: self.panel.job is None, seconds)
        return job

    def slowApply(self, samples=64):
        """Press Apply for a run that takes long, and wait until the worker is at it."""
        self.ui.uncertaintyCheckBox.checked = True
        self.ui.samplesSpinBox.value = samples
        self.ui.applyButton.click()
        job = self.panel.job
        self.waitUntil(lambda: job.reached and job.fraction > 0.06, 60)
        return job

    @property
    def message(self):
        return self.widget.ui.messageLabel.text

    def nodeIDs(self):
        scene = slicer.mrmlScene
        return {scene.GetNthNode(at).GetID() for at in range(scene.GetNumberOfNodes())}

    def ijkToRas(self, node):
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        return slicer.util.arrayFromVTKMatrix(matrix)

    def libraryResult(self, node, *options):
        """What the library makes of the same voxels, by its command line, in another process."""
        from MedEnhancePanels import worker

        folder = self.temporaryFolder()
        source, output = os.path.join(folder, "in.nrrd"), os.path.join(folder, "out.nrrd")
        list(self.bridge.sendVolume(node, source))
        command = [worker.pythonExecutable(), "-m", "MedEnhanceLib", "enhance", source, output]
        environment = {**os.environ, "PYTHONPATH": worker.libraryFolder()}
        subprocess.run([*command, *options], check=True, env=environment, capture_output=True)
        from MedEnhancePanels import nrrd

        reader = nrrd.Reader(output)
        voxels = np.empty(reader.shape, reader.dtype)
        list(reader.readInto(voxels))
        return voxels


class ChoicesTest(EnhanceTestCase):
    def test_nothingChosenDisablesEverythingAndSaysWhy(self):
        self.processEvents(80)
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertFalse(self.ui.previewButton.enabled)
        self.assertIn("Choose a volume", self.ui.problemLabel.text)
        self.assertEqual(self.ui.applyButton.toolTip, self.ui.problemLabel.text)
        self.picture("enhance-empty")

    def test_onlyFittingModelsAreOfferedTheRecommendedOneFirst(self):
        node = self.smallVolume()
        texts = []
        for modality in ("MR", "CT"):
            node.SetAttribute(self.bridge.MODALITY, modality)
            self.choose(node)
            box = self.ui.modelComboBox
            texts.append([box.itemText(index) for index in range(box.count)])
            self.assertTrue(self.ui.applyButton.enabled)
            self.assertIn(modality, self.ui.modelCardLabel.text)
            self.assertIn("not for diagnosis", self.ui.modelCardLabel.text)
            self.assertIn("Trained on", box.toolTip)
        self.assertEqual(texts[0], ["Recommended: mr-brain", "mr-brain"])
        self.assertEqual(texts[1], ["Recommended: ct-lowdose", "ct-lowdose"])

    def test_aModalityWithoutModelDisablesApplyAndSaysWhy(self):
        node = self.smallVolume(name="tracer")
        node.SetAttribute(self.bridge.MODALITY, "PT")
        self.choose(node)
        self.assertFalse(self.ui.applyButton.enabled)
        for word in ("PT", "tracer", "CT and MR"):
            self.assertIn(word, self.ui.problemLabel.text)

    def test_anUnknownModalityAsksForTheModel(self):
        node = self.smallVolume(name="thing")
        node.SetAttribute(self.bridge.MODALITY, "OT")
        self.choose(node)
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("choose the model", self.ui.problemLabel.text)
        index = self.ui.modelComboBox.findData("mr-brain")
        self.ui.modelComboBox.currentIndex = index
        self.ui.modelComboBox.activated.emit(index)
        self.assertEqual(self.context.state.model, "mr-brain")
        self.assertTrue(self.ui.applyButton.enabled)

    def test_aModelForAnotherModalityIsNotUsedSilently(self):
        node = self.smallVolume()
        node.SetAttribute(self.bridge.MODALITY, "MR")
        self.context.state.model = "ct-lowdose"
        self.choose(node)
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("ct-lowdose", self.ui.problemLabel.text)
        self.picture("enhance-error")

    def test_unusableInputsAreNamed(self):
        color = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
        image = vtk.vtkImageData()
        image.SetDimensions(4, 4, 4)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
        color.SetAndObserveImageData(image)
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
        for node, word in ((color, "colour"), (empty, "no voxels")):
            self.context.state.inputVolume = node
            self.processEvents(80)
            self.assertFalse(self.ui.applyButton.enabled)
            self.assertIn(word, self.ui.problemLabel.text)

    def test_whatDoesNotFitTheModalityIsNotOffered(self):
        node = self.smallVolume()
        self.ui.advancedButton.collapsed = False
        for modality, fits in (("MR", True), ("CT", False)):
            node.SetAttribute(self.bridge.MODALITY, modality)
            self.choose(node)
            self.assertEqual(self.ui.segmentCheckBox.enabled, fits)
            self.assertEqual(self.ui.biasCorrectionCheckBox.enabled, fits)
        self.assertIn("CT", self.ui.segmentCheckBox.toolTip)

    def test_choicesThatDoNotFitForNowAreKept(self):
        node = self.smallVolume()
        node.SetAttribute(self.bridge.MODALITY, "MR")
        self.choose(node)
        self.ui.segmentCheckBox.checked = True
        node.SetAttribute(self.bridge.MODALITY, "CT")
        self.processEvents(80)
        self.assertFalse(self.ui.segmentCheckBox.checked)
        self.assertFalse(self.panel.options.segment)
        node.SetAttribute(self.bridge.MODALITY, "MR")
        self.processEvents(80)
        self.assertTrue(self.ui.segmentCheckBox.checked)

    def test_guideAndOutputAreChecked(self):
        node, guide = self.smallVolume(name="scan"), self.smallVolume(name="guide")
        node.SetAttribute(self.bridge.MODALITY, "MR")
        guide.SetAttribute(self.bridge.MODALITY, "CT")
        self.choose(node)
        self.ui.guideSelector.setCurrentNode(guide)
        self.assertIn("guide is CT", self.ui.problemLabel.text)
        self.ui.guideSelector.setCurrentNode(None)
        self.ui.outputSelector.setCurrentNode(node)
        self.assertIn("input itself", self.ui.problemLabel.text)
        self.ui.outputSelector.setCurrentNode(None)
        self.assertEqual(self.panel.problem(), "")

    def test_theDeviceIsChosenWithAReason(self):
        self.choose(self.brain())
        self.waitUntil(lambda: self.ui.deviceReasonLabel.text, 60)
        self.assertIn("Automatic", self.ui.deviceComboBox.currentText)
        self.assertGreaterEqual(self.ui.deviceComboBox.findData("cpu"), 0)
        self.picture("enhance-ready")

    def test_choicesSurviveASavedScene(self):
        self.choose(self.brain())
        self.ui.uncertaintyCheckBox.checked = True
        self.ui.samplesSpinBox.value = 5
        self.ui.segmentCheckBox.checked = True
        path = os.path.join(self.temporaryFolder(), "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear(0)
        self.processEvents(80)
        self.assertFalse(self.ui.uncertaintyCheckBox.checked)
        self.assertIsNone(self.ui.inputSelector.currentNode())
        slicer.util.loadScene(path)
        self.processEvents(80)
        self.assertEqual(self.ui.inputSelector.currentNode().GetName(), "Brain")
        self.assertTrue(self.ui.uncertaintyCheckBox.checked and self.ui.segmentCheckBox.checked)
        self.assertEqual(self.ui.samplesSpinBox.value, 5)


class ApplyTest(EnhanceTestCase):
    def test_applyMakesWhatTheLibraryMakes(self):
        node = self.brain()
        before = slicer.util.arrayFromVolume(node).copy()
        self.choose(node)
        job = self.apply()
        self.assertEqual(job.state, "done", self.message)
        output = job.nodes["output"]
        self.assertEqual(output.GetName(), "Brain enhanced")
        voxels = slicer.util.arrayFromVolume(output)
        np.testing.assert_array_equal(voxels, self.libraryResult(node))
        self.assertEqual(voxels.dtype, before.dtype)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), before)
        np.testing.assert_array_equal(self.ijkToRas(output), self.ijkToRas(node))
        self.assertIs(output.GetParentTransformNode(), node.GetParentTransformNode())
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        item = hierarchy.GetItemByDataNode(output)
        self.assertEqual(hierarchy.GetItemParent(item), self.study)
        shown = output.GetDisplayNode()
        self.assertEqual((shown.GetWindow(), shown.GetLevel()), (200.0, 120.0))
        difference = self.results.linked(output, "difference")
        np.testing.assert_allclose(
            slicer.util.arrayFromVolume(difference),
            voxels.astype(np.float32) - before,
        )
        self.assertIs(self.results.linked(output, "input"), node)
        self.assertIsNone(self.results.linked(output, "segmentation"))
        self.assertEqual(output.GetAttribute("MedEnhance.model"), "mr-brain")
        manifest = json.loads(output.GetAttribute("MedEnhance.manifest"))
        self.assertEqual(manifest["device"], "cpu")
        self.assertIn("Brain enhanced is ready", self.message)
        self.assertIs(self.ui.resultSelector.currentNode(), output)
        self.assertEqual(self.panel.result.compare.mode, "fade")

    def test_everythingAtOnceAndThroughASavedScene(self):
        node = self.brain()
        self.choose(node)
        self.ui.uncertaintyCheckBox.checked = True
        self.ui.samplesSpinBox.value = 2
        self.ui.segmentCheckBox.checked = True
        self.ui.applyButton.click()
        job = self.panel.job
        self.waitUntil(lambda: job.fraction > 0.2, 60)
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertTrue(self.ui.cancelButton.enabled)
        self.picture("enhance-running")
        self.waitUntil(lambda: self.panel.job is None, 60)
        self.assertEqual(job.state, "done", self.message)
        self.assertEqual(
            set(job.nodes), {"output", "difference", "uncertainty", "segmentation", "table"}
        )
        self.picture("enhance-done")
        for made in job.nodes.values():
            self.assertTrue(made.GetAttribute("MedEnhance.derived"))
            self.assertIn("Research use only", made.GetAttribute("MedEnhance.use"))
            self.assertTrue(json.loads(made.GetAttribute("MedEnhance.manifest")))
        uncertainty = slicer.util.arrayFromVolume(job.nodes["uncertainty"])
        self.assertGreater(uncertainty.max(), 0)
        self.assertEqual(job.nodes["segmentation"].GetAttribute("MedEnhance.model"), "brain-tissue")
        table = job.nodes["table"]
        parts = job.nodes["segmentation"].GetSegmentation()
        for index in range(parts.GetNumberOfSegments()):
            self.assertEqual(table.GetCellText(index, 0), parts.GetNthSegment(index).GetName())
            voxels = slicer.util.arrayFromSegmentBinaryLabelmap(
                job.nodes["segmentation"], parts.GetNthSegmentID(index), node
            )
            self.assertEqual(int(table.GetCellText(index, 1)), np.count_nonzero(voxels))
        self.sliceViewPicture("enhance-view")
        path = os.path.join(self.temporaryFolder(), "scene.mrb")
        expected = slicer.util.arrayFromVolume(job.nodes["output"]).copy()
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(path)
        output = slicer.util.getNode("Brain enhanced")
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(output), expected)
        for role in self.results.ROLES:
            self.assertIsNotNone(self.results.linked(output, role), role)
        self.processEvents(80)
        self.assertIs(self.ui.resultSelector.currentNode(), output)
        self.ui.sideBySideButton.click()
        self.assertEqual(self.panel.result.compare.mode, "sideBySide")
        self.ui.compareOffButton.click()

    def test_anExistingVolumeCanTakeTheResult(self):
        node, other = self.brain(), self.smallVolume(name="mine")
        self.choose(node)
        self.ui.outputSelector.setCurrentNode(other)
        before = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        job = self.apply()
        self.assertIs(job.nodes["output"], other)
        self.assertEqual(slicer.util.arrayFromVolume(other).shape, _SHAPE)
        np.testing.assert_array_equal(self.ijkToRas(other), self.ijkToRas(node))
        self.assertIs(other.GetParentTransformNode(), node.GetParentTransformNode())
        after = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        self.assertEqual(after, before + 1)  # the difference

    def test_twoRunsGiveTwoResults(self):
        self.choose(self.brain())
        first, second = self.apply().nodes["output"], self.apply().nodes["output"]
        self.assertIsNot(first, second)
        self.assertNotEqual(first.GetName(), second.GetName())
        self.assertIs(self.ui.resultSelector.currentNode(), second)

    def test_strengthAndOverlaysAreAtHand(self):
        self.choose(self.brain())
        output = self.apply().nodes["output"]
        self.ui.strengthSlider.value = 0.4
        layers = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
        self.assertAlmostEqual(layers.GetForegroundOpacity(), 0.4)
        self.ui.differenceButton.click()
        self.assertTrue(self.ui.differenceButton.checked)
        self.assertFalse(self.ui.uncertaintyButton.enabled)
        source = slicer.util.arrayFromVolume(self.results.linked(output, "input"))
        enhanced = slicer.util.arrayFromVolume(output).astype(np.float32)
        self.assertTrue(self.ui.keepStrengthButton.enabled)
        self.ui.keepStrengthButton.click()
        self.waitUntil(lambda: not self.panel.result.isKeeping, 10)
        expected = source + np.float32(0.4) * (enhanced - source)
        kept = slicer.util.arrayFromVolume(output)
        self.assertLessEqual(np.abs(kept - expected).max(), 0.5)
        self.assertEqual(self.ui.strengthSlider.value, 1.0)
        self.assertIn("strength 0.40", self.ui.factsLabel.text)
        self.ui.compareOffButton.click()
        self.assertFalse(self.ui.strengthSlider.enabled)

    def test_aGuideChangesTheResult(self):
        node = self.brain()
        guide = self.smallVolume((6, 64, 64), name="guide")
        for each in (node, guide):
            each.SetAttribute(self.bridge.MODALITY, "MR")
        self.choose(node)
        plain = slicer.util.arrayFromVolume(self.apply().nodes["output"]).copy()
        self.ui.guideSelector.setCurrentNode(guide)
        job = self.apply()
        self.assertEqual(job.state, "done", self.message)
        guided = slicer.util.arrayFromVolume(job.nodes["output"])
        self.assertTrue(np.any(guided != plain))

    def test_scriptsGetTheSame(self):
        node = self.brain()
        output = self.widget.logic.enhance(node, segment=True)
        labels = self.results.linked(output, "segmentation")
        alone = self.widget.logic.segment(node)
        for made in (labels, alone):
            parts = made.GetSegmentation()
            self.assertEqual(parts.GetNumberOfSegments(), 3)
            self.assertIn("White Matter", parts.GetNthSegment(2).GetTerminology())

    def test_theDarkThemeIsLegible(self):
        import qt

        self.choose(self.brain())
        self.apply()
        light = qt.QApplication.palette()
        dark = qt.QPalette(qt.QColor(45, 45, 45))
        dark.setColor(qt.QPalette.Base, qt.QColor(30, 30, 30))
        for role in (qt.QPalette.Text, qt.QPalette.ButtonText, qt.QPalette.WindowText):
            dark.setColor(qt.QPalette.Disabled, role, qt.QColor(120, 120, 120))
        try:
            qt.QApplication.setPalette(dark)
            self.picture("enhance-dark")
        finally:
            qt.QApplication.setPalette(light)


class PreviewTest(EnhanceTestCase):
    def previewed(self):
        self.ui.previewButton.click()
        job = self.panel.job
        self.assertIsNotNone(job, self.message)
        self.waitUntil(lambda: self.panel.job is None, 60)
        self.assertEqual(job.state, "done", self.message)
        return job

    def test_thePreviewEqualsTheWholeRun(self):
        node = self.brain()
        self.choose(node)
        job = self.previewed()
        self.picture("enhance-preview")
        slab = job.nodes["output"]
        first, end = job.params["slices"]
        voxels = slicer.util.arrayFromVolume(slab).copy()
        expected = self.ijkToRas(node)
        expected[:3, 3] += first * expected[:3, 2]
        np.testing.assert_allclose(self.ijkToRas(slab), expected, atol=1e-9)
        self.assertIs(slab.GetParentTransformNode(), node.GetParentTransformNode())
        self.assertTrue(slab.GetHideFromEditors())
        self.assertFalse(slab.GetSaveWithScene())
        output = self.apply().nodes["output"]
        self.assertFalse(self.bridge.isInScene(slab))
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(output)[first:end], voxels)

    def test_hidingLeavesNothing(self):
        self.choose(self.brain())
        self.processEvents(80)
        before = self.nodeIDs()
        self.previewed()
        self.assertEqual(self.ui.previewButton.text.replace("&", ""), "Hide preview")
        self.ui.previewButton.click()
        self.assertEqual(self.nodeIDs(), before)
        self.assertEqual(self.ui.previewButton.text.replace("&", ""), "Preview")

    def test_voxelsAreSentOnceUntilTheyChange(self):
        node = self.brain()
        self.choose(node)
        first = self.previewed()
        written = os.stat(first.params["input"]).st_mtime_ns
        self.ui.previewButton.click()
        second = self.previewed()
        self.assertEqual(second.params["input"], first.params["input"])
        self.assertEqual(os.stat(second.params["input"]).st_mtime_ns, written)
        self.ui.previewButton.click()
        slicer.util.arrayFromVolume(node)[:] += 3
        slicer.util.arrayFromVolumeModified(node)
        third = self.previewed()
        self.assertNotEqual(third.params["input"], first.params["input"])
        self.assertFalse(os.path.exists(first.params["input"]))

    def test_aClosedSceneForgetsThePreview(self):
        self.choose(self.brain())
        self.previewed()
        slicer.mrmlScene.Clear(0)
        self.processEvents(80)
        self.assertFalse(self.panel.preview.isShown)
        self.choose(self.brain())
        self.previewed()

    def test_anotherInputTakesThePreviewAway(self):
        node = self.brain()
        self.choose(node)
        slab = self.previewed().nodes["output"]
        self.choose(self.smallVolume())
        self.assertFalse(self.bridge.isInScene(slab))

    def test_aRemovedInputTakesItsPreviewAlong(self):
        node = self.brain()
        self.choose(node)
        slab = self.previewed().nodes["output"]
        slicer.mrmlScene.RemoveNode(node)
        self.processEvents(100)
        self.assertFalse(self.bridge.isInScene(slab))


class TroubleTest(EnhanceTestCase):
    def test_cancelThenApplyAgain(self):
        self.choose(self.brain())
        self.processEvents(80)
        before = self.nodeIDs()
        job = self.slowApply()
        self.ui.cancelButton.click()
        self.waitUntil(lambda: self.panel.job is None, 5)
        self.assertEqual(job.state, "cancelled")
        self.assertEqual(self.nodeIDs(), before)
        self.assertTrue(self.ui.applyButton.enabled)
        self.ui.uncertaintyCheckBox.checked = False
        self.assertEqual(self.apply().state, "done", self.message)

    def test_deletingTheInputEndsTheRunWithASentence(self):
        node = self.brain()
        self.choose(node)
        job = self.slowApply()
        slicer.mrmlScene.RemoveNode(node)
        self.waitUntil(lambda: self.panel.job is None, 5)
        self.assertEqual(job.state, "cancelled")
        self.assertIn("Brain was removed", self.message)
        self.processEvents(80)
        self.assertFalse(self.ui.applyButton.enabled)
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        self.assertEqual([volume.GetName() for volume in volumes], [])

    def test_deletingTheInputWhileTheResultComesInLeavesNothing(self):
        node = self.brain()
        self.choose(node)
        self.processEvents(80)
        before = self.nodeIDs()
        gone = {node.GetID(), node.GetDisplayNode().GetID()}
        self.ui.applyButton.click()
        job = self.panel.job

        def removeInput(job, name, fields):
            if "output" in job.nodes and self.bridge.isInScene(node):
                self.results.remove(node)

        job.onEvent(removeInput)
        self.waitUntil(lambda: self.panel.job is None, 60)
        self.assertEqual(job.state, "cancelled")
        self.assertEqual(job.nodes, {})
        self.assertEqual(self.nodeIDs(), before - gone)

    def test_closingTheSceneEndsTheRun(self):
        self.choose(self.brain())
        job = self.slowApply()
        slicer.mrmlScene.Clear(0)
        self.waitUntil(lambda: job.isFinished, 5)
        self.assertEqual(job.state, "cancelled")
        self.assertIn("The scene was closed", self.message)
        self.processEvents(80)
        self.assertIsNone(self.panel.job)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"), [])

    def test_theResultGoesWhereTheInputIsByThen(self):
        node = self.brain()
        self.choose(node)
        self.ui.applyButton.click()
        job = self.panel.job
        other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "other")
        node.SetAndObserveTransformNodeID(other.GetID())
        self.waitUntil(lambda: self.panel.job is None, 60)
        self.assertEqual(job.state, "done", self.message)
        for made in ("output", "difference"):
            self.assertIs(job.nodes[made].GetParentTransformNode(), other)

    def test_voxelsThatChangeDuringTheRunAreToldOf(self):
        node = self.brain()
        self.choose(node)
        job = self.slowApply(6)
        slicer.util.arrayFromVolume(node)[:] = 0
        slicer.util.arrayFromVolumeModified(node)
        self.waitUntil(lambda: self.panel.job is None, 90)
        self.assertEqual(job.state, "done", self.message)
        self.assertIsNone(job.nodes["difference"])
        self.assertIn("changed during the run", self.message)

    def test_aKilledWorkerIsToldOfAndTheNextRunWorks(self):
        import signal

        self.choose(self.brain())
        before = self.nodeIDs()
        job = self.slowApply()
        os.kill(job.worker.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        self.waitUntil(lambda: self.panel.job is None, 10)
        self.assertEqual(job.state, "failed")
        self.assertIn("process", self.message)
        self.assertEqual(self.nodeIDs(), before)
        self.ui.uncertaintyCheckBox.checked = False
        self.assertEqual(self.apply().state, "done", self.message)


class SequenceTest(EnhanceTestCase):
    def sequence(self):
        """Three frames, closer than a second, with a browser that shows the first."""
        first = self.brain("frame")
        sequence = self.bridge.newSequence("beating")
        sequence.SetIndexName("time")
        sequence.SetIndexUnit("s")
        for value in ("0.25", "0.5", "0.75"):
            first.SetOrigin(10 * float(value), -45.6, 7.8)  # each frame may lie elsewhere
            sequence.SetDataNodeAtValue(first, value)
            voxels = slicer.util.arrayFromVolume(first)
            slicer.util.updateVolumeFromArray(first, np.flip(voxels, axis=2).copy())
        slicer.mrmlScene.RemoveNode(first)
        browser = self.bridge.browse(sequence)
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
        return sequence, browser

    def test_everyFrameOfASequenceIsEnhanced(self):
        sequence, browser = self.sequence()
        self.choose(sequence)
        self.assertFalse(self.ui.segmentCheckBox.enabled)
        job = self.apply()
        self.assertEqual(job.state, "done", self.message)
        output = job.nodes["output"]
        self.assertEqual(output.GetName(), "beating enhanced")
        self.assertEqual(output.GetNumberOfDataNodes(), 3)
        self.assertEqual([output.GetNthIndexValue(at) for at in range(3)], ["0.25", "0.5", "0.75"])
        self.assertEqual((output.GetIndexName(), output.GetIndexUnit()), ("time", "s"))
        for at in range(3):
            frame, original = output.GetNthDataNode(at), sequence.GetNthDataNode(at)
            np.testing.assert_array_equal(self.ijkToRas(frame), self.ijkToRas(original))
            self.assertTrue(
                np.any(slicer.util.arrayFromVolume(frame) != slicer.util.arrayFromVolume(original))
            )
        single = self.libraryResult(sequence.GetNthDataNode(1))
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(output.GetNthDataNode(1)), single)
        self.assertTrue(browser.IsSynchronizedSequenceNode(output, True))
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")), 1)

    def test_aFrameOffersItsWholeSequence(self):
        sequence, browser = self.sequence()
        proxy = browser.GetProxyNode(sequence)
        self.choose(proxy)
        self.assertTrue(self.ui.allFramesCheckBox.isVisibleTo(self.panel.widget))
        self.assertIn("All 3", self.ui.allFramesCheckBox.text.replace("&", ""))
        self.assertIs(self.panel.target, proxy)
        self.ui.allFramesCheckBox.checked = True
        self.assertIs(self.panel.target, sequence)
        job = self.apply()
        self.assertTrue(job.nodes["output"].IsA("vtkMRMLSequenceNode"))
        shown = browser.GetProxyNode(job.nodes["output"])
        for index in (2, 0):
            browser.SetSelectedItemNumber(index)
            slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
            self.processEvents(80)
            self.assertIs(self.ui.resultSelector.currentNode(), shown)
            self.assertIs(self.results.linked(shown, "input"), proxy)
            frame = job.nodes["output"].GetNthDataNode(index)
            np.testing.assert_array_equal(
                slicer.util.arrayFromVolume(shown), slicer.util.arrayFromVolume(frame)
            )
        self.assertEqual(self.panel.result.compare.mode, "fade")
