"""The card of a volume: every warning about what would harm later steps, and no other."""

import time
import types

import numpy as np
import slicer
import vtk
from test_load import LoadTestCase

from MedEnhancePanels.nodes import bridge, card
from MedEnhancePanels.pages import load


class WarningsTest(LoadTestCase):
    def codes(self, node, **more):
        more.setdefault("models", [types.SimpleNamespace(kind="enhancer", modality="MR")])
        return {caution.code for caution in card.describe(node, **more).warnings}

    def mr(self, **more):
        node = self.volume(**more)
        node.SetAttribute(bridge.MODALITY, "MR")
        return node

    def test_aPlainVolumeHasNone(self):
        self.assertEqual(self.codes(self.mr()), set())
        self.panel.ui.inputSelector.setCurrentNode(self.mr())
        self.assertTrue(self.panel.ui.warningsFrame.isHidden())

    def test_grids(self):
        self.assertEqual(self.codes(self.mr(voxels=np.eye(8, dtype=np.int16)[None])), {"oneSlice"})
        self.assertEqual(self.codes(self.mr(spacing=(1.0, 1.0, 4.0))), {"thick"})
        self.assertEqual(self.codes(self.mr(spacing=(1e-5, 1e-5, 1e-5))), {"microscopy"})
        self.assertEqual(self.codes(self.mr(voxels=np.ones((3, 4, 5), np.int16))), {"constant"})

    def test_transforms(self):
        node = self.mr()
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
        node.SetAndObserveTransformNodeID(transform.GetID())
        self.assertEqual(self.codes(node), set())
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(0, 3, 10.0)
        transform.SetMatrixTransformToParent(matrix)
        self.assertEqual(self.codes(node), {"transformed"})
        for name, code in (("warp", "warped"), ("1: acquisition transform", "uneven")):
            bent = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", name)
            spline = vtk.vtkThinPlateSplineTransform()
            bent.SetAndObserveTransformToParent(spline)
            node.SetAndObserveTransformNodeID(bent.GetID())
            self.assertEqual(self.codes(node), {code})

    def test_aTransformThatMovesIsSeenWithoutAsking(self):
        node = self.mr()
        self.panel.ui.inputSelector.setCurrentNode(node)
        self.assertTrue(self.panel.ui.warningsFrame.isHidden())
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
        node.SetAndObserveTransformNodeID(transform.GetID())
        matrix = vtk.vtkMatrix4x4()
        matrix.SetElement(1, 3, 5.0)
        transform.SetMatrixTransformToParent(matrix)
        self.waitUntil(lambda: "move" in self.panel.ui.warningsLabel.text, 2)

    def test_whatIsNoIntensityVolume(self):
        labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
        slicer.util.updateVolumeFromArray(labels, np.eye(6, dtype=np.int16)[None].repeat(3, 0))
        labels.SetAttribute(bridge.MODALITY, "MR")
        self.assertEqual(self.codes(labels), {"labels"})
        color = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
        slicer.util.updateVolumeFromArray(color, np.ones((3, 4, 5, 3), np.uint8))
        color.SetAttribute(bridge.MODALITY, "MR")
        self.assertEqual(self.codes(color), {"color"})
        self.panel.ui.inputSelector.setCurrentNode(color)
        self.assertFalse(self.panel.ui.enhanceButton.enabled)
        self.assertFalse(self.panel.ui.compressButton.enabled)

    def test_aNodeWithoutVoxelsIsNoFault(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow")
        self.assertIsNone(card.describe(node))
        self.panel.ui.inputSelector.setCurrentNode(node)
        self.assertTrue(self.panel.ui.cardBox.isHidden())
        self.assertIn("hollow", self.panel.ui.warningsLabel.text)

    def test_missingDicomFiles(self):
        node = self.mr()
        node.SetAttribute("DICOM.instanceUIDs", " ".join(f"1.2.{i}" for i in range(6)))
        self.assertEqual(self.codes(node), set())
        node.SetAttribute("DICOM.instanceUIDs", " ".join(f"1.2.{i}" for i in range(8)))
        self.assertEqual(self.codes(node), {"missing"})

    def test_modelsAndModalities(self):
        node = self.mr()
        self.assertEqual(self.codes(node, models=[]), {"model"})
        node.SetAttribute(bridge.MODALITY, "PT")
        self.assertEqual(self.codes(node), {"model"})
        text = card.describe(node, [types.SimpleNamespace(kind="enhancer", modality="MR")])
        self.assertIn("MR", text.warnings[0].remedy)
        node.SetAttribute(bridge.MODALITY, "OT")
        self.assertEqual(self.codes(node), {"modality"})
        self.assertTrue({"MR", "CT"} <= {model.modality for model in load.installedModels()})

    def test_aModalityThatTheValuesContradict(self):
        node = self.mr(voxels=np.linspace(-1000, 1500, 480).astype(np.int16).reshape(6, 8, 10))
        self.assertEqual(self.codes(node), {"contradiction"})
        self.panel.ui.inputSelector.setCurrentNode(node)
        self.assertIn("values look like CT", self.panel.ui.warningsLabel.text)
        models = [types.SimpleNamespace(kind="enhancer", modality="CT")]
        node.SetAttribute(bridge.MODALITY, "CT")
        self.assertEqual(self.codes(node, models=models), set())
        node = self.mr()
        self.assertEqual(self.codes(node), set())
        node.SetAttribute(bridge.MODALITY, "CT")
        self.assertEqual(self.codes(node, models=models), {"contradiction"})

    def test_aModalityThatTheFileContradicts(self):
        for attribute in ("DICOM.Modality", card.FILE_MODALITY):
            node = self.mr()
            node.SetAttribute(attribute, "MR")
            self.assertEqual(self.codes(node), set())
            node.SetAttribute(attribute, "CT")
            self.assertEqual(self.codes(node), {"contradiction"})
            self.panel.ui.inputSelector.setCurrentNode(node)
            self.assertIn("The file says CT", self.panel.ui.warningsLabel.text)

    def test_whatIsDerivedSaysFromWhat(self):
        from MedEnhancePanels.nodes import provenance, results

        node = self.mr()
        results.stamp(node, "enhanced", model={"name": "mr", "sha256": "ab" * 32})
        self.assertEqual(self.codes(node), {"derived"})
        self.panel.ui.inputSelector.setCurrentNode(node)
        self.assertIn("Derived, by mr", self.panel.ui.warningsLabel.text)
        read = self.mr()
        step = "DERIVED: compressed to a ratio of 10000 by MedEnhance 9; research use only"
        provenance.takeFrom(read, {"DERIVED": [step]})
        (caution,) = card.describe(
            read, [types.SimpleNamespace(kind="enhancer", modality="MR")]
        ).warnings
        self.assertEqual(caution.text, "Derived: compressed to a ratio of 10000")

    def test_memory(self):
        node = self.mr()
        self.assertEqual(self.codes(node, freeBytes=1_000), {"memory"})
        self.assertEqual(self.codes(node, freeBytes=1_000_000), set())
        self.assertGreater(load.freeMemory(), 0)

    def test_theCardOfALargeVolumeIsCheap(self):
        node = self.mr(voxels=np.ones((200, 400, 400), np.int16))
        began = time.perf_counter()
        card.describe(node)
        self.assertLess(time.perf_counter() - began, 0.2)
        began = time.perf_counter()
        card.describe(node)
        self.assertLess(time.perf_counter() - began, 0.05)
