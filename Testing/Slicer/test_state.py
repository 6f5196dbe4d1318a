"""The state lives in the scene and nowhere else."""

import os

import numpy as np
import slicer
from medenhance_testing import MedEnhanceTestCase


class StateTest(MedEnhanceTestCase):
    def test_fieldsKeepTheirTypeAndValue(self):
        state = self.context.state
        state.model, state.uncertainty, state.maxError = "mr-brain", True, 0.1
        state.uncertaintySamples, state.compressMode = 4, "ratio"
        self.assertEqual(state.model, "mr-brain")
        self.assertIs(state.uncertainty, True)
        self.assertEqual(state.maxError, 0.1)
        self.assertEqual(state.uncertaintySamples, 4)
        self.assertEqual(state.compressMode, "ratio")
        with self.assertRaises(ValueError):
            state.compressMode = "magic"
        for text in ("nan", "inf", "two"):  # a scene that somebody edited
            state.node.SetParameter("MaxError", text)
            self.assertEqual(state.maxError, 2.0)

    def test_aDamagedValueReadsAsTheDefault(self):
        state = self.context.state
        state.node.SetParameter("MaxError", "much")
        state.node.SetParameter("CompressMode", "magic")
        self.assertEqual(state.maxError, 2.0)
        self.assertEqual(state.compressMode, "lossless")

    def test_anUnchangedValueDisturbsNobody(self):
        state, heard = self.context.state, []
        state.model = "a"
        forget = state.observe(heard.append)
        state.model = "a"
        self.assertEqual(heard, [])
        state.model = "b"
        self.assertEqual(heard, [state])
        forget()
        state.model = "c"
        self.assertEqual(len(heard), 1)

    def test_stateSurvivesSavingClosingAndLoadingTheScene(self):
        node = slicer.util.addVolumeFromArray(np.ones((3, 4, 5), np.int16), name="kept")
        state = self.context.state
        state.inputVolume, state.model, state.ratio = node, "mr-brain", 12.5
        state.page = "compress"
        path = os.path.join(self.temporaryFolder(), "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear(0)
        self.assertIsNone(self.context.state.inputVolume)
        self.assertEqual(self.context.state.model, "auto")
        slicer.util.loadScene(path)
        loaded = [
            state
            for state in map(type(self.context.state), self.widget.logic.getAllParameterNodes())
            if state.inputVolume is not None
        ]
        self.assertEqual(len(loaded), 1)
        self.assertEqual(loaded[0].inputVolume.GetName(), "kept")
        self.assertEqual((loaded[0].model, loaded[0].ratio), ("mr-brain", 12.5))
        self.assertEqual(self.context.state, loaded[0])

    def test_severalParameterNodesCoexist(self):
        first = self.context.state
        first.model = "first"
        second = self.widget.logic.createParameterNode()
        slicer.mrmlScene.AddNode(second)
        self.widget.ui.parameterNodeSelector.setCurrentNode(second)
        self.assertIs(self.context.state.node, second)
        self.context.state.model = "second"
        self.widget.ui.parameterNodeSelector.setCurrentNode(first.node)
        self.assertEqual(self.context.state.model, "first")

    def test_removingTheShownNodeShowsAnother(self):
        slicer.mrmlScene.RemoveNode(self.context.state.node)
        self.processEvents()
        self.assertIsNotNone(self.context.state)
        self.assertIsNotNone(self.context.state.node.GetScene())
