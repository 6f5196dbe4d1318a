"""The window "Export to DICOM" as a user drives it."""

import json
import os
from unittest import mock

import qt
import slicer
from dicom_testing import STUDY, ExportTestCase

from MedEnhancePanels.nodes import dicom_source, provenance


class DialogTest(ExportTestCase):
    def show(self, node):
        """The window for a node."""
        self.dialog = self.context.exportDicom(node)
        self.addCleanup(self.dialog.widget.hide)
        return self.dialog.ui

    def export(self, ui):
        """Press the button, and wait for the end; the folder that is made is in `parent`."""
        self.parent = self.temporaryFolder()
        with mock.patch.object(qt.QFileDialog, "getExistingDirectory", return_value=self.parent):
            ui.exportButton.click()
        (job,) = self.runner.activeJobs()
        self.assertTrue(self.dialog.widget.isHidden())
        self.waitUntil(lambda: job.isFinished, 60)
        self.assertIsNone(job.error, job.error)
        return job

    def test_theKnownPatientIsNamedAndTheDatabaseHasTheSeries(self):
        ui = self.show(self.loaded())
        for word in ("P-17", "Thorax", "20150314"):
            self.assertIn(word, ui.sourceLabel.text)
        self.assertTrue(ui.patientFrame.isHidden())
        self.screenshot(self.dialog.widget, "export-ready", 420)
        job = self.export(ui)
        uid = job.result["objects"][0]["series_uid"]
        self.assertEqual(slicer.dicomDatabase.studyForSeries(uid), STUDY)
        self.assertIn("6 files", self.message)

    def test_whatNeverWasDicomAsksForThePatient(self):
        ui = self.show(self.smallVolume())
        self.assertFalse(ui.patientFrame.isHidden())
        self.assertFalse(ui.exportButton.enabled)
        self.assertIn("the patient is not known", ui.problemLabel.text)
        ui.patientIdEdit.text = "X1"
        ui.folderButton.checked = True
        self.assertTrue(ui.exportButton.enabled)
        job = self.export(ui)
        self.assertEqual({image.PatientID for image in self.read(job.result["files"])}, {"X1"})
        self.assertIn(os.path.join(self.parent, "small DICOM"), self.message)

    def test_aSeriesThatTheDatabaseDoesNotHoldIsNamed(self):
        node = self.smallVolume()
        dicom_source.rememberSeries(node, "1.2.3.4")
        ui = self.show(node)
        self.assertIn("1.2.3.4", ui.sourceLabel.text)
        self.assertIn("import that series", ui.sourceLabel.text)

    def test_withoutADatabaseAFolderIsOffered(self):
        node = self.loaded()
        slicer.dicomDatabase.closeDatabase()
        ui = self.show(node)
        self.assertFalse(ui.databaseButton.enabled)
        self.assertTrue(ui.folderButton.checked)

    def test_aResultWithAnAlarmIsExportedOnlyAfterAQuestionThatNamesTheReason(self):
        node = self.derived(self.loaded())
        warning = {"code": "no-structure", "message": "only noise", "hint": "check the input"}
        provenance.setManifest(node, {"results": {"doubts": [warning]}})
        self.assertIn("doubts", json.loads(node.GetAttribute(provenance.MANIFEST))["results"])
        ui = self.show(node)
        with mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=False) as asked:
            ui.exportButton.click()
        self.assertIn("Only noise: check the input.", asked.call_args[0][0])
        self.assertEqual(self.runner.activeJobs(), [])
        with mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=True):
            self.export(ui)

    def test_theNodeLeavesTheScene(self):
        node = self.loaded()
        ui = self.show(node)
        slicer.mrmlScene.RemoveNode(node)
        ui.exportButton.click()
        self.assertEqual(self.runner.activeJobs(), [])
        self.assertIn("no longer in the scene", ui.problemLabel.text)
