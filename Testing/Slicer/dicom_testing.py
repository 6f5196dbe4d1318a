"""What tests on DICOM share: series that are written for a test, and a database of its own."""

import os
from pathlib import Path
from unittest import mock

import ctk
import numpy as np
import slicer
from Library.conftest import write_series
from medenhance_testing import MedEnhanceTestCase, finished
from pydicom import dcmread

from MedEnhanceLib.io import load
from MedEnhancePanels.nodes import bridge, dicom_source, provenance, results

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
        database.openDatabase(
            os.path.join(self.temporaryFolder(), "ctkDICOM.sql"), "MedEnhanceTest"
        )
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
        """What an enhancement would leave of a node, without the time that it takes."""
        voxels = slicer.util.arrayFromVolume(node)
        output = slicer.util.addVolumeFromArray(voxels + np.int16(1), name="better")
        output.CopyOrientation(node)
        results.stamp(output, "enhanced", node, {"name": "ct", "sha256": "ab" * 32})
        results.link(output, input=node)
        return output

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
        results.link(output, input=node, segmentation=segmentation)
        return labels

    def read(self, paths):
        return [dcmread(path) for path in paths]
