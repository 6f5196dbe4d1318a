"""Results as DICOM: in a folder or Slicer's database, under the right patient, or not at all."""

import os

import numpy as np
import slicer
import vtk
from dicom_testing import STUDY, ExportTestCase
from medenhance_testing import finished, slow

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import dicom_source, nrrd
from MedEnhancePanels.tasks import dicom_export


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
        for image in images:
            self.assertEqual((image.PatientID, str(image.PatientName)), ("P-17", "Doe^Jane"))
            self.assertEqual(image.StudyInstanceUID, STUDY)
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
        self.assertEqual(segmentation.StudyInstanceUID, STUDY)

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
            found = nrrd.File(path).voxels
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
            pair = [
                slicer.util.arrayFromVolume(each.GetNthDataNode(frame)) for each in (node, back)
            ]
            self.assertTrue(np.array_equal(*pair))

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
            "was removed from the scene": lambda _job: slicer.mrmlScene.Clear(0),
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
                    self.assertEqual(self.series(), before)

    @slow
    def test_anIncompleteImportIsTakenBack(self):
        database = self.openDatabase()
        folder = self.writeSeries(os.path.join(self.temporaryFolder(), "ct"))
        steps = dicom_export._copyIntoDatabase(folder, {f"{STUDY}.1": 7})
        with self.assertRaises(PanelError) as caught:
            for _fraction in steps:
                self.processEvents()
        self.assertIn("did not accept all 7 files", caught.exception.message)
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
