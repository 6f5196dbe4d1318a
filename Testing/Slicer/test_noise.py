"""What the page says of the noise before Apply, and the region that a user marks to measure it."""

from unittest import mock

import numpy as np
import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import slow

from MedEnhancePages import noise_area

#: A worker that finds ±10 in a volume, uncertain between 4.3 and 26.8, and in boxes what they say;
#: in those of the last rows all even tissue shows it.
MEASURING = """
import json, sys
def noise(sigma, interval, is_certain):
    found = {"sigma": sigma, "interval": interval, "is_certain": is_certain, "units": "",
             "verdict": "noisy" if is_certain else "uncertain", "key": "as_is",
             "numbers": {"sentence": f"noise {sigma:g}"}}
    return {"noise": found, "sentence": ""}
for line in sys.stdin:
    fields = json.loads(line)
    if "kind" not in fields:
        continue
    box, result = fields["params"].get("region"), {}
    if fields["kind"] == "noise" and box:
        sigma = 8.0 if box[1][0] < 8 else 28.6
        result = noise(sigma, [sigma, sigma], True)
        if box[1][0] > 24:
            result["noise"]["even_sigma"] = 27.0
    elif fields["kind"] == "noise":
        result = noise(10.0, [4.3, 26.8], False)
    print(json.dumps({"v": 1, "job": fields["id"], "event": "result", **result}), flush=True)
"""


class BoxTest(EnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.replaceWorker(MEASURING)
        self.node = self.smallVolume(shape=(8, 40, 40), modality="MR", spacing=(1.0, 1.0, 1.0))
        slicer.util.setSliceViewerLayers(background=self.node, fit=True)
        self.choose(self.node)
        self.waitUntil(lambda: self.ui.verdictLabel.text == "Noise 10.", 30)
        self.assertTrue(self.ui.regionCancelButton.isHidden())
        self.ui.regionButton.click()
        self.assertFalse(self.ui.regionCancelButton.isHidden())

    @property
    def roi(self):
        return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLMarkupsROINode")

    def measureAt(self, row):
        place = self.bridge.matrixOf(self.node).MultiplyPoint((20, row, 4, 1.0))[:3]
        self.roi.SetCenter(*place)
        self.processEvents(80)
        self.assertEqual(self.ui.regionButton.text, "Measure in the box")
        self.ui.regionButton.click()
        self.waitUntil(lambda: self.ui.regionButton.text.startswith("Use ±"), 30)
        self.assertIsNone(self.panel.options.config.noise, "nobody agreed yet")

    def test_theBoxStaysUntilTheUserAgreesAndIsAskedForWhatTheVolumeRulesOut(self):
        self.measureAt(20)
        self.assertEqual(self.ui.verdictLabel.text, "Noise 28.6.")
        with mock.patch.object(noise_area, "confirm", return_value=False) as asked:
            self.ui.regionButton.click()
        for level in ("±28.6", "±4.3 to ±26.8"):
            self.assertIn(level, asked.call_args.args[2])
        self.assertIsNone(self.panel.options.config.noise)
        self.assertIsNotNone(self.roi, "the box is there to look at")
        with mock.patch.object(noise_area, "confirm", return_value=True):
            self.ui.regionButton.click()
        self.assertEqual(self.panel.options.config.noise, 28.6)
        self.assertIsNone(self.roi)

    def test_whatFitsTheVolumeIsUsedWithoutAQuestion(self):
        self.measureAt(20)
        self.measureAt(2)  # a box that was moved is measured anew
        with mock.patch.object(noise_area, "confirm") as asked:
            self.ui.regionButton.click()
        asked.assert_not_called()
        self.assertEqual(self.panel.options.config.noise, 8.0)

    def test_whatEvenTissueAgreesOnIsUsedWithoutAQuestion(self):
        self.measureAt(34)
        with mock.patch.object(noise_area, "confirm") as asked:
            self.ui.regionButton.click()
        asked.assert_not_called()
        self.assertEqual(self.panel.options.config.noise, 28.6)

    def test_cancelTakesTheBoxAway(self):
        self.ui.regionCancelButton.click()
        self.assertIsNone(self.roi)
        self.assertEqual(self.ui.verdictLabel.text, "Noise 10.")
        self.assertTrue(self.ui.regionCancelButton.isHidden())


class VerdictTest(EnhanceTestCase):
    @slow
    def test_thePageSaysWhatIsToGoBeforeApply(self):
        self.choose(self.brain())
        self.waitUntil(lambda: self.ui.verdictLabel.text.startswith("Noise ±"), 60)
        self.assertRegex(
            self.ui.verdictLabel.text,
            r"SNR \d+: enhancing removes typically about \d+\s% of the error",
        )
        self.assertTrue(self.ui.regionButton.isHidden())
        self.ui.noiseSpinBox.value = 12.0
        self.processEvents(80)
        self.assertEqual(self.ui.verdictLabel.text, "Noise as stated: ±12 intensity units (1 SD).")

    @slow
    def test_uncertainNoiseIsMeasuredInABoxThatAUserPlacesAndUsed(self):
        node = self.textured()
        self.choose(node)
        self.waitUntil(lambda: "uncertain" in self.ui.verdictLabel.text, 60)
        before = self.nodeIDs()
        self.ui.regionButton.click()
        roi = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLMarkupsROINode")
        self.assertIn("Move the box into even tissue", self.ui.verdictLabel.text)
        roi.SetCenter(*self.bridge.matrixOf(node).MultiplyPoint((60, 60, 3, 1.0))[:3])
        self.ui.regionButton.click()  # half of it is texture
        self.waitUntil(lambda: "more than even tissue" in self.message, 60)
        self.assertEqual(self.panel.options.config.noise, None)
        roi.SetCenter(*self.bridge.matrixOf(node).MultiplyPoint((20, 20, 3, 1.0))[:3])
        self.ui.regionButton.click()
        self.waitUntil(lambda: self.ui.regionButton.text.startswith("Use ±"), 60)
        self.ui.regionButton.click()
        self.assertAlmostEqual(self.panel.options.config.noise, 8.0, delta=1.5)
        self.assertEqual(self.nodeIDs(), before, "the box goes once it is used")

    def nodeIDs(self):
        nodes = slicer.util.getNodesByClass("vtkMRMLDisplayableNode")
        return {node.GetID() for node in nodes}

    def textured(self):
        """Texture in most of a volume, and a corner of even tissue; noise of ±8 everywhere."""
        rng = np.random.default_rng(2)
        texture = np.repeat(np.repeat(rng.uniform(50, 250, (12, 40, 40)), 3, axis=1), 3, axis=2)
        texture *= rng.uniform(0.2, 1.8, (3, 12, 12)).repeat(4, 0).repeat(10, 1).repeat(10, 2)
        texture[:, :42, :42] = 150
        voxels = 100 + texture + 8 * rng.standard_normal(texture.shape)
        node = slicer.util.addVolumeFromArray(voxels.astype(np.int16), name="texture")
        node.SetAttribute("MedEnhance.modality", "MR")
        slicer.util.setSliceViewerLayers(background=node, fit=True)
        return node
