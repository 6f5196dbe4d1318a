"""Choices saved under a name: for a modality, on this computer, and robust to other versions."""

from unittest import mock

import slicer
from enhance_testing import EnhanceTestCase


class PresetTest(EnhanceTestCase):
    def setUp(self):
        super().setUp()
        from MedEnhancePanels.pages import presets

        self.presets = presets
        self.addCleanup(self.keep, {})
        self.node = self.smallVolume()
        self.node.SetAttribute(self.bridge.MODALITY, "MR")
        self.choose(self.node)

    def keep(self, found):
        """Settings as another Slicer left them."""
        self.presets.save(found)
        self.panel._presets._presets = self.presets.load()

    def saveAs(self, name, isAgreed=True):
        with (
            mock.patch("qt.QInputDialog.getText", return_value=name),
            mock.patch("slicer.util.confirmOkCancelDisplay", return_value=isAgreed) as asked,
        ):
            self.ui.savePresetButton.click()
            self.processEvents(80)
        return asked

    def pick(self, name):
        box = self.ui.presetComboBox
        box.currentIndex = box.findText(name)
        box.activated.emit(box.currentIndex)
        self.processEvents(80)

    def offered(self):
        box = self.ui.presetComboBox
        return [box.itemText(index) for index in range(box.count)]

    def test_choicesAreSavedAndComeBack(self):
        self.assertFalse(self.ui.presetComboBox.enabled)
        state = self.context.state
        state.task, state.uncertainty, state.noiseMap = "noise", True, True
        self.saveAs(" Knee ")
        self.assertEqual(self.ui.presetComboBox.currentText, "Knee")
        state.task, state.uncertainty, state.segment = "auto", False, True
        state.device = "cpu"
        self.processEvents(80)
        self.assertEqual(self.ui.presetComboBox.currentText, "None")
        self.pick("Knee")
        self.assertEqual(
            (state.task, state.uncertainty, state.noiseMap, state.segment),
            ("noise", True, True, False),
        )
        self.assertIs(state.inputVolume, self.node)
        self.assertEqual(state.device, "cpu")
        slicer.util.reloadScriptedModule("MedEnhance")  # as after a restart
        panel = slicer.util.getModuleWidget("MedEnhance").panels["enhance"]
        self.assertEqual(panel.ui.presetComboBox.currentText, "Knee")

    def test_theyAreListedForTheirModality(self):
        self.saveAs("Head")
        self.assertEqual(self.offered(), ["None", "Head"])
        self.node.SetAttribute(self.bridge.MODALITY, "CT")
        self.processEvents(80)
        self.assertEqual(self.offered(), ["None"])

    def test_anotherIsReplacedAfterAQuestionAndRemovedByTheButton(self):
        self.assertFalse(self.saveAs("Head").called)
        self.context.state.segment = True
        self.assertTrue(self.saveAs("Head", isAgreed=False).called)
        self.assertEqual(self.ui.presetComboBox.currentText, "None")
        self.saveAs("Head")
        self.assertEqual(self.ui.presetComboBox.currentText, "Head")
        self.saveAs("")  # cancelled
        self.assertEqual(self.offered(), ["None", "Head"])
        self.ui.removePresetButton.click()
        self.processEvents(80)
        self.assertEqual(self.offered(), ["None"])
        self.assertFalse(self.ui.removePresetButton.enabled)

    def test_whatAnotherVersionSavedDoesNotDisturb(self):
        values = {"task": "levitate", "segment": "true", "later": "1"}
        self.keep({"odd": {"modality": "MR", "values": values}})
        self.panel.update()
        self.pick("odd")
        self.assertEqual((self.context.state.task, self.context.state.segment), ("auto", True))
        for text in ("nonsense", "[]", '{"a": 1}', '{"a": {"modality": "MR"}}'):
            slicer.app.userSettings().setValue("MedEnhance/EnhancePresets", text)
            self.assertEqual(self.presets.load(), {}, text)
