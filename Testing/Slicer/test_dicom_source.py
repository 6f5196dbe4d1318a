"""From which DICOM series a node was made, found again after its input, or its files, have gone."""

import os
import shutil
from unittest import mock

import numpy as np
import slicer
from dicom_testing import STUDY, ExportTestCase
from medenhance_testing import slow

from MedEnhanceLib import io
from MedEnhanceLib.unicompress import CompressConfig, compress
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import dicom_source


class SourceTest(ExportTestCase):
    def test_aResultKnowsItsSeriesAfterItsInputHasGone(self):
        source = self.loaded()
        node = self.derived(source)
        slicer.mrmlScene.RemoveNode(source)
        self.assertEqual(len(dicom_source.instancesOf(node)), 6)
        self.assertEqual(len(self.logic.exportDicom(node, self.folder)), 6)

    @slow
    def test_whatThePanelCompressesKnowsItsSeries(self):
        path = os.path.join(self.temporaryFolder(), "ct")
        loaded = self.loaded()
        for number, node in enumerate((loaded, self.derived(loaded))):
            self.logic.compress(node, f"{path}{number}.ucv", lossless=True)
            again = self.logic.decompress(f"{path}{number}.ucv")
            self.assertEqual(len(dicom_source.instancesOf(again)), 6)
        images = self.read(self.logic.exportDicom(again, self.folder))
        self.assertEqual({image.StudyInstanceUID for image in images}, {STUDY})

    def test_aResultOfACompressedFileFindsItOnceItIsThere(self):
        source = self.writeSeries(os.path.join(self.temporaryFolder(), "ct"))
        path = f"{source}.ucv"
        compress(io.load(source), path, CompressConfig(lossless=True))
        database = self.openDatabase()
        node = self.derived(self.logic.decompress(path))
        self.assertEqual(dicom_source.instancesOf(node), [])
        self.assertEqual(dicom_source.missingSeriesOf(node), f"{STUDY}.1")
        self.importInto(database, source)
        self.assertEqual(len(dicom_source.instancesOf(node)), 6)
        self.assertEqual(dicom_source.missingSeriesOf(node), "")

    def test_manyImagesAreLookedForInSteps(self):
        folder = self.temporaryFolder()
        path = os.path.join(folder, "image.dcm")
        with open(path, "wb"):
            pass
        database = mock.Mock(isOpen=True)
        database.fileForInstance.return_value = path
        self.replaceDatabase(database)
        uids = tuple(f"1.2.{number}" for number in range(600))
        steps = dicom_source.listFiles(uids, folder)
        asked = [database.fileForInstance.call_count for _fraction in steps]
        self.assertLessEqual(np.diff([0, *asked]).max(), 25)
        self.assertEqual(asked[-1], 600)

    def test_aSourceThatHasGoneIsReportedAndNothingIsWritten(self):
        unknown, deleted = self.smallVolume(), self.derived(self.loaded())
        unknown.SetAttribute(dicom_source.INSTANCES, "1.2.3 1.2.4")
        shutil.rmtree(self.source)
        for node, uid in ((unknown, "1.2.3"), (deleted, f"{STUDY}.1.6")):
            with self.assertRaises(PanelError) as caught:
                self.logic.exportDicom(node, self.folder)
            self.assertIn(f"The image {uid} is no longer in", caught.exception.message)
            self.assertFalse(os.path.exists(self.folder))
