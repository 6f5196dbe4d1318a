"""The facts of a result: warnings and what its uncertainty means, also in a scene opened later."""

import re
from unittest import mock

import numpy as np
import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import slow

from MedEnhanceLib import errors as library
from MedEnhanceLib.bundles.suitability import ModelWarning
from MedEnhanceLib.runtime.texts import TEMPLATES, text
from MedEnhanceNodes import provenance
from MedEnhancePages import result_texts
from MedEnhancePanels import errors, messages


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

    def test_findingsAreTranslatedByTheirKeys(self):
        reason = text("weak")
        noise = {"sigma": 20.0, "share_removed": 0.5, "changed": 10.0, "reason": reason.to_json()}
        words = [ModelWarning("no-structure").to_json()]
        output = self.result(measured={"noise": noise}, warnings=words)
        german = {
            "removed_share": "entfernt {changed}, etwa {percent} % des Fehlers",
            "weak": "es schwach ist",
            "no-structure": "das Volumen zeigt nur Rauschen",
        }
        table = {TEMPLATES[key]: there for key, there in german.items()}
        with mock.patch.object(messages, "translate", lambda _context, text: table.get(text, text)):
            lines = result_texts.findingsOf(output)
            warning = provenance.warningsOf(output)[0][1]
        self.assertEqual(lines[0], "Entfernt ±10, etwa 15\u00a0% des Fehlers.")
        self.assertIn("because es schwach ist", lines[1])
        self.assertEqual(warning, german["no-structure"])

    def test_directionsNameWhatThePageHas(self):
        said = messages.translated(text("measure", command="medenhance noise", place="1,2,3"))
        self.assertEqual(said, "to measure σ in even tissue: Measure in a region…, above Apply")
        self.assertEqual(messages.translated(text("find_even_tissue", command="medenhance")), said)
        said = messages.translated(text("state_noise", sigma="±7", run="medenhance", noise=7.0))
        self.assertNotIn("medenhance", said)
        self.ui.regionButton.visible = True  # one that is hidden stays where it was
        self.processEvents(50)
        self.assertLess(self.ui.regionButton.y, self.ui.applyButton.y)

    def test_aMadeUpLanguageLeavesNoEnglishInVerdictFactsStagesAndErrors(self):
        """Numbers, names and signs stay."""

        def madeUp(_context, text):
            return re.sub(r"(\{[^}]*\})|[A-Za-z]", lambda each: each[1] or "x", text)

        reason = text("weak").to_json()
        noise = {"sigma": 20.0, "units": "HU", "share_removed": 0.5, "changed": 10.0}
        measured = {"noise": noise | {"reason": reason}, "bias_field": {"corrected": True}}
        output = self.result(measured=measured, warnings=[ModelWarning("no-structure").to_json()])
        job = self.context.runner.submit("", {}, title="")
        self.choose(self.results.linked(output, "input"))
        with mock.patch.object(messages, "translate", madeUp):
            lines = [*result_texts.findingsOf(output), *provenance.warningsOf(output)[0][1:]]
            fields = {"event": "progress", "fraction": 0.5, "stage": "removing noise"}
            self.context.runner._onFields(job, fields)
            self.panel.noise.take({"noise": noise | text("weak").to_json()})
            lines += [job.stage, self.ui.verdictLabel.text]
        with mock.patch.object(errors, "translate", madeUp):
            kinds = {each.code for each in vars(library).values() if hasattr(each, "code")}
            for kind in kinds - {"cancelled"}:
                error = errors.PanelError.fromLibrary("scan.nii is damaged", "Copy it.", kind)
                lines.append(error.text)
                self.assertIn("scan.nii is damaged. Copy it", error.shown)
        words = re.findall("[A-Za-z]+", " ".join(lines))
        self.assertGreater(len(words), 20)
        self.assertEqual(
            {word for word in words if set(word.lower()) != {"x"}}, {"HU", "SD"} & {*words}
        )

    def test_aManifestOfAnotherHandBreaksNothing(self):
        output = self.result(warnings=7, uncertainty="big")
        self.assertIn("CPU", result_texts.factsOf(output))
        output.SetAttribute("MedEnhance.manifest", '{"results": 3, "config": []}')
        output.SetAttribute("MedEnhance.strength", "much")
        self.assertEqual(result_texts.factsOf(output), "Model m")

    def test_aMethodWithoutWeightsIsNoModel(self):
        for sha256, said in (("", "Method m"), ("0f", "Model m")):
            model = {"name": "m", "sha256": sha256}
            output = self.resultOf(self.smallVolume(), model=model, manifest={"model": model})
            self.assertEqual(result_texts.factsOf(output), said)
        self.assertEqual(result_texts.noticeOf(output), ("info", "", ""))

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
