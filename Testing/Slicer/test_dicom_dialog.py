"""Export to DICOM from the page Enhance: the question before it, and where the objects go."""

from unittest import mock

import qt
import slicer
from dicom_testing import STUDY, ExportTestCase

from MedEnhancePanels.nodes import dicom_source, provenance


class QuestionTest(ExportTestCase):
    def export(self, node, *, agrees=True, patient=""):
        """Choose the entry of Save or export; the job, None where the user does not go on."""
        self.context.state.enhancedVolume = node
        answers = mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=agrees)
        asks = mock.patch.object(qt.QInputDialog, "getText", return_value=(patient, bool(patient)))
        with answers as answered, asks as asked:
            self.widget.panels["enhance"].result.actions["export"].trigger()
        calls = [*answered.mock_calls, *asked.mock_calls]
        self.question = "\n".join(str(each) for call in calls for each in call.args)
        jobs = [each for each in self.context.runner.activeJobs() if not each.isQuestion]
        for job in jobs:
            self.assertIsNone(self.finish(job).error, job.error)
        return jobs[0] if jobs else None

    def test_theKnownPatientIsNamedAndTheDatabaseHasTheSeries(self):
        node = self.derived(self.loaded())
        job = self.export(node)
        for word in ("better", "P-17", "Thorax", "20150314"):
            self.assertIn(word, self.question)
        uid = job.result["objects"][0]["series_uid"]
        self.assertEqual(slicer.dicomDatabase.studyForSeries(uid), STUDY)
        self.assertIn("6 files", self.message)
        self.assertIsNone(self.export(node, agrees=False))

    def test_whatNeverWasDicomAsksForThePatient(self):
        self.openDatabase()
        node = self.derived(self.smallVolume())
        self.assertIsNone(self.export(node))
        self.assertIn("does not come from DICOM", self.question)
        job = self.export(node, patient="X1")
        self.assertEqual({image.PatientID for image in self.read(job.result["files"])}, {"X1"})
        dicom_source.rememberSeries(node, "1.2.3.4")
        self.assertIsNone(self.export(node))
        self.assertIn("1.2.3.4", self.question)
        self.assertIn("Import that series", self.question)

    def test_withoutADatabaseTheModuleThatOpensItIsNamed(self):
        node = self.derived(self.loaded())
        slicer.dicomDatabase.closeDatabase()
        self.assertIsNone(self.export(node))
        self.assertIn("Open the module DICOM once", self.message)

    def test_anAlarmIsPartOfTheQuestion(self):
        node = self.derived(self.loaded())
        warning = {"code": "no-structure", "message": "only noise", "hint": "check the input"}
        provenance.setManifest(node, {"results": {"warnings": [warning]}})
        self.assertIsNone(self.export(node, agrees=False))
        self.assertIn("Only noise: check the input.", self.question)
