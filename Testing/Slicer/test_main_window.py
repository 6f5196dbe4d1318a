"""What is around the pages: the volume, Slicer's ways to load one, samples, the job that runs."""

import dataclasses
import os
import unittest
from importlib import metadata
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
from medenhance_testing import MedEnhanceTestCase, slow

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.jobs.job import JOBS
from MedEnhanceLib.runtime import dependencies as library
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceNodes import preview, results
from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import PanelError
from MedEnhanceTasks import samples


class VolumeRowTest(MedEnhanceTestCase):
    def actions(self):
        return {each.text: each for each in self.widget.ui.loadButton.menu().actions()}

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
            self.choose(None)
            self.assertIsNone(self.context.state.inputVolume, name)
            loaded = self.loadSample()
            self.processEvents(80)
            self.assertIs(self.context.state.inputVolume, loaded, name)
        self.smallVolume()
        self.processEvents(80)
        self.assertIs(self.context.state.inputVolume, loaded)

    def test_addDataAndDicomAreSlicersOwn(self):
        actions = self.actions()
        self.context.state.inputVolume = self.smallVolume(name="before")

        def dialog():
            self.smallVolume(name="added")

        with mock.patch.object(slicer.util, "openAddDataDialog", dialog, create=True):
            actions["Add data…"].trigger()
        self.assertEqual(self.context.state.inputVolume.GetName(), "added")
        with mock.patch.object(slicer.util, "selectModule") as selected:
            actions["DICOM…"].trigger()
            actions["More samples…"].trigger()
        self.assertEqual([call.args[0] for call in selected.mock_calls], ["DICOM", "SampleData"])


class QuestionTest(MedEnhanceTestCase):
    @unittest.skipUnless(library.has_training(), "without the part that trains")
    def test_aRunEndsOnlyAfterAYesInSlicersOwnDialog(self):
        self.enterContext(mock.patch.object(type(slicer.app), "testingEnabled", lambda _app: False))
        self.showPage("train")
        run = mock.Mock(isActive=True, folder="nowhere", job=mock.Mock(wantsCancel=False))
        run.name = "my-run"
        self.panel.runs.begin(run)
        answers, asked = [qt.QMessageBox.Yes, None], []

        def answer():
            box = qt.QApplication.activeModalWidget()
            asked.append(box.text)
            answer = answers.pop()  # Enter presses the default
            (box.button(answer) if answer else box.defaultButton()).click()

        for count in (0, 1):
            qt.QTimer.singleShot(100, answer)  # while the click below waits
            self.ui.cancelButton.click()
            self.assertEqual(run.end.mock_calls, [mock.call()] * count)
        self.assertEqual(asked, ["End my-run for good? It cannot be resumed."] * 2)
        run.isActive = False
        self.panel.runs.recall("")


