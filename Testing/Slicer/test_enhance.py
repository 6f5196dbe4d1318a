"""The page Enhance as a user drives it, over the real worker and the models that ship."""

import json
import os
import types
from unittest import mock

import numpy as np
import slicer
import vtk
from enhance_testing import EnhanceTestCase
from medenhance_testing import copyOfModel, slow

from MedEnhanceNodes import volume_warnings
from MedEnhancePanels.errors import PanelError
from MedEnhanceTasks import enhancement

#: What a run leaves, by role; the others come with comparing and blending.
ROLES_OF_A_RUN = ("input", "uncertainty", "noise", "segmentation", "table")


class ChoicesTest(EnhanceTestCase):
    def test_threeChoicesAreVisibleAndTheTaskIsInWords(self):
        """Volume, modality and task; the rest is for those who look for it."""
        self.reload("enhance")
        self.assertFalse(self.ui.applyButton.enabled or self.ui.previewButton.enabled)
        self.assertIn("Choose a volume", self.ui.problemLabel.text)
        self.assertEqual(self.ui.applyButton.toolTip, self.ui.problemLabel.text)
        node = self.smallVolume(modality="MR")
        self.choose(node)
        ui, page = self.ui, self.panel.widget
        choices = [
            name
            for name in dir(ui)
            if name.endswith(("Selector", "ComboBox", "CheckBox", "SpinBox"))
            and getattr(ui, name).isVisibleTo(page)
        ]
        self.assertEqual(sorted(choices), ["modalityComboBox", "taskComboBox"])
        self.assertEqual(ui.taskComboBox.currentText, "Noise")
        self.pick(ui.taskComboBox, "slices")  # keys reach the others where the order stays
        self.assertEqual(self.tasks(), ["Noise", "Thin slices from thick ones"])
        self.pick(ui.taskComboBox, "noise")
        self.assertIn("Removes noise", ui.taskComboBox.toolTip)
        self.assertFalse(self.panel.options.config.correct_bias_field)
        ui.biasFieldCheckBox.checked = True
        self.assertTrue(self.panel.options.config.correct_bias_field)
        self.assertIn("corrects the bias field", ui.planLabel.text)
        self.setModality(node, "CT")  # of which noise alone is removed
        self.assertEqual(self.tasks(), ["Noise", "Thin slices from thick ones"])
        self.assertFalse(ui.biasFieldCheckBox.enabled)
        self.assertFalse(self.panel.options.config.correct_bias_field)

    def test_faintLesionsOfCTAreMostlyKeptUnlessTheUserSmoothsThem(self):
        ui, node = self.ui, self.smallVolume(name="scan", modality="CT")
        self.choose(node)
        self.assertEqual(ui.lesionsComboBox.currentText, "Faint lesions: mostly kept (default)")
        self.assertFalse(self.panel.options.config.for_viewing)
        self.pick(ui.lesionsComboBox, True)
        self.assertTrue(self.panel.options.config.for_viewing)
        self.assertIn(
            "Removes noise, and small faint lesions that look like it, on", ui.planLabel.text
        )
        for another in (lambda: self.pick(ui.taskComboBox, "slices"), lambda: self.mr(node)):
            another()
            self.assertTrue(ui.lesionsComboBox.isHidden())
            self.assertFalse(self.panel.options.config.for_viewing)
            self.pick(ui.taskComboBox, "noise")
            self.assertNotIn("lesions", ui.planLabel.text)
            self.setModality(node, "CT")
            self.assertFalse(self.panel.options.config.for_viewing)
            self.pick(ui.lesionsComboBox, True)

    def mr(self, node):
        self.setModality(node, "MR")

    def test_theNoiseIsEnteredForOneVolume(self):
        box = self.ui.noiseSpinBox
        self.choose(self.smallVolume(name="scan", modality="CT"))
        self.assertEqual((box.text, box.suffix), ("Measured", " HU"))
        self.assertIsNone(self.panel.options.config.noise)
        (edit,) = slicer.util.findChildren(box, className="QLineEdit")
        for text in ("1 HU", "12 HU", "12. HU", "12.5 HU"):  # as it is typed
            edit.text = text
            self.assertEqual(edit.text, text)
        self.assertEqual(self.panel.options.config.noise, 12.5)
        self.context.state.task = "slices"
        self.assertFalse(box.enabled)
        self.assertIsNone(self.panel.options.config.noise)
        self.context.state.task = "noise"
        self.widget.showPage("compress")
        self.widget.showPage("enhance")
        self.assertEqual(self.panel.options.config.noise, 12.5)
        self.choose(self.smallVolume(dtype=np.float32))
        self.assertEqual(box.text, "Measured")
        self.assertIsNone(self.panel.options.config.noise)
        box.value = 0.125
        self.throughAScene()
        self.assertEqual((box.value, self.context.state.noise), (0.125, 0.125))
        self.context.state.inputVolume = None
        self.assertEqual(self.context.state.noise, 0.0)

    def tasks(self):
        box = self.ui.taskComboBox
        return [box.itemText(index) for index in range(box.count)]

    def test_theViewsShowTheVolumeThatIsChosenAndOldNewsGoes(self):
        first, second = self.smallVolume(name="first"), self.smallVolume(name="second")
        slicer.util.setSliceViewerLayers(background=first)
        self.choose(first)
        self.context.message("info", "first enhanced is ready")
        self.choose(second)
        self.assertFalse(self.widget.ui.messageFrame.isVisibleTo(self.widget.parent))
        layers = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        self.assertEqual({each.GetBackgroundVolumeID() for each in layers}, {second.GetID()})
        slicer.util.setSliceViewerLayers(background=first, foreground=second)
        self.choose(None)
        self.choose(second)  # which is shown already
        self.assertEqual({each.GetBackgroundVolumeID() for each in layers}, {first.GetID()})

    def test_theModalityDecidesWhetherNoiseIsRemoved(self):
        node = self.smallVolume(name="tracer")
        self.choose(node)
        for modality in ("MR", "CT"):
            self.setModality(node, modality)
            self.assertTrue(self.ui.applyButton.enabled)
            self.assertIn("Removes noise, on the ", self.ui.planLabel.text)
            self.assertEqual(self.ui.planLabel.toolTip, "", "it takes no model")
        box = self.ui.modalityComboBox
        texts, never = [box.itemText(at) for at in range(box.count)], "(not enhanced)"
        self.assertEqual(texts, ["CT", "MR", f"Microscopy {never}", "Other or unknown"])
        self.setModality(node, "PT")
        self.assertFalse(self.ui.applyButton.enabled)
        for word in ("PET", "tracer", "CT and MR"):
            self.assertIn(word, self.ui.problemLabel.text)
        self.assertEqual((box.currentData, box.currentText), ("PT", f"PET {never}"))
        self.pick(box, "MR")
        self.processEvents(80)
        self.assertEqual(self.bridge.modalityOf(node), "MR")
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertIn("Removes noise, on the ", self.ui.planLabel.text)

    def test_unusableInputsAndOutputsAreNamed(self):
        color = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
        image = vtk.vtkImageData()
        image.SetDimensions(4, 4, 4)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
        color.SetAndObserveImageData(image)
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
        labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
        slicer.util.updateVolumeFromArray(labels, np.ones((4, 20, 20), np.uint8))
        node = self.smallVolume(name="scan", modality="MR")
        frames = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "none")
        values = np.arange(8000).reshape(20, 20, 20)
        scalars = slicer.util.addVolumeFromArray((values % 5).astype(np.int16), name="drawn")
        equal, unknown = (
            slicer.util.addVolumeFromArray(np.full_like(values, value, np.float32), name="equal")
            for value in (7, np.nan)
        )
        for unusable, *words in (
            (color, "photo is a color volume", "Convert it"),
            (empty, "no voxels", "Load it again"),
            (labels, "label map", "Choose the image"),
            (frames, "no frames", "Load it again"),
            (scalars, "a few whole numbers", "Choose the image"),
            (equal, "nothing: the value of every voxel is 7", "image content"),
            (unknown, "nothing: the value of every voxel is nan", "image content"),
            (None, "No volume is selected", "load one"),
        ):
            self.context.state.inputVolume = unusable
            self.processEvents(80)
            self.assertFalse(self.ui.applyButton.enabled)
            for word in words:
                self.assertIn(word, self.ui.problemLabel.text)
        for chosen, output in ((labels, None), (node, labels)):
            with self.assertRaises(PanelError):
                options = enhancement.EnhanceOptions(output=output)
                enhancement.start(self.runner, chosen, options)
        self.choose(node)
        self.ui.outputSelector.setCurrentNode(labels)
        self.assertIsNone(self.ui.outputSelector.currentNode())

    def test_choicesThatDoNotFitForNowAreKept(self):
        node = self.smallVolume(modality="MR")
        self.choose(node)
        self.ui.segmentCheckBox.checked = True
        self.assertTrue(self.panel.options.segment and self.ui.applyButton.enabled)
        self.setModality(node, "OT")
        self.assertFalse(self.ui.segmentCheckBox.enabled or self.ui.segmentCheckBox.checked)
        self.assertFalse(self.panel.options.segment or self.ui.applyButton.enabled)
        self.assertIn("no segmentation model", self.ui.segmentCheckBox.toolTip)
        self.setModality(node, "MR")
        self.assertTrue(self.ui.segmentCheckBox.checked)

    def test_theSegmentationModelIsChosen(self):
        folder = self.temporaryFolder()
        self.enterContext(mock.patch.dict(os.environ, MEDENHANCE_MODELS=folder))
        copyOfModel("brain", os.path.join(folder, "mine"))
        node, ui, box = self.smallVolume(modality="MR"), self.ui, self.ui.segmenterComboBox
        self.choose(node)
        texts = [box.itemText(at) for at in range(box.count)]
        self.assertEqual(texts, ["Automatic", "brain", "mine"])
        ui.segmentCheckBox.checked = True
        self.assertEqual(self.panel.options.segmenter, "auto")
        self.pick(box, "mine")
        self.assertEqual(self.panel.options.segmenter, "mine")
        self.assertIn("How it was trained: 16737 steps", box.toolTip)
        node.SetAttribute(self.bridge.MODALITY, "CT")
        slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node) - 1000)
        self.processEvents(80)
        self.assertFalse(ui.segmentCheckBox.enabled or self.panel.options.segment)
        self.assertIn("no segmentation model", ui.segmentCheckBox.toolTip)
        self.assertTrue(ui.applyButton.enabled)

    def test_onlyEarlierResultsOfTheVolumeAreWrittenOver(self):
        node = self.smallVolume(name="scan", modality="MR")
        other = self.smallVolume(name="other patient", modality="CT")
        result, others = self.resultOf(node), self.resultOf(other, "other result")
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode")  # selectors look again
        self.choose(node)
        for original in (node, other):
            self.ui.outputSelector.setCurrentNode(original)
            self.assertIsNone(self.ui.outputSelector.currentNode())
        self.ui.outputSelector.setCurrentNode(others)
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("“other result” is no earlier result", self.ui.problemLabel.text)
        self.ui.outputSelector.setCurrentNode(result)
        self.assertTrue(self.ui.applyButton.enabled)

    def test_volumesThatNoRunCanTakeAreNamedAndKeepThePageWorking(self):
        """A sheared grid; an image without voxels."""
        node, other = (self.smallVolume(name=name, modality="MR") for name in ("scan", "other"))
        empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
        empty.SetAndObserveImageData(vtk.vtkImageData())
        other.SetIJKToRASDirections([[1, 0.3, 0], [0, 1, 0], [0, 0, 1]])
        self.choose(node)
        self.assertEqual((self.message, self.ui.problemLabel.text), ("", ""))
        for volume, problem in ((other, "other: direction"), (empty, "empty has no voxels")):
            self.choose(volume)
            self.assertIn(problem, self.ui.problemLabel.text)
            self.assertFalse(self.ui.applyButton.enabled)
        self.assertEqual(self.message, "")

    def test_whatSpeaksAgainstARunIsReportedAndDoesNotForbidIt(self):
        node = self.smallVolume(name="scan", modality="MR")
        slicer.util.updateVolumeFromArray(node, 8 * slicer.util.arrayFromVolume(node) - 1800)
        self.choose(node)
        self.assertRegex(self.ui.problemLabel.text, r"^[^.]*values look like CT\.$")  # one sentence
        self.assertTrue(self.ui.problemIcon.isVisibleTo(self.panel.widget))
        self.assertEqual(self.ui.problemIcon.accessibleName, "Warning")
        self.assertIn("Correct the modality above", self.ui.problemDetails.text)
        for isShown in (False, True):
            self.assertEqual(self.ui.problemDetails.isVisibleTo(self.panel.widget), isShown)
            self.ui.problemDetailsButton.click()
        self.assertTrue(self.ui.applyButton.enabled)
        node.SetAttribute("DICOM.Modality", "PT")
        self.processEvents(80)
        self.assertIn("DICOM says PET", self.ui.problemLabel.text)
        node.RemoveAttribute("DICOM.Modality")
        node.SetAttribute("MedEnhance.derived", "enhanced")
        self.processEvents(80)
        self.assertIn("scan is enhanced already", self.ui.problemLabel.text)
        node.RemoveAttribute("MedEnhance.derived")
        self.setModality(node, "CT")
        self.assertEqual(self.ui.problemLabel.text, "")

    @slow
    def test_theDeviceIsChosenWithAReason(self):
        self.choose(self.brain())
        self.waitUntil(lambda: ":" in self.ui.deviceComboBox.currentText, 60)
        self.assertIn("Automatic", self.ui.deviceComboBox.currentText)
        box = self.ui.deviceComboBox
        self.waitUntil(lambda: box.currentText not in box.toolTip, 60)  # then it is the reason
        self.assertGreaterEqual(self.ui.deviceComboBox.findData("cpu"), 0)
        self.assertRegex(self.ui.planLabel.text, r", about \d+ (s|min)\.")
        self.waitUntil(lambda: "enhancing removes" in self.ui.verdictLabel.text, 60)
        self.picture("enhance-ready")


