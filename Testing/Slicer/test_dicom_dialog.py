"""The window "Export to DICOM" as a user drives it."""

import json
import os
import warnings
from unittest import mock

import qt
import slicer
from dicom_testing import STUDY, DicomTestCase
from medenhance_testing import slow

from MedEnhancePanels.nodes import bridge, dicom_source, results


class DialogTestCase(DicomTestCase):
    def setUp(self):
        super().setUp()
        self.folder = os.path.join(self.temporaryFolder(), "out")
        self.database = self.openDatabase()

    def loaded(self):
        """A small CT of Slicer's DICOM database."""
        self.source = self.writeSeries(os.path.join(self.temporaryFolder(), "ct"))
        return self.fromDatabase(self.source)

    def show(self, node):
        """The window for a node, after it has looked for the node's series."""
        self.dialog = self.context.exportDicom(node)
        self.addCleanup(self.dialog.widget.hide)
        self.waitUntil(lambda: self.dialog._question is None, 60)
        return self.dialog.ui

    def toFolder(self, ui):
        ui.databaseCheckBox.checked = False
        ui.folderCheckBox.checked = True
        ui.folderEdit.text = self.folder

    def run_(self, ui):
        ui.exportButton.click()
        work = self.dialog.work
        self.assertIsNotNone(work, ui.problemLabel.text)
        self.waitUntil(lambda: self.dialog.work is None, 60)
        return work


