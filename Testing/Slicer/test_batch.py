"""A study or folder at once: in order, past failures, with one progress and one summary."""

import os
import shutil

import numpy as np
import slicer
from dicom_testing import STUDY, DicomTestCase
from medenhance_testing import MedEnhanceTestCase, slow

from MedEnhancePanels.nodes import dicom_source, results
from MedEnhancePanels.pages.jobs import stateText


class BatchTest(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        from MedEnhancePanels.nodes import bridge
        from MedEnhancePanels.tasks import batches
        from MedEnhancePanels.tasks.enhancement import EnhanceOptions

        self.batch, self.bridge, self.Options = batches, bridge, EnhanceOptions
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

    def test_volumesThatLieInNoGroupAreSpokenOf(self):
        self.choose(0)
        self.hierarchy.RemoveAllItems()
        self.smallVolume(name="loose")
        self.panel.update()
        self.assertIn("those of this scene lie in none", self.ui.batchSummaryLabel.text)
        self.assertEqual(self.ui.batchApplyButton.text.replace("&", ""), "Enhance all")

    def test_itBeginsWithASourceThatHasSomethingToOffer(self):
        box = self.ui.batchSourceComboBox
        self.addCleanup(setattr, box, "currentIndex", 0)
        area = self.panel._batch
        for hasStudy, expected in ((False, "folder"), (True, "scene")):
            self.ui.batchButton.collapsed = True
            area._isChosen = False  # as when the page is new
            self.hierarchy.RemoveAllItems()
            if hasStudy:
                self.hierarchy.CreateStudyItem(self.hierarchy.GetSceneItemID(), "Visit")
            self.ui.batchButton.collapsed = False
            self.assertEqual(box.currentData, expected)
        box.currentIndex = box.findData("dicom")
        self.ui.batchButton.collapsed = True
        self.ui.batchButton.collapsed = False
        self.assertEqual(box.currentData, "dicom", "a choice stays")

    def test_theTableIsOneClickAway(self):
        button = self.panel._batch.table._button
        self.choose(self.study)
        self.assertTrue(button.isHidden())
        for name in ("first", "second"):
            table = self.batch.summaryTable([self.batch.Row(name, "done", 1.0, "")])
        self.processEvents(80)
        self.assertFalse(button.isHidden())
        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        if layout is None:
            layout = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLayoutNode")
        before = layout.GetViewArrangement()
        button.click()
        selection = slicer.app.applicationLogic().GetSelectionNode()
        self.assertEqual(selection.GetActiveTableID(), table.GetID())
        self.assertEqual(layout.GetViewArrangement(), layout.SlicerLayoutFourUpTableView)
        button.click()
        self.assertEqual(layout.GetViewArrangement(), before)

    def test_shadingIsCorrectedInMrWhateverThePageShows(self):
        """The page leaves it out of the options where its own volume is a CT, or none."""
        node = self.volume("scan")
        options = self.Options(biasCorrection="none")
        self.assertEqual(self.batch.fittedOptions(node, options).biasCorrection, "auto")
        work = self.batch.FolderBatch(self.context.runner, "/in", "/out", options)
        self.assertEqual(work._params["params"]["config"], {})
        work.cancel()

    def test_aRemarkIsTwoSentencesForPeople(self):
        from MedEnhanceLib.bundles import store
        from MedEnhanceLib.errors import ModelError

        with self.assertRaises(ModelError) as caught:
            store._recommended("enhancer", "PT")
        error = caught.exception
        row = {"source": "/in/x.nrrd", "status": "failed", "message": error.message}
        remark = self.batch._rowOf({**row, "hint": error.hint}).remark
        self.assertRegex(remark, r"^There is no model that enhances PET\. A model here .*[^.]\.$")

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
            self.Options(model="mr", segment=True, biasCorrection="n4"),
        ).start()
        self.waitUntil(lambda: work.isFinished, 60)
        self.assertEqual([row.state for row in work.rows], ["done", "done"], work.warnings)
        models = {name: node.GetAttribute("MedEnhance.model") for name, node in work.nodes.items()}
        self.assertEqual(models, {"scan": "mr", "dose": "ct"})

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
        work = self.batch.Batch(self.context.runner, nodes, self.Options(uncertainty=True)).start()
        self.waitUntil(lambda: work.fraction > 0.03, 60)
        slicer.mrmlScene.Clear(0)
        self.waitUntil(lambda: work.isFinished, 6)
        self.assertEqual(work.state, "cancelled")
        self.processEvents(50)
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLTableNode"), [])


