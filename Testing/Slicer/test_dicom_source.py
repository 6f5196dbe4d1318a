"""From which DICOM series a node was made, found again after its input, or its files, have gone."""

import os
import shutil
from unittest import mock

import numpy as np
import slicer
from dicom_testing import STUDY, ExportTestCase
from medenhance_testing import slow

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import dicom_source


class SourceTest(ExportTestCase):
    def test_aResultKnowsItsSeriesAfterItsInputHasGone(self):
        source = self.loaded()
        node = self.derived(source)
        slicer.mrmlScene.RemoveNode(source)
        self.assertEqual(len(dicom_source.sourceOf(node).instances), 6)
        self.assertEqual(len(self.logic.exportDicom(node, self.folder, database=False)), 6)

    def compressed(self):
        """A compressed file of a series, as the library makes it; the series, the file."""
        from MedEnhanceLib import io
        from MedEnhanceLib.unicompress import CompressConfig, compress

        source = self.writeSeries(os.path.join(self.temporaryFolder(), "ct"))
        path = os.path.join(self.temporaryFolder(), "ct.ucv")
        compress(io.load(source), path, CompressConfig(lossless=True))
        return source, path

    @slow
    def test_whatThePanelCompressesKnowsItsSeries(self):
        path = os.path.join(self.temporaryFolder(), "ct")
        loaded = self.loaded()
        for number, node in enumerate((loaded, self.derived(loaded))):
            self.logic.compress(node, f"{path}{number}.ucv", lossless=True)
            again = self.logic.decompress(f"{path}{number}.ucv")
            self.assertEqual(dicom_source.sourceOf(again).series, f"{STUDY}.1")
        images = self.read(self.logic.exportDicom(again, self.folder, database=False))
        self.assertEqual({image.StudyInstanceUID for image in images}, {STUDY})

    def test_imagesOfSlicersDatabaseTellTheirStudy(self):
        node = self.loaded()
        self.assertEqual(dicom_source.uidsOf(node), {"study": STUDY, "series": f"{STUDY}.1"})
        slicer.dicomDatabase.closeDatabase()
        self.assertIsNone(dicom_source.uidsOf(node))

    @slow
    def test_aCompressedFileFindsItsSeriesInSlicersDatabase(self):
        source, path = self.compressed()
        self.importInto(self.openDatabase(), source)
        loaded = slicer.util.loadNodeFromFile(path, "MedEnhanceCompressedVolume", {})
        for number, node in enumerate((loaded, self.logic.decompress(path))):
            folder = f"{self.folder}-{number}"
            images = self.read(self.logic.exportDicom(node, folder, database=False))
            self.assertEqual({image.StudyInstanceUID for image in images}, {STUDY})
            self.assertEqual({image.PatientID for image in images}, {"P-17"})

    def test_aResultOfACompressedFileFindsItOnceItIsThere(self):
        source, path = self.compressed()
        database = self.openDatabase()
        node = self.derived(self.logic.decompress(path))
        self.assertIsNone(dicom_source.sourceOf(node))
        self.assertEqual(dicom_source.unknownSeries(node), f"{STUDY}.1")
        self.importInto(database, source)
        self.assertEqual(dicom_source.sourceOf(node).series, f"{STUDY}.1")
        self.assertEqual(dicom_source.unknownSeries(node), "")
        database.removeSeries(f"{STUDY}.1")
        self.assertIsNone(dicom_source.sourceOf(node))

    def test_manyImagesAreLookedForInSteps(self):
        folder = self.temporaryFolder()
        path = os.path.join(folder, "image.dcm")
        with open(path, "wb"):
            pass
        database = mock.Mock(isOpen=True)
        database.fileForInstance.return_value = path
        self.replaceDatabase(database)
        uids = tuple(f"1.2.{number}" for number in range(600))
        steps = dicom_source.DicomSource(instances=uids).toLike(folder)
        asked = [database.fileForInstance.call_count for _fraction in steps]
        self.assertLessEqual(np.diff([0, *asked]).max(), 25)
        self.assertEqual(asked[-1], 600)

    def test_anImageThatTheDatabaseLacksIsReported(self):
        self.openDatabase()
        node = self.smallVolume()
        node.SetAttribute(dicom_source.INSTANCES, "1.2.3 1.2.4")
        with self.assertRaises(PanelError) as caught:
            self.logic.exportDicom(node, self.folder, database=False)
        self.assertIn("The image 1.2.3 is no longer in", caught.exception.message)
        self.assertFalse(os.path.exists(self.folder))

    def test_aSourceThatHasGoneIsReportedAndNothingIsWritten(self):
        node = self.derived(self.loaded())
        shutil.rmtree(self.source)
        with self.assertRaises(PanelError) as caught:
            self.logic.exportDicom(node, self.folder, database=False)
        self.assertIn("no longer exists", caught.exception.message)
        self.assertFalse(os.path.exists(self.folder))

    def test_aResultIsPlacedUnderItsStudy(self):
        node = self.derived(self.loaded())
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Thorax")
        hierarchy.SetItemUID(study, "DICOM", STUDY)
        self.logic.exportDicom(node, self.folder, database=False)
        self.assertEqual(hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)), study)
