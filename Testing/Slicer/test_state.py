"""The state lives in the scene and nowhere else."""

import numpy as np
import slicer
from medenhance_testing import MedEnhanceTestCase


class StateTest(MedEnhanceTestCase):
    def test_fieldsKeepTheirTypeAndValue(self):
        state = self.context.state
        state.trainName, state.uncertainty, state.maxError = "mr", True, 0.1
        state.distillVolumes, state.compressMode = 4, "ratio"
        self.assertIs(state.uncertainty, True)
        values = [state.trainName, state.maxError, state.distillVolumes, state.compressMode]
        self.assertEqual(values, ["mr", 0.1, 4, "ratio"])
        with self.assertRaises(ValueError):
            state.compressMode = "magic"
        for text in ("nan", "inf", "two"):  # a scene that somebody edited
            state.node.SetParameter("MaxError", text)
            self.assertEqual(state.maxError, 2.0)
        state.node.SetParameter("CompressMode", "magic")
        self.assertEqual(state.compressMode, "lossless")

    def test_onlyAChangedValueIsShown(self):
        state, calls = self.context.state, []
        state.segmenter = "a"
        self.context.onChange(lambda: calls.append(state.segmenter))
        state.segmenter = "a"
        self.assertEqual(calls, [])
        state.segmenter = "b"
        self.assertEqual(calls, ["b"])

    def test_stateSurvivesSavingClosingAndLoadingTheScene(self):
        node = slicer.util.addVolumeFromArray(np.ones((3, 4, 5), np.int16), name="kept")
        state = self.context.state
        state.inputVolume, state.segmenter, state.ratio, state.page = node, "mr", 12.5, "compress"
        path = self.savedScene()
        slicer.mrmlScene.Clear(0)
        self.assertIsNone(self.context.state.inputVolume)
        self.assertEqual(self.context.state.segmenter, "auto")
        slicer.util.loadScene(path)
        state = self.context.state
        self.assertEqual(len(self.widget.logic.getAllParameterNodes()), 1)
        self.assertEqual(state.inputVolume.GetName(), "kept")
        self.assertEqual((state.segmenter, state.ratio, state.page), ("mr", 12.5, "compress"))

    def test_aRemovedNodeIsMadeAgainWhenTheModuleIsEntered(self):
        slicer.mrmlScene.RemoveNode(self.context.state.node)
        self.widget.enter()
        self.assertIsNotNone(self.context.state)
        self.assertIsNotNone(self.context.state.node.GetScene())