class BatchSourcesTest(DicomTestCase):
    """Volumes that are not in the scene: files of a folder, and series of the DICOM database."""

    def setUp(self):
        super().setUp()
        self.enhance = self.widget.panels["enhance"]
        self.ui = self.enhance.ui
        self.widget.showPage("enhance")
        self.ui.batchButton.collapsed = False
        self.addCleanup(self.choose, "scene")

    def choose(self, name):
        box = self.ui.batchSourceComboBox
        box.currentIndex = box.findData(name)
        self.processEvents(80)

    def run_(self):
        """Press the button, and wait for the end."""
        self.waitUntil(lambda: "Looking" not in self.ui.batchSummaryLabel.text, 10)
        self.assertTrue(self.ui.batchApplyButton.enabled, self.ui.batchSummaryLabel.text)
        self.ui.batchApplyButton.click()
        work = self.enhance.job
        self.waitUntil(lambda: self.enhance.job is None, 90)
        return work

    def rows(self, work):
        table = work.table
        return {
            table.GetCellText(row, 0): [table.GetCellText(row, column) for column in (1, 3)]
            for row in range(table.GetNumberOfRows())
        }

    def test_aClosedSectionShowsNothingOfIt(self):
        self.widget.parent.show()
        self.addCleanup(self.widget.parent.hide)
        frames = (self.ui.batchSelector, self.ui.batchFolderFrame, self.ui.batchDicomFrame)
        for index, name in enumerate(("scene", "folder", "dicom")):
            self.choose(name)
            self.assertEqual([each.visible for each in frames].index(True), index)
            self.ui.batchButton.collapsed = True
            self.choose("scene" if name == "dicom" else "dicom")
            self.assertFalse(any(each.visible for each in frames), name)
            self.ui.batchButton.collapsed = False

    def test_aFolderSaysWhatWasFoundAndWhatEachGets(self):
        folder = self.temporaryFolder()
        for name in ("one.nrrd", "two.nii.gz", "notes.txt"):
            open(os.path.join(folder, name), "wb").close()
        self.choose("folder")
        self.ui.batchFolderEdit.text = folder
        self.addCleanup(setattr, self.ui.batchFolderEdit, "text", "")
        state = self.context.state
        label = self.ui.batchSummaryLabel
        self.waitUntil(lambda: "or folders of DICOM: 2." in label.text, 10, label.text)
        self.assertIn("Each gets the automatic task of its modality.", label.text)
        self.assertNotIn("left out", label.text)
        state.task = "sharpness"
        self.assertIn("the task chosen above, with the model of its modality", label.text)
        state.noiseMap = True
        self.assertIn("Look, region and noise map are left out.", label.text)
        state.guideVolume = self.smallVolume(name="guide")
        self.assertIn("Each is guided by the best other series", label.text)
        self.ui.batchFolderEdit.text = os.path.join(folder, "none")
        self.processEvents(80)
        self.assertIn("There is no folder", label.text)
        self.assertFalse(self.ui.batchApplyButton.enabled)

    @slow
    def test_aFolderGoesOnWhereItStoppedWithTheLedgerOfTheCommand(self):
        folder = self.temporaryFolder()
        for name in ("one", "two"):
            node = self.smallVolume((6, 48, 48), name=name)
            node.SetAttribute("MedEnhance.modality", "MR")
            slicer.util.saveNode(node, os.path.join(folder, f"{name}.nrrd"))
        with open(os.path.join(folder, "broken.nrrd"), "wb") as file:
            file.write(b"NRRD0004\n")
        self.choose("folder")
        self.assertFalse(self.ui.batchApplyButton.enabled)
        self.ui.batchFolderEdit.text = folder
        self.addCleanup(setattr, self.ui.batchFolderEdit, "text", "")
        self.processEvents(80)
        out = self.ui.batchOutEdit.text
        self.assertEqual(out, f"{folder}-enhanced")
        self.addCleanup(shutil.rmtree, out, True)
        nodes = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        work = self.run_()
        rows = self.rows(work)
        self.assertEqual([rows[f"{name}.nrrd"][0] for name in ("one", "two")], ["enhanced"] * 2)
        self.assertEqual(rows["broken.nrrd"][0], "failed")
        self.assertIn("broken.nrrd", rows["broken.nrrd"][1])
        self.assertIn("2 of 3", self.widget.ui.messageLabel.text)
        job = next(job for job in self.context.runner.jobs if job.kind == "batch")
        self.assertEqual(stateText(job), "Done, 1 of 3 failed")
        self.assertIn("broken.nrrd failed: ", job.log[-1])
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"), nodes)
        written = os.stat(os.path.join(out, "one.nrrd")).st_mtime_ns
        with open(os.path.join(out, "batch.jsonl"), encoding="utf-8") as file:
            before = len(file.readlines())
        self.run_()
        self.assertEqual(os.stat(os.path.join(out, "one.nrrd")).st_mtime_ns, written)
        with open(os.path.join(out, "batch.jsonl"), encoding="utf-8") as file:
            self.assertEqual(len(file.readlines()), before + 2, "what is done was done again")
        self.ui.batchOutEdit.text = folder
        self.processEvents(80)
        self.assertFalse(self.ui.batchApplyButton.enabled)
        self.assertIn("another folder", self.ui.batchSummaryLabel.text)

    @slow
    def test_seriesOfTheDatabaseAreLoadedUnderTheirStudyAndEnhanced(self):
        database, folder = self.openDatabase(), self.temporaryFolder()
        shape = (4, 48, 48)
        self.writeSeries(folder, shape, number=1)
        derived = ["DERIVED", "SECONDARY", "AXIAL"]
        self.writeSeries(folder, shape, number=2, ImageType=derived, SeriesDescription="computed")
        self.writeSeries(folder, shape, number=3, Modality="PT")
        self.choose("dicom")
        self.assertIn("has no studies", self.ui.batchSummaryLabel.text)
        self.importInto(database, folder)
        self.processEvents(80)
        table = self.ui.batchStudyTable
        self.assertEqual(table.rowCount, 1)
        self.assertEqual(table.item(0, 0).text(), "Doe Jane")
        self.assertIn("Thorax", table.item(0, 1).text())
        self.assertFalse(self.ui.batchApplyButton.enabled)
        table.selectRow(0)
        self.processEvents(80)
        self.assertIn("2 series", self.ui.batchSummaryLabel.text)
        box = self.ui.batchModalityComboBox
        box.currentIndex = box.findData("MR")
        self.processEvents(80)
        self.assertFalse(self.ui.batchApplyButton.enabled)
        box.currentIndex = 0
        self.ui.batchFindEdit.text = "nobody"
        self.processEvents(80)
        self.assertFalse(self.ui.batchApplyButton.enabled)
        self.ui.batchFindEdit.text = "doe"
        self.processEvents(80)
        work = self.run_()
        rows = self.rows(work)
        self.assertEqual(rows["axial"][0], "enhanced", rows)
        self.assertEqual(rows["computed"][0], "failed")
        self.assertIn("derived", rows["computed"][1])
        output = work.nodes["axial"]
        source = results.linked(output, "input")
        files = dicom_source.sourceOf(source).instances
        self.assertEqual(sorted(files), sorted(database.instancesForSeries(f"{STUDY}.1")))
        self.assertEqual(dicom_source.sourceOf(output).instances, files)
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        for node in (source, output):
            study = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
            self.assertEqual(hierarchy.GetItemUID(study, "DICOM"), STUDY)
            self.assertEqual(hierarchy.GetItemName(hierarchy.GetItemParent(study)), "Doe Jane")
        self.assertEqual(len(database.seriesForStudy(STUDY)), 3)
