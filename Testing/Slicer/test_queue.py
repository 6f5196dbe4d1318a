"""The queue of runs: several volumes, one after the other, with what is said and shown of each."""

import os
import time
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
import vtk
from enhance_testing import EnhanceTestCase
from medenhance_testing import MedEnhanceTestCase, slow
from test_runner import WORKER

from MedEnhanceNodes import provenance, results
from MedEnhancePages.result_texts import findingsOf
from MedEnhanceTasks.batch import Batch

#: A worker that adds 1 to what it gets, or to a box of it, as soon as nothing holds it; it fails
#: with volumes of a bad name.
ADDS = (
    WORKER
    + """
import numpy as np
from MedEnhanceLib.io import stepwise
for job, kind, params in orders():
    while os.path.exists(os.environ["QUEUE_HOLD"]):
        time.sleep(0.005)
    file = stepwise.NrrdFile(params["input"])
    if "bad" in file.tags["source"]:
        report(job, "error", code="input", message="it has no content", hint="Choose another.")
        continue
    parts = (slice(*params.get(axis, (None,))) for axis in ("slices", "rows", "columns"))
    box = tuple(parts)
    tags = {"DERIVED": ["DERIVED: enhanced with mr by MedEnhance"]}
    voxels, place = np.array(file.frames[0])[box] + 1, [part.start or 0 for part in box]
    list(stepwise.write(params["output"], [voxels], file.geometry.cropped(place), tags))
    report(job, "result", outputs={"output": params["output"]})
"""
)


class QueueTestCase(EnhanceTestCase):
    """A worker that waits until `release`, or ends at once after `begin`."""

    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        self.hold = Path(self.temporaryFolder(), "hold")
        self.enterContext(mock.patch.dict(os.environ, {"QUEUE_HOLD": str(self.hold)}))
        self.replaceWorker(ADDS)
        self.hold.touch()

    def release(self):
        self.hold.unlink(missing_ok=True)
        self.waitUntil(lambda: not self.runner.activeJobs(), 60)
        self.processEvents(80)

    def applied(self, node):
        """Choose a volume and press Apply; its job."""
        self.choose(node)
        self.assertTrue(self.ui.applyButton.enabled, self.ui.applyButton.toolTip)
        self.ui.applyButton.click()
        return self.panel.job

    def volume(self, name):
        return self.smallVolume(name=name, modality="MR")

    def waiting(self):
        box = self.widget.ui.queueList
        return [box.item(row).text() for row in range(box.count)]


