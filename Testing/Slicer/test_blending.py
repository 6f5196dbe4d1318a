"""Keeping a strength: the voxels that the library blends, its history, all or nothing."""

import json

import numpy as np
import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import slow
from test_compare import ViewTestCase


class KeepStrengthTest(ViewTestCase):
    def setUp(self):
        super().setUp()
        from MedEnhancePanels.nodes import provenance
        from MedEnhancePanels.tasks import blending

        self.blending, self.provenance = blending, provenance
        self.output = self.makeOutput()
        manifest = {"config": {"strength": 1.0}, "results": {"labels": [], "doubts": []}}
        self.provenance.setManifest(self.output, manifest)
        self.parts = [self.source, self.output]
        self.parts += [
            self.results.linked(self.output, role) for role in ("difference", "uncertainty")
        ]

    def voxels(self):
        return [slicer.util.arrayFromVolume(node).copy() for node in self.parts]

    def whatItIs(self):
        attributes = {
            name: self.output.GetAttribute(name) for name in self.output.GetAttributeNames()
        }
        return self.voxels(), attributes, self.output.GetDescription()

    def refused(self, *words, strength=0.5):
        """Keep a strength, which is refused in these words and changes nothing."""
        before = self.whatItIs()
        with self.assertRaises(Exception) as caught:
            list(self.blending.keepStrength(self.output, strength))
        for word in words:
            self.assertIn(word, caught.exception.message)
        np.testing.assert_equal(self.whatItIs(), before)

    def test_allVoxelsFollow(self):
        before = self.voxels()[0].astype(np.int32)
        list(self.blending.keepStrength(self.output, 0.25))
        _source, kept, difference, uncertainty = self.voxels()
        np.testing.assert_array_equal(kept, before + 5)
        self.assertEqual(kept.dtype, np.int16)
        np.testing.assert_array_equal(difference, 5.0)
        np.testing.assert_allclose(uncertainty, 25.0)  # √(20² + (0.75 · 20)²): noise comes back

    def test_theDifferenceIsThatOfTheRoundedVoxels(self):
        list(self.blending.keepStrength(self.output, 0.33))
        source, kept, difference, _uncertainty = self.voxels()
        np.testing.assert_array_equal(difference, kept.astype(np.float32) - source)
        np.testing.assert_array_equal(difference, 7.0)  # 6.6 is no int16

    def test_itIsWrittenDown(self):
        steps = self.provenance.historyOf(self.output)
        list(self.blending.keepStrength(self.output, 0.1 + 0.2))
        *earlier, last = self.provenance.historyOf(self.output)
        self.assertEqual(earlier, steps)
        self.assertTrue(last.startswith("DERIVED: blended with its input at strength 0.3 by"))
        blended = "DERIVED: enhanced, blended with its input at strength 0.3 by MedEnhance"
        self.assertIn(blended, self.output.GetDescription())
        self.assertEqual(self.results.strengthOf(self.output), 0.3)
        manifest = self.provenance.manifestOf(self.output)
        self.assertEqual(manifest, {"config": {"strength": 0.3}, "results": {"doubts": []}})

    def test_theViewsAreReported(self):
        before = self.output.GetImageData().GetMTime()
        list(self.blending.keepStrength(self.output, 0.5))
        self.assertGreater(self.output.GetImageData().GetMTime(), before)

    def test_aBlendIsNotBlendedAgain(self):
        list(self.blending.keepStrength(self.output, 0.5))
        self.refused("already blended with its input, at strength 0.5")
        self.output.RemoveAttribute("MedEnhance.strength")  # its history knows still
        self.refused("is blended with its input already")

    def test_whatIsNoPairIsRefused(self):
        self.source.SetOrigin(50.0, 0.0, 0.0)
        self.refused("scan enhanced", "lie elsewhere in space")
        slicer.util.updateVolumeFromArray(self.source, np.zeros((9, 24, 20), np.int16))
        self.refused("The size of scan has changed")
        self.results.link(self.output, input=None)
        self.refused("Its input is not in the scene")

    def test_voxelsThatAreExchangedMeanwhileEndItAndNothingIsChanged(self):
        for node in self.parts:
            steps = self.blending.keepStrength(self.output, 0.5)
            next(steps)
            slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node) + 1)
            before = self.whatItIs()
            with self.assertRaises(Exception) as caught:
                list(steps)
            expected = f"The voxels of {node.GetName()} were changed in the meantime"
            self.assertIn(expected, caught.exception.message)
            np.testing.assert_equal(self.whatItIs(), before)

    def test_anInputThatIsRemovedMeanwhileEndsIt(self):
        steps = self.blending.keepStrength(self.output, 0.5)
        next(steps)
        slicer.mrmlScene.RemoveNode(self.source)
        before = self.whatItIs()
        with self.assertRaises(Exception) as caught:
            list(steps)
        self.assertIn("scan was removed in the meantime", caught.exception.message)
        np.testing.assert_equal(self.whatItIs(), before)


