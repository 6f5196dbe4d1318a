"""What is around the pages: the volume, Slicer's ways to load one, samples, the job that runs."""

import dataclasses
import types
from unittest import mock

import numpy as np
import qt
import slicer
from medenhance_testing import MedEnhanceTestCase, slow

from MedEnhanceLib.jobs.job import JOBS
from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import results
from MedEnhancePanels.tasks import samples


class VolumeRowTest(MedEnhanceTestCase):
    def actions(self):
        return {each.text: each for each in self.widget.volumeRow._menu.actions()}

    def test_theVolumeInTheSliceViewsIsChosenBeforehand(self):
        self.assertIsNone(self.context.state.inputVolume)
        self.widget.exit()
        first, shown = self.smallVolume(name="first"), self.smallVolume(name="shown")
        slicer.util.setSliceViewerLayers(background=None)
        self.widget.enter()
        self.assertIs(self.context.state.inputVolume, first)
        self.widget.exit()
        self.context.state.inputVolume = None
        slicer.util.setSliceViewerLayers(background=shown)
        self.widget.enter()
        self.assertIs(self.context.state.inputVolume, shown)
        self.assertIs(self.widget.ui.inputSelector.currentNode(), shown)

    def test_whatWasLoadedElsewhereIsChosenAndResultsAreNot(self):
        self.context.state.inputVolume = self.smallVolume(name="first")
        self.widget.exit()
        result = self.smallVolume(name="result")
        result.SetAttribute("MedEnhance.derived", "enhanced")
        self.widget.enter()
        self.assertEqual(self.context.state.inputVolume.GetName(), "first")
        self.widget.exit()
        loaded = self.smallVolume(name="loaded")
        self.widget.enter()
        self.assertIs(self.context.state.inputVolume, loaded)

    def test_whatIsLoadedIntoTheOpenModuleIsChosenWhereNothingIs(self):
        for name in ("first", "second"):
            self.widget.ui.inputSelector.setCurrentNode(None)
            self.processEvents(80)
            self.assertIsNone(self.context.state.inputVolume, name)
            loaded = self.loadSample()
            self.processEvents(80)
            self.assertIs(self.context.state.inputVolume, loaded, name)
        self.smallVolume()
        self.processEvents(80)
        self.assertIs(self.context.state.inputVolume, loaded)

    def test_addDataAndDicomAreSlicersOwn(self):
        actions = self.actions()
        before = self.smallVolume(name="before")
        self.context.state.inputVolume = before

        def dialog():
            self.smallVolume(name="added")

        with mock.patch.object(slicer.util, "openAddDataDialog", dialog, create=True):
            actions["Add data…"].trigger()
        self.assertEqual(self.context.state.inputVolume.GetName(), "added")
        with mock.patch.object(slicer.util, "selectModule") as selected:
            actions["DICOM…"].trigger()
            actions["More samples…"].trigger()
        self.assertEqual([call.args[0] for call in selected.mock_calls], ["DICOM", "SampleData"])


class RemovalTest(MedEnhanceTestCase):
    """Of nodes that are chosen: nothing else is chosen in their place."""

    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        self.page = self.widget.panels["enhance"].ui
        self.nodes = [self.smallVolume(name=name, modality="MR") for name in "ABCD"]
        self.processEvents(80)

    def remove(self, node):
        slicer.mrmlScene.RemoveNode(node)
        self.processEvents(80)

    def test_noSelectorTakesTheNeighborOfANodeThatWasRemoved(self):
        for selector, field in (
            (self.widget.ui.inputSelector, "inputVolume"),
            (self.page.guideSelector, "guideVolume"),
            (self.page.outputSelector, "outputVolume"),
        ):
            node = self.smallVolume(name="removed")
            node.SetAttribute("MedEnhance.derived", "enhanced")  # which an output has to be
            last = self.smallVolume(name="last")
            selector.setCurrentNode(node)
            self.assertIs(getattr(self.context.state, field), node, field)
            self.remove(node)
            self.assertIsNone(selector.currentNode(), field)
            self.assertIsNone(getattr(self.context.state, field), field)
            self.remove(last)

    def test_noOtherResultIsShownForOneThatWasRemoved(self):
        for node in self.nodes[1:]:
            results.stamp(node, "enhanced", self.nodes[0])
        self.smallVolume(name="E")
        self.widget.ui.inputSelector.setCurrentNode(self.nodes[0])
        self.processEvents(80)
        self.page.resultSelector.setCurrentNode(self.nodes[2])
        self.assertIs(self.context.state.enhancedVolume, self.nodes[2])
        self.remove(self.nodes[2])
        self.assertIsNone(self.page.resultSelector.currentNode())
        self.assertIsNone(self.context.state.enhancedVolume)


