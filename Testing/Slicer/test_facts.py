"""The facts of a result: warnings and what its uncertainty means, also in a scene opened later."""

import numpy as np
import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import slow

from MedEnhanceNodes import provenance
from MedEnhancePages import result_texts

_CALIBRATED = {"samples": 8, "calibration": {"fitted_on": "held-out heads", "sha256": "ab"}}


class FactsTest(EnhanceTestCase):
    def result(self, **results):
        """A result with an uncertainty map, whose manifest has `results`."""
        source = self.smallVolume(name="scan", modality="CT")
        model, manifest = {"name": "m", "sha256": "0f"}, {"device": "cpu", "results": results}
        return self.resultOf(source, model=model, manifest=manifest, uncertainty=source)

    @slow
    def test_warningsOfARunAreAmongItsFactsInASceneOpenedLater(self):
        node = self.smallVolume((12, 64, 64), name="noise", spacing=(1, 1, 4))
        noise = np.random.default_rng(3).rayleigh(100, (12, 64, 64)).astype(np.int16)
        slicer.util.updateVolumeFromArray(node, noise)
        node.SetAttribute(self.bridge.MODALITY, "MR")
        self.choose(node)
        self.ui.uncertaintyCheckBox.checked = True
        output = self.apply().nodes["output"]
        warnings = provenance.warningsOf(output)
        self.assertTrue(warnings)
        self.assertIn("no structure", self.ui.warningLabel.text)
        said = "\n".join([self.message, self.ui.warningLabel.text, self.ui.warningDetails.text])
        for _code, message, hint in warnings:  # each stands once
            self.assertEqual([said.count(message[1:]), said.count(hint[1:])], [1, 1])
        self.assertEqual(self.ui.warningIcon.accessibleName, "Severe warning")
        self.assertEqual(self.ui.strengthSlider.value, 1.0)
        shown = self.ui.warningLabel.text, self.ui.warningDetails.text, self.ui.factsLabel.toolTip
        self.throughAScene()
        now = self.ui.warningLabel.text, self.ui.warningDetails.text, self.ui.factsLabel.toolTip
        self.assertEqual(now, shown)

    def test_theWarningOfMostWeightStandsAboveTheResultInASentence(self):
        warnings = [
            {"code": "already-clean", "message": "a-model: clean", "hint": "gain little"},
            {"code": "no-structure", "message": "it is a leg", "hint": "check the model"},
        ]
        output = self.result(warnings=warnings)
        self.choose(self.results.linked(output, "input"))
        ui, page = self.ui, self.panel.widget
        self.assertEqual(ui.warningLabel.text, "It is a leg. And 1 more.")
        self.assertEqual(ui.warningIcon.accessibleName, "Severe warning")
        self.processEvents(20)
        self.assertLess(ui.warningFrame.y, ui.resultSelector.y)
        self.assertFalse(ui.warningDetails.isVisibleTo(page))
        ui.warningDetailsButton.click()
        self.assertTrue(ui.warningDetails.isVisibleTo(page))
        lines = ["Check the model.", "a-model: clean: gain little."]
        self.assertEqual(ui.warningDetails.text.splitlines(), lines)
        self.panel.result.showNew(output)  # as its voxels are
        self.assertEqual(ui.strengthSlider.value, 1.0)
        clean = self.result(warnings=warnings[:1])
        self.context.state.enhancedVolume = clean
        self.assertEqual(ui.warningLabel.text, "a-model: clean.")  # a name stays as it is
        self.assertEqual(ui.warningIcon.accessibleName, "Warning")
        self.assertFalse(ui.warningDetails.isVisibleTo(page))  # of another result
        self.context.state.enhancedVolume = self.result()
        self.assertFalse(ui.warningFrame.isVisibleTo(page))

    def test_aManifestOfAnotherHandBreaksNothing(self):
        output = self.result(warnings=7, uncertainty="big")
        self.assertIn("CPU", result_texts.factsOf(output))
        output.SetAttribute("MedEnhance.manifest", '{"results": 3, "config": []}')
        output.SetAttribute("MedEnhance.strength", "much")
        self.assertEqual(result_texts.factsOf(output), "Model m")
        self.assertEqual(result_texts.noticeOf(output), ("info", "", ""))

    def test_theFactsAreALineEachWithMoreInTheirToolTip(self):
        noise = {"sigma": 7.6, "share_removed": 0.19, "reason": "anatomy may be in it"}
        measured = {"noise": noise, "guide": {"used": 0.31}, "bias_field": {"corrected": True}}
        measured["blur"] = {"undone": False, "reason": "it is sharp"}
        output = self.result(measured=measured, uncertainty=_CALIBRATED)
        self.choose(self.results.linked(output, "input"))
        text = self.ui.factsLabel.text
        self.assertIn("±7.6 HU (1 SD); removed: 19 %, because anatomy may be in it.\nBlur", text)
        self.assertRegex(text, r"sharp\.\nBias .* \(N4\)\.\nThe guide .* 0\.31 SD .*\nModel m,")
        self.assertIn("1 SD, in HU. Calibrated on held-out heads", self.ui.factsLabel.toolTip)
        output.SetAttribute(self.results.STRENGTH, "0.5")  # set after the run
        self.assertIn("removed: 10 %", result_texts.factsOf(output))
        for more, text in (
            ({"is_stated": True, "share_removed": 1}, "Noise stated: ±7.6 HU (1 SD); removed: all"),
            ({"sigma_used": 5, "interval": [5, 11], "changed": 0.4}, "state it: Advanced → Noise."),
        ):
            output = self.result(measured={"noise": noise | more})
            self.assertIn(text, result_texts.factsOf(output))

    def test_theModelItsVersionDeviceAndTimeAreNamedInWords(self):
        output, model = self.result(), {"name": "m", "version": "1.2"}
        for manifest, text in (
            ({"device": "cuda:0", "seconds": 12}, "on the NVIDIA graphics card, 12 s"),
            ({"device": "xpu"}, "on the xpu"),
            ({}, ""),
        ):
            provenance.setManifest(output, manifest | {"model": model})
            expected = ", ".join(filter(None, ["Model m 1.2", text]))
            self.assertEqual(result_texts.factsOf(output), expected)
        output.RemoveAttribute("MedEnhance.model")
        provenance.setManifest(output, {"device": "cpu"})
        self.assertEqual(result_texts.factsOf(output), "On the CPU")

    def test_labelsOfOneResultDoNotLieOverAnother(self):
        first, second = self.result(), self.result()
        labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        labels.CreateDefaultDisplayNodes()
        self.results.link(first, segmentation=labels)
        self.context.state.inputVolume = self.results.linked(first, "input")
        self.context.state.enhancedVolume = first
        self.processEvents(80)
        self.assertTrue(self.panel.result.actions["segments"].checked)
        self.ui.resultSelector.setCurrentNode(second)
        self.assertFalse(labels.GetDisplayNode().GetVisibility())
        self.assertFalse(self.panel.result.actions["segments"].visible)