class KeepOnThePageTest(EnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.node = self.brain()
        self.choose(self.node)

    def enhanced(self, strength):
        """A new result, with the slider at a strength."""
        output = self.apply().nodes["output"]
        self.ui.strengthSlider.value = strength
        return output

    def keep(self):
        self.assertTrue(self.ui.keepStrengthButton.enabled)
        self.ui.keepStrengthButton.click()
        self.waitUntil(lambda: not self.panel.result.isKeeping, 10)

    @slow
    def test_itIsWhatTheLibraryBlends(self):
        from MedEnhancePanels.nodes import provenance

        output = self.enhanced(0.4)
        expected, tags = self.libraryRun("blend", [self.node, output], "--strength", "0.4")
        self.keep()
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(output), expected)
        self.assertEqual(provenance.historyOf(output), tags["DERIVED"])
        self.assertEqual(provenance.manifestOf(output)["config"]["strength"], 0.4)

    @slow
    def test_itIsWhatARunAtThatStrengthGives(self):
        from MedEnhancePanels.nodes import provenance

        output = self.enhanced(0.4)
        self.keep()
        ran = self.widget.logic.enhance(self.node, strength=0.4)
        arrays = [slicer.util.arrayFromVolume(node) for node in (output, ran)]
        np.testing.assert_array_equal(*arrays)
        self.assertEqual(provenance.historyOf(output), provenance.historyOf(ran))

    @slow
    def test_aKeptUncertaintyIsThatOfARunAtThatStrength(self):
        self.ui.uncertaintyCheckBox.checked = True
        self.ui.samplesSpinBox.value = 2
        output = self.enhanced(0.4)
        self.keep()
        ran = self.widget.logic.enhance(self.node, strength=0.4, uncertainty=2)
        arrays = [
            slicer.util.arrayFromVolume(self.results.linked(node, "uncertainty"))
            for node in (output, ran)
        ]
        np.testing.assert_allclose(*arrays, rtol=1e-5)

    def test_itIsKeptOnceAndThePageSaysHowLongItCanBeUndone(self):
        self.enhanced(0.4)
        self.assertIn("until the scene is closed", self.ui.keepStrengthButton.toolTip)
        self.keep()
        self.assertIn("until the scene is closed", self.message)
        self.assertEqual(self.ui.strengthSlider.value, 1.0)
        self.assertIn("strength 0.40", self.ui.factsLabel.text)
        self.ui.strengthSlider.value = 0.5
        self.assertFalse(self.ui.keepStrengthButton.enabled)
        self.assertIn(
            "already blended with its input, at strength 0.4", self.ui.keepStrengthButton.toolTip
        )

    @slow
    def test_nothingIsStartedMeanwhile(self):
        hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        self.ui.batchButton.collapsed = False
        self.ui.batchSelector.setCurrentItem(hierarchy.GetItemParent(self.study) or self.study)
        self.ui.batchSelector.setCurrentItem(self.study)
        self.enhanced(0.4)
        self.processEvents(80)
        buttons = (self.ui.applyButton, self.ui.previewButton, self.ui.batchApplyButton)
        self.assertTrue(all(button.enabled for button in buttons))
        self.panel.result.keepStrength()
        self.assertTrue(self.panel.result.isKeeping)
        self.assertFalse(any(button.enabled for button in buttons))
        self.assertIn("strength has been applied", self.ui.applyButton.toolTip)
        self.waitUntil(lambda: not self.panel.result.isKeeping, 10)
        self.assertTrue(all(button.enabled for button in buttons))

    @slow
    def test_anExchangeMeanwhileIsReportedAndThePageGoesOn(self):
        output = self.enhanced(0.4)
        before = slicer.util.arrayFromVolume(output).copy()
        self.panel.result.keepStrength()
        slicer.util.updateVolumeFromArray(self.node, slicer.util.arrayFromVolume(self.node) + 1)
        self.waitUntil(lambda: not self.panel.result.isKeeping, 10)
        self.assertIn("The voxels of Brain were changed in the meantime", self.message)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(output), before)
        self.assertEqual(self.ui.strengthSlider.value, 0.4)
        self.assertTrue(self.ui.applyButton.enabled)

    @slow
    def test_itIsKeptWholly(self):
        """Also when the module goes, or another set of choices is shown, in the middle."""
        output = self.enhanced(0.5)
        state, area = self.context.state, self.panel.result
        expected = slicer.util.arrayFromVolume(self.node).astype(np.float32)
        expected += np.float32(0.5) * (slicer.util.arrayFromVolume(output) - expected)
        area.keepStrength()
        area._onStep()
        other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
        self.widget.ui.parameterNodeSelector.setCurrentNode(other)
        area.finish()
        self.assertFalse(area.isKeeping)
        self.assertEqual(state.strength, 1.0)
        kept = slicer.util.arrayFromVolume(output)
        np.testing.assert_allclose(kept, expected, atol=0.51)

    @slow
    def test_structuresOfTheFullResultAreCalledSo(self):
        self.ui.segmentCheckBox.checked = True
        output = self.enhanced(0.4)
        sentence = "The segmentation was made at strength 1."
        self.assertNotIn(sentence, self.ui.moreFactsLabel.text)
        self.keep()
        self.assertIn(sentence, self.ui.moreFactsLabel.text)
        self.assertNotIn(
            "labels", json.loads(output.GetAttribute("MedEnhance.manifest"))["results"]
        )