class QueueTest(QueueTestCase):
    def test_applyQueuesAndTheSameRunTwiceIsRefused(self):
        a, b, c = map(self.volume, "ABC")
        first = self.applied(a)
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("“A” is being enhanced", self.ui.planLabel.text)
        self.ui.noiseMapCheckBox.checked = True
        self.processEvents(80)
        self.assertTrue(self.ui.applyButton.enabled, "other options are another run")
        self.ui.noiseMapCheckBox.checked = False
        jobs = [self.applied(b), self.applied(c)]
        self.assertEqual(self.waiting(), ["Enhance B", "Enhance C"])
        self.assertEqual([os.listdir(job.folder) for job in jobs], [[], []])
        self.assertIn("Enhance A", self.widget.ui.jobLabel.toolTip)
        self.assertFalse(self.ui.previewButton.enabled)
        self.release()
        self.assertEqual([job.state for job in (first, *jobs)], ["done"] * 3)
        self.assertTrue(self.ui.applyButton.enabled)

    def test_aWaitingJobIsRemovedByButtonAndKey(self):
        job, ui = self.applied(self.volume("A")), self.widget.ui
        others = [self.applied(self.volume(name)) for name in "BCD"]
        self.assertFalse(ui.queueRemoveButton.enabled)
        ui.queueList.setCurrentRow(1)
        self.assertTrue(ui.queueRemoveButton.enabled)
        ui.queueRemoveButton.click()
        self.assertEqual(self.waiting(), ["Enhance B", "Enhance D"])
        ui.queueList.setCurrentRow(0)
        slicer.util.findChildren(ui.queueList, className="QShortcut")[0].activated.emit()
        self.assertEqual(self.waiting(), ["Enhance D"])
        self.release()
        states = [each.state for each in (job, *others)]
        self.assertEqual(states, ["done", "cancelled", "cancelled", "done"])
        self.assertTrue(ui.jobFrame.isHidden())

    def test_aResultOfAnotherVolumeLeavesTheViewsAlone(self):
        a, b = self.volume("A"), self.volume("B")
        job = self.applied(a)
        self.choose(b)
        shown = [each.GetBackgroundVolumeID() for each in self.layers()]
        self.release()
        self.assertEqual(self.message, "A enhanced is ready.")
        self.assertIsNone(self.context.state.enhancedVolume)
        self.assertEqual(self.panel.result.compare.mode, "none")
        self.assertEqual([each.GetBackgroundVolumeID() for each in self.layers()], shown)
        self.choose(a)
        self.assertIs(self.context.state.enhancedVolume, job.nodes["output"])

    def layers(self):
        return slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")

    def test_anErrorStaysWhileOthersEndWellAndNamesItsVolume(self):
        self.applied(self.volume("bad scan"))
        self.applied(self.volume("good"))
        self.release()
        said = ["bad scan: it has no content. Choose another.", "good enhanced is ready."]
        self.assertEqual(self.message.splitlines(), said)
        self.assertEqual(self.widget.ui.messageIcon.accessibleName, "Error")
        self.applied(self.volume("next"))
        self.assertEqual(self.message, "next enhanced is ready." if self.panel.job is None else "")

    def test_anOverwrittenResultLosesItsMaps(self):
        source = self.volume("A")
        result = self.resultOf(source)
        old = self.resultOf(source, "old difference")
        results.stamp(old, "difference", result)
        results.link(result, difference=old)
        self.choose(source)
        self.ui.outputSelector.setCurrentNode(result)
        self.applied(source)
        self.assertTrue(self.bridge.isInScene(old))
        self.release()
        self.assertFalse(self.bridge.isInScene(old))
        change = slicer.util.arrayFromVolume(result) - slicer.util.arrayFromVolume(source)
        self.assertEqual(set(np.unique(change)), {1})


class FrameOfJobsTest(MedEnhanceTestCase):
    def test_itStandsBelowTheMainButtonOfThePageInFront(self):
        below = {"enhance": "applyButton", "compress": "compressButton", "train": "startButton"}
        endless = (time.sleep(0.005) for _step in iter(int, 1))
        job = self.context.runner.submit("", {}, title="Work", before=lambda _job: endless)
        frame = self.widget.ui.jobFrame
        for name, *_rest in self.widget.PAGES:
            self.showPage(name)
            self.processEvents(50)
            self.assertTrue(frame.isVisibleTo(self.panel.widget), name)
            button = getattr(self.ui, below.get(name, "importButton"))
            places = [
                each.mapTo(self.panel.widget, qt.QPoint(0, 0)).y() for each in (button, frame)
            ]
            space = places[1] - places[0] - button.height
            self.assertGreaterEqual(space, 0, name)
            if name in below:
                self.assertLess(space, 20, name)
        job.cancel()
        self.processEvents()
        self.assertFalse(frame.isVisibleTo(self.widget.uiWidget))


