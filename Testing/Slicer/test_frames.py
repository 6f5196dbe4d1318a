"""Frames of sequences and diffusion-weighted volumes: what they differ in, and their filtering."""

from unittest import mock

import numpy as np
import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import MedEnhanceTestCase, finished
from test_enhance_runs import STUB

import MedEnhanceLib
from MedEnhanceLib.runtime.texts import text
from MedEnhanceNodes import bridge, dicom_source, preview, results, sending
from MedEnhanceNodes.preview import compositeOf

ELEMENT, LABELS = "MultiVolume.FrameIdentifyingDICOMTagName", "MultiVolume.FrameLabels"
WARNING = "the mean of all frames changed by ±54 in tissue, by noise alone ±33"
#: A worker whose results are the input, less 3, with a record of how frames were filtered.
PROGRAM = STUB.replace(
    "shutil.copyfile(params['input'], params['output'])".replace("'", '"'),
    """
        import numpy as np
        from MedEnhanceLib.io import stepwise
        source = stepwise.NrrdFile(params["input"])
        frames = [np.array(frame) - frame.dtype.type(3) for frame in source.frames]
        list(stepwise.write(params["output"], frames, source.geometry, {"DERIVED": ["DERIVED: x"]}))
        facts = {"frames": len(frames), "images": 2}
        facts |= {} if params["config"]["sequence"] == "joint" else {"reason": "on request"}
        record = {"warnings": [WARNING], "results": {"measured": {"sequence": facts}}}
        open(params["output"] + ".json", "w").write(json.dumps(record))
    """.replace("WARNING", repr(WARNING)),
).replace(
    'outputs={"output": params["output"]}',
    'outputs={"output": params["output"]}, manifest=params["output"] + ".json"',
)


def diffusionVolume(test):
    """Seven frames, fewer of which Slicer writes without b-values; the voxels of each."""
    frames = np.random.default_rng(0).integers(50, 900, (7, 8, 24, 20)).astype(np.int16)
    node = slicer.mrmlScene.AddNewNodeByClass(bridge.DIFFUSION_CLASS, "dwi")
    node.SetAndObserveImageData(finished(bridge.readImage(*frames)))
    node.SetSpacing(0.9, 1.1, 2.3)
    test.turn(node, 20, 1, 2, 3)
    node.SetMeasurementFrameMatrix(0, 1, 0, 0, 0, 1, 1, 0, 0)  # y is measured along R, z along A
    node.SetNumberOfGradients(7)
    for at in range(1, 7):
        node.SetBValue(at, 500 if at == 1 else 1000)
        node.SetDiffusionGradient(at, (np.cos(at), 0.6 * np.sin(at), 0.8 * np.sin(at)))
    return node, frames


def sent(test, node):
    """What the worker reads of a node."""
    path = f"{test.temporaryFolder()}/sent.nrrd"
    finished(sending.sendVolume(node, path))
    return MedEnhanceLib.load(path)


