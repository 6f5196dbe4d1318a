"""Results in the export dialog of Slicer's module DICOM: what is offered, and what is written."""

import os
from unittest import mock

import qt
import slicer
from dicom_testing import STUDY, ExportTestCase
from medenhance_testing import slow

from MedEnhancePanels.nodes import bridge, results


class PluginTest(ExportTestCase):
    def setUp(self):
        super().setUp()
        self.plugin = slicer.modules.dicomPlugins["MedEnhanceDICOMPlugin"]()
        os.mkdir(self.folder)

    def offered(self, node):
        """What the plugin offers of a node, with the folder that Slicer's dialog sets."""
        item = bridge.subjectHierarchy().GetItemByDataNode(node)
        exportables = self.plugin.examineForExport(item)
        for exportable in exportables:
            self.assertEqual(exportable.pluginClass, "MedEnhanceDICOMPlugin")
            exportable.directory = self.folder
        return exportables

    def written(self):
        """All DICOM objects below the folder."""
        return self.read(
            os.path.join(folder, name)
            for folder, _folders, names in os.walk(self.folder)
            for name in names
            if name.endswith(".dcm")
        )

    def test_imagesThatWeMadeAreOfferedBeforeSlicersOwnPlugin(self):
        source = self.loaded()
        result, difference = self.derived(source), self.derived(source)
        results.stamp(difference, "difference", source)
        self.assertEqual((self.offered(source), self.offered(difference)), ([], []))
        (exportable,) = self.offered(result)
        self.assertGreater(exportable.confidence, 0.5)
        self.assertEqual(exportable.tag("SeriesDescription"), "better")
        self.assertEqual(self.plugin.examineForImport([["a.dcm"]]), [])

    def test_aSeriesIsDerivedAndJoinsTheStudyOfItsSource(self):
        source = self.loaded()
        node = self.derived(source)
        self.labeled(source, node)
        for description in ("first", "second"):  # into the same folder, beside each other
            (exportable,) = self.offered(node)
            exportable.setTag("SeriesDescription", description)
            exportable.setTag("PatientID", "P-17")  # as Slicer's dialog does, of the hierarchy
            self.assertEqual(self.plugin.export([exportable]), "")
        images = [each for each in self.written() if each.Modality == "CT"]
        self.assertEqual(len(images), 12)
        self.assertEqual({each.SeriesDescription for each in images}, {"first", "second"})
        for image in self.written():
            self.assertEqual((image.PatientID, image.StudyInstanceUID), ("P-17", STUDY))
            self.assertEqual(image.ImageType[0], "DERIVED")
        self.assertEqual([each.Modality for each in self.written()].count("SEG"), 2)

    def test_anotherPatientOrNoneIsRefused(self):
        (exportable,) = self.offered(self.derived(self.loaded()))
        exportable.setTag("PatientID", "P-18")
        self.assertIn("not of patient P-18", self.plugin.export([exportable]))
        (exportable,) = self.offered(self.derived(self.smallVolume()))
        self.assertIn("Enter the patient's ID", self.plugin.export([exportable]))
        self.assertEqual(os.listdir(self.folder), [])
        exportable.setTag("PatientID", "X1")
        self.assertEqual(self.plugin.export([exportable]), "")
        self.assertEqual({image.PatientID for image in self.written()}, {"X1"})

    @slow
    def test_theDialogCancels(self):
        (exportable,) = self.offered(self.derived(self.loaded()))
        native = qt.QProgressDialog.exec_

        def cancelSoon(dialog):
            (button,) = slicer.util.findChildren(dialog, className="QPushButton")
            qt.QTimer.singleShot(0, button.click)
            return native(dialog)

        with mock.patch.object(qt.QProgressDialog, "exec_", cancelSoon):
            self.assertEqual(self.plugin.export([exportable]), "Cancelled.")
        self.assertEqual((self.written(), self.runner.activeJobs()), ([], []))