class SeveralTest(QueueTestCase):
    def select(self, *items):
        """Open the tree and select items of the subject hierarchy."""
        self.widget.ui.severalButton.checked = True
        ids = vtk.vtkIdList()
        for item in items:
            ids.InsertNextId(item)
        self.widget.ui.severalTree.setCurrentItems(ids)
        self.processEvents(80)

    def folder(self, *nodes):
        hierarchy = self.bridge.subjectHierarchy()
        folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "Patient")
        for node in nodes:
            hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), folder)
        return folder

    @slow
    def test_aFolderGivesAJobPerVolumeAndOneTable(self):
        a, bad, c = map(self.volume, ("A", "bad", "C"))
        unclear = self.smallVolume(name="unclear", modality="PT")
        folder = self.folder(a, bad, c, unclear, self.resultOf(a, "A before"))
        self.choose(a)
        self.select(folder)
        self.assertEqual(self.ui.applyButton.text, "Apply to 3 volumes")
        self.assertEqual(self.ui.problemLabel.text, "2 of 5 volumes are left out.")
        reasons = self.ui.problemDetails.text.splitlines()
        self.assertIn("A before: It is a result.", reasons)
        self.assertRegex("\n".join(reasons), "unclear: The modality of “unclear” is PET")
        self.ui.applyButton.click()
        self.assertEqual(self.waiting(), ["Enhance bad", "Enhance C"])
        self.processEvents(80)
        self.assertFalse(self.ui.applyButton.enabled, "all of them are in the queue")
        self.release()
        (table,) = slicer.util.getNodesByClass("vtkMRMLTableNode")
        rows = {row[0]: row[1:] for row in self.rowsOf(table)}
        self.assertEqual(set(rows), {"A", "bad", "C", "unclear", "A before"})
        self.assertEqual((rows["A"][0], rows["C"][0]), ("A enhanced", "C enhanced"))
        self.assertIn("no content", rows["bad"][-1])
        self.assertIn("is PET", rows["unclear"][-1])
        text = "2 of 5 volumes were enhanced. The table “Enhanced volumes” lists all of them."
        self.assertEqual(self.message, text)
        self.assertIn("bad: it has no content", self.widget.ui.messageDetails.plainText)
        self.assertEqual(self.context.state.enhancedVolume.GetName(), "A enhanced")
        self.assertEqual(self.panel.result.compare.mode, "none", "views stay")

    def test_packagesAreThoseThatAllSelectedVolumesNeed(self):
        head, body = self.volume("A"), self.smallVolume(name="CT", modality="CT")
        self.choose(body)  # which no model segments
        self.context.state.segment = True
        self.select(self.folder(head, body))
        with mock.patch("MedEnhancePanels.dependencies.ensure", return_value=False) as ensure:
            self.ui.applyButton.click()
        self.assertEqual(ensure.call_args.args[0], "networks")

    def test_theTableHasTheSentenceThatStandsAboveTheResult(self):
        a, output, batch = self.volume("A"), self.volume("A enhanced"), Batch([], mock.Mock())
        noise = {"sigma": 20.0, "share_removed": 0.72, "changed": 0.777, "verdict": "uncertain"}
        provenance.setManifest(output, {"results": {"measured": {"noise": noise}}})
        job = mock.Mock(state="done", nodes={"output": output}, warnings=(), started=0, ended=1)
        batch.add(a, job)
        job.onFinished.call_args.args[0](job)
        ((*_others, text, _seconds, _remark),) = self.rowsOf(batch.table)
        self.assertEqual(text, findingsOf(output)[0])
        self.assertIn("removed ±0.777 (the result is nearly the input)", text)

    def rowsOf(self, table):
        count = table.GetNumberOfColumns()
        rows = range(table.GetNumberOfRows())
        return [[table.GetCellText(row, column) for column in range(count)] for row in rows]

    def test_whatIsOfTheChosenVolumeIsNotAppliedToOthers(self):
        a, b = self.volume("A"), self.volume("B")
        self.choose(a)
        self.ui.noiseSpinBox.value = 12
        self.processEvents(80)
        options = [self.panel.optionsFor(node) for node in (a, b)]
        self.assertEqual([each.config.noise for each in options], [12, None])

    def test_withNothingSelectedApplyIsOfTheChosenVolume(self):
        self.choose(self.volume("A"))
        self.select()
        self.assertEqual(self.ui.applyButton.text, "Apply")
        self.assertTrue(self.ui.applyButton.enabled)

    @slow
    def test_oneThatIsRemovedAndASceneThatClosesLeaveTheOthers(self):
        nodes = [self.volume(name) for name in "ABC"]
        hierarchy = self.bridge.subjectHierarchy()
        self.select(*map(hierarchy.GetItemByDataNode, nodes))
        self.ui.applyButton.click()
        job = self.runner.waitingJobs()[0]
        job.cancel()
        self.release()
        (table,) = slicer.util.getNodesByClass("vtkMRMLTableNode")
        remarks = {f"Enhance {row[0]}": row[-1] for row in self.rowsOf(table)}
        self.assertEqual(remarks.pop(job.title), "Cancelled.")
        self.assertEqual(list(remarks.values()), ["", ""])
        self.hold.touch()
        self.select(*map(hierarchy.GetItemByDataNode, nodes))
        self.ui.applyButton.click()
        slicer.mrmlScene.Clear(0)
        self.release()
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLTableNode"), [])
        self.assertEqual(self.message, "")
