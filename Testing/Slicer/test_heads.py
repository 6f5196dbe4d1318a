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

    def offered(self):
        box = self.ui.headComboBox
        return [box.itemText(index) for index in range(box.count)]

    def chooseHead(self, name):
        index = self.ui.headComboBox.findData(name)
        self.ui.headComboBox.currentIndex = index
        self.ui.headComboBox.activated.emit(index)


class HeadChoiceTest(HeadTestCase):
    def test_headsAreOfferedWithTheSegmentationTheRecommendedOneFirst(self):
        self.choose(self.volume("MR"))
        self.assertEqual(self.offered(), [f"Recommended: {TISSUE}", TISSUE])
        self.assertFalse(self.ui.headComboBox.enabled)
        self.ui.segmentCheckBox.checked = True
        self.assertTrue(self.ui.headComboBox.enabled)
        self.assertEqual(self.panel.options.segmenter, "auto")
        self.assertTrue(self.ui.applyButton.enabled)
        self.chooseHead(TISSUE)
        self.assertEqual(self.panel.options.segmenter, TISSUE)
        self.ui.segmentCheckBox.checked = False
        self.assertFalse(self.ui.headComboBox.enabled)
        self.assertEqual(self.panel.options.segmenter, "auto")

    @slow
    def test_aHeadOnRequestIsUsedOnlyWhenItIsChosen(self):
        node = self.volume("CT")
        self.choose(node)
        self.assertEqual(self.offered(), ["Choose a model", TUMOR])
        tip = self.ui.headComboBox.toolTip
        self.assertTrue(self.ui.applyButton.enabled)
        self.ui.segmentCheckBox.checked = True
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("Choose a segmentation model for CT", self.ui.problemLabel.text)
        self.chooseHead(TUMOR)
        self.assertTrue(self.ui.applyButton.enabled)
        self.assertEqual(self.ui.problemLabel.text, "")
        self.assertIn("It misses tumor", self.ui.headComboBox.toolTip)
        self.chooseHead("auto")
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertEqual(self.ui.headComboBox.toolTip, tip)
        self.chooseHead(TUMOR)
        node.SetAttribute(self.bridge.MODALITY, "MR")  # a choice that does not fit is not changed
        self.processEvents(80)
        self.assertEqual(self.ui.headComboBox.currentText, TUMOR)
        self.assertFalse(self.ui.applyButton.enabled)
        self.assertIn("Choose a segmentation model for MR", self.ui.problemLabel.text)


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