class RemovalTest(MedEnhanceTestCase):
    """Of nodes that are chosen: nothing else is chosen in their place."""

    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        self.page = self.widget.panels["enhance"].ui
        self.nodes = [self.smallVolume(name=name, modality="MR") for name in "ABCD"]
        self.processEvents(80)

    def test_noSelectorTakesTheNeighborOfANodeThatWasRemoved(self):
        for selector, field in (
            (self.widget.ui.inputSelector, "inputVolume"),
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
        self.choose(self.nodes[0])
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
        self.assertEqual(names, ["MNI152T1-noisy", "CTChest-low-dose", "DWI-ds000114"])

    @slow
    def test_theNoiseIsAlwaysTheSameAndTheSampleIsChosen(self):
        actions = {each.text: each for each in self.widget.ui.loadButton.menu().actions()}
        runs = self.context.runner.submit("ping", {"count": 3, "seconds": 60}, title="Ping")
        actions[samples.SAMPLES[0].title].trigger()
        self.assertFalse(runs.isFinished)
        noisy = self.context.state.inputVolume
        self.assertIsNotNone(noisy, self.message)
        self.assertEqual(noisy.GetName(), "MNI152T1-noisy")
        self.assertIn("on purpose", noisy.GetAttribute("MedEnhance.about"))
        self.assertSameVoxels(noisy, samples.load(samples.SAMPLES[0]))

    def test_theScanOfTheDemoIsLoadedAsItIsWithItsGradients(self):
        scan = samples.load(samples.SAMPLES[-1])
        self.assertEqual(scan.GetName(), "DWI-ds000114")
        self.assertEqual(scan.GetNumberOfDataNodes(), 16)
        self.assertIsNone(scan.GetAttribute("MedEnhance.notes"))
        voxels = me.load(
            resource_folder("samples") / samples.SAMPLES[-1].file, modality="MR"
        ).voxels
        self.assertTrue((slicer.util.arrayFromVolume(scan.GetNthDataNode(5)) == voxels[5]).all())

    def test_withoutNetworkTheOtherSamplesAreNamed(self):
        with self.assertRaisesRegex(PanelError, "need no network"):
            samples.load(samples.SAMPLES[1])


class JobBarTest(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        work = dataclasses.replace(JOBS["ping"], is_question=False)
        self.enterContext(mock.patch.dict(JOBS, {"ping": work}))

    def test_aJobIsSeenFromEveryPageAndInSlicersStatusBarAndCancelled(self):
        ui, window = self.widget.ui, qt.QMainWindow()
        job = self.context.runner.submit("ping", {"count": 600, "seconds": 60}, title="Ping")
        self.waitUntil(lambda: job.state == "running")
        for name, *_page in self.widget.PAGES:
            self.widget.showPage(name)
            self.assertTrue(ui.jobFrame.isVisibleTo(self.widget.uiWidget))
        self.assertIn("Ping", ui.jobLabel.text)
        with mock.patch.object(slicer.util, "mainWindow", lambda: window):
            self.widget.exit()
            self.assertRegex(window.statusBar().currentMessage(), r"· Ping \(\d+ %\)$")
            ui.jobCancelButton.click()
            self.waitUntil(lambda: job.isFinished)
        self.assertEqual(window.statusBar().currentMessage(), "")
        self.assertTrue(ui.jobFrame.isHidden())
        self.widget.enter()

    def test_theMenuOfAVolumeInDataOpensThePageWithIt(self):
        handler = slicer.qSlicerSubjectHierarchyPluginHandler.instance()
        plugin, hierarchy = handler.pluginByName("MedEnhance"), handler.subjectHierarchyNode()
        (action,) = plugin.itemContextMenuActions()
        first, second = self.smallVolume(name="first"), self.smallVolume(name="second")
        labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
        folder = hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "folder")
        items = [hierarchy.GetItemByDataNode(node) for node in (first, second, labels)]
        for item, isOffered in zip([*items, folder], (True, True, False, False), strict=True):
            plugin.showContextMenuActionsForItem(item)
            self.assertEqual(action.visible, isOffered)
        self.choose(first)
        self.widget.showPage("models")
        self.widget.parent.exit()
        handler.setCurrentItem(items[1])
        action.trigger()
        self.processEvents(80)
        state = self.context.state
        self.assertEqual((state.page, state.inputVolume), ("enhance", second))
        self.assertTrue(preview.isShown(second))

    def test_aUsualLineIsReadWholeInANarrowPanel(self):
        self.widget.parent.resize(400, 600)
        endless = (None for _step in iter(int, 1))
        job = self.context.runner.submit("", {}, title="Distill my-run", before=lambda _: endless)
        for _time in range(2):  # the bar has its width after the first one
            job.progress(0.1, "drawing synthetic volumes", 300)
            self.processEvents(20)
        line = "Drawing synthetic volumes, about 5 min left · Distill my-run"
        self.assertEqual(self.widget.ui.jobLabel.text, line)
        job.cancel()

    @slow
    def test_aLineStandsBelowThePagesWhileAJobRunsAndErrorsShowTheLog(self):
        ui, runner = self.widget.ui, self.context.runner
        job = runner.submit("ping", {"count": 600, "seconds": 60}, title="Ping " * 40)
        self.waitUntil(lambda: job.state == "running" and job.fraction > 0)
        self.processEvents(200)
        self.assertLess(ui.jobFrame.height, 85)
        job.cancel()
        self.waitUntil(lambda: job.isFinished)
        self.assertTrue(ui.jobFrame.isHidden())
        files = {"input": "/nowhere.nii", "output": "/tmp/never-written.nii"}
        job = runner.submit("convert", files, title="Convert nothing")
        job.keepLog("a line")
        self.waitUntil(lambda: job.isFinished, 60)
        self.assertTrue(ui.jobFrame.isHidden())
        for words in ("a line", "Traceback"):
            self.assertIn(words, job.error.details)


#: A module in place of pip, which says what it is asked for and goes on until a file is there.
PIP = """import os, sys, time
print(*sys.argv[1:], flush=True)
while not os.path.exists(os.environ["PIP_ENDS"]):
    time.sleep(0.01)
"""


class InstallationTest(MedEnhanceTestCase):
    """What is asked and handed over; nothing is installed here."""

    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.object(type(slicer.app), "testingEnabled", lambda _app: False))
        self.torch = library.Package("torch>=2.5", "torch", "networks", 4100, use="networks")
        self.small = library.Package("nibabel>=5.3", "nibabel", "NIfTI", 35)
        self.absent, self.installed = [self.torch, self.small], []
        self.enterContext(mock.patch.object(dependencies, "missing", self.missing))
        self.enterContext(mock.patch("slicer.packaging.pip_ensure", self.install))
        self.extend(None)
        self.panel, folder = self.widget.panels["enhance"], Path(self.temporaryFolder())
        self.addCleanup(self.panel.forget)  # a stub never ends
        (folder / "pip.py").write_text(PIP)
        self.end = folder / "end"
        paths = {"PYTHONPATH": str(folder), "PIP_ENDS": str(self.end)}
        self.enterContext(mock.patch.dict(os.environ, paths))
        self.confirm = mock.Mock(return_value=True)
        for name in ("confirmOkCancelDisplay", "confirmYesNoDisplay"):
            self.enterContext(mock.patch.object(slicer.util, name, self.confirm))

    def extend(self, manager):
        """Let Slicer have a manager of extensions, or none."""
        application = type(slicer.app)
        answer = mock.patch.object(application, "extensionsManagerModel", lambda _app: manager)
        self.enterContext(answer)

    def missing(self, use="networks"):
        return [each for each in self.absent if each.use in ("basic", use)]

    def install(self, requirements, constraints, prompt_install, requester):
        self.assertFalse(prompt_install, "it was asked already")
        self.installed.append((requirements, Path(constraints).read_text().split()))
        with mock.patch("slicer.packaging.isPipInstallInProgress", lambda: True):
            self.assertFalse(dependencies.ensure("basic"), "a second click meanwhile")
        self.absent = [self.torch] if self.torch in self.absent else []

    def begin(self):
        """Press Apply to segment too, agree, and wait until PyTorch is being installed; the job."""
        self.context.state.inputVolume = self.smallVolume(modality="MR")
        self.context.state.segment = True
        self.panel.update()
        self.panel.ui.applyButton.click()
        (job,) = self.context.runner.activeJobs()
        self.waitUntil(lambda: job.log)
        return job

    def test_pyTorchComesByAJobOnceAndThenTheActionGoesOn(self):
        job = self.begin()
        self.assertIn("Missing Python packages: 2 (about 4 GB", self.confirm.call_args.args[0])
        self.assertIn("torch>=2.5: networks", self.confirm.call_args.kwargs["detailedText"])
        self.assertIn("Install packages", self.widget.ui.jobLabel.toolTip)
        self.assertFalse(self.widget.ui.tabs.enabled or self.widget.ui.loadButton.enabled)
        self.panel.onApply()
        self.assertFalse(dependencies.ensure("basic"))
        self.confirm.assert_called_once()
        self.assertEqual(self.context.runner.activeJobs(), [job])
        self.assertRegex(job.log[0], "^install torch>=2.5 nibabel>=5.3 -c .*constraints.txt ")
        self.absent = []
        jobs = {"return_value": [mock.Mock()]}
        with mock.patch("MedEnhancePages.enhance.enhancement.start", **jobs) as start:
            self.end.touch()
            self.waitUntil(lambda: start.called)
        start.assert_called_once()
        self.assertTrue(self.widget.ui.tabs.enabled and self.widget.ui.loadButton.enabled)

    def test_pyTorchIsAskedForByTheNameOfSlicersExtension(self):
        manager = mock.Mock(**{"isExtensionInstalled.return_value": False}, interactive=True)
        manager.activeTasks = ()
        self.extend(manager)
        server, restart = manager.installExtensionFromServer, mock.Mock()
        self.enterContext(mock.patch.object(type(slicer.app), "confirmRestart", restart))
        self.assertIn("Slicer's extension PyTorch", dependencies.missingText())
        self.assertNotIn("extension", dependencies.missingText("basic"))
        self.confirm.side_effect = [True, False]  # the other packages, and not the extension
        self.assertFalse(dependencies.ensure())
        self.assertEqual(self.installed[0][0], ["nibabel>=5.3"], "MONAI would bring PyTorch too")
        self.assertIn("Slicer has to restart", self.confirm.call_args.args[0])
        server.assert_not_called()
        self.confirm.side_effect, server.side_effect = None, lambda *_: not manager.interactive
        self.assertFalse(dependencies.ensure())
        server.assert_called_once_with("PyTorch", False)
        self.assertTrue(manager.interactive)
        self.assertEqual((restart.call_count, self.context.runner.activeJobs()), (1, []))
        server.side_effect = lambda *_: False
        with self.assertRaisesRegex(PanelError, "could not be installed. Install it in Slicer's"):
            dependencies.ensure()
        with self.assertRaisesRegex(PanelError, "PyTorch comes with Slicer's extension PyTorch"):
            self.context.logic.installDependencies(confirm=True)

    def test_aCancelledInstallationIsReportedAndCanBeBegunAgain(self):
        job = self.begin()
        self.widget.ui.jobCancelButton.click()
        self.finish(job)
        self.assertEqual((job.state, self.message), ("cancelled", "Cancelled."))
        self.assertTrue(self.widget.ui.tabs.enabled and not dependencies.isInstalling())

    def test_whatNeedsNoTorchIsInstalledAtOnceBesideWhatIsThere(self):
        self.confirm.return_value = False
        self.assertFalse(dependencies.ensure("basic") or self.installed)
        self.confirm.return_value = True
        self.assertTrue(dependencies.ensure("basic"))
        self.assertIn("Missing Python packages: 1 (about 35 MB", self.confirm.call_args.args[0])
        ((requirements, constraints),) = self.installed
        self.assertEqual(requirements, ["nibabel>=5.3"])
        for name in ("torch", "numpy", "SimpleITK", "pydicom"):
            self.assertIn(f"{name}=={metadata.version(name)}", constraints)
        self.absent, inTheWay = [self.small], "    The user requested (constraint) numpy<=9,==2.0"
        fail = mock.Mock(side_effect=lambda *_all, **_more: print(inTheWay) or 1 / 0)
        self.enterContext(mock.patch("slicer.packaging.pip_ensure", fail))
        with self.assertRaisesRegex(PanelError, f"beside numpy {np.__version__}, .*Nothing was"):
            dependencies.ensure("basic")

    def test_aNoToTheCompilerIsRememberedWhereWorkGoesOnWithoutIt(self):
        self.absent = []
        self.enterContext(mock.patch.object(dependencies, "lacksLibrary", lambda: True))
        self.addCleanup(slicer.app.userSettings().remove, "MedEnhance/compilerDeclined")
        self.confirm.return_value = False
        self.assertTrue(dependencies.ensure("basic") and dependencies.ensure("basic"))
        self.confirm.assert_called_once()
        self.assertIn("which removes noise", self.confirm.call_args.args[0])
        self.assertTrue(dependencies.ensure("basic", needsLibrary=True))
        self.assertEqual(self.confirm.call_count, 2, "enhancing does not go on without it")
        hint = "It is not compiled. Run: python -P -m MedEnhanceLib.native.build"
        error = PanelError.fromLibrary("the filter needs the compiled library", hint, "dependency")
        self.assertEqual(
            error.hint, "It is not compiled. Press Install compiler… on the page Models."
        )
        self.confirm.return_value = True
        self.widget.showPage("models")
        button = self.widget.panels["models"].ui.compilerButton
        self.assertFalse(button.isHidden())
        button.click()
        self.assertEqual(self.installed[0][0], ["ziglang>=0.13"])

    def test_noiseIsRemovedWithoutPyTorch(self):
        self.absent = [self.torch]
        self.context.state.inputVolume = self.smallVolume(modality="MR")
        self.panel.update()
        self.assertNotIn("Missing", self.panel.ui.problemLabel.text)
        with mock.patch("MedEnhancePages.enhance.enhancement.start") as start:
            start.return_value = [mock.Mock()]
            self.panel.ui.applyButton.click()
        start.assert_called_once()
        self.confirm.assert_not_called()

    def test_aMacWithAnIntelProcessorRemovesNoiseAndSaysThatItRunsNoNetworks(self):
        self.enterContext(mock.patch.object(library, "is_intel_mac", lambda: True))
        self.enterContext(mock.patch.object(library, "has", lambda _module: False))
        with self.assertRaisesRegex(PanelError, "Networks do not run on this Mac.*Rosetta"):
            dependencies.ensure()
        self.absent = [self.torch]
        self.context.state.inputVolume = self.smallVolume(modality="MR")
        self.panel.update()
        self.assertTrue(self.panel.ui.applyButton.enabled)
        self.context.state.segment = True
        self.panel.update()
        self.assertIn("do not run on this Mac", self.panel.ui.problemLabel.text)
        self.assertFalse(self.panel.ui.applyButton.enabled)
        self.confirm.assert_not_called()
        self.assertTrue(dependencies.ensure("basic"))

    def test_samplesHaveATitleWhereSlicerTranslatesThat(self):
        import SampleData

        title = mock.Mock()  # since Slicer 5.13
        register = "registerCustomSampleDataCategory"
        self.enterContext(
            mock.patch.object(SampleData.SampleDataLogic, register, title, create=True)
        )
        samples.registerSampleData()
        title.assert_called_once_with("MedEnhance", "MedEnhance")
        self.assertEqual(
            len(SampleData.SampleDataLogic.sampleDataSourcesByCategory("MedEnhance")), 3
        )

    def test_aSampleAsksAndNeverFailsSilently(self):
        import SampleData

        source = SampleData.SampleDataLogic().sourceForSampleName("MNI152T1-noisy")
        self.confirm.return_value = False
        self.assertEqual(source.customDownloader(source), [])
        self.confirm.assert_called_once()
        with (
            mock.patch.object(dependencies, "ensure", side_effect=PanelError("no network")),
            mock.patch.object(slicer.util, "errorDisplay") as shown,
            self.assertRaises(PanelError),
        ):
            source.customDownloader(source)
        self.assertEqual(shown.call_args.args, ("no network",))

    def test_aScriptHasToAgreeAndNothingIsInstalledInTestingMode(self):
        logic = self.context.logic
        with (
            mock.patch.object(type(slicer.app), "testingEnabled", lambda _app: True),
            self.assertRaisesRegex(PanelError, "torch, nibabel. Testing mode installs none"),
        ):
            logic.installDependencies(confirm=True)
        with self.assertRaisesRegex(PanelError, r"torch, nibabel.*To agree: .*\(confirm=True"):
            logic.installDependencies()
        self.end.touch()
        with mock.patch.object(slicer.modules, "pytorchutils", create=True):  # the extension
            job = logic.installDependencies(confirm=True, wait=False)
        self.assertTrue(self.finish(job).log[0].startswith("install light-the-torch"))
        self.assertIn("torch>=2.5", logic.installDependencies(confirm=True))
        self.absent = []
        self.assertEqual(logic.installDependencies(), [])
