"""Previews, sequences, and runs in trouble: cancelled, without input, with a killed worker."""

import os
import signal
from unittest import mock

import numpy as np
import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import slow
from test_runner import WORKER

from MedEnhanceNodes import sending
from MedEnhanceNodes.preview import compositeOf
from MedEnhancePanels import runner, waiting
from MedEnhancePanels.errors import PanelError
from MedEnhanceTasks import files

#: A worker whose results lack the segmentation, with the reason; it refuses a bias field.
STUB = (
    WORKER
    + """
for job, kind, params in orders():
    if kind != "enhance":
        report(job, "result", choice={"name": "cpu"}, devices=[], cpu_threads=1)
    elif params["config"]["correct_bias_field"]:
        text, hint = "scan: it looks like a derived map, not intensities", "Give the images."
        hint += " To use it all the same: --as-intensity (as_intensity=True in Python)."
        report(job, "error", code="input", message=text, hint=hint)
    else:
        report(job, "warning", message="not segmented: unlike the images of the model")
        shutil.copyfile(params["input"], params["output"])
        report(job, "result", outputs={"output": params["output"]})
"""
)

#: A worker that labels the bright half of a volume.
LABELING = (
    WORKER
    + """
import numpy as np
from MedEnhanceLib.io import stepwise
for job, kind, params in orders():
    if kind != "segment":
        report(job, "result", choice={"name": "cpu"}, devices=[], cpu_threads=1, noise=None)
        continue
    source = stepwise.NrrdFile(params["input"])
    labels = [np.uint8(source.voxels > np.median(source.voxels))]
    list(stepwise.write(params["output"], labels, source.geometry, {}))
    found = {"labels": [{"value": 1, "name": "bright"}]}
    found["table"] = [{"label": "bright", "voxels": 3}]
    report(job, "result", outputs={"output": params["output"]}, **found)
"""
)
#: In place of the copy: the slices that were asked for, plus 7.
SLICES = """
        import numpy as np
        from MedEnhanceLib.io import stepwise
        source, part = stepwise.NrrdFile(params["input"]), slice(*params["slices"])
        list(stepwise.write(params["output"], [source.frames[0][part] + 7], source.geometry, {}))
"""
#: Before that: a draft, if asked for, and a word of the test.
DRAFT = """
        import base64, numpy as np
        from MedEnhanceLib.io import stepwise
        if params["draft"]:
            voxels = stepwise.NrrdFile(params["input"]).frames[0][slice(*params["slices"])] + 3
            text = base64.b64encode(voxels.tobytes()).decode()
            report(job, "draft", shape=voxels.shape, dtype=voxels.dtype.str, voxels=text)
        while not os.path.exists({word!r}):
            time.sleep(0.01)
        if open({word!r}).read() == "fail":
            report(job, "error", code="input", message="no", hint="Never.")
            continue
"""


