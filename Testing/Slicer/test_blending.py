"""The strength of a result: the voxels that the library blends, its history, all or nothing."""

import numpy as np
import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import slow
from test_compare import ViewTestCase

from MedEnhancePanels import waiting
from MedEnhancePanels.nodes import provenance
from MedEnhancePanels.tasks import blending


class StrengthTest(ViewTestCase):
    def setUp(self):
        super().setUp()
        self.output = self.makeOutput("difference")
        manifest = {"config": {"strength": "auto"}, "results": {"labels": [], "doubts": []}}
        provenance.setManifest(self.output, manifest)
        self.parts = [self.source, self.output, self.results.linked(self.output, "difference")]

    def voxels(self):
        return [slicer.util.arrayFromVolume(node).copy() for node in self.parts]

    def whatItIs(self):
        attributes = {
            name: self.output.GetAttribute(name) for name in self.output.GetAttributeNames()
        }
        return self.voxels(), attributes, self.output.GetDescription()

    def set(self, strength):
        waiting.wait(blending.start(self.context.runner, self.output, strength))

    def refused(self, *words, strength=0.5):
        """Set a strength, which is refused in these words and changes nothing."""
        before = self.whatItIs()
        with self.assertRaises(Exception) as caught:
            self.set(strength)
        for word in words:
            self.assertIn(word, caught.exception.message)
        np.testing.assert_equal(self.whatItIs(), before)

    def test_allVoxelsFollow(self):
        before = self.voxels()[0].astype(np.int32)
        self.set(0.25)
        _source, output, difference = self.voxels()
        np.testing.assert_array_equal(output, before + 5)
        self.assertEqual(output.dtype, np.int16)
        np.testing.assert_array_equal(difference, 5.0)

    def test_itIsWrittenDown(self):
        steps = provenance.historyOf(self.output)
        self.set(0.1 + 0.2)
        *earlier, last = provenance.historyOf(self.output)
        self.assertEqual(earlier, steps)
        self.assertTrue(last.startswith("DERIVED: blended with its input at strength 0.3 by"))
        self.assertEqual(self.output.GetDescription(), last)
        self.assertEqual(self.results.strengthOf(self.output), 0.3)
        manifest = provenance.manifestOf(self.output)
        self.assertEqual(manifest["config"], {"strength": 0.3})
        self.assertNotIn("labels", manifest["results"])

    def test_anyStrengthFollowsAndOneBringsTheFullResultBack(self):
        self.set(1.0)
        before = self.whatItIs()
        self.set(0.5)
        self.set(0.0)
        np.testing.assert_array_equal(self.voxels()[1], self.voxels()[0])
        self.set(0.25)
        once = self.whatItIs()
        self.set(1.0)
        np.testing.assert_equal(self.whatItIs(), before)
        self.set(0.25)
        np.testing.assert_equal(self.whatItIs(), once)

    def test_afterASceneIsLoadedOnlyAFullResultIsBlended(self):
        self.set(0.5)
        self.throughAScene()
        self.parts = [
            slicer.util.getNode(f"scan{name}") for name in ("", " enhanced", " difference")
        ]
        self.output = self.parts[1]
        self.refused("at strength 0.5", "Enhance again for another strength", strength=1.0)
        self.output.RemoveAttribute("MedEnhance.strength")  # its history knows still
        self.refused("is blended with its input already")

    def test_anUncertaintyMapKeepsItsStrength(self):
        made = self.bridge.newVolumeLike(self.source, "sd")
        self.results.link(self.output, uncertainty=made)
        self.refused("Its uncertainty map is of this strength")
        slicer.mrmlScene.RemoveNode(made)
        self.set(0.5)

    def test_whatIsNoPairIsRefused(self):
        self.source.SetOrigin(50.0, 0.0, 0.0)
        self.refused("scan enhanced", "positions in space differ")
        slicer.util.updateVolumeFromArray(self.source, np.zeros((9, 24, 20), np.int16))
        self.refused("The size of scan has changed")
        self.results.link(self.output, input=None)
        self.refused("Its input is not in the scene")

    def test_voxelsThatSomebodyChangedAreNotOverwritten(self):
        for number in range(3):
            self.set(0.5)
            node = self.parts[number]
            slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node) + 1)
            for strength in (0.25, 1.0):
                self.refused(f"The voxels of {node.GetName()} were changed", strength=strength)
            self.output = self.makeOutput("difference")
            difference = self.results.linked(self.output, "difference")
            self.parts = [self.source, self.output, difference]

    def test_voxelsThatAreExchangedMeanwhileEndItAndNothingIsChanged(self):
        for node in self.parts:
            blending.remember(self.output, self.bridge.voxelState(self.source))
            job = blending.start(self.context.runner, self.output, 0.5)
            slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node) + 1)
            before = self.whatItIs()
            with self.assertRaises(Exception) as caught:
                waiting.wait(job)
            expected = f"{node.GetName()} was changed or removed meanwhile"
            self.assertIn(expected, caught.exception.message)
            np.testing.assert_equal(self.whatItIs(), before)


