"""DICOM: the series that a node was made from, and results as series of the right patient."""

import os
import shutil
from pathlib import Path
from unittest import mock

import ctk
import numpy as np
import qt
import slicer
import vtk
from Library.conftest import write_series
from medenhance_testing import MedEnhanceTestCase, finished, slow
from pydicom import dcmread

from MedEnhanceLib.io import load, stepwise
from MedEnhanceLib.unicompress import CompressConfig, compress
from MedEnhanceNodes import bridge, dicom_source, provenance, results
from MedEnhancePanels.errors import PanelError
from MedEnhanceTasks import dicom_export

STUDY = "1.2.826.0.1.3680043.8.498.7"


class ExportTestCase(MedEnhanceTestCase):
    """Ways to come by DICOM and by results, and to export them into `folder`."""

    KEEPS_WORKER = True

    #: What `openDatabase` has opened.
    ownDatabase = None

    def setUp(self):
        super().setUp()
        self.logic = self.context.logic
        self.folder = os.path.join(self.temporaryFolder(), "out")

    def writeSeries(self, folder, shape=(6, 24, 20), *, instances=0, **elements):
        """A CT series of a patient named Doe, one file a slice; its folder.

        instances: where the numbers of its images begin. elements: over the defaults, by keyword.
        """
        k, j, i = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
        noise = np.random.default_rng(1).normal(0, 20, shape)
        stored = (1000 * (k**2 + j**2 + i**2 < 0.7) + noise + 100).clip(0).astype(np.int16)
        series = f"{STUDY}.1"
        study = {
            "StudyInstanceUID": STUDY,
            "FrameOfReferenceUID": f"{STUDY}.0",
            "PatientID": "P-17",
            "PatientName": "Doe^Jane",
            "StudyDate": "20150314",
            "StudyDescription": "Thorax",
            "PixelSpacing": [0.8, 0.8],
        }

        def numbered(index):
            number = instances + index + 1
            return {"SOPInstanceUID": f"{series}.{number}", "InstanceNumber": number}

        path = Path(folder)
        write_series(path, stored, uid=series, slice_elements=numbered, **study | elements)
        return str(folder)

    def openDatabase(self):
        """A DICOM database of the test's own in place of Slicer's, until its end."""
        database = ctk.ctkDICOMDatabase()
        path = os.path.join(self.temporaryFolder(), "ctkDICOM.sql")
        database.openDatabase(path, "MedEnhanceTest")
        self.addCleanup(database.closeDatabase)
        self.replaceDatabase(database)
        self.ownDatabase = database
        return database

    def replaceDatabase(self, database):
        """What modules find as Slicer's database, until the end of the test."""
        self.enterContext(mock.patch.object(slicer, "dicomDatabase", database, create=True))

    def importInto(self, database, folder):
        """Have the database know the files of a folder, where they are."""
        indexer = ctk.ctkDICOMIndexer()
        indexer.addDirectory(database, str(folder), False)
        indexer.waitForImportFinished()

    def fromDatabase(self, folder):
        """A volume as Slicer's module DICOM loads it from its database."""
        if self.ownDatabase is None:
            self.openDatabase()
        self.importInto(slicer.dicomDatabase, folder)
        node = self.readBack(folder)
        first = next(Path(folder).rglob("*.dcm"))
        instances = slicer.dicomDatabase.instancesForSeries(str(dcmread(first).SeriesInstanceUID))
        node.SetAttribute(dicom_source.INSTANCES, " ".join(instances))
        return node

    def readBack(self, path):
        """A volume of a folder or file, as the library reads it."""
        volume = load(path)
        frames = volume.voxels if volume.voxels.ndim == 4 else volume.voxels[None]
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "frames")
        for number, voxels in enumerate(frames):
            node = slicer.util.addVolumeFromArray(voxels, name="axial")
            bridge.setGeometry(node, volume.geometry)
            node.SetAttribute(bridge.MODALITY, volume.modality)
            provenance.takeFrom(node, {"DERIVED": list(volume.history)})
            sequence.SetDataNodeAtValue(node, str(number))
        slicer.mrmlScene.RemoveNode(node if len(frames) > 1 else sequence)
        return sequence if len(frames) > 1 else node

    def loaded(self, **elements):
        """A small CT of Slicer's DICOM database; the folder that it lies in is `source`."""
        self.source = self.writeSeries(os.path.join(self.temporaryFolder(), "ct"), **elements)
        return self.fromDatabase(self.source)

    def derived(self, node):
        model = {"name": "ct", "sha256": "ab" * 32}
        return self.resultOf(node, "better", change=1, model=model)

    def labeled(self, node, output):
        """A segmentation with two structures, on a result."""
        labels = np.zeros(slicer.util.arrayFromVolume(node).shape, np.uint8)
        labels[2:4, 5:15, 5:10], labels[2:4, 5:15, 10:15] = 1, 2
        image = finished(bridge.readImage(labels))
        fat = {"value": "55603005", "scheme": "SCT", "meaning": "Adipose tissue"}
        given = [
            {"value": 1, "name": "fat", "color": "#ffee00", "type": fat},
            {"value": 2, "name": "rest", "color": "#2200ff"},
        ]
        segmentation = results.makeSegmentation(image, node, given, "parts")
        facts = {"head": {"name": "parts", "sha256": "cd" * 32}, "segmentation_limits": ["Look."]}
        provenance.setManifest(segmentation, {"model": {"name": "ct"}, "results": facts})
        results.link(output, input=node, segmentation=segmentation)
        return labels

    def read(self, paths):
        return [dcmread(path) for path in paths]


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
        compress(load(source), path, CompressConfig(lossless=True))
        database = self.openDatabase()
        node = self.derived(self.logic.decompress(path))
        self.assertEqual(dicom_source.instancesOf(node), [])
        self.assertEqual(dicom_source.missingSeriesOf(node), f"{STUDY}.1")
        self.importInto(database, source)
        self.assertEqual(len(dicom_source.instancesOf(node)), 6)
        self.assertEqual(dicom_source.missingSeriesOf(node), "")
        again = self.derived(node)
        database.removeSeries(f"{STUDY}.1")
        self.assertEqual(dicom_source.uidsOf(again), {"study": STUDY, "series": f"{STUDY}.1"})

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
            with self.assertRaisesRegex(PanelError, f"The image {uid} is no longer in"):
                self.logic.exportDicom(node, self.folder)
            self.assertFalse(os.path.exists(self.folder))