class SegmentOnlyTest(EnhanceTestCase):
    def test_aVolumeIsSegmentedWithoutACopyOfIt(self):
        self.replaceWorker(LABELING)
        node = self.brain()
        self.choose(node)
        self.assertTrue(self.ui.segmentOnlyButton.isHidden())
        self.ui.segmentCheckBox.checked = True
        self.processEvents(80)
        volumes = slicer.util.getNodesByClass("vtkMRMLVolumeNode")
        self.ui.segmentOnlyButton.click()
        self.assertFalse(self.ui.segmentOnlyButton.enabled)
        self.waitUntil(lambda: "is segmented" in self.message, 60)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLVolumeNode"), volumes)
        (labels,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        self.assertEqual(labels.GetSegmentation().GetNthSegment(0).GetName(), "bright")
        self.assertIs(labels.GetParentTransformNode(), node.GetParentTransformNode())
        (table,) = slicer.util.getNodesByClass("vtkMRMLTableNode")
        self.assertEqual(table.GetCellText(0, 0), "bright")
        self.assertIn("Research use only", labels.GetAttribute("MedEnhance.use"))
        self.assertTrue(self.ui.segmentOnlyButton.enabled)


class ThinSlicesTest(EnhanceTestCase):
    def thick(self):
        """The brain with every third slice."""
        node = self.brain()
        voxels = slicer.util.arrayFromVolume(node)[::3].copy()
        slicer.util.updateVolumeFromArray(node, voxels)
        node.SetSpacing(1.0, 1.3, 3.3)  # pixels that are not square: nothing is learned from them
        return node

    @slow
    def test_theTaskSaysWhatItDoesNotOfferAndThinSlicesLieBesideTheInput(self):
        node = self.thick()
        self.choose(node)
        self.ui.segmentCheckBox.checked = True
        self.pick(self.ui.taskComboBox, "slices")
        self.processEvents(80)
        self.assertEqual(self.context.state.task, "slices")
        for widget in (self.ui.segmentCheckBox, self.ui.uncertaintyCheckBox):
            self.assertFalse(widget.enabled)
            self.assertIn("thin slices", widget.toolTip)
        self.assertFalse(self.ui.previewButton.enabled)
        self.assertIn("no preview", self.ui.previewButton.toolTip)
        job = self.apply()
        output = job.nodes["output"]
        before, after = (slicer.util.arrayFromVolume(each) for each in (node, output))
        self.assertGreater(len(after), 2 * len(before))
        self.assertEqual(after.shape[1:], before.shape[1:])
        self.assertAlmostEqual(output.GetSpacing()[2], 1.0, delta=0.2)
        self.assertIs(output.GetNodeReference("MedEnhance.input"), node)
        self.assertEqual(output.GetTransformNodeID(), node.GetTransformNodeID())
        self.assertFalse(self.ui.strengthSlider.enabled)
        for widget in (self.ui.strengthSlider, self.ui.compareComboBox):
            self.assertIn("differ from those of its input", widget.toolTip)
        self.assertEqual(self.ui.compareComboBox.findData("difference"), -1)


class PreviewTest(EnhanceTestCase):
    def previewed(self):
        """Press Preview, and wait for all of the slice; the job."""
        self.ui.previewButton.click()
        return self.awaited()

    def awaited(self):
        job = self.panel.preview.job
        self.assertIsNotNone(job, self.message)
        self.waitUntil(lambda: self.panel.preview.job is None, 240)
        self.assertEqual(job.state, "done", self.message)
        return job

    def test_aViewThatHasLeftTheVolumeHasNoPreview(self):
        self.choose(self.brain())
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, 900, 900, 900, 1)
        self.ui.previewButton.click()  # enabled before the views moved
        self.assertIn("No slice view shows a slice of the volume", self.message)
        self.assertFalse(self.panel.preview.isOn)

    @slow
    def test_thePreviewEqualsTheWholeRun(self):
        node = self.brain()
        self.choose(node)
        job = self.previewed()
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

    @slow
    def test_aLargeSliceBeginsWithWhatIsInSightAndEqualsItselfInTheEnd(self):
        node = self.brain(part=np.s_[60:64, 0:200, 0:200])
        self.choose(node)
        shown, jobs, show = [], [], self.panel.preview.show

        def noted(slab, *others):
            shown.append((slicer.util.arrayFromVolume(slab).copy(), self.ijkToRas(slab)))
            show(slab, *others)

        def note(job):
            if job.kind == "enhance" and job not in jobs:
                jobs.append(job)

        self.runner.onChange(note)
        self.addCleanup(self.runner.offChange, note)
        with mock.patch.object(self.panel.preview, "show", noted):
            self.previewed()
        first, rest = jobs
        (top, bottom), (left, right) = first.params["rows"], first.params["columns"]
        self.assertTrue(0 < bottom - top <= 128 and 0 < right - left <= 128)
        self.assertFalse({"rows", "columns"} & set(rest.params))
        self.assertTrue(first.params["draft"] and not rest.params["draft"])
        (draft, _place), (part, place), (whole, origin) = shown
        self.assertEqual((draft.shape, draft.dtype), (part.shape, part.dtype))
        self.assertTrue(0 < np.std(draft.astype(float) - part) < 5)  # of noise of 20
        np.testing.assert_array_equal(part, whole[:, top:bottom, left:right])
        expected = origin @ (left, top, 0, 1)
        np.testing.assert_allclose(place[:3, 3], expected[:3], atol=1e-6)
        self.ui.previewButton.click()  # both are gone
        self.assertNotIn("preview", " ".join(slicer.util.getNodes("vtkMRMLScalarVolumeNode*")))

    @slow
    def test_hidingTheFirstPartEndsTheRest(self):
        self.choose(self.brain(part=np.s_[60:64, 0:200, 0:200]))
        before = self.nodeIDs()
        self.ui.previewButton.click()
        first = self.panel.preview.job
        self.waitUntil(lambda: self.panel.preview.job is not first, 60)
        rest = self.panel.preview.job
        self.assertNotIn("rows", rest.params)
        self.ui.previewButton.click()
        self.waitUntil(lambda: rest.isFinished, 60)
        self.processEvents(50)
        self.assertEqual((rest.state, self.message), ("cancelled", ""))
        self.assertEqual(self.nodeIDs(), before)

    @slow
    def test_aVolumeIsSentAndMeasuredBeforeItsPreviewAndOnceForAll(self):
        node, prepared, sent, workers = self.brain(), [], [], []
        write = sending.sendVolume
        count = mock.patch.object(
            sending, "sendVolume", lambda *given: sent.append(given) or write(*given)
        )
        self.enterContext(count)

        def note(job):
            prepared.extend([job] if job.kind == "noise" else [])
            workers.extend([job.worker] if job.worker else [])

        self.runner.onChange(note)
        self.addCleanup(self.runner.offChange, note)
        self.choose(node)
        self.waitUntil(lambda: prepared and prepared[-1].isFinished, 60)
        self.assertEqual(prepared[-1].state, "done")
        self.previewed()
        self.ui.previewButton.click()
        os.kill(workers[-1].pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        self.waitUntil(lambda: not workers[-1].isAlive)
        self.assertEqual(self.message, "")  # it is replaced without a word
        self.previewed()
        self.ui.previewButton.click()
        self.apply()
        self.assertEqual(len(sent), 1)
        slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node) // 2)
        self.apply()
        self.assertGreater(len(sent), 1)
        self.context.state.inputVolume = None
        self.waitUntil(lambda: not self.runner.activeJobs(), 60)
        self.assertEqual([each for each in os.listdir(self.runner.folder()) if "nrrd" in each], [])

    @slow
    def test_hidingLeavesNothingAndARemovedInputTakesItAlong(self):
        node = self.brain()
        self.choose(node)
        before = self.nodeIDs()
        self.previewed()
        self.assertEqual(self.ui.previewButton.text.replace("&", ""), "Hide preview")
        self.ui.previewButton.click()
        self.assertEqual(self.nodeIDs(), before)
        self.assertEqual(self.ui.previewButton.text.replace("&", ""), "Preview")
        slab = self.previewed().nodes["output"]
        self.remove(node)
        self.assertFalse(self.bridge.isInScene(slab))


