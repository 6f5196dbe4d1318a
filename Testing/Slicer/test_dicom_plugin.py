"""Results in Slicer's own dialog of export to DICOM: what is offered, and what is written."""

import json
import os
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
from medenhance_testing import slow
from test_dicom import STUDY, ExportTestCase

from MedEnhanceNodes import bridge, dicom_source, provenance, results
from MedEnhancePanels import waiting
from MedEnhanceTasks import blending

#: That of Slicer's plugin of scalar volumes, which writes ORIGINAL.
STOCK = 0.5


class PluginTest(ExportTestCase):
    def setUp(self):
        super().setUp()
        self.runner = self.context.runner
        self.warnings = self.enterContext(mock.patch.object(slicer.util, "warningDisplay"))

    def offered(self, *nodes):
        """Collect the plugins' offers, the most confident first, as Slicer's dialog does."""
        hierarchy, found = bridge.subjectHierarchy(), []
        for make in slicer.modules.dicomPlugins.values():
            for node in nodes:
                found += make().examineForExport(hierarchy.GetItemByDataNode(node))
        return sorted(found, key=lambda each: -each.confidence)

    def export(self, *nodes, **patient):
        """Export as Slicer's dialog does into a folder; the error, "" for none."""
        exportables = self.offered(*nodes)
        for exportable in exportables:
            for name, value in patient.items():  # from the items of patient and study
                exportable.setTag(name, value)
            exportable.directory = self.folder
        return slicer.modules.dicomPlugins[exportables[0].pluginClass]().export(exportables)

    def written(self):
        """All DICOM objects in the folder itself."""
        return self.read(sorted(Path(self.folder).glob("*.dcm")))

    def test_resultsAreOfferedBeforeSlicersOwnPluginsAndNothingElseIs(self):
        source = self.loaded()
        result = self.derived(source)
        self.labeled(source, result)
        segmentation = results.linked(result, "segmentation")
        results.stamp(segmentation, "segmentation", source)
        (exportable,) = self.offered(result)
        self.assertGreater(exportable.confidence, STOCK)
        self.assertIn(exportable.pluginClass, slicer.modules.dicomPlugins)
        self.assertEqual(exportable.tag("SeriesDescription"), "better")
        self.assertIn("patient of its source", exportable.tooltip)
        (labels,) = self.offered(segmentation)
        self.assertEqual(labels.tag("SeriesDescription"), "better")
        unknown = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn by hand")
        lost = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "of a removed result")
        lost.SetAttribute(provenance.DERIVED, "segmentation")
        self.assertEqual(self.offered(source, self.smallVolume(), unknown, lost), [])
        difference = self.derived(source)
        results.stamp(difference, "difference", source)
        self.assertEqual(len(self.offered(difference)), 1)

    def test_aResultIsWrittenAsDerivedIntoTheStudyOfItsSource(self):
        source = self.loaded()
        node = self.derived(source)
        provenance.setManifest(node, {"model": {"name": "ct", "sha256": "ab" * 32}})
        labels = self.labeled(source, node)
        segmentation = results.linked(node, "segmentation")
        results.stamp(segmentation, "segmentation", source)
        both = (node, segmentation)  # a study is exported item by item
        self.assertEqual(self.export(*both, PatientID="P-17", PatientName="Doe^Jane"), "")
        images = [each for each in self.written() if each.Modality == "CT"]
        (segmentation,) = (each for each in self.written() if each.Modality == "SEG")
        self.assertEqual(len(images), 6)
        for image in [*images, segmentation]:
            self.assertEqual((image.PatientID, image.StudyInstanceUID), ("P-17", STUDY))
            self.assertEqual(image.ImageType[0], "DERIVED")
            self.assertIn("Research use only", image.DerivationDescription)
        for image in images:
            self.assertIn(f"model ct sha256 {'ab' * 32}", image.DerivationDescription)
            self.assertEqual(image.SeriesDescription, "better")
        self.assertEqual(int(segmentation.pixel_array.sum()), int(np.count_nonzero(labels)))
        (manifest,) = Path(self.folder).glob("*.json")
        self.assertEqual(json.loads(manifest.read_text("utf-8"))["config"]["action"], "enhanced")

    def assertDerived(self, *words):
        """The images in the folder are DERIVED, and state all of these words."""
        images = self.written()
        for image in images:
            self.assertEqual((image.ImageType[0], image.PatientID), ("DERIVED", "P-17"))
            for word in ("Research use only", *words):
                self.assertIn(word, image.DerivationDescription)
        return images

    def test_aResultOfThinSlicesOrOfARegionIsDerivedToo(self):
        """Both lie on grids of their own."""
        source = self.loaded()
        voxels = slicer.util.arrayFromVolume(source)
        for part, spacing in ((np.repeat(voxels, 2, axis=0), 0.5), (voxels[1:4, 2:20, 3:18], 1.0)):
            node = self.smallVolume(name="on another grid")
            slicer.util.updateVolumeFromArray(node, part)
            bridge.copyGeometry(source, node)
            node.SetSpacing(*np.multiply(source.GetSpacing(), (1, 1, spacing)))
            history = ["DERIVED: enhanced with ct-slices"]
            results.stamp(node, "enhanced", source, {"name": "ct-slices"}, history=history)
            results.link(node, input=source)
            self.folder = os.path.join(self.temporaryFolder(), "out")
            self.assertEqual(self.export(node), "")
            self.assertEqual(len(self.assertDerived("with ct-slices")), len(part))

    def test_aResultBelowStrengthOneIsDerivedAndItsFullResultIsNotOffered(self):
        source = self.loaded()
        node = self.derived(source)
        blending.remember(node, bridge.voxelState(source))
        waiting.wait(blending.start(self.runner, node, 0.25))
        self.assertEqual(self.export(node), "")
        self.assertDerived("blended with its input at strength 0.25", "ct abababababab")
        self.assertEqual(self.offered(results.linked(node, "full")), [])

    def test_aFrameOfAResultIsDerivedWithTheHistoryOfItsSequence(self):
        source = self.loaded()
        frames, output = slicer.vtkMRMLSequenceNode(), slicer.vtkMRMLSequenceNode()
        for at, (sequence, name) in enumerate(((frames, "frames"), (output, "frames enhanced"))):
            for number in range(2):
                frame = bridge.newVolumeLike(source, f"frame {number}")
                slicer.util.updateVolumeFromArray(frame, slicer.util.arrayFromVolume(source) + at)
                dicom_source.inherit(source, frame)
                if at:
                    history = ["DERIVED: enhanced with ct"]
                    results.stamp(frame, "enhanced-frame", source, history=history)
                sequence.SetDataNodeAtValue(frame, str(number))
                slicer.mrmlScene.RemoveNode(frame)
            sequence.SetName(name)
            slicer.mrmlScene.AddNode(sequence)
        bridge.play(frames, output)
        self.assertEqual(self.export(bridge.proxyOf(output)), "")
        self.assertEqual(len(self.assertDerived("Enhanced by MedEnhance", "with ct")), 6)

    def test_aSecondExportLiesBesideTheFirstAndNoFolderIsLeft(self):
        """Slicer removes the files of its temporary folder after an import, and no folder in it."""
        node = self.derived(self.loaded())
        for _export in range(2):
            self.assertEqual(self.export(node), "")
        self.assertEqual(len(self.written()), 12)
        self.assertEqual(len({each.SeriesInstanceUID for each in self.written()}), 2)
        self.assertTrue(all(path.is_file() for path in Path(self.folder).iterdir()))

    def test_anotherPatientOrNoneIsRefusedAndNothingIsWritten(self):
        source = self.loaded()
        node, new = self.derived(source), self.derived(self.smallVolume())
        error = self.export(node, PatientID="P-18", PatientName="Doe^Jane")
        self.assertIn("made from images of “P-17”, not of “P-18”", error)
        error = self.export(node, PatientID="P-17", PatientName="Anonymous")
        self.assertIn("“Doe^Jane”, not of “Anonymous”. The patient stays", error)
        self.assertIn("Enter the patient's ID", self.export(node, new, PatientID=""))
        self.assertEqual(os.listdir(self.folder), [])
        patient = {"PatientID": "X1", "PatientName": "Ro^Jo", "StudyDescription": "Phantom"}
        self.assertEqual(self.export(new, **patient), "")
        self.assertEqual({str(image.PatientName) for image in self.written()}, {"Ro^Jo"})
        self.assertEqual({image.PatientID for image in self.written()}, {"X1"})
        self.assertEqual({image.StudyDescription for image in self.written()}, {"Phantom"})

    def test_whatWentWrongComesBackAsText(self):
        node = self.derived(self.loaded())
        slicer.dicomDatabase.closeDatabase()
        self.assertIn("Open the module DICOM once", self.export(node))
        self.folder = os.path.join(self.folder, "file", "below")  # which cannot be made
        Path(self.folder).parent.touch()
        self.assertIn("Not a directory. Free some space", self.export(node))

    def test_theWarningsOfTheRunAndOfTheExportAreShown(self):
        node = self.derived(self.smallVolume(dtype=np.float32))
        warning = {"code": "no-structure", "message": "only noise", "hint": "check the input"}
        provenance.setManifest(node, {"results": {"warnings": [warning]}})
        self.assertEqual(self.export(node, PatientID="X1"), "")
        severe, *others = self.warnings.call_args.args[0].splitlines()
        self.assertEqual(severe, "Only noise: check the input.")
        self.assertIn("rounded by up to", "".join(others))

    @slow
    def test_anExportDoesNotWaitForALongJobAndCanBeCancelled(self):
        node, seen = self.derived(self.loaded()), []
        long = self.runner.submit("ping", {"count": 1000, "seconds": 600}, title="Long")
        self.waitUntil(lambda: long.reached, 60)
        qt.QTimer.singleShot(60_000, long.cancel)  # an export that waits for it ends, too late
        self.assertEqual(self.export(node), "")
        self.assertFalse(long.isFinished)
        clean = set(os.listdir(self.folder))

        def cancelSoon():
            dialog = qt.QApplication.activeModalWidget()
            seen.append(dialog.windowTitle)
            self.click(slicer.util.findChildren(dialog, className="QPushButton")[0])

        qt.QTimer.singleShot(0, cancelSoon)
        self.assertEqual(self.export(node), "Cancelled.")
        self.assertEqual(seen, ["Export better as DICOM"])
        self.assertEqual(set(os.listdir(self.folder)), clean)
        long.cancel()