class SentFramesTest(MedEnhanceTestCase):
    def test_theWorkerLearnsWhatTheFramesOfASequenceDifferIn(self):
        for index, element, kind, b_values in (
            ("time", None, "", ()),
            ("", "AcquisitionTime", "", ()),
            ("", "EchoTime", "echoes", ()),
            ("", "Siemens.B-value", "diffusion", (0, 50, 800)),
            ("EchoTime", None, "echoes", ()),
            ("Inversion time", None, "inversion times", ()),
            ("b-value", None, "diffusion", (0, 1, 2)),
        ):
            node = self.sequenceOf("frames", range(3), shape=(3, 4, 5), unit=index and "ms")
            node.SetIndexName(index)
            node.SetAttribute(ELEMENT, element)
            node.SetAttribute(LABELS, element and "0,50,800")
            volume = sent(self, node)
            self.assertEqual(volume.sequence_kind, kind, index or element)
            self.assertEqual(tuple(each.b_value for each in volume.gradients), b_values)
            self.assertEqual(volume.frame_interval_s, 1e-3 if index == "time" else None)
        node.SetAttribute(ELEMENT, "Standard.B-value")
        for damaged in ("0,50", "0,50,many", "0,50,-800", "0,50,nan"):
            node.SetAttribute(LABELS, damaged)
            self.assertEqual(sent(self, node).gradients, ())

    def test_dicomsImageTypeAndAnEarlierRunStateTheKind(self):
        node = self.sequenceOf("frames", range(2), shape=(3, 4, 5))
        node.SetAttribute(dicom_source.INSTANCES, "1.2.3")
        values = {"0008,0008": "ORIGINAL\\FMRI\\NONE"}
        database = mock.Mock(isOpen=True, instanceValue=lambda _uid, tag: values[tag])
        with mock.patch.object(slicer, "dicomDatabase", database, create=True):
            self.assertEqual(sent(self, node).sequence_kind, "functional")
        self.assertEqual(sent(self, node).sequence_kind, "")
        for stated, kind in (("perfusion", "perfusion"), ("of a later release", "")):
            node.SetAttribute(bridge.SEQUENCE_KIND, stated)
            self.assertEqual(sent(self, node).sequence_kind, kind)

    def test_aDiffusionVolumeIsSentAsFramesWithGradientsInThePatient(self):
        node, frames = diffusionVolume(self)
        volume = sent(self, node)
        np.testing.assert_array_equal(volume.voxels, frames)
        self.assertEqual(volume.sequence_kind, "diffusion")
        self.assertFalse(bridge.isGuessed(node), "diffusion is a kind of MR")
        path = f"{self.temporaryFolder()}/slicer.nhdr"
        self.assertTrue(slicer.util.saveNode(node, path))
        saved = MedEnhanceLib.load(path, modality="MR")  # with the frame as Slicer writes it
        rows = [[(g.b_value, *g.direction) for g in each.gradients] for each in (volume, saved)]
        np.testing.assert_allclose(*rows, atol=1e-5)
        node.SetNumberOfGradients(6)  # of other frames
        self.assertEqual(sent(self, node).gradients, ())


