"""Which model segments along with an enhancement: offered, chosen, described and used."""

import json

import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import slow

TUMOR, TISSUE = "sarcoma-ct", "brain-tissue"


class HeadTestCase(EnhanceTestCase):
    def volume(self, modality, name="scan"):
        node = self.smallVolume((6, 64, 64), name=name)
        if modality == "CT":  # in HU, as what is called CT is expected to be
            slicer.util.arrayFromVolume(node)[:] -= 1000
            slicer.util.arrayFromVolumeModified(node)
        node.SetAttribute(self.bridge.MODALITY, modality)
        return node


class HeadChoiceTest(HeadTestCase):
    def test_aSegmentationIsOfferedWhereAModelIsRecommended(self):
        """One that few images need is named by scripts alone."""
        node, box = self.volume("MR"), self.ui.segmentCheckBox
        self.choose(node)
        box.checked = True
        self.assertTrue(self.panel.options.segment and self.ui.applyButton.enabled)
        node.SetAttribute(self.bridge.MODALITY, "CT")
        self.processEvents(80)
        self.assertFalse(box.enabled or self.panel.options.segment)
        self.assertIn("no segmentation model", box.toolTip)
        self.assertTrue(self.ui.applyButton.enabled)


class HeadRunTest(HeadTestCase):
    @slow
    def test_scriptsNameAHead(self):
        from MedEnhancePanels.errors import PanelError

        logic, node = self.widget.logic, self.volume("CT")
        better = logic.enhance(node, segment=True, segmenter=TUMOR)
        for role in ("segmentation", "table"):
            made = better.GetNodeReference(f"MedEnhance.{role}")
            self.assertEqual(made.GetAttribute("MedEnhance.model"), TUMOR)
        manifest = json.loads(better.GetAttribute("MedEnhance.manifest"))
        self.assertEqual(manifest["config"]["segmenter"]["model"], TUMOR)
        for options, says in (
            ({"segmenter": TUMOR}, "which is not selected"),
            ({"segmenter": TISSUE, "segment": True}, "is for MR, the volume is CT"),
            ({"segmenter": None, "segment": True}, "segmenter is None"),
        ):
            with self.assertRaises(PanelError) as caught:
                logic.enhance(node, **options)
            self.assertIn(says, caught.exception.text)
            self.assertNotRegex(caught.exception.text, r"--[a-z]|medenhance")
