"""The strength of a result: the voxels that the library blends, its history, all or nothing."""

import os
from unittest import mock

import numpy as np
import qt
import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import finished, slow
from test_compare import ViewTestCase

from MedEnhanceNodes import preview, provenance
from MedEnhancePanels import waiting
from MedEnhanceTasks import blending


class StrengthTest(ViewTestCase):
    def setUp(self):
        super().setUp()
        self.make()
        manifest = {"config": {"strength": "auto"}, "results": {"labels": [], "warnings": []}}
        provenance.setManifest(self.output, manifest)
        self.remember(self.output)

    def make(self):
        """Make a result; `parts` are its input, its voxels and its difference."""
        self.output = self.makeOutput("difference")
        self.parts = [self.source, self.output, self.results.linked(self.output, "difference")]

    def voxels(self):
        return [slicer.util.arrayFromVolume(node).copy() for node in self.parts]

    def whatItIs(self):
        names = self.output.GetAttributeNames()
        attributes = {name: self.output.GetAttribute(name) for name in names}
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

    def test_aNewDifferenceIsShownUpToThreeTimesTheNoiseWithThatOnItsScale(self):
        self.results.link(self.output, difference=None)
        noise = {"sigma": 4.0}
        provenance.setManifest(self.output, {"results": {"measured": {"noise": noise}}})
        waiting.wait(blending.startDifference(self.context.runner, self.output))
        made = self.results.linked(self.output, "difference")
        display = made.GetDisplayNode()
        self.assertEqual((display.GetWindow(), display.GetLevel()), (24.0, 0.0))
        legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(made)
        self.assertIn("(±3 SD of the noise)", legend.GetTitleText())

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

    def reload(self):
        self.throughAScene()
        names = ("scan", "scan enhanced", "scan difference")
        self.parts = [slicer.util.getNode(name) for name in names]
        self.output = self.context.state.enhancedVolume = self.parts[1]

    def full(self):
        return self.results.linked(self.output, "full")

    def test_belowOneTheFullResultIsAHiddenVolumeThatGoesWithItsResult(self):
        self.assertIsNone(self.full())
        whole = self.voxels()[1]
        self.set(0.5)
        full = self.full()
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(full), whole)
        self.assertTrue(full.GetHideFromEditors() and full.GetSaveWithScene())
        self.set(0.25)
        self.assertIs(self.full(), full)
        self.set(1.0)
        self.assertIsNone(self.full())
        self.assertFalse(self.bridge.isInScene(full))
        self.set(0.5)
        full = self.full()
        self.remove(self.output)
        self.assertFalse(self.bridge.isInScene(full))

    def test_afterASceneIsLoadedAnyStrengthFollowsAndTheFullResultComesBack(self):
        before = self.whatItIs()
        self.set(0.5)
        self.reload()
        slider = self.widget.panels["enhance"].ui.strengthSlider
        self.assertEqual((slider.value, slider.enabled), (0.5, True), slider.toolTip)
        self.set(0.25)
        np.testing.assert_array_equal(self.voxels()[1], self.voxels()[0] + 5)
        self.set(1.0)
        np.testing.assert_array_equal(self.voxels(), before[0])
        self.assertEqual(self.whatItIs()[2], before[2])

    def test_withoutTheFullResultTheStrengthStays(self):
        self.set(0.5)
        slicer.mrmlScene.RemoveNode(self.full())  # as in a scene that is no bundle
        self.refused("scene bundles", "change the strength 0.5, enhance again", strength=1.0)

    def test_aMapOfTheUncertaintyStaysAsItIsAndIsMarked(self):
        self.output = self.makeOutput("uncertainty")
        made = self.results.linked(self.output, "uncertainty")
        self.set(0.5)
        self.assertEqual({*slicer.util.arrayFromVolume(made).flat}, {20.0})
        legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(made)
        self.assertIn("for full strength", legend.GetTitleText())

    def add(self, number, value):
        node = self.parts[number]
        slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node) + value)

    def test_aLoadedResultIsBlendedWhereItsVoxelsAndItsInputsAreThoseOfItsRun(self):
        slider = self.widget.panels["enhance"].ui.strengthSlider
        self.reload()
        self.set(0.25)
        np.testing.assert_array_equal(self.voxels()[1], self.voxels()[0] + 5)
        self.set(1.0)
        for changed in (0, 1):
            self.add(changed, 9)
            self.reload()
            self.assertIn("were changed. Enhance again", slider.toolTip)
            self.assertFalse(slider.enabled)
            for strength in (0.5, 1.0):
                self.refused("were changed. Enhance again", strength=strength)
            self.add(changed, -9)
        self.reload()
        self.assertTrue(slider.enabled)

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
            self.add(number, 1)
            for strength in (0.25, 1.0):
                name = self.parts[number].GetName()
                self.refused(f"The voxels of {name} were changed", strength=strength)
            self.make()

    def test_voxelsThatAreExchangedMeanwhileEndItAndNothingIsChanged(self):
        for node in self.parts:
            self.remember(self.output)
            job = blending.start(self.context.runner, self.output, 0.5)
            slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node) + 1)
            before = self.whatItIs()
            with self.assertRaises(Exception) as caught:
                waiting.wait(job)
            expected = f"The voxels of {node.GetName()} were changed"
            self.assertIn(expected, caught.exception.message)
            np.testing.assert_equal(self.whatItIs(), before)


