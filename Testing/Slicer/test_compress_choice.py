"""What the page Compress works on and writes to, and what it shows of a file afterwards."""

import os
from unittest import mock

import qt
import slicer
from compress_testing import CompressTestCase

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import provenance, results


class ChoiceTest(CompressTestCase):
    def setUp(self):
        super().setUp()
        self.state = self.context.state
        self.source = self.smallVolume(name="scan")
        self.result = self.smallVolume(name="scan enhanced", seed=6)
        results.stamp(self.result, "enhanced", self.source)
        results.link(self.result, input=self.source)

    def enter(self):
        """Come from another page."""
        self.widget.showPage("jobs")
        self.widget.showPage("compress")
        return self.ui.inputSelector.currentNode()

    def look(self, volume, over=None, opacity=0.0):
        """Put volumes into the slice views."""
        slicer.util.setSliceViewerLayers(
            background=volume, foreground=over, foregroundOpacity=opacity
        )

    def test_theResultThatIsLookedAtIsOffered(self):
        self.state.inputVolume, self.state.enhancedVolume = self.source, self.result
        self.look(self.source)
        self.assertIs(self.enter(), self.source)
        self.look(self.source, over=self.result, opacity=0.7)
        self.assertIs(self.enter(), self.result)
        self.assertIs(self.state.compressVolume, self.result)
        self.assertIs(self.state.inputVolume, self.source)
        self.assertEqual(os.path.basename(self.panel.path), "scan enhanced.ucv")
        other = self.smallVolume(name="other")
        self.look(other)
        self.state.inputVolume = other
        self.assertIs(self.enter(), other)

    def test_aChoiceIsKeptAndChangesNothingOnEnhance(self):
        self.state.inputVolume = self.source
        self.enter()
        self.ui.inputSelector.setCurrentNode(self.result)
        self.assertIs(self.state.inputVolume, self.source)
        self.assertIs(self.enter(), self.result)
        slicer.mrmlScene.RemoveNode(self.result)
        self.assertIsNone(self.state.compressVolume)
        self.assertIsNone(self.enter(), "no other volume takes its place")

    def test_thePageLoadChoosesItsOwn(self):
        self.state.inputVolume = self.source
        self.enter()
        self.ui.inputSelector.setCurrentNode(self.result)
        self.widget.showPage("load")
        self.widget.panels["load"].ui.compressButton.click()
        self.assertIs(self.ui.inputSelector.currentNode(), self.source)

    def test_aSceneKeepsIt(self):
        self.state.inputVolume = self.source
        self.enter()
        self.ui.inputSelector.setCurrentNode(self.result)
        path = os.path.join(self.folder, "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(path)
        state = self.context.state
        self.assertEqual(self.enter().GetName(), "scan enhanced")
        self.assertEqual(state.inputVolume.GetName(), "scan")
        for name in ("compressVolume", "compressOffer"):  # as in an older scene
            setattr(state, name, None)
        self.assertEqual(self.enter().GetName(), "scan")


class PathTest(CompressTestCase):
    def test_aFolderThatIsMissingIsMadeByCompress(self):
        self.path = os.path.join(self.folder, "new", "deep", "scan.ucv")
        self.choose(self.smallVolume())
        self.assertIn("deep will be created", self.ui.whyLabel.text)
        self.assertFalse(self.ui.whyLabel.isHidden())
        self.assertFalse(os.path.exists(os.path.dirname(self.path)))
        self.assertEqual(self.compress().state, "done")
        self.assertTrue(os.path.isfile(self.path))

    def test_aFolderThatWasMadeForNothingGoesAgain(self):
        from MedEnhancePanels.tasks import compression

        path = os.path.join(self.folder, "new", "scan.ucv")
        asked = (self.context.runner, self.smallVolume(), path, compression.CompressOptions())
        with self.assertRaisesRegex(PanelError, "does not exist"):  # a script has not been asked
            compression.startCompress(*asked)
        job = compression.startCompress(*asked, makesFolder=True)
        job.cancel()
        self.waitUntil(lambda: job.isFinished, 20)
        self.assertEqual(os.listdir(self.folder), [])

    def test_thePathIsLookedAtAgainAfterTheDialogAndAtThePress(self):
        blocker = os.path.join(self.folder, "new")
        open(blocker, "wb").close()
        self.path = os.path.join(blocker, "scan.ucv")
        self.choose(self.smallVolume())
        self.assertFalse(self.ui.compressButton.enabled)

        def makeFolder(*_arguments):
            os.remove(blocker)
            os.mkdir(blocker)
            return ""  # and cancelled

        with mock.patch.object(qt.QFileDialog, "getSaveFileName", makeFolder):
            self.ui.pathButton.click()
        self.assertTrue(self.ui.compressButton.enabled, self.ui.whyLabel.text)
        with open(self.path, "wb") as file:
            file.write(b"precious")
        self.ui.compressButton.click()
        self.assertIn("exists already", self.ui.whyLabel.text)
        self.assertFalse(self.ui.replaceCheckBox.isHidden())
        with open(self.path, "rb") as file:
            self.assertEqual(file.read(), b"precious")

    def test_aNameIsSuggestedWhereTheLastFileLiesUntilTheUserTypesOne(self):
        self.choose(self.smallVolume(name="first"))
        self.compress()
        second, third = self.smallVolume(name="second"), self.smallVolume(name="third")
        self.ui.inputSelector.setCurrentNode(second)
        self.assertEqual(self.ui.pathEdit.text, os.path.join(self.folder, "second.ucv"))
        open(os.path.join(self.folder, "third.ucv"), "wb").close()
        self.ui.inputSelector.setCurrentNode(third)
        self.assertEqual(self.ui.pathEdit.text, os.path.join(self.folder, "third-2.ucv"))
        self.ui.pathEdit.text = "mine.ucv"
        self.ui.inputSelector.setCurrentNode(second)
        self.assertEqual(self.ui.pathEdit.text, "mine.ucv")


class AfterwardsTest(CompressTestCase):
    def test_theNewFileCanBeOpenedAtOnceAndItsResultStays(self):
        node = self.smallVolume()
        display = results.displayOf(node)
        display.SetWindowLevel(77, 33)
        self.context.state.inputVolume = node
        self.widget.showPage("jobs")
        self.widget.showPage("compress")  # which offers it
        self.ui.pathEdit.text = self.path
        self.compress()
        self.assertEqual(self.ui.fileEdit.text, self.path)
        opened = self.openFile().nodes["output"]
        self.assertFalse(self.ui.resultBox.isHidden())
        self.assertTrue(self.ui.whyLabel.isHidden(), self.ui.whyLabel.text)
        self.widget.showPage("jobs")
        self.widget.showPage("compress")
        self.assertIs(self.ui.inputSelector.currentNode(), node)
        self.assertIs(self.context.state.inputVolume, opened)
        shown = opened.GetDisplayNode()
        self.assertEqual((shown.GetWindow(), shown.GetLevel()), (77, 33))
        slicer.mrmlScene.RemoveNode(node)
        again = self.openFile().nodes["output"].GetDisplayNode()
        self.assertTrue(again.GetAutoWindowLevel())

    def test_aKeptStrengthDoesNotHideThatItIsEnhanced(self):
        node = self.smallVolume()
        enhanced = provenance.noteFor("enhanced", {"name": "mr", "sha256": "0" * 64})
        blended = provenance.noteFor("blended with its input at strength 0.5")
        provenance.takeFrom(node, {"DERIVED": [enhanced, blended]})
        for word in ("enhanced (mr", "blended with its input at strength 0.5", "research"):
            self.assertIn(word, node.GetDescription())
        self.assertEqual(node.GetDescription().count("DERIVED"), 1)
