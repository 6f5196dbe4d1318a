"""The modality on the page Enhance: guessed, confirmed once, asked for where several fit."""

from unittest import mock

import numpy as np
import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import slow

from MedEnhanceLib.core import modality


class ModalityTest(EnhanceTestCase):
    def fits(self, *modalities):
        """Set what the library says about the values of any volume from here on."""
        double = mock.patch.object(
            modality, "likely_modalities", lambda _voxels, _spacing: modalities, create=True
        )
        self.enterContext(double)

    @property
    def shown(self):
        return self.ui.modalityComboBox.currentText

    def otherVoxels(self, node):
        """Put other values into a volume, for which the guess is made anew."""
        slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node) + 1)
        self.processEvents(80)

    def test_aGuessIsShownAsOneAndAChoiceIsNot(self):
        self.assertEqual(self.shown, "")
        self.fits("MR")
        node = self.smallVolume()
        self.choose(node)
        self.assertEqual(self.shown, "MR (guessed)")
        self.assertIn("MR (guessed)", self.ui.modalityComboBox.toolTip)
        self.assertTrue(self.ui.applyButton.enabled)
        self.pick(self.ui.modalityComboBox, "MR")
        self.processEvents(80)
        self.assertEqual(self.shown, "MR")
        stated = self.smallVolume(name="stated", modality="CT")
        self.choose(stated)
        self.assertEqual(self.shown, "CT")
        stated.RemoveAttribute(self.bridge.MODALITY)
        stated.SetAttribute("DICOM.Modality", "CT")
        self.processEvents(80)
        self.assertEqual(self.shown, "CT")

    def test_whereTwoModalitiesFitApplyWaitsForAChoice(self):
        self.fits("PT", "MR")
        node, ui = self.smallVolume(name="scan"), self.ui
        self.choose(node)
        for task in ("noise", "slices"):
            self.context.state.task = task
            self.assertEqual(self.shown, "")
            self.assertFalse(ui.applyButton.enabled or ui.previewButton.enabled)
            text = "Is “scan” PET or MR? Choose its modality above."
            self.assertEqual((ui.problemLabel.text, ui.applyButton.toolTip), (text, text))
        box = ui.modalityComboBox
        self.assertIn("PET (not enhanced)", [box.itemText(at) for at in range(box.count)])
        self.context.state.task = "noise"
        self.pick(box, "MR")
        self.processEvents(80)
        self.assertEqual(self.shown, "MR")
        self.assertTrue(ui.applyButton.enabled)
        self.assertIn("Removes noise, on the ", ui.planLabel.text)
        self.fits("OT", "MR")
        self.choose(self.smallVolume(name="echo"))
        self.assertIn("Is “echo” MR? Choose", ui.problemLabel.text)
        self.assertFalse(ui.applyButton.enabled)

    def test_aChoiceIsSavedWithTheSceneAndVoidForVoxelsOfAnotherKind(self):
        self.fits("MR", "CT")
        node = self.smallVolume(name="scan")
        frames = self.sequenceOf("film", [0, 1])
        for each in (frames, node):
            self.choose(each)
            self.pick(self.ui.modalityComboBox, "MR")
        self.throughAScene()
        for name in ("film", "scan"):
            self.choose(slicer.util.getNode(name))
            self.assertEqual(self.shown, "MR")
        node = slicer.util.getNode("scan")
        for modalities, shown in (
            (("CT", "MR"), "MR"),  # which it may be still
            (("CT",), "CT (guessed)"),
            (("CT", "EM"), ""),
            (("MR", "CT"), "MR"),  # as when it was chosen
        ):
            self.fits(*modalities)
            self.otherVoxels(node)
            self.assertEqual(self.shown, shown)
        self.fits("OT")
        self.otherVoxels(node)
        self.assertIn("Is “scan” CT or MR? Choose", self.ui.problemLabel.text)
        self.pick(self.ui.modalityComboBox, "MR")  # against all that the values say
        self.otherVoxels(node)
        self.assertEqual(self.shown, "MR")

    def test_theGuessIsMadeFromWholeSlicesOfAllOfALargeVolumeOnce(self):
        looks = []
        double = mock.patch.object(modality, "likely_modalities", create=True)
        likely = self.enterContext(double)
        likely.side_effect = lambda voxels, spacing: looks.append((voxels, spacing)) or ("MR",)
        node = slicer.util.addVolumeFromArray(np.zeros((40, 256, 300), np.uint8), name="large")
        slicer.util.arrayFromVolume(node)[...] = np.arange(40)[:, None, None]
        node.SetSpacing(1.0, 2.0, 3.0)
        for _look in range(3):
            self.assertTrue(self.bridge.isGuessed(node))
        ((voxels, spacing),) = looks
        self.assertEqual((voxels.shape[1:], spacing), ((256, 300), (1.0, 2.0, 3.0)))
        self.assertLess(voxels.size, 1_100_000)
        self.assertLess(voxels.min(), 5)
        self.assertGreater(voxels.max(), 34)

    def test_theSpacingIsPartOfTheGuess(self):
        node = self.smallVolume()
        self.choose(node)
        self.assertEqual(self.shown, "MR (guessed)")
        node.SetSpacing(1e-6, 1e-6, 1e-6)
        self.processEvents(80)
        self.assertEqual(self.shown, "Microscopy (guessed) (not enhanced)")

    @slow
    def test_applyConfirmsAGuessAndItsResultNamesItAfterTheVerdict(self):
        node = self.brain()
        self.choose(node)
        self.assertEqual(self.shown, "MR (guessed)")
        self.ui.noiseMapCheckBox.checked = True
        self.ui.applyButton.click()
        self.processEvents(80)
        self.assertEqual(self.shown, "MR")
        self.waitUntil(lambda: self.panel.job is None)
        guess = "MR (guessed from the values)."
        self.assertEqual(self.ui.factsLabel.text.splitlines()[1], guess)
        self.throughAScene()
        self.assertEqual(self.shown, "MR")
        self.assertEqual(self.ui.factsLabel.text.splitlines()[1], guess)
        self.apply()
        self.assertNotIn("guessed", self.ui.factsLabel.text)

    def test_aFileThatStatesAGuessSaysSo(self):
        node = self.smallVolume(name="scan")
        job = self.context.logic.save(node, f"{self.temporaryFolder()}/scan.nrrd", wait=False)
        self.finish(job)
        self.assertIn("scan: its values look like MR; if it is another", job.warnings[0])
        node.SetAttribute(self.bridge.MODALITY, "MR")
        job = self.context.logic.save(node, f"{self.temporaryFolder()}/scan.nrrd", wait=False)
        self.assertEqual(self.finish(job).warnings, [])