class SliderTest(ViewTestCase):
    """The slider and the views, without a run."""

    def setUp(self):
        super().setUp()
        self.output = self.makeOutput("difference")
        self.showPage("enhance")
        self.area, self.runner = self.panel.result, self.context.runner
        self.choose(self.source)
        self.pick(self.ui.compareComboBox, "single")
        self.before = slicer.util.arrayFromVolume(self.source).copy()

    def wait(self):
        self.waitUntil(lambda: self.area.job is None)

    def added(self):
        """What the voxels of the result have more than those of the input."""
        voxels = slicer.util.arrayFromVolume(self.output)
        return {int(each) for each in np.unique(voxels - self.before)}

    def shown(self):
        """What a view shows: the result alone, as its voxels are."""
        identifier, onTop = self.ids("Red")
        self.assertIsNone(onTop)
        return slicer.mrmlScene.GetNodeByID(identifier)

    def test_theEndOfADragIsWritten(self):
        (handle,) = slicer.util.findChildren(self.ui.strengthSlider, className="ctkSlider")
        handle.setSliderDown(True)
        for position in (15, 10, 5):
            handle.setSliderPosition(position)
            self.assertIs(self.shown(), self.output)
        self.panel.update()  # whatever happens meanwhile
        self.assertEqual((self.added(), self.area.job), ({20}, None))
        handle.setSliderDown(False)
        self.wait()
        self.assertEqual((self.added(), self.shown()), ({5}, self.output))
        self.assertEqual(self.ui.strengthSlider.value, 0.25)
        self.assertIn("Strength 0.25", self.ui.factsLabel.text)

    def test_aButtonAndTheKeyISwitchBetweenInputAndResultWhichStays(self):
        button = self.ui.inputButton
        self.assertEqual(button.shortcut, qt.QKeySequence("I"))
        for shown in (self.source, self.output):
            button.click()
            self.assertIs(self.shown(), shown)
            self.assertEqual(button.checked, shown is self.source)
        for mode, isOffered in (("rendering", False), ("single", True)):
            self.pick(self.ui.compareComboBox, mode)
            self.assertEqual(button.enabled, isOffered, mode)
        for leave in (lambda: self.widget.showPage("compress"), self.widget.exit):
            leave()
            self.assertIs(self.shown(), self.output, "the result stays")
            self.widget.enter()
            self.widget.showPage("enhance")
            self.pick(self.ui.compareComboBox, "sideBySide")

    def test_aBlendThatFailsLeavesTheSliderAtTheStrengthOfTheVoxels(self):
        self.ui.strengthSlider.value = 0.5
        slicer.mrmlScene.RemoveNode(self.source)
        self.wait()
        self.assertIn("Its input is not in the scene", self.message)
        self.assertEqual(self.ui.strengthSlider.value, 1.0)

    def test_theDifferenceFollowsTheStrengthAndGoesWithItsResult(self):
        self.remove(self.results.linked(self.output, "difference"))
        self.pick(self.ui.compareComboBox, "difference")
        self.waitUntil(lambda: self.area.compare.overlay == "difference")
        made = self.results.linked(self.output, "difference")
        self.assertEqual({*slicer.util.arrayFromVolume(made).flat}, {20.0})
        self.assertEqual(self.layers("Red").GetForegroundVolumeID(), made.GetID())
        self.ui.strengthSlider.value = 0.5
        self.wait()
        self.assertEqual({*slicer.util.arrayFromVolume(made).flat}, {10.0})
        self.remove(self.output)
        self.assertFalse(self.bridge.isInScene(made))

    def test_showHasWhatCanBeUsedAndLeavingTheModuleBringsTheLayoutBack(self):
        self.assertTrue(self.ui.showButton.isHidden())
        image = finished(self.bridge.readImage(np.ones((8, 24, 20), np.uint8)))
        label = [{"value": 1, "name": "all"}]
        labels = self.results.makeSegmentation(image, self.source, label, "labels")
        table = self.results.makeTable([], self.source, "table")
        limits = {"segmentation_limits": ["Trained on few.", "Measure nothing."]}
        limits["segmentation_warning"] = "Look; closely (at 1; 2)"  # is among the warnings
        provenance.setManifest(table, {"results": limits})
        provenance.setManifest(self.output, {"warnings": ["Look; closely (at 1; 2)", "Odd"]})
        self.results.link(self.output, segmentation=labels, table=table)
        self.area.leave()
        actions = self.area.actions
        shown = [name for name, action in actions.items() if action.checkable and action.visible]
        self.assertEqual(shown, ["segments", "surfaces", "table"])
        self.assertTrue(actions["editor"].visible)
        layout, before = preview.layoutNode(), self.everything()
        for press, arrangement in (
            (actions["surfaces"].trigger, layout.SlicerLayoutFourUpView),
            (actions["table"].trigger, layout.SlicerLayoutFourUpTableView),
            (lambda: self.area.choose("sideBySide"), layout.SlicerLayoutSideBySideView),
        ):
            press()
            self.wait()
            self.assertEqual(layout.GetViewArrangement(), arrangement)
            self.assertIn(self.ui.compareComboBox.currentData, ("single", "sideBySide"))
            isTable = arrangement == layout.SlicerLayoutFourUpTableView
            said = "Look; closely (at 1; 2). And 1 more."
            said += " Trained on few. Measure nothing." * isTable
            self.assertEqual(self.ui.warningLabel.text, said)
        kind = slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName()
        self.assertTrue(labels.GetSegmentation().ContainsRepresentation(kind))
        self.widget.exit()
        self.assertEqual(self.everything(), before)
        self.area.showNew(self.output)  # as a run that ends while another module is open
        self.assertEqual(self.everything(), before)

    def labeled(self):
        """Two segments of the result, with a table."""
        voxels = np.zeros((8, 24, 20), np.uint8)
        voxels[1:5, 3:12, 3:12], voxels[4:7, 14:20, 5:15] = 1, 2
        image = finished(self.bridge.readImage(voxels))
        names = [{"value": value, "name": name} for value, name in ((1, "first"), (2, "second"))]
        labels = self.results.makeSegmentation(image, self.source, names, "labels")
        table = self.results.makeTable([], self.source, "table")
        self.results.link(self.output, segmentation=labels, table=table)
        self.panel.update()
        return labels, table

    def test_theSegmentsOpenInTheSegmentEditorOverTheResult(self):
        labels, _table = self.labeled()
        other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "another")
        before = self.everything()
        self.area.choose("sideBySide")
        self.area.actions["editor"].trigger()
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        self.assertIs(editor.segmentationNode(), labels)
        self.assertIs(editor.sourceVolumeNode(), self.output)
        self.assertEqual(slicer.util.selectedModule(), "SegmentEditor")
        self.assertIsNot(editor.segmentationNode(), other)
        self.assertEqual(before[0], self.everything()[0], "the layout is the user's again")

    def test_usingTheResultDropsWhatWasForComparingAfterAQuestion(self):
        labels, table = self.labeled()
        noise = self.smallVolume(name="scan noise")
        self.results.link(self.output, noise=noise)
        second = self.makeOutput("difference")
        itsTable = self.results.makeTable([], self.source, "other table")
        self.results.link(second, table=itsTable)
        rest = [self.results.linked(self.output, "difference"), noise, second, itsTable]
        rest.append(self.results.linked(second, "difference"))
        self.context.state.enhancedVolume = self.output
        self.pick(self.ui.compareComboBox, "sideBySide")
        ask = "slicer.util.confirmOkCancelDisplay"
        with mock.patch(ask, return_value=False) as asked:
            self.ui.useButton.click()
        for node in rest:
            self.assertIn(node.GetName(), asked.call_args.args[0])
            self.assertTrue(self.bridge.isInScene(node))
        self.assertEqual(self.area.compare.mode, "sideBySide")
        with mock.patch(ask, return_value=True):
            self.ui.useButton.click()
        self.assertEqual([node for node in rest if self.bridge.isInScene(node)], [])
        for node in (self.source, self.output, labels, table):
            self.assertTrue(self.bridge.isInScene(node), node.GetName())
        self.assertEqual(self.area.compare.mode, "none")
        for name in ("Red", "Yellow", "Green"):
            self.assertEqual(self.ids(name)[0], self.output.GetID())
        with mock.patch(ask) as asked:  # with nothing to remove there is nothing to ask
            self.ui.useButton.click()
        asked.assert_not_called()

    def test_largeVoxelsOfALoadedSceneAreLookedAtInSteps(self):
        self.source = self.smallVolume((130, 256, 256), name="large")
        self.output = self.makeOutput("noise")
        self.choose(self.source)
        self.assertTrue(self.ui.strengthSlider.enabled)
        for number, isSame in ((1, False), (-1, True)):
            voxels = slicer.util.arrayFromVolume(self.source) + number
            slicer.util.updateVolumeFromArray(self.source, voxels.astype(np.int16))
            self.panel.update()
            self.assertIn("are being compared", self.ui.strengthSlider.toolTip)
            self.waitUntil(lambda: not self.runner.activeJobs())
            self.assertEqual(self.ui.strengthSlider.enabled, isSame)

    def test_theResultIsSavedWithItsManifestOrOpenedOnThePageCompress(self):
        path = os.path.join(self.temporaryFolder(), "better.nrrd")
        provenance.setManifest(self.output, {"action": "enhanced"})
        with mock.patch.object(qt.QFileDialog, "getSaveFileName", return_value=path):
            self.area.actions["save"].trigger()
        self.waitUntil(lambda: self.message, 60)
        self.assertIn("better.nrrd was written", self.message)
        self.assertTrue(os.path.exists(path) and os.path.exists(f"{path}.json"))
        self.area.actions["compress"].trigger()
        state = self.context.state
        self.assertEqual((state.page, state.inputVolume), ("compress", self.output))

    def test_whatIsOfFullStrengthSaysSoAtOthers(self):
        add, actions = slicer.mrmlScene.AddNewNodeByClass, self.area.actions
        labels, table = add("vtkMRMLSegmentationNode", "labels"), add("vtkMRMLTableNode", "table")
        labels.CreateDefaultDisplayNodes()
        self.results.link(self.output, segmentation=labels, table=table)
        for strength, suffix in ((0.5, " (for full strength)"), (1.0, "")):
            self.ui.strengthSlider.value = strength
            self.wait()
            names = [labels.GetName(), table.GetName()]
            self.assertEqual(names, [f"labels{suffix}", f"table{suffix}"])
            texts = [actions[name].text for name in ("segments", "table")]
            self.assertEqual({text.partition(" (")[2] for text in texts}, {suffix[2:]})

    def test_theLastValueCountsAndNothingIsStartedMeanwhile(self):
        self.ui.strengthSlider.value = 0.5
        self.assertIsNotNone(self.area.job)
        self.assertFalse(self.ui.previewButton.enabled or self.ui.saveButton.enabled)
        self.assertIn("end of: Strength of scan enhanced", self.ui.previewButton.toolTip)
        slicer.app.processEvents()
        self.ui.strengthSlider.value = 0.75
        self.wait()
        self.assertEqual(self.added(), {15})
        self.assertTrue(self.ui.saveButton.enabled)


class StrengthOfARunTest(EnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.node = self.brain()
        self.choose(self.node)

    def set(self, strength):
        self.assertTrue(self.ui.strengthSlider.enabled, self.ui.strengthSlider.toolTip)
        self.ui.strengthSlider.value = strength
        self.waitUntil(lambda: self.panel.result.job is None)

    @slow
    def test_itIsWhatARunAtThatStrengthGives(self):
        output = self.apply().nodes["output"]
        self.set(0.5)
        ran = self.widget.logic.enhance(self.node, strength=0.5)
        self.assertSameVoxels(output, ran)
        self.assertEqual(provenance.historyOf(output), provenance.historyOf(ran))
        self.context.state.enhancedVolume = ran
        self.assertIn("enhance again", self.ui.strengthSlider.toolTip)
