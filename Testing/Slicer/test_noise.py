"""What the page says of the noise before Apply, and the region that a user marks to measure it."""

import numpy as np
import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import slow


class VerdictTest(EnhanceTestCase):
    @slow
    def test_thePageSaysWhatIsToGoBeforeApply(self):
        self.choose(self.brain())
        self.waitUntil(lambda: self.ui.verdictLabel.text.startswith("Noise ±"), 60)
        self.assertRegex(
            self.ui.verdictLabel.text,
            r"SNR \d+: enhancing removes typically about \d+ % of the error",
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
        self.waitUntil(lambda: self.panel.options.config.noise is not None, 60)
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