class ApplyTest(EnhanceTestCase):
    @slow
    def test_applyMakesWhatTheLibraryMakes(self):
        node = self.brain()
        before = slicer.util.arrayFromVolume(node).copy()
        self.choose(node)
        output = self.apply().nodes["output"]
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
        self.assertIs(self.results.linked(output, "input"), node)
        self.assertIsNone(self.results.linked(output, "segmentation"))
        manifest = json.loads(output.GetAttribute("MedEnhance.manifest"))
        self.assertEqual(manifest["device"], "cpu")
        self.assertIn("Brain enhanced is ready", self.message)
        self.assertIs(self.ui.resultSelector.currentNode(), output)
        self.assertEqual(self.panel.result.compare.mode, "sideBySide")
        # Measured after it.
        self.waitUntil(lambda: "enhancing removes" in self.ui.verdictLabel.text, 60)
        self.picture("enhance-done")

    @slow
    def test_everythingAtOnceAndThroughASavedScene(self):
        node = self.brain()
        self.choose(node)
        self.ui.uncertaintyCheckBox.checked = True
        self.ui.noiseMapCheckBox.checked = self.ui.segmentCheckBox.checked = True
        self.ui.forceSegmenterCheckBox.checked = True  # so small a part is unlike a brain
        self.ui.applyButton.click()
        job = self.panel.job
        self.waitUntil(lambda: job.fraction > 0.2, 60)
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertTrue(self.widget.ui.jobCancelButton.enabled)
        self.waitUntil(lambda: self.panel.job is None, 60)
        self.assertEqual(job.state, "done", self.message)
        self.assertEqual({"input", *job.nodes}, {"output", *ROLES_OF_A_RUN})
        for made in job.nodes.values():
            self.assertTrue(made.GetAttribute("MedEnhance.derived"))
            self.assertIn("Research use only", made.GetAttribute("MedEnhance.use"))
            self.assertTrue(json.loads(made.GetAttribute("MedEnhance.manifest")))
        uncertainty = slicer.util.arrayFromVolume(job.nodes["uncertainty"])
        self.assertGreater(uncertainty.max(), 0)
        self.assertEqual(job.nodes["segmentation"].GetAttribute("MedEnhance.model"), "brain")
        for role in ("segmentation", "table"):
            self.assertEqual(job.nodes[role].GetAttribute("MedEnhance.anatomy"), "brain")
            self.assertIn("images of the brain only", job.nodes[role].GetDescription())
        self.assertIn("measurements of patients", job.nodes["table"].GetDescription())
        self.assertEqual(self.ui.factsLabel.toolTip.count("images of the brain only"), 1)
        self.assertEqual(self.message, "Brain enhanced is ready.")  # the rest stands under Result
        warnings = self.ui.warningLabel.text + self.ui.warningDetails.text
        # A part of a head: refused by most processors' last bits, or named as a part.
        self.assertRegex(warnings, "trained on, MR of the brain|Part of the structures")
        table = job.nodes["table"]
        parts = job.nodes["segmentation"].GetSegmentation()
        for index in range(parts.GetNumberOfSegments()):
            self.assertEqual(table.GetCellText(index, 0), parts.GetNthSegment(index).GetName())
            voxels = slicer.util.arrayFromSegmentBinaryLabelmap(
                job.nodes["segmentation"], parts.GetNthSegmentID(index), node
            )
            self.assertEqual(int(table.GetCellText(index, 1)), np.count_nonzero(voxels))
        expected = slicer.util.arrayFromVolume(job.nodes["output"]).copy()
        self.throughAScene()
        output = slicer.util.getNode("Brain enhanced")
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(output), expected)
        for role in ROLES_OF_A_RUN:
            self.assertIsNotNone(self.results.linked(output, role), role)
        self.assertIs(self.ui.resultSelector.currentNode(), output)
        self.pick(self.ui.compareComboBox, "sideBySide")
        self.assertEqual(self.panel.result.compare.mode, "sideBySide")
        self.panel.result.leave()

    def test_anotherVolumeEndsTheComparisonAndBringsItsOwnResult(self):
        first = self.brain()
        self.choose(first)
        output = self.apply().nodes["output"]
        verdict, guess, noise = self.ui.factsLabel.text.splitlines()[:3]
        self.assertRegex(verdict, "^Removed ±|^Uncertain: |^Clean ")
        self.assertEqual(guess, "MR (guessed from the values).")
        self.assertRegex(noise, "^Noise found: ±.*; filtered: ")
        details = self.widget.ui.messageDetails.plainText
        self.assertEqual(details.lower().count("noise found"), 1)
        second = self.smallVolume(name="other patient", modality="MR")
        self.choose(second)
        self.assertEqual(self.panel.result.compare.mode, "none")
        layers = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
        self.assertIsNone(layers.GetForegroundVolumeID())
        self.assertIsNone(self.ui.resultSelector.currentNode())
        self.choose(first)
        self.assertIs(self.ui.resultSelector.currentNode(), output)

    def test_whatASampleIsIsNoWarning(self):
        node = self.smallVolume(modality="MR")
        node.SetAttribute(volume_warnings.ABOUT, "A sample, damaged on purpose by simulation.")
        self.choose(node)
        self.assertIn("A sample, damaged on purpose", self.ui.problemLabel.text)
        self.assertEqual(self.ui.problemIcon.accessibleName, "Information")

    def test_theTimeOfATinyVolumeIsNoMeasureForOthers(self):
        self.addCleanup(slicer.app.userSettings().remove, "MedEnhance/Pace")
        for shape, isLearned in (((8, 24, 20), False), ((100, 100, 101), True)):
            node = slicer.util.addVolumeFromArray(np.zeros(shape, np.uint8))
            job = mock.Mock(state="done", result={"device": "cpu"}, started=0, ended=9)
            self.context.devices.rememberPace(node, "noise", job)
            job.onFinished.call_args.args[0](job)
            isThere = slicer.app.userSettings().contains("MedEnhance/Pace/cpu/noise")
            self.assertEqual(isThere, isLearned)

    def test_theExpectedTimeStandsUnderTheButton(self):
        """By the last run on the device; of none, by the compiled library and its build."""
        slicer.app.userSettings().setValue("MedEnhance/Pace/cpu/noise", 21000.0)
        self.addCleanup(slicer.app.userSettings().remove, "MedEnhance/Pace/cpu/noise")
        self.context.state.device = "cpu"
        self.choose(self.smallVolume(modality="MR"))  # 3,840 voxels: 81 s, and 3 s to start
        self.assertRegex(self.ui.planLabel.text, r"Removes noise, on the CPU, about 85 s\.$")
        self.context.state.device = "cuda"  # on which networks run, not the filter
        self.assertRegex(self.ui.planLabel.text, r"Removes noise, on the CPU, about 85 s\.$")
        self.context.state.task = "slices"  # of which no run is known
        self.assertRegex(self.ui.planLabel.text, r"Runs model mr-slices on the CUDA\.$")
        self.context.state.task = "noise"
        slicer.app.userSettings().remove("MedEnhance/Pace")  # of runs of other tests
        facts = {"native": "not compiled: …", "cpu_threads": 1, "choice": {"name": "cpu"}}
        self.context.devices.take(types.SimpleNamespace(state="done", result=facts))
        self.context.state.device = "auto"
        self.assertRegex(self.ui.planLabel.text, "on the CPU, about (5|65) s")