class SlicesTestCase(EnhanceTestCase):
    """Previews over a worker whose slices are those of the input, plus 7."""

    def program(self):
        return SLICES

    def setUp(self):
        super().setUp()
        copy = 'shutil.copyfile(params["input"], params["output"])'
        self.replaceWorker(STUB.replace(copy, self.program()))
        self.node = self.smallVolume(name="scan", modality="MR")
        slicer.util.setSliceViewerLayers(background=self.node)
        self.view = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode")
        self.view.SetOrientation("Axial")
        self.layers = compositeOf(self.view)
        self.jobs = []
        self.runner.onChange(lambda job: job in self.jobs or self.jobs.append(job))
        self.scrollTo(2)
        self.choose(self.node)

    def scrollTo(self, index):
        self.view.JumpSliceByCentering(*(self.ijkToRas(self.node) @ (10, 12, index, 1))[:3])

    @property
    def slab(self):
        return slicer.mrmlScene.GetNodeByID(self.layers.GetForegroundVolumeID() or "")

    def shown(self, more=7):
        """The slice of which the view shows a preview; None for none, or one of other voxels."""
        if self.slab is None:
            return None
        voxels = slicer.util.arrayFromVolume(self.slab)[0]
        whole = slicer.util.arrayFromVolume(self.node)
        return next((at for at, each in enumerate(whole) if (voxels == each + more).all()), None)

    def slices(self):
        return [job.params["slices"][0] for job in self.jobs if "slices" in job.params]