class FramesOnThePageTest(EnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.replaceWorker(PROGRAM)

    def test_theChoiceIsOfferedForSeveralFramesAndKeptForTheirVolume(self):
        ui, box = self.ui, self.ui.framesComboBox
        self.choose(self.smallVolume(modality="MR"))
        self.assertFalse(box.isVisibleTo(self.panel.widget))
        for name in ("second", "first"):
            self.choose(self.sequenceOf(name, range(2), modality="MR"))
        self.assertTrue(box.isVisibleTo(self.panel.widget))
        self.assertIn("Do the frames of “first” differ in contrast", ui.problemLabel.text)
        self.assertEqual(ui.problemIcon.accessibleName, "Information")
        self.assertTrue(ui.applyButton.enabled)
        for choice in ("joint", "each"):
            self.pick(box, choice)
            self.assertEqual(self.panel.options.config.sequence, choice)
            self.assertEqual(ui.problemLabel.text, "")
        self.throughAScene()
        self.assertEqual(box.currentData, "each")
        for node in ("second", "first"):  # of which nothing was chosen since
            self.choose(slicer.util.getNode(node))
            self.assertEqual(self.panel.options.config.sequence, "auto")
        for element, words in (
            ("EchoTime", "together"),
            ("CardiacCycle", "one by one"),
            ("NominalPercentageOfRespiratoryPhase", "one by one"),
        ):
            self.panel.target.SetAttribute(ELEMENT, element)  # then there is nothing to ask
            self.panel.update()
            self.assertIn(words, box.currentText)
            self.assertEqual(ui.problemLabel.text, "")
        self.pick(box, "joint")
        ui.noiseSpinBox.value = 2.0  # neither choice clears the other
        config = self.panel.options.config
        self.assertEqual((config.sequence, config.noise), ("joint", 2.0))

    def test_planAndVerdictAreThoseOfTheFilteringThatIsChosen(self):
        ui = self.ui
        self.context.state.device = "cpu"
        self.choose(self.sequenceOf("frames", range(2), modality="MR"))
        noise = {"sigma": 4.0, "verdict": "clean", "is_certain": True}
        noise |= text("clean", level="SNR 90").to_json()
        self.panel.noise.take({"noise": noise})
        for choice, plan, verdict in (
            ("each", "Changes hardly anything, on the CPU", "Clean (SNR 90)"),
            (
                "joint",
                "Removes noise from all frames together, on the CPU",
                "Noise ±4 (1 SD). The run",
            ),
        ):
            self.pick(ui.framesComboBox, choice)
            self.assertEqual(ui.planLabel.text.partition(", about")[0].rstrip("."), plan)
            self.assertEqual(ui.verdictLabel.text[: len(verdict)], verdict)

    def test_theRowsOfTheTableOfOddFramesShowTheirFrames(self):
        ui, node = self.ui, self.sequenceOf("frames", range(8), modality="MR")
        self.choose(node)
        self.assertTrue(ui.oddTable.isHidden())
        odd = [text("odd_level", frame=2, amount=4)]
        odd += [text("odd_lost", frame=6, slices="3 to 5", percent=40)]
        noise = {"sigma": 4.0, "is_certain": True, **text("noise", level="±4").to_json()}
        noise["odd_frames"] = [each.to_json() for each in odd]
        self.panel.noise.take({"noise": noise})
        self.assertFalse(ui.oddTable.isHidden())
        cells = [[ui.oddTable.item(row, at).text() for at in range(2)] for row in range(2)]
        said = [["2", "4 times the level of the others."]]
        said += [["6", "Slice no. 3 to 5: signal lost (40\u00a0%)."]]
        self.assertEqual(cells, said)
        for row, frame in ((1, 6), (0, 2)):
            ui.oddTable.selectRow(row)
            self.assertEqual(preview.shownFrame(node), frame)
        self.choose(self.smallVolume(modality="MR"))
        self.assertTrue(ui.oddTable.isHidden())

    def test_theResultOfASequenceKeepsIndexAndKindAndItsWarningIsShown(self):
        node = self.sequenceOf("echoes", [4.6, 9.2], unit="ms", modality="MR")
        node.SetIndexName("EchoTime")
        self.choose(node)
        output = self.apply().nodes["output"]
        self.assertEqual([output.GetNthIndexValue(at) for at in range(2)], ["4.6", "9.2"])
        self.assertEqual((output.GetIndexName(), output.GetIndexUnit()), ("EchoTime", "ms"))
        self.assertEqual(output.GetAttribute(bridge.SEQUENCE_KIND), "echoes")
        self.assertIn(WARNING[1:], self.ui.warningLabel.text)
        self.assertEqual(self.ui.warningIcon.accessibleName, "Warning")
        self.assertEqual(self.message, "echoes enhanced is ready.")

    def test_aDiffusionVolumeIsEnhancedIntoAnotherWithItsGradients(self):
        node, frames = diffusionVolume(self)
        results.displayOf(node).SetWindowLevel(321.0, 123.0)
        self.processEvents(80)  # a page without a volume takes what is loaded
        self.assertIs(self.widget.ui.inputSelector.currentNode(), node)
        self.assertIn("together", self.ui.framesComboBox.currentText)
        self.assertFalse(self.ui.previewButton.enabled or self.ui.uncertaintyCheckBox.enabled)
        output = self.apply().nodes["output"]
        self.assertEqual(output.GetClassName(), bridge.DIFFUSION_CLASS)
        np.testing.assert_array_equal(bridge.framesOf(output), frames - 3)
        np.testing.assert_array_equal(self.ijkToRas(output), self.ijkToRas(node))
        self.assertEqual(sent(self, output).gradients, sent(self, node).gradients)
        display = output.GetDiffusionWeightedVolumeDisplayNode()
        self.assertEqual((display.GetWindow(), display.GetLevel()), (321.0, 123.0))
        self.assertIs(results.latestOf(node), output)

    def applied(self, node, choice="auto"):
        """The result of a node, shown beside it as after each run."""
        self.choose(node)
        self.pick(self.ui.framesComboBox, choice)
        return self.apply().nodes["output"]

    def pair(self, view="Red", other="Yellow"):
        """The volumes in the two views side by side."""
        views = [slicer.mrmlScene.GetSingletonNode(n, "vtkMRMLSliceNode") for n in (view, other)]
        nodes = [compositeOf(each).GetBackgroundVolumeID() for each in views]
        return [slicer.mrmlScene.GetNodeByID(each) for each in nodes]

    def test_theResultOfASequenceSaysKindAndWayAndShowsAnyFrameBesideItsInput(self):
        node = self.sequenceOf("echoes", [4.6, 9.2, 13.8], unit="ms", modality="MR")
        node.SetIndexName("EchoTime")
        originals = bridge.framesOf(node)
        output = self.applied(node, "joint")
        lines = self.ui.factsLabel.text.splitlines()
        joint = "3 frames were filtered together; 2 principal images hold signal."
        self.assertEqual(lines[:2], ["Kind of frames: echoes.", joint])
        self.assertIs(self.ui.resultSelector.currentNode(), output)
        self.assertFalse(self.ui.strengthSlider.isVisibleTo(self.panel.widget))
        self.assertEqual(self.ui.frameSlider.maximum, 2)
        for frame in (2, 1):
            self.ui.frameSlider.value = frame
            before, after = map(slicer.util.arrayFromVolume, self.pair())
            np.testing.assert_array_equal(before, originals[frame])
            np.testing.assert_array_equal(after, originals[frame] - 3)
        self.panel.update()
        self.assertEqual(self.ui.frameSlider.value, 1)
        self.applied(node, "each")
        self.assertIn("3 frames were filtered one by one: on request", self.ui.factsLabel.text)

    def test_theMeanDifferenceOfFramesIsAVolumeOverTheResult(self):
        for node in (self.sequenceOf("alike", range(3), modality="MR"), diffusionVolume(self)[0]):
            output = self.applied(node)
            self.pick(self.ui.compareComboBox, "difference")
            self.waitUntil(lambda: self.panel.result.compare.overlay == "difference")
            made = results.linked(output, "difference")
            self.assertEqual(made.GetClassName(), "vtkMRMLScalarVolumeNode")
            self.assertEqual({*slicer.util.arrayFromVolume(made).flat}, {-3.0})
            view = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode")
            self.assertEqual(compositeOf(view).GetForegroundVolumeID(), made.GetID())
            legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(made)
            self.assertIn("mean of all frames", legend.GetTitleText())
            self.remove(output)
            self.assertFalse(bridge.isInScene(made))

    def test_aSequenceWhoseBrowserIsGoneIsPlayedByAnother(self):
        output = self.applied(self.sequenceOf("alike", range(3), modality="MR"))
        slicer.mrmlScene.RemoveNode(bridge.browserOf(output))
        self.ui.frameSlider.value = 2
        self.pick(self.ui.compareComboBox, "difference")
        self.waitUntil(lambda: self.panel.result.compare.overlay == "difference")
        slicer.mrmlScene.RemoveNode(bridge.browserOf(output))
        self.ui.useButton.click()
        self.assertEqual(self.message.count("error"), 0, self.message)

    def test_aDiffusionVolumeShowsAnyComponentAndFadesIntoItsResult(self):
        node, _frames = diffusionVolume(self)
        output = self.applied(node)
        self.ui.frameSlider.value = 4
        displays = [each.GetDiffusionWeightedVolumeDisplayNode() for each in (node, output)]
        self.assertEqual([each.GetDiffusionComponent() for each in displays], [4, 4])
        self.pick(self.ui.compareComboBox, "fade")
        self.ui.fadeSlider.value = 0.25
        view = slicer.mrmlScene.GetSingletonNode("Green", "vtkMRMLSliceNode")
        layers = compositeOf(view)
        shown = [layers.GetBackgroundVolumeID(), layers.GetForegroundVolumeID()]
        self.assertEqual(shown, [node.GetID(), output.GetID()])
        self.assertEqual(layers.GetForegroundOpacity(), 0.25)
        self.assertEqual(self.pair()[0], node)