class FolderTest(ExportTestCase):
    def test_aResultAndItsSegmentationBecomeDerivedSeriesOfTheStudy(self):
        source = self.loaded()
        node = self.derived(source)
        labels = self.labeled(source, node)
        files = self.logic.exportDicom(node, self.folder, seriesDescription="axial, better")
        objects = self.read(files)
        images = [each for each in objects if each.Modality == "CT"]
        (segmentation,) = (each for each in objects if each.Modality == "SEG")
        self.assertEqual(len(images), 6)
        self.assertEqual({each.StudyInstanceUID for each in objects}, {STUDY})
        for image in images:
            self.assertEqual((image.PatientID, str(image.PatientName)), ("P-17", "Doe^Jane"))
            self.assertNotEqual(image.SeriesInstanceUID, f"{STUDY}.1")
            self.assertEqual(list(image.ImageType)[:2], ["DERIVED", "SECONDARY"])
            self.assertEqual(image.SeriesDescription, "axial, better")
            self.assertRegex(image.DerivationDescription, r"\bct (sha256 )?abab")
        stored = {float(image.ImagePositionPatient[2]): image.pixel_array for image in images}
        voxels = np.array([stored[z] for z in sorted(stored)]) - 1024
        np.testing.assert_array_equal(voxels, slicer.util.arrayFromVolume(node))
        segments = segmentation.SegmentSequence
        self.assertEqual([each.SegmentLabel for each in segments], ["fat", "rest"])
        code = segments[0].SegmentedPropertyTypeCodeSequence[0]
        self.assertEqual(code.CodeValue, "55603005")
        self.assertEqual(int(segmentation.pixel_array.sum()), int(np.count_nonzero(labels)))
        self.assertRegex(segmentation.DerivationDescription, r"\bparts (sha256 )?cdcd.*; Look\.")

    def filledImage(self, source, extent):
        """A label image of ones on the grid of a volume, from and to some voxel."""
        image = slicer.vtkOrientedImageData()
        image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(self.ijkToRas(source)))
        image.SetExtent(*extent)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
        image.GetPointData().GetScalars().Fill(1)
        return image

    def test_segmentsAreFoundWhereverTheirImagesLie(self):
        source = self.loaded()
        shape = slicer.util.arrayFromVolume(source).shape
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        wanted = np.zeros(shape, np.uint8)
        # Of a segment that was edited Slicer keeps as much as it fills, or more than the volume.
        boxes = {"near": np.s_[0:2, 0:4, 0:3], "far": np.s_[4:6, 20:24, 15:20]}
        extents = {"near": (-2, 2, 0, 3, -1, 1), "far": (15, 19, 20, 23, 4, 5)}
        for value, (name, box) in enumerate(boxes.items(), 1):
            wanted[box] = value
            segment = slicer.vtkSegment()
            segment.SetName(name)
            segment.AddRepresentation(
                slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName(),
                self.filledImage(source, extents[name]),
            )
            segmentation.GetSegmentation().AddSegment(segment)
        segmentation.GetSegmentation().AddEmptySegment("nothing", "nothing")
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
        said = []
        for parent in (None, transform.GetID()):  # an identity, for which Slicer resamples
            segmentation.SetAndObserveTransformNodeID(parent)
            path = os.path.join(self.temporaryFolder(), "labels.nrrd")
            meanings = finished(dicom_export.sendLabels(segmentation, source, path, said.append))
            names = {each["value"]: each["name"] for each in meanings}
            found = stepwise.NrrdFile(path).voxels
            self.assertEqual({names[value] for value in np.unique(found) if value}, {*boxes})
            for name, box in boxes.items():
                (value,) = (value for value, each in names.items() if each == name)
                self.assertTrue(np.array_equal(found == value, wanted == wanted[box].max()), name)
        self.assertIn("overlap", said[0])

    def test_aSequenceKeepsItsFrames(self):
        folder = os.path.join(self.temporaryFolder(), "4D")
        for phase in (1, 2):
            self.writeSeries(
                os.path.join(folder, str(phase)),
                TemporalPositionIdentifier=phase,
                NumberOfTemporalPositions=2,
                AcquisitionNumber=phase,
                instances=10 * phase,
            )
        node = self.fromDatabase(folder)
        files = self.logic.exportDicom(node, self.folder)
        self.assertEqual(len(files), 12)
        back = self.readBack(self.folder)
        for frame in range(2):
            self.assertSameVoxels(*(each.GetNthDataNode(frame) for each in (node, back)))

    @slow
    def test_lossyStepsAreReported(self):
        node = self.loaded(shape=(8, 64, 64))
        path = os.path.join(self.temporaryFolder(), "small.ucv")
        self.logic.compress(node, path, ratio=4)
        lossy = self.logic.decompress(path)
        dicom_source.inherit(node, lossy)
        files = self.logic.exportDicom(lossy, self.folder)
        for image in self.read(files):
            self.assertEqual(image.LossyImageCompression, "01")
            self.assertGreater(float(image.LossyImageCompressionRatio), 1)