class DraftTest(SlicesTestCase):
    """Drafts, of which the voxels are those of the input, plus 3."""

    def program(self):
        self.word = os.path.join(self.temporaryFolder(), "word")
        return DRAFT.format(word=self.word) + SLICES

    def setUp(self):
        super().setUp()
        self.addCleanup(self.say, "end")
        self.before = self.nodeIDs()
        self.ui.previewButton.click()
        self.waitUntil(lambda: self.shown(3) == 2, 60)

    def say(self, word):
        with open(f"{self.word}-", "w") as file:
            file.write(word)
        os.replace(f"{self.word}-", self.word)

    def test_aDraftIsNamedOnTheViewAndThePreviewReplacesIt(self):
        draft = self.slab
        self.assertEqual(draft.GetName(), "Draft of scan")  # Slicer writes it on the view
        self.assertIn("Draft of slice 3 in the Red view", self.message)
        np.testing.assert_allclose(
            draft.GetOrigin(), (self.ijkToRas(self.node) @ (0, 0, 2, 1))[:3], atol=1e-9
        )
        self.assertEqual(self.ui.previewButton.text.replace("&", ""), "Hide preview")
        self.say("go on")
        self.waitUntil(lambda: self.shown() == 2, 60)
        self.assertNotIn("Draft", self.message)
        self.assertFalse(self.bridge.isInScene(draft))
        self.assertNotIn("Draft", " ".join(slicer.util.getNodes()))

    def test_aDraftIsInNoListAndNoFileAndNoRun(self):
        draft, logic = self.slab, self.context.logic
        display = draft.GetDisplayNode()
        self.assertFalse(draft.GetSaveWithScene() or display.GetSaveWithScene())
        self.assertTrue(draft.GetHideFromEditors())
        self.assertEqual(self.results.resultsOf(self.node), [])
        folder = self.temporaryFolder()
        for use in (
            lambda: logic.save(draft, os.path.join(folder, "a.nrrd"), wait=False),
            lambda: logic.compress(draft, os.path.join(folder, "a.ucv"), lossless=True, wait=False),
            lambda: logic.exportDicom(draft, folder, wait=False),
            lambda: logic.enhance(draft, wait=False),
        ):
            with self.assertRaisesRegex(PanelError, "no result"):
                use()
        self.assertEqual(os.listdir(folder), [])
        self.assertFalse(files.canWrite(draft))
        for directory, _folders, names in os.walk(self.runner.folder()):
            for name in names:
                with open(os.path.join(directory, name), "rb") as file:
                    self.assertNotIn(slicer.util.arrayFromVolume(draft).tobytes(), file.read())

    def test_whereNoPreviewComesTheDraftGoes(self):
        self.say("fail")
        self.waitUntil(lambda: self.panel.preview.job is None, 60)
        self.assertIn("no", self.message)
        self.assertFalse(self.panel.preview.isOn)
        self.assertEqual(self.nodeIDs(), self.before)

    def test_aCancelledJobTakesItsDraftAlong(self):
        self.enterContext(mock.patch.object(runner, "GRACE_MS", 10))
        self.panel.preview.job.cancel()
        self.waitUntil(lambda: self.panel.preview.job is None, 60)
        self.assertEqual(self.nodeIDs(), self.before)

    def test_anotherSliceEndsTheJobOfADraft(self):
        self.enterContext(mock.patch.object(runner, "GRACE_MS", 10))
        former = self.panel.preview.job
        self.scrollTo(5)
        self.waitUntil(lambda: self.shown(3) == 5, 60)
        self.assertEqual(former.state, "cancelled")
        self.assertEqual(len(slicer.util.getNodes("Draft*", useLists=True)), 1)
        self.say("go on")
        self.waitUntil(lambda: self.shown() == 5, 60)


