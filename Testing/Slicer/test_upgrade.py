"""A scene of the first published state opens, and its choices are those that were made."""

from pathlib import Path

import slicer
from medenhance_testing import MedEnhanceTestCase

from MedEnhancePanels.state import State

SCENE = Path(__file__).resolve().parents[1] / "Data/first/scene.mrml"
CHOICES = {
    "allFrames": True,
    "biasCorrection": True,
    "compressMode": "ratio",
    "device": "cpu",
    "distillHigh": "good/*",
    "distillName": "mine",
    "distillSource": "folder",
    "distillSteps": 7,
    "distillTask": "trainCT",
    "maxError": 0.1,
    "model": "mr",
    "page": "compress",
    "ratio": 12.5,
    "segment": True,
    "speed": "fast",
    "uncertainty": True,
}


class UpgradeTest(MedEnhanceTestCase):
    def test_aSceneOfTheFirstStateKeepsItsChoices(self):
        scene = slicer.mrmlScene
        scene.SetURL(str(SCENE))
        self.assertTrue(scene.Connect())
        slicer.app.processEvents()
        found = scene.GetNodesByClass("vtkMRMLScriptedModuleNode")
        nodes = [found.GetItemAsObject(at) for at in range(found.GetNumberOfItems())]
        (node,) = [node for node in nodes if node.GetParameter("DistillName") == "mine"]
        state = State(node)
        self.assertEqual({name: getattr(state, name) for name in CHOICES}, CHOICES)
        self.assertEqual(state.inputVolume.GetName(), "T1")