class DatabaseTest(ExportTestCase):
    def series(self):
        """The UIDs of all series of the database."""
        database = self.ownDatabase
        studies = [
            study for each in database.patients() for study in database.studiesForPatient(each)
        ]
        return sorted(series for study in studies for series in database.seriesForStudy(study))

    @slow
    def test_whatIsStoppedLeavesNothing(self):
        before = []
        stops = {
            "Cancelled.": lambda job: job.cancel(),
            "removed from the scene, so the job": lambda _job: slicer.mrmlScene.RemoveNode(node),
            "": lambda _job: slicer.mrmlScene.Clear(0),  # ends it without a word
        }
        for stage in ("", "copying into"):
            for why, stop in stops.items():
                with self.subTest(stage=stage, why=why):
                    node = self.derived(self.loaded())
                    before = before or self.series()
                    job = self.logic.exportDicom(node, wait=False)
                    self.waitUntil(lambda job=job, stage=stage: stage in job.stage, 60)
                    stop(job)
                    self.assertEqual(self.finish(job, 20).state, "cancelled")
                    self.assertIn(why, job.error.message)
                    self.assertEqual(bool(why), bool(job.error.message))
                    self.assertEqual(self.series(), before)

    @slow
    def test_anIncompleteImportIsTakenBack(self):
        database = self.openDatabase()
        folder = self.writeSeries(os.path.join(self.temporaryFolder(), "ct"))
        steps = dicom_export.copyIntoDatabase(folder, {f"{STUDY}.1": 7})
        with self.assertRaisesRegex(PanelError, "did not accept all 7 files"):
            for _fraction in steps:
                self.processEvents()
        self.assertEqual(database.patients(), ())

    @slow
    def test_anEnhancedVolumeKeepsModelAndUncertainty(self):
        source = self.loaded(shape=(4, 32, 32))
        output = self.logic.enhance(source, uncertainty=True, device="cpu")
        files = self.logic.exportDicom(output, self.folder)
        kinds = [str(image.SOPClassUID.name) for image in self.read(files)]
        self.assertEqual(kinds.count("CT Image Storage"), 4)
        self.assertEqual(kinds.count("Parametric Map Storage"), 1)
        output.SetAttribute("MedEnhance.strength", "0.5")  # which the map is not of
        files = self.logic.exportDicom(output, os.path.join(self.temporaryFolder(), "half"))
        self.assertEqual(len(files), 4)


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