class FollowingTest(SlicesTestCase):
    """Previews while one scrolls."""

    def waitFor(self, index):
        """Wait until the preview of a slice is shown, of which there is no other then."""
        self.waitUntil(lambda: self.shown() == index, 60)
        self.processEvents(300)
        self.assertEqual((self.shown(), self.panel.preview.job), (index, None))
        self.assertEqual(len(slicer.util.getNodes("*preview*", useLists=True)), 1)

    def test_thePreviewFollowsTheViewAndTheFormerOneGoes(self):
        self.ui.previewButton.click()
        self.waitFor(2)
        self.scrollTo(5)
        self.waitFor(5)
        self.assertEqual(self.slices(), [2, 5])
        self.scrollTo(90)  # outside of the volume
        self.processEvents(300)
        self.scrollTo(5)  # as it is there
        self.waitFor(5)
        self.assertEqual(self.slices(), [2, 5])
        self.ui.previewButton.click()
        self.assertIsNone(self.layers.GetForegroundVolumeID())
        self.scrollTo(3)
        self.processEvents(300)
        self.assertEqual(self.slices(), [2, 5])

    def test_fastScrollingStartsNothingAndAFormerSliceIsCancelled(self):
        self.ui.previewButton.click()
        self.waitFor(2)
        for index in (3, 4, 5, 6):
            self.scrollTo(index)
            self.processEvents(30)
        self.assertEqual(self.slices(), [2])
        self.waitUntil(lambda: self.slices() == [2, 6], 60)
        former = self.jobs[-1]
        self.scrollTo(7)
        self.waitFor(7)
        self.assertIn(former.state, ("cancelled", "done"))
        self.assertEqual(self.slices(), [2, 6, 7])
        self.assertEqual(self.runner.activeJobs(), [])


