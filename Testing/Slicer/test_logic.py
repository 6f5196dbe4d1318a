"""MedEnhanceLogic from a script: what it takes, and the words in which it refuses the rest."""

import json
import os

import numpy as np
import slicer
from medenhance_testing import MedEnhanceTestCase, slow

from MedEnhancePanels.errors import PanelError


class LogicTest(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        self.logic = self.context.logic

    def refusal(self, function, *arguments, **options):
        with self.assertRaises(PanelError) as caught:
            function(*arguments, **options)
        self.assertTrue(caught.exception.hint, caught.exception.message)
        return caught.exception

    def mr(self):
        return self.smallVolume(name="MR02", modality="MR")

    @slow
    def test_whatIsNoVolumeIsRefusedInWords(self):
        logic, path = self.logic, os.path.join(self.temporaryFolder(), "x.ucv")
        self.assertEqual(self.refusal(logic.enhance, self.mr(), output="x").code, "input")
        calls = (logic.enhance,
                 lambda node: logic.compress(node, path, lossless=True),
                 lambda node: logic.save(node, path))  # fmt: skip
        for call in calls:
            for wrong in (None, "MR02", 7):
                self.assertEqual(self.refusal(call, wrong).code, "input", (call, wrong))
        self.assertIn("getNode", self.refusal(logic.enhance, "MR02").hint)

    def test_regionsArePairsForEachAxis(self):
        node, path = self.mr(), os.path.join(self.temporaryFolder(), "r.ucv")
        self.logic.compress(node, path, lossless=True)
        voxels = slicer.util.arrayFromVolume(node)
        back = self.logic.decompress(path, region=((-4, 8), None, (1, 5)))
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(back), voxels[-4:8, :, 1:5])
        for wrong in ("x", (slice(0, 8),), ((1, 2, 3), None, None), (None,) * 5):
            error = self.refusal(self.logic.decompress, path, region=wrong)
            self.assertEqual(error.code, "config", wrong)
        self.assertEqual(self.refusal(self.logic.decompress, None).code, "input")

    @slow
    def test_hintsNameNoOptionsOfTheCommandLine(self):
        node = self.mr()
        ct = self.smallVolume(name="ct", modality="CT")
        hints = [
            self.refusal(self.logic.enhance, node, segment=True, device="cuda:99").hint,
            self.refusal(self.logic.enhance, node, model="no-such-model").hint,
            self.refusal(self.logic.enhance, node, model="mr-slices").hint,
            self.refusal(self.logic.enhance, ct, correct_bias_field=True).hint,
        ]
        for hint in hints:
            self.assertNotRegex(hint, r"--[a-z]|medenhance|modality=")
        error = self.refusal(self.logic.enhance, node, model="brain")
        self.assertIn("segments; a model that", error.message)
        error = self.refusal(self.logic.enhance, ct, segment=True)
        self.assertIn("no model that segments CT", error.message)

    @slow
    def test_scriptsNameAHead(self):
        node = self.smallVolume((6, 64, 64), modality="MR")
        options = {"segment": True, "segmenter": "brain", "force_segmenter": True}
        better = self.logic.enhance(node, **options)
        for role in ("segmentation", "table"):
            made = better.GetNodeReference(f"MedEnhance.{role}")
            self.assertEqual(made.GetAttribute("MedEnhance.model"), "brain")
        manifest = json.loads(better.GetAttribute("MedEnhance.manifest"))
        self.assertEqual(manifest["config"]["segmenter"]["model"], "brain")
        for options, says in (
            ({"segmenter": "brain"}, "no segmentation is requested"),
            ({"segmenter": "mr-slices", "segment": True}, "a model that segments is needed"),
            ({"segmenter": None, "segment": True}, "segmenter is None"),
        ):
            error = self.refusal(self.logic.enhance, node, **options)
            self.assertIn(says, error.text)
            self.assertNotRegex(error.text, r"--[a-z]|medenhance")