class SliderTest(ViewTestCase):
    """The slider and the views, without a run."""

    def setUp(self):
        super().setUp()
        self.output = self.makeOutput("difference")
        self.panel = self.widget.panels["enhance"]
        self.ui, self.area = self.panel.ui, self.panel.result
        self.widget.showPage("enhance")
        self.widget.ui.inputSelector.setCurrentNode(self.source)
        self.processEvents(80)
        self.ui.differenceButton.click()
        self.ui.differenceButton.click()
        self.before = slicer.util.arrayFromVolume(self.source).copy()

    def wait(self):
        self.waitUntil(lambda: not self.area.isBlending, 10)

    def added(self):
        """What the voxels of the result have more than those of the input."""
        voxels = slicer.util.arrayFromVolume(self.output)
        return {int(each) for each in np.unique(voxels - self.before)}

    def shown(self):
        """What a view shows: the result alone, as its voxels are."""
        layers = self.layers("Red")
        self.assertIsNone(layers.GetForegroundVolumeID())
        return slicer.mrmlScene.GetNodeByID(layers.GetBackgroundVolumeID())

    def test_theEndOfADragIsWritten(self):
        (handle,) = slicer.util.findChildren(self.ui.strengthSlider, className="ctkSlider")
        handle.setSliderDown(True)
        for position in (15, 10, 5):
            handle.setSliderPosition(position)
            self.assertIs(self.shown(), self.output)
        self.panel.update()  # whatever happens meanwhile
        self.assertEqual((self.added(), self.area.isBlending), ({20}, False))
        handle.setSliderDown(False)
        self.wait()
        self.assertEqual((self.added(), self.shown()), ({5}, self.output))
        self.assertEqual(self.ui.strengthSlider.value, 0.25)
        self.assertIn("strength 0.25", self.ui.factsLabel.text)

    def test_theLastValueCountsAndNothingIsStartedMeanwhile(self):
        self.ui.strengthSlider.value = 0.5
        self.assertTrue(self.area.isBlending)
        self.assertFalse(self.ui.applyButton.enabled or self.ui.moreButton.enabled)
        self.assertIn("strength has been applied", self.panel._busy())
        slicer.app.processEvents()
        self.ui.strengthSlider.value = 0.75
        self.wait()
        self.assertEqual(self.added(), {15})
        self.assertTrue(self.ui.moreButton.enabled)


class StrengthOfARunTest(EnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.node = self.brain()
        self.choose(self.node)

    def set(self, strength):
        self.assertTrue(self.ui.strengthSlider.enabled, self.ui.strengthSlider.toolTip)
        self.ui.strengthSlider.value = strength
        self.waitUntil(lambda: not self.panel.result.isBlending, 10)

    @slow
    def test_itIsWhatARunAtThatStrengthGives(self):
        output = self.apply().nodes["output"]
        self.set(0.5)
        ran = self.widget.logic.enhance(self.node, strength=0.5)
        arrays = [slicer.util.arrayFromVolume(node) for node in (output, ran)]
        np.testing.assert_array_equal(*arrays)
        self.assertEqual(provenance.historyOf(output), provenance.historyOf(ran))
        self.context.state.enhancedVolume = ran
        self.assertIn("Enhance again", self.ui.strengthSlider.toolTip)