class TroubleTest(EnhanceTestCase):
    @slow
    def test_aCancelledAndAKilledRunLeaveNothingAndTheNextOneWorks(self):
        self.choose(self.brain())
        before = self.nodeIDs()
        job = self.slowApply()
        self.widget.ui.jobCancelButton.click()
        self.waitUntil(lambda: self.panel.job is None)
        self.assertEqual(job.state, "cancelled")
        self.assertEqual(self.nodeIDs(), before)
        job = self.slowApply()
        os.kill(job.worker.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        self.waitUntil(lambda: self.panel.job is None)
        self.assertEqual(job.state, "failed")
        self.assertIn("process", self.message)
        self.assertEqual(self.nodeIDs(), before)
        self.ui.uncertaintyCheckBox.checked = False
        self.apply()

    def test_aRunEndsWithItsInputAndWithTheSceneOfWhichNothingIsSaid(self):
        scene, said = slicer.mrmlScene, "Brain was removed from the scene, so the job on it was"
        for end, text in (
            (scene.RemoveNode, f"{said} stopped"),
            (lambda _node: scene.Clear(0), ""),
        ):
            node = self.brain()
            self.choose(node)
            job = self.slowApply()
            self.assertIn("is being enhanced with these options, or waits", self.ui.planLabel.text)
            end(node)
            self.assertEqual(self.finish(job).state, "cancelled")
            self.assertEqual(self.message, text)
            self.processEvents(80)
            self.assertIsNone(self.panel.job)
            self.assertFalse(self.ui.applyButton.enabled)
            self.assertEqual(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"), [])

    @slow
    def test_deletingTheInputWhileTheResultComesInLeavesNothing(self):
        node = self.brain()
        self.choose(node)
        before = self.nodeIDs()
        gone = {node.GetID(), node.GetDisplayNode().GetID()}
        self.ui.applyButton.click()
        job = self.panel.job

        def removeInput(job, name, fields):
            if job.result and self.bridge.isInScene(node):
                self.results.remove(node)

        job.onEvent(removeInput)
        self.waitUntil(lambda: self.panel.job is None, 60)
        self.assertEqual(job.state, "cancelled")
        self.assertEqual(job.nodes, {})
        self.assertEqual(self.nodeIDs(), before - gone)

    @slow
    def test_voxelsThatChangeDuringTheRunAreReportedOf(self):
        node = self.brain()
        self.choose(node)
        job = self.slowApply()
        slicer.util.updateVolumeFromArray(node, 0 * slicer.util.arrayFromVolume(node))
        self.waitUntil(lambda: self.panel.job is None, 90)
        self.assertEqual(job.state, "done", self.message)
        self.assertFalse(self.ui.strengthSlider.enabled)
        self.assertEqual(self.ui.compareComboBox.findData("difference"), -1)
        said = [self.message, self.ui.warningLabel.text, self.ui.warningDetails.text]
        self.assertEqual("\n".join(said).count("changed during the run"), 1)


class ChosenOutputTest(EnhanceTestCase):
    """A volume that the user chose to write into."""

    def setUp(self):
        super().setUp()
        self.output, source = self.smallVolume(name="mine"), self.brain()
        self.results.stamp(self.output, "enhanced", source)
        self.results.link(self.output, input=source)
        self.choose(source)
        self.ui.outputSelector.setCurrentNode(self.output)
        self.was = self.whatItIs()

    def whatItIs(self):
        image, display = self.output.GetImageData(), self.output.GetDisplayNode()
        return (
            slicer.util.arrayFromVolume(self.output).tobytes(),
            image.GetDimensions(),
            self.ijkToRas(self.output).tolist(),
            self.output.GetTransformNodeID(),
            sorted(self.output.GetAttributeNames()),
            self.nodeIDs(),
            (display.GetWindow(), display.GetLevel()),
        )

    @slow
    def test_itTakesTheResultWithItsPlace(self):
        job = self.apply()
        self.assertIs(job.nodes["output"], self.output)
        node = self.widget.ui.inputSelector.currentNode()
        np.testing.assert_array_equal(self.ijkToRas(self.output), self.ijkToRas(node))
        self.assertEqual(self.output.GetTransformNodeID(), node.GetTransformNodeID())

    @slow
    def test_itIsAsItWasWhenTheRunEndsHalfWay(self):
        """Cancelled at each step that brings the result into the scene."""
        for last in range(1, 5):
            self.ui.applyButton.click()
            job, steps = self.panel.job, []

            def after(job, whole=self.panel.job.after, steps=steps, last=last):
                for step in whole(job):
                    steps.append(step)
                    if len(steps) == last:
                        job.cancel()
                    yield step

            job.after = after
            self.waitUntil(lambda: self.panel.job is None, 60)
            if len(steps) < last:
                break
            self.assertEqual(job.state, "cancelled")
            self.assertEqual(self.whatItIs(), self.was)
        self.assertGreater(last, 1)

    @slow
    def test_itsRemovalDuringTheRunIsReported(self):
        self.ui.applyButton.click()
        job = self.panel.job
        self.results.remove(self.output)
        self.waitUntil(lambda: self.panel.job is None, 60)
        self.assertEqual(job.state, "failed")
        self.assertIn("output volume was removed", self.message)


class SequenceTest(EnhanceTestCase):
    def sequence(self):
        """Three frames, closer than a second, with a browser that shows the first."""
        first = self.brain("frame")
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "beating")
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

    def test_aFrameOfTheSequencesOwnSceneIsTakenIntoTheMainOne(self):
        sequence, _browser = self.sequence()
        frame = sequence.GetNthDataNode(1)
        self.assertIsNotNone(slicer.mrmlScene.GetNodeByID(frame.GetID()), "another node's ID too")
        job, stages = self.widget.logic.enhance(frame, uncertainty=True, wait=False), {}
        job.onEvent(lambda job, *_event: stages.update({job.stage: len(job.stage.split())}))
        output = waiting.wait(job).nodes["output"]
        self.assertIn("loading the volume", stages)
        self.assertLessEqual({*stages.values()}, {1, 2, 3}, stages)
        source = self.results.linked(output, "input")
        self.assertEqual(source.GetClassName(), "vtkMRMLScalarVolumeNode")
        self.assertSameVoxels(frame, source)
        for node in (source, output):
            np.testing.assert_array_equal(self.ijkToRas(node), self.ijkToRas(frame))
        self.context.state.enhancedVolume = output
        self.assertTrue(self.ui.strengthSlider.enabled, self.ui.strengthSlider.toolTip)
        with self.assertRaisesRegex(PanelError, "is no earlier result"):
            self.widget.logic.enhance(source, output=frame)

    @slow
    def test_everyFrameOfASequenceIsEnhancedAndPlayedWithItsSource(self):
        sequence, browser = self.sequence()
        self.choose(sequence)
        for widget in (self.ui.segmentCheckBox, self.ui.uncertaintyCheckBox):
            self.assertFalse(widget.enabled)
            self.assertIn("Not available for several frames", widget.toolTip)
        self.assertIn("needs a single volume", self.ui.previewButton.toolTip)
        output = self.apply().nodes["output"]
        self.assertIn("Noise found: ±", self.ui.factsLabel.text)
        self.assertIn("3 frames were filtered one by one", self.ui.factsLabel.text)
        self.assertEqual(self.panel.result.compare.mode, "sideBySide")
        self.assertEqual(output.GetName(), "beating enhanced")
        self.assertEqual([output.GetNthIndexValue(at) for at in range(3)], ["0.25", "0.5", "0.75"])
        self.assertEqual((output.GetIndexName(), output.GetIndexUnit()), ("time", "s"))
        whole = self.libraryResult(sequence)
        for at in range(3):
            frame, original = output.GetNthDataNode(at), sequence.GetNthDataNode(at)
            np.testing.assert_array_equal(self.ijkToRas(frame), self.ijkToRas(original))
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(frame), whole[at])
        self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")), 1)
        shown = browser.GetProxyNode(output)
        for index in (2, 0):
            browser.SetSelectedItemNumber(index)
            slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
            self.assertEqual(shown.GetAttribute("MedEnhance.derived"), "enhanced-frame")
            np.testing.assert_array_equal(slicer.util.arrayFromVolume(shown), whole[index])
        right = slicer.mrmlScene.GetSingletonNode("Yellow", "vtkMRMLSliceNode")
        self.assertEqual(compositeOf(right).GetBackgroundVolumeID(), shown.GetID())