class DialogTest(DialogTestCase):
    def test_itSaysUnderWhichPatientAndStudyItGoes(self):
        ui = self.show(self.loaded())
        for word in ("P-17", "Thorax", "2015-03-14"):
            self.assertIn(word, ui.sourceLabel.text)
        self.assertTrue(ui.patientFrame.isHidden())
        self.assertTrue(ui.exportButton.enabled)
        ui.folderEdit.text = "~/exports/ct DICOM"
        self.screenshot(self.dialog.widget, "export-ready", 420)

    def test_intoFolderAndDatabase(self):
        ui = self.show(self.loaded())
        ui.folderCheckBox.checked = True
        ui.folderEdit.text = self.folder
        ui.seriesDescriptionEdit.text = "for the archive"
        work = self.run_(ui)
        self.assertIsNone(work.error, work.error)
        (uid,) = work.series
        self.assertEqual(self.database.studyForSeries(uid), STUDY)
        self.assertEqual(self.database.descriptionForSeries(uid), "for the archive")
        self.assertEqual(len(os.listdir(self.folder)), 6)
        self.assertIn("6 files", ui.resultLabel.text)
        self.assertIn(self.folder, ui.resultLabel.text)
        self.assertFalse(ui.openFolderButton.isHidden())
        self.assertFalse(ui.exportButton.enabled)
        shown = "~/exports/ct DICOM"
        ui.folderEdit.blockSignals(True)
        ui.folderEdit.text = shown
        ui.folderEdit.blockSignals(False)
        ui.resultLabel.text = ui.resultLabel.text.replace(self.folder, shown)
        self.screenshot(self.dialog.widget, "export-done", 420)
        with mock.patch.object(qt.QDesktopServices, "openUrl") as opened:
            ui.openFolderButton.click()
        self.assertEqual(opened.call_args[0][0].toLocalFile(), self.folder)

    def test_theModuleDicomIsOneClickAway(self):
        ui = self.show(self.loaded())
        with mock.patch.object(slicer.modules, "dicom", object(), create=True):
            self.run_(ui)
        self.assertFalse(ui.openDicomButton.isHidden())
        with mock.patch.object(slicer.util, "selectModule") as selected:
            ui.openDicomButton.click()
        selected.assert_called_once_with("DICOM")

    def test_whatNeverWasDicomAsksForThePatient(self):
        ui = self.show(self.smallVolume())
        self.assertFalse(ui.patientFrame.isHidden())
        self.assertFalse(ui.exportButton.enabled)
        self.assertIn("the patient is not known", ui.problemLabel.text)
        ui.folderEdit.text = "~/exports/small DICOM"
        self.screenshot(self.dialog.widget, "export-patient", 420)
        self.toFolder(ui)
        ui.patientIdEdit.text = "X1"
        self.assertTrue(ui.exportButton.enabled)
        work = self.run_(ui)
        self.assertIsNone(work.error, work.error)

    def test_orItGoesIntoAStudyOfTheScene(self):
        from pydicom import dcmread

        source = self.loaded()
        node = slicer.util.addVolumeFromArray(
            slicer.util.arrayFromVolume(source), name="registered"
        )
        node.CopyOrientation(source)
        ui = self.show(node)
        self.assertEqual(ui.studyComboBox.count, 2)
        ui.studyComboBox.setCurrentIndex(1)
        self.assertFalse(ui.patientIdEdit.enabled)
        self.toFolder(ui)
        work = self.run_(ui)
        self.assertIsNone(work.error, work.error)
        self.assertEqual(dcmread(work.files[0]).PatientID, "P-17")

    def test_aSourceThatHasGoneAsksForThePatient(self):
        node = self.smallVolume()
        node.SetAttribute(dicom_source.INSTANCES, "1.2.3 1.2.4")
        ui = self.show(node)
        self.assertIn("The image 1.2.3 is no longer in", ui.sourceLabel.text)
        self.assertFalse(ui.patientFrame.isHidden())

    def test_aSeriesThatTheDatabaseDoesNotHoldIsNamed(self):
        node = self.smallVolume()
        dicom_source.rememberSeries(node, "1.2.3.4")
        ui = self.show(node)
        self.assertIn("1.2.3.4", ui.sourceLabel.text)
        self.assertIn("import that series", ui.sourceLabel.text)
        self.assertFalse(ui.patientFrame.isHidden())

    def test_aFolderThatIsChosenHasToBeNamed(self):
        ui = self.show(self.loaded())
        ui.folderCheckBox.checked = True
        ui.folderEdit.text = " "
        self.assertIn("No folder is chosen", ui.problemLabel.text)
        self.assertFalse(ui.exportButton.enabled)

    @slow
    def test_withoutADatabaseAFolderIsOffered(self):
        node = self.loaded()
        self.database.closeDatabase()
        ui = self.show(node)
        self.assertFalse(ui.databaseCheckBox.enabled)
        self.assertIn("open the module DICOM", ui.databaseCheckBox.toolTip)
        self.assertTrue(ui.folderCheckBox.checked)

    def test_aPlaceIsNeeded(self):
        ui = self.show(self.loaded())
        ui.databaseCheckBox.checked = False
        self.assertIn("No destination", ui.problemLabel.text)
        self.assertFalse(ui.exportButton.enabled)

    def test_aSuggestedFolderIsNew(self):
        node, parent = self.loaded(), self.temporaryFolder()
        os.mkdir(os.path.join(parent, "axial DICOM"))
        ui = self.show(node)
        self.assertFalse(ui.folderButton.enabled)
        ui.folderCheckBox.checked = True
        with mock.patch.object(qt.QFileDialog, "getExistingDirectory", return_value=parent):
            ui.folderButton.click()
        self.assertEqual(ui.folderEdit.text, os.path.join(parent, "axial DICOM 2"))

    def test_nothingIsCutWhateverIsShown(self):
        before = qt.QApplication.font()
        self.addCleanup(qt.QApplication.setFont, before)
        ui = self.show(self.smallVolume(name="a volume whose name is as long as names get to be"))
        self.addCleanup(setattr, ui.patientIdEdit, "text", "")
        for points in (9, 12):
            font = qt.QFont(before)
            font.setPointSize(points)
            qt.QApplication.setFont(font)
            self.processEvents(20)
            for isIntoDatabase in (False, True):  # without a place, and without a patient
                ui.databaseCheckBox.checked = isIntoDatabase
                self.assertNothingIsCut(points)
            ui.resultLabel.text = "They are in a folder that has a name of some length. " * 4
            ui.resultFrame.visible = True
            ui.patientIdEdit.text = f"X{points}"  # which has the window look again
            self.assertNothingIsCut(points)
            ui.resultFrame.visible = False

    def assertNothingIsCut(self, points):
        self.processEvents(20)
        widget = self.dialog.widget
        self.assertGreaterEqual(widget.width, 400)
        cut = []
        for child in slicer.util.findChildren(widget):
            if not child.isWidgetType() or not child.isVisibleTo(widget):
                continue
            needed = child.minimumSizeHint.height()
            if child.inherits("QLabel") and child.wordWrap:
                needed = child.heightForWidth(child.width)
            if child.height < needed:
                cut.append((points, child.objectName, child.height, needed))
        self.assertEqual(cut, [])
        self.assertGreater(self.dialog.ui.folderEdit.width, 240)

    def test_aValueThatWasTooLongForDicomIsNoWarning(self):
        source = os.path.join(self.temporaryFolder(), "ct")
        with warnings.catch_warnings(action="ignore"):
            self.writeSeries(source, StudyID="longer than sixteen characters")
        ui = self.show(self.fromDatabase(source))
        self.toFolder(ui)
        work = self.run_(ui)
        self.assertEqual(len(work.warnings), 1)
        first, second = self.widget.ui.messageLabel.text.split("\n")
        self.assertIn("written and read back", first)
        self.assertIn("cut to the 16 characters", second)
        self.assertEqual(self.widget.ui.messageIcon.accessibleName, "Information")

    def alarming(self):
        """A result of the loaded series whose run has found nothing but noise."""
        source = self.loaded()
        output = bridge.newVolumeLike(source, "better")
        slicer.util.updateVolumeFromArray(output, slicer.util.arrayFromVolume(source))
        warning = {"code": "no-structure", "message": "only noise", "hint": "check the input"}
        manifest = json.dumps({"results": {"doubts": [warning]}})
        results.stamp(output, "enhanced", source, manifest=manifest)
        results.link(output, input=source)
        return output

    def answer(self, answer):
        """Have a box that asks be answered; returns what was asked, and the answer beforehand."""
        asked = []

        def exec_(box):
            asked.append((box.text, box.defaultButton().text, box.informativeText))
            return answer

        patch = mock.patch.object(qt.QMessageBox, "exec_", exec_)
        patch.start()
        self.addCleanup(patch.stop)
        return asked

    def test_aResultWithAnAlarmIsExportedOnlyAfterAQuestionThatNamesTheReason(self):
        ui = self.show(self.alarming())
        self.toFolder(ui)
        asked = self.answer(qt.QMessageBox.No)
        ui.exportButton.click()
        reason, beforehand, question = asked[0]
        self.assertEqual(reason, "Only noise: check the input.")
        self.assertIn("No", beforehand)
        self.assertEqual(question, "Export better all the same?")
        self.assertIsNone(self.dialog.work)
        self.assertFalse(os.path.exists(self.folder))
        self.assertEqual(self.context.runner.activeJobs(), [])
        asked = self.answer(qt.QMessageBox.Yes)
        self.assertEqual(len(self.run_(ui).series), 1)
        self.assertEqual(len(asked), 1)
        self.assertTrue(os.listdir(self.folder))

    def test_aResultWithoutAnAlarmIsExportedWithoutAQuestion(self):
        asked = self.answer(qt.QMessageBox.No)
        ui = self.show(self.loaded())
        self.toFolder(ui)
        self.run_(ui)
        self.assertEqual(asked, [])

    def test_onlyWhatAResultHasIsOffered(self):
        node = self.loaded()
        ui = self.show(node)
        self.assertTrue(ui.segmentationCheckBox.isHidden())
        output = self.smallVolume(name="better")
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "parts")
        results.stamp(output, "enhanced", node)
        results.link(output, input=node, segmentation=table)
        ui = self.show(output)
        self.assertFalse(ui.segmentationCheckBox.isHidden())
        self.assertTrue(ui.uncertaintyCheckBox.isHidden())

    def test_cancelledItSaysSoAndCanBeginAgain(self):
        ui = self.show(self.loaded())
        self.toFolder(ui)
        ui.exportButton.click()
        self.assertFalse(ui.exportButton.enabled)
        ui.cancelButton.click()
        self.waitUntil(lambda: self.dialog.work is None, 20)
        self.assertEqual(ui.resultLabel.text, "Cancelled.")
        self.assertFalse(os.path.exists(self.folder))
        self.assertTrue(ui.exportButton.enabled)

    def test_theNodeLeavesTheScene(self):
        node = self.loaded()
        ui = self.show(node)
        slicer.mrmlScene.RemoveNode(node)
        ui.exportButton.click()
        self.assertIsNone(self.dialog.work)
        self.assertIn("no longer in the scene", ui.problemLabel.text)
        self.assertFalse(ui.exportButton.enabled)

    def test_imagesOfSlicersDatabaseAreFoundThere(self):
        node = self.loaded()
        uids = [f"{STUDY}.1.{number}" for number in range(6, 0, -1)]
        node.SetAttribute(dicom_source.INSTANCES, " ".join(uids))
        ui = self.show(node)
        self.assertIn("P-17", ui.sourceLabel.text)
