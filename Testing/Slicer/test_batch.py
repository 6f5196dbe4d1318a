"""A study or folder at once: in order, past failures, with one progress and one summary."""

import numpy as np
import slicer
from medenhance_testing import MedEnhanceTestCase, slow


class BatchTest(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        from MedEnhancePanels.nodes import bridge
        from MedEnhancePanels.pages import enhance_batch
        from MedEnhancePanels.tasks.enhancement import EnhanceOptions

        self.batch, self.bridge, self.Options = enhance_batch, bridge, EnhanceOptions
        self.panel = self.widget.panels["enhance"]
        self.ui = self.panel.ui
        self.hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        self.study = self.hierarchy.CreateStudyItem(self.hierarchy.GetSceneItemID(), "Visit")
        self.widget.showPage("enhance")

    def volume(self, name, modality="MR", parent=None, shape=(6, 64, 64)):
        node = self.smallVolume(shape, name=name)
        node.SetAttribute(self.bridge.MODALITY, modality)
        item = self.hierarchy.GetItemByDataNode(node)
        self.hierarchy.SetItemParent(item, parent or self.study)
        return node

    def choose(self, item):
        self.ui.batchButton.collapsed = False
        self.ui.batchSelector.setCurrentItem(item)
        self.processEvents(100)

    def cells(self, table):
        return [
            [table.GetCellText(row, column) for column in range(4)]
            for row in range(table.GetNumberOfRows())
        ]

    def finish(self, seconds=60):
        self.waitUntil(lambda: self.panel.job is None, seconds)

    @slow
    def test_aStudyAndItsFoldersAreWorkedThrough(self):
        folder = self.hierarchy.CreateFolderItem(self.study, "Second series")
        elsewhere = self.hierarchy.CreateFolderItem(self.hierarchy.GetSceneItemID(), "Other")
        nodes = [self.volume("one"), self.volume("two", parent=folder)]
        self.volume("other", parent=elsewhere)
        self.choose(self.study)
        self.assertIn("2 volumes", self.ui.batchSummaryLabel.text)
        self.ui.batchApplyButton.click()
        work, seen = self.panel.job, []
        work.onEvent(lambda work, name, fields: seen.append(work.fraction))
        self.waitUntil(lambda: "1 of 2" in work.stage, 30)
        self.assertIn("1 of 2", self.ui.stageLabel.text)
        self.finish()
        self.assertEqual(seen, sorted(seen))
        self.assertIn("2 of 2 volumes were enhanced", self.widget.ui.messageLabel.text)
        rows = self.cells(work.table)
        self.assertEqual(
            sorted(row[:2] for row in rows), [["one", "enhanced"], ["two", "enhanced"]]
        )
        for node in nodes:
            output = work.nodes[node.GetName()]
            parents = [
                self.hierarchy.GetItemParent(self.hierarchy.GetItemByDataNode(each))
                for each in (node, output)
            ]
            self.assertEqual(parents[0], parents[1])
            self.assertTrue(
                np.any(slicer.util.arrayFromVolume(output) != slicer.util.arrayFromVolume(node))
            )
        self.assertIn(self.ui.resultSelector.currentNode(), list(work.nodes.values()))
        item = self.hierarchy.GetItemByDataNode(work.table)
        self.assertEqual(self.hierarchy.GetItemParent(item), self.study)
        self.assertFalse(slicer.util.getNodes("other enhanced"))

    def test_nothingIsChosenByItself(self):
        self.ui.batchSelector.clearSelection()
        self.choose(0)
        nothing = (0, self.hierarchy.GetSceneItemID())  # Slicer's selector may give either
        self.assertIn(self.ui.batchSelector.currentItem(), nothing)
        self.assertEqual(self.panel._batch.item, 0)
        self.assertIn("Choose a patient", self.ui.batchSummaryLabel.text)
        self.assertFalse(self.ui.batchApplyButton.enabled)
        self.hierarchy.RemoveAllItems()
        self.panel.update()
        self.assertIn("has no patient", self.ui.batchSummaryLabel.text)

    @slow
    def test_oneThatCannotDoesNotStopTheRest(self):
        self.volume("tracer", "PT")
        self.volume("fine")
        empty = self.volume("empty")
        empty.SetAndObserveImageData(None)
        self.choose(self.study)
        self.assertIn("1 of 3", self.ui.batchSummaryLabel.text)
        self.ui.batchApplyButton.click()
        work = self.panel.job
        self.finish()
        rows = {row[0]: row for row in self.cells(work.table)}
        self.assertEqual(rows["fine"][1], "enhanced")
        self.assertEqual(rows["tracer"][1], "failed")
        self.assertIn("no model for PET", rows["tracer"][3])
        self.assertIn("no voxels", rows["empty"][3])
        self.assertIn("1 of 3 volumes were enhanced", self.widget.ui.messageLabel.text)
        widget = self.panel.widget
        self.ui.resultButton.collapsed = True
        self.addCleanup(setattr, self.ui.resultButton, "collapsed", False)
        self.screenshot(widget, "enhance-batch", 400, widget.layout().totalHeightForWidth(400) + 40)

    def test_anUnexpectedFaultAndManyFailuresEndTheBatchAllTheSame(self):
        from unittest import mock

        from MedEnhancePanels.tasks import enhancement

        nodes = [self.volume("one"), *[slicer.vtkMRMLScalarVolumeNode()] * 2000]
        work = self.batch.Batch(self.context.runner, nodes, self.Options())
        done = []
        work.onFinished(done.append)
        with mock.patch.object(enhancement, "start", side_effect=OSError(28, "No space left")):
            work.start()
        self.assertEqual(done, [work])
        self.assertIn("No space left", work.rows[0].remark)
        self.assertEqual(len(work.rows), 2001)

    @slow
    def test_ofEachModalityWithItsModel(self):
        self.volume("scan", "MR")
        self.volume("dose", "CT")
        work = self.batch.Batch(
            self.context.runner,
            self.batch.volumesIn(self.study),
            self.Options(model="mr-brain", segment=True, biasCorrection="n4", deblur=True),
        ).start()
        self.waitUntil(lambda: work.isFinished, 60)
        self.assertEqual([row.state for row in work.rows], ["done", "done"], work.warnings)
        models = {name: node.GetAttribute("MedEnhance.model") for name, node in work.nodes.items()}
        self.assertEqual(models, {"scan": "mr-brain", "dose": "ct-lowdose"})

    @slow
    def test_resultsAreNotEnhancedAgain(self):
        node = self.volume("scan")
        node.SetAttribute("MedEnhance.derived", "enhanced")
        self.assertEqual(self.batch.volumesIn(self.study), [])
        self.choose(self.study)
        self.assertFalse(self.ui.batchApplyButton.enabled)

    def test_cancelStopsAll(self):
        for name in ("one", "two", "three"):
            self.volume(name, shape=(40, 128, 128))
        self.context.state.uncertainty = True
        self.context.state.uncertaintySamples = 32
        self.choose(self.study)
        self.ui.batchApplyButton.click()
        work = self.panel.job
        self.waitUntil(lambda: work.fraction > 0.03, 60)
        self.ui.cancelButton.click()
        self.finish(6)
        self.assertEqual(work.state, "cancelled")
        self.assertEqual([row.state for row in work.rows], ["cancelled"])
        self.assertEqual(self.context.runner.activeJobs(), [])
        self.assertEqual(work.nodes, {})

    def test_aVolumeThatLeavesBeforeItsTurnIsReported(self):
        nodes = [self.volume("one"), self.volume("two")]
        work = self.batch.Batch(self.context.runner, nodes, self.Options()).start()
        slicer.mrmlScene.RemoveNode(nodes[1])
        self.waitUntil(lambda: work.isFinished, 60)
        self.assertEqual([row.state for row in work.rows], ["done", "failed"])
        self.assertIn("removed from the scene", work.rows[1].remark)

    def test_closingTheSceneStopsAll(self):
        nodes = [self.volume("one", shape=(40, 128, 128)), self.volume("two")]
        work = self.batch.Batch(self.context.runner, nodes, self.Options(uncertainty=32)).start()
        self.waitUntil(lambda: work.fraction > 0.03, 60)
        slicer.mrmlScene.Clear(0)
        self.waitUntil(lambda: work.isFinished, 6)
        self.assertEqual(work.state, "cancelled")
        self.processEvents(50)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLTableNode"), [])