class AnswersTest(EnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.replaceWorker(STUB)

    def test_aResultComesWithoutTheSegmentationThatWasRefused(self):
        node, ui = self.smallVolume(name="scan", modality="MR"), self.ui
        self.choose(node)
        ui.segmentCheckBox.checked = True
        job = self.apply()
        output = job.nodes["output"]
        np.testing.assert_array_equal(*map(slicer.util.arrayFromVolume, (output, node)))
        self.assertEqual(set(job.nodes), {"output"})
        said = [
            "scan enhanced is ready. It was not segmented; Segment anyway does it all the same."
        ]
        said.append("Not segmented: unlike the images of the model.")
        self.assertEqual(self.message.splitlines(), said)
        self.assertEqual(self.widget.ui.messageIcon.accessibleName, "Warning")
        self.assertFalse(self.panel.result.actions["segments"].visible)
        ui.segmentCheckBox.checked = False
        self.apply()
        self.assertEqual(self.message, "scan enhanced_1 is ready.")

    def test_aRefusalOfTheLibraryIsItsSentenceAndRemedy(self):
        self.choose(self.smallVolume(name="scan", modality="MR"))
        self.context.state.correctBiasField = True
        self.ui.applyButton.click()
        self.waitUntil(lambda: self.panel.job is None)
        text = "scan: it looks like a derived map, not intensities. Give the images."
        self.assertEqual(self.message, text)
        self.assertEqual(self.widget.ui.messageIcon.accessibleName, "Error")
        self.assertTrue(self.ui.applyButton.enabled)