class SampleTest(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def test_theyAreInSlicersModuleAndTheFirstShowsAnEffect(self):
        import SampleData

        logic = SampleData.SampleDataLogic()
        samples.registerSampleData()
        names = [each.sampleName for each in logic.sampleDataSourcesByCategory("MedEnhance")]
        self.assertEqual(names[:2], ["MNI152T1-noisy", "MNI152T1-worn"])

    @slow
    def test_theNoiseIsAlwaysTheSameAndTheSampleIsChosen(self):
        actions = {each.text: each for each in self.widget.volumeRow._menu.actions()}
        runs = self.context.runner.submit("ping", {"count": 3, "seconds": 60}, title="Ping")
        actions[samples.SAMPLES[0].title].trigger()
        self.assertFalse(runs.isFinished)
        noisy = self.context.state.inputVolume
        self.assertIsNotNone(noisy, self.message)
        self.assertEqual(noisy.GetName(), "MNI152T1-noisy")
        self.assertIn("on purpose", noisy.GetAttribute("MedEnhance.notes"))
        again = samples.load(samples.SAMPLES[0])
        arrays = [slicer.util.arrayFromVolume(node) for node in (noisy, again)]
        np.testing.assert_array_equal(*arrays)

    def test_withoutNetworkTheOtherSamplesAreNamed(self):
        with self.assertRaises(PanelError) as caught:
            samples.load(samples.SAMPLES[2])
        self.assertIn("need no network", caught.exception.hint)


class JobBarTest(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        work = dataclasses.replace(JOBS["ping"], is_question=False)
        self.enterContext(mock.patch.dict(JOBS, {"ping": work}))

    def test_aJobIsSeenFromEveryPageAndInSlicersStatusBarAndCancelled(self):
        ui, window = self.widget.ui, qt.QMainWindow()
        job = self.context.runner.submit("ping", {"count": 600, "seconds": 60}, title="Ping")
        self.waitUntil(lambda: job.state == "running", 30)
        for name, *_page in self.widget.PAGES:
            self.widget.showPage(name)
            self.assertTrue(ui.jobFrame.isVisibleTo(self.widget.uiWidget))
        self.assertIn("Ping", ui.jobLabel.text)
        with mock.patch.object(slicer.util, "mainWindow", lambda: window):
            self.widget.exit()
        (label,) = slicer.util.findChildren(window.statusBar(), className="QLabel")
        self.assertIn("Ping", label.text)
        (button,) = slicer.util.findChildren(window.statusBar(), className="QPushButton")
        button.click()
        self.waitUntil(lambda: job.isFinished, 20)
        self.assertEqual(label.text, "")
        self.assertIn("Ping: stopped", ui.jobLabel.text)
        self.assertTrue(ui.jobCancelButton.isHidden())
        self.widget.enter()
        self.deleteWhatIsDue()
        self.assertEqual(slicer.util.findChildren(window.statusBar(), className="QLabel"), [])

    @slow
    def test_theLogIsAButton(self):
        ui = self.widget.ui
        files = {"input": "/nowhere.nii", "output": "/tmp/never-written.nii"}
        job = self.context.runner.submit("convert", files, title="Convert nothing")
        self.waitUntil(lambda: job.isFinished, 60)
        self.assertIn("Convert nothing: failed", ui.jobLabel.text)
        self.assertTrue(ui.logText.isHidden())
        ui.logButton.click()
        self.assertFalse(ui.logText.isHidden())
        self.assertIn("Traceback", ui.logText.plainText)
        ui.logButton.click()
        self.assertTrue(ui.logText.isHidden())


class InstallationTest(MedEnhanceTestCase):
    """Packages are installed by Slicer's own installer, after a question; never here."""

    def setUp(self):
        super().setUp()
        package = types.SimpleNamespace
        self.absent = [
            package(name="torch", requirement="torch>=2.5", purpose="enhancing", megabytes=4100),
            package(name="monai", requirement="monai>=1.4", purpose="heads", megabytes=1.7),
        ]
        self.installed, self.asked = [], []
        self.enterContext(mock.patch.object(dependencies, "missing", lambda: list(self.absent)))
        self.enterContext(mock.patch("slicer.packaging.pip_ensure", self.install))
        self.answer(True)

    def install(self, requirements, **how):
        self.assertFalse(how["prompt_install"], "it was asked already")
        self.installed.append(requirements)
        self.absent = []

    def answer(self, isAgreed):
        def confirm(text, *_arguments, **more):
            self.asked.append((text, more["detailedText"]))
            return isAgreed

        self.enterContext(mock.patch.object(slicer.util, "confirmOkCancelDisplay", confirm))

    def test_itAsksAndInstallsWhatIsMissingWithConsentAlone(self):
        self.answer(False)
        self.context.state.inputVolume = self.smallVolume(modality="MR")
        panel = self.widget.panels["enhance"]
        panel.update()
        self.assertIn("2 Python packages are missing", panel.ui.problemLabel.text)
        panel.ui.applyButton.click()
        self.assertIsNone(panel.job)
        self.assertEqual((len(self.asked), self.installed), (1, []))
        ((text, details),) = self.asked
        self.assertIn("4 GB", text)
        self.assertIn("torch>=2.5: enhancing", details)
        self.answer(True)
        self.assertTrue(dependencies.ensure() and dependencies.ensure())
        self.assertEqual((len(self.asked), self.installed), (2, [["torch>=2.5", "monai>=1.4"]]))

    def test_theCompiledLibraryIsOfferedOnceAndTheSlowPathStays(self):
        self.absent = []
        self.enterContext(mock.patch.object(dependencies, "_lacksLibrary", lambda: True))
        self.enterContext(mock.patch.object(dependencies, "_isCompilerOffered", False))
        self.answer(False)
        self.assertTrue(dependencies.ensure() and dependencies.ensure())
        ((text, details),) = self.asked
        self.assertIn("ten times as fast", text)
        self.assertIn("ziglang", details)
        self.enterContext(mock.patch.object(dependencies, "_isCompilerOffered", False))
        self.answer(True)
        self.assertTrue(dependencies.ensure())
        self.assertEqual(self.installed, [["ziglang>=0.13"]])

    def test_aMacWithAnIntelProcessorIsRefusedBeforeAnythingIsAskedOrDownloaded(self):
        """Slicer under Rosetta says that it is one."""
        self.enterContext(mock.patch("platform.system", return_value="Darwin"))
        self.enterContext(mock.patch("platform.machine", return_value="x86_64"))
        with self.assertRaisesRegex(PanelError, "use the Slicer that is built for it"):
            dependencies.ensure()
        self.assertEqual((self.asked, self.installed), ([], []))
        self.assertIn("Rosetta", dependencies.missingText())
        self.absent = self.absent[1:]  # where there is a PyTorch, the rest is installed
        self.assertTrue(dependencies.ensure())

    def test_theExtensionPyTorchChoosesTheBuild(self):
        chosen = []
        logic = types.SimpleNamespace(installTorch=lambda **how: chosen.append(how))
        module = types.SimpleNamespace(PyTorchUtilsLogic=lambda: logic)
        self.enterContext(mock.patch.dict("sys.modules", PyTorchUtils=module))
        self.enterContext(mock.patch.object(slicer.modules, "pytorchutils", module, create=True))
        self.assertTrue(dependencies.ensure())
        self.assertEqual(chosen[0]["torchVersionRequirement"], ">=2.5")
        self.assertEqual(self.installed, [["monai>=1.4"]])


class MissingTest(MedEnhanceTestCase):
    def test_whatSlicerIsBuiltWithIsNeverInstalledNorExchanged(self):
        from MedEnhanceLib.runtime import dependencies as library

        names = ("numpy", "SimpleITK", "monai")
        absent = [types.SimpleNamespace(name=name) for name in names]
        self.enterContext(mock.patch.object(library, "missing", lambda: absent))
        self.enterContext(mock.patch.object(dependencies, "_isComplete", False))
        self.assertEqual([package.name for package in dependencies.missing()], ["monai"])
