"""The nodes of a result: their voxels, looks, places, links; through a saved scene too."""

import time

import numpy as np
import slicer
from medenhance_testing import MedEnhanceTestCase, finished, slow
from vtk.util.numpy_support import vtk_to_numpy

from MedEnhanceNodes import bridge, provenance, results, spatial

LABELS = [
    {"value": 1, "name": "Fluid", "color": "#3b82c4"},
    {
        "value": 7,
        "name": "White matter",
        "color": "#e8e8e8",
        "type": {"scheme": "SCT", "value": "68523003", "meaning": "White matter"},
    },
]


class ResultsTest(MedEnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.bridge, self.results = bridge, results
        self.source = self.smallVolume(name="scan", spacing=(0.9, 1.1, 2.3))
        self.source.SetIJKToRASDirections([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        self.transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        self.source.SetAndObserveTransformNodeID(self.transform.GetID())

    def labels(self):
        """An image of labels on the source's grid, and its voxels."""
        voxels = np.zeros(slicer.util.arrayFromVolume(self.source).shape, np.uint8)
        voxels[2:4, 5:9], voxels[5:, :, 3:6] = 1, 7
        return finished(self.bridge.readImage(voxels)), voxels

    def difference(self, source, output, name="difference"):
        """The map of a result, as a run makes it."""
        image = finished(self.results.differenceImage(*map(self.bridge.framesOf, (source, output))))
        node = self.bridge.newVolumeLike(source, name, image)
        self.results.styleMap(node, "difference", "HU", self.results.typicalMagnitude(image))
        return node

    def test_theDifferenceIsEnhancedMinusInput(self):
        source = self.smallVolume(name="bytes", dtype=np.uint8)
        less = self.bridge.newVolumeLike(source, "less")
        slicer.util.updateVolumeFromArray(less, slicer.util.arrayFromVolume(source) // 2)
        node = self.difference(source, less)  # unsigned ones do not wrap around
        self.assertLessEqual(slicer.util.arrayFromVolume(node).max(), 0.0)
        output = self.resultOf(self.source, change=25)
        slicer.util.arrayFromVolume(output)[3, 4, 5] -= 125
        node = self.difference(self.source, output)
        before, after = map(slicer.util.arrayFromVolume, (self.source, output))
        expected = after.astype(np.float32) - before
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), expected)
        np.testing.assert_array_equal(self.ijkToRas(node), self.ijkToRas(self.source))
        display = node.GetDisplayNode()
        self.assertEqual(display.GetLevel(), 0.0)
        self.assertAlmostEqual(display.GetWindow(), 50.0, places=3)

    def test_theSegmentationHoldsTheLabels(self):
        image, voxels = self.labels()
        node = self.results.makeSegmentation(image, self.source, LABELS, "parts")
        segmentation = node.GetSegmentation()
        self.assertEqual(segmentation.GetNumberOfSegments(), 2)
        entry = slicer.vtkSlicerTerminologyEntry()
        for index, (label, kind) in enumerate(zip(LABELS, ("Tissue", "White matter"), strict=True)):
            identifier = segmentation.GetNthSegmentID(index)
            segment = segmentation.GetNthSegment(index)
            self.assertEqual(segment.GetName(), label["name"])
            found = slicer.util.arrayFromSegmentBinaryLabelmap(node, identifier, self.source)
            np.testing.assert_array_equal(found > 0, voxels == label["value"])
            text = segment.GetTerminology()
            deserialize = slicer.vtkSlicerTerminologiesModuleLogic.DeserializeTerminologyEntry
            self.assertTrue(deserialize(text, entry))
            self.assertEqual(entry.GetTypeObject().GetCodeMeaning(), kind)
        np.testing.assert_allclose(segment.GetColor(), [0xE8 / 255] * 3)
        self.assertEqual(segmentation.GetNumberOfLayers(), 1)
        self.assertIs(node.GetParentTransformNode(), self.transform)
        self.assertIs(
            node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()), self.source
        )

    def test_surfacesAreSlicersOwnAndNoStepComputesThem(self):
        """Time is that of this thread: what other programs take does not count."""
        rng, shape = np.random.default_rng(0), (60, 90, 80)
        coarse = rng.integers(0, 2, [size // 5 for size in shape])
        voxels = np.kron(coarse, np.ones((5, 5, 5))).astype(np.uint8) * 7
        source = slicer.util.addVolumeFromArray(voxels)
        source.SetIJKToRASDirections([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
        image = finished(self.bridge.readImage(voxels))
        ours, slicers = (
            self.results.makeSegmentation(image, source, LABELS[::-1], name) for name in "AB"
        )
        kind = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
        began = time.thread_time()
        slicers.GetSegmentation().CreateRepresentation(kind)
        whole, longest = time.thread_time() - began, 0.0
        steps, isDone = spatial.surfaceSteps(ours), False
        while not isDone:
            began = time.thread_time()
            isDone = next(steps, steps) is steps
            longest = max(longest, time.thread_time() - began)
        self.assertLess(longest, whole / 4)
        points, triangles = zip(
            *(self.surface(each, kind) for each in (ours, slicers)), strict=True
        )
        np.testing.assert_allclose(*points, atol=1e-3)
        np.testing.assert_array_equal(*triangles)
        self.assertTrue(ours.GetDisplayNode().GetVisibility3D())
        self.assertEqual(list(spatial.surfaceSteps(ours)), [])
        edited = self.results.makeSegmentation(image, source, LABELS[1:], "C").GetSegmentation()
        for _step in spatial.surfaceSteps(slicer.util.getNode("C")):
            edited.GetNthSegment(0).GetRepresentation("Binary labelmap").Modified()
        self.assertFalse(edited.ContainsRepresentation(kind), "what was edited has another surface")

    def surface(self, node, kind):
        """The points and the triangles of the first segment; the other one is empty."""
        surface = node.GetSegmentation().GetNthSegment(0).GetRepresentation(kind)
        arrays = surface.GetPoints().GetData(), surface.GetPolys().GetConnectivityArray()
        return [vtk_to_numpy(each) for each in arrays]

    def test_theTableHasARowForEachStructure(self):
        sizes = (("Fluid", 12, 0.024), ("White matter", 3_000_000_000, 6.0))
        fields = ("label", "voxels", "volume_ml")
        rows = [dict(zip(fields, row, strict=True)) for row in sizes]
        node = self.results.makeTable(rows, self.source, "structures")
        self.assertEqual(node.GetNumberOfRows(), 2)
        cells = [node.GetCellText(1, column) for column in range(3)]
        self.assertEqual(cells[:2], ["White matter", "3000000000"])
        self.assertEqual([float(cell) for cell in cells[2:]], [6.0])
        self.assertEqual(node.GetColumnName(2), "Volume (mL)")

    @slow
    def test_linksLooksAndProvenanceSurviveASavedScene(self):
        output = self.resultOf(self.source, change=25)
        difference = self.difference(self.source, output, "scan difference")
        image, _voxels = self.labels()
        parts = self.results.makeSegmentation(image, self.source, LABELS, "parts")
        manifest = {"action": "enhanced", "config": {"model": 'a;b=c & "d" <é>'}}
        self.results.stamp(output, "enhanced", self.source, {"name": "m", "sha256": "0f"}, manifest)
        self.results.link(output, input=self.source, difference=difference, segmentation=parts)
        window = difference.GetDisplayNode().GetWindow()
        self.throughAScene()
        output = slicer.util.getNode("scan enhanced")
        linked = self.results.linked
        self.assertEqual(linked(output, "input").GetName(), "scan")
        self.assertEqual(linked(output, "segmentation").GetName(), "parts")
        self.assertIsNone(linked(output, "uncertainty"))
        self.assertEqual(provenance.manifestOf(output), manifest)
        display = linked(output, "difference").GetDisplayNode()
        self.assertAlmostEqual(display.GetWindow(), window, places=3)
        color = [0.0] * 4
        display.GetColorNode().GetColor(0, color)
        self.assertGreater(color[2], color[0])
        segment = linked(output, "segmentation").GetSegmentation().GetNthSegment(1)
        self.assertIn("White matter", segment.GetTerminology())
