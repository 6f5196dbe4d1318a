"""First use: what is missing is said, asked for, installed in the background; failures explained.

Nothing is installed here: Slicer's installer is stood in for.
"""

import os
import sys
from unittest import mock

import qt
import slicer
from medenhance_testing import MedEnhanceTestCase, slow

from MedEnhanceLib.runtime.dependencies import Package
from MedEnhancePanels import dependencies
from MedEnhancePanels.pages import first_use

TORCH = Package("torch>=2.4", "torch", "enhancing, segmenting, training", 2900)
ITK = Package("SimpleITK>=2.4", "SimpleITK", "volume files", 53, installed="2.3.1")
CODECS = Package("imagecodecs>=2025.3.30", "imagecodecs", "compression", 28)


class Pip:
    """Slicer's packaging module: says lines from the event loop, then ends with a code."""

    def __init__(self, lines=(), code=0, onEnd=None):
        self.lines, self.code, self.onEnd = list(lines), code, onEnd
        self.calls, self.constraints, self._timers = [], "", []
        self.isBusy, self.delayMs = False, 30

    def pip_install(
        self,
        requirements,
        constraints=None,
        no_deps_requirements=None,
        skip_packages=None,
        blocking=True,
        show_progress=True,
        requester=None,
        logCallback=None,
        completedCallback=None,
    ):
        assert not blocking
        self.calls.append(list(requirements))
        with open(constraints, encoding="utf-8") as file:
            self.constraints = file.read()
        self.path = constraints
        self._later(logCallback, completedCallback)

    def executePythonModule(
        self, module, args, blocking=True, logCallback=None, completedCallback=None
    ):
        assert not blocking
        self.calls.append([module, *args])
        self._later(logCallback, completedCallback)

    def isPipInstallInProgress(self):
        return self.isBusy

    def _later(self, logCallback, completedCallback):
        self.isBusy = True

        def end():
            for line in self.lines:
                logCallback(line)
            self.isBusy = False
            if self.onEnd is not None and self.code == 0:
                self.onEnd()
            completedCallback(self.code)

        timer = qt.QTimer()
        timer.setSingleShot(True)
        timer.timeout.connect(end)
        timer.start(self.delayMs)
        self._timers.append(timer)


class FirstUseTestCase(MedEnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.lacking = [TORCH, ITK, CODECS]
        self.use(mock.patch.object(dependencies, "missing", self.missing))
        self.ask = self.use(mock.patch.object(slicer.util, "confirmOkCancelDisplay"))
        self.ask.return_value = True
        self.panel = first_use.FirstUsePanel(self.context)
        self.addCleanup(self.panel.cleanup)
        self.widget.uiWidget.layout().insertWidget(0, self.panel.widget)
        self.panel.enter()
        self.addCleanup(self.panel.widget.setParent, None)
        self.widget.showPage("load")

    def use(self, patch):
        self.addCleanup(patch.stop)
        return patch.start()

    def missing(self, computeOn="auto"):
        return list(self.lacking)

    def pip(self, *arguments, **options):
        pip = Pip(*arguments, **options)
        self.use(mock.patch.object(dependencies, "slicerPackaging", lambda: pip))
        self.use(mock.patch.object(slicer.util, "executePythonModule", pip.executePythonModule))
        return pip

    def install(self):
        self.panel.ui.installButton.click()
        self.waitUntil(lambda: self.panel.installation is None, 5)

    def done(self):
        self.lacking = []


class FirstUseTest(FirstUseTestCase):
    def test_whatIsMissingIsSaidWithItsSize(self):
        ui = self.panel.ui
        self.assertFalse(self.panel.widget.isHidden())
        self.assertIn("3 are missing", ui.introLabel.text)
        self.assertIn("3.0 GB", ui.introLabel.text)
        self.assertIn("3.0 GB", ui.installButton.text)
        rows = [ui.packageTable.item(row, 0).text() for row in range(ui.packageTable.rowCount)]
        self.assertEqual(rows, ["torch", "SimpleITK", "imagecodecs"])
        self.assertIn("2.3.1", ui.packageTable.item(1, 1).text())

    def test_nothingMissingShowsNothing(self):
        self.lacking = []
        self.panel.enter()
        self.assertTrue(self.panel.widget.isHidden())

    def test_nothingIsInstalledWithoutConsent(self):
        pip = self.pip()
        self.ask.return_value = False
        self.panel.ui.installButton.click()
        self.assertIn("3.0 GB", self.ask.call_args.args[0])
        self.assertEqual(pip.calls, [])
        self.assertIsNone(self.panel.installation)

    def test_aGoodInstallation(self):
        pip = self.pip(["Collecting torch>=2.4", "Downloading x.whl"], onEnd=self.done)
        self.panel.ui.installButton.click()
        self.assertIsNotNone(self.panel.installation)
        self.assertFalse(self.panel.ui.installButton.enabled)
        self.assertFalse(self.panel.ui.progressBar.isHidden())
        self.waitUntil(lambda: self.panel.installation is None, 5)
        self.assertEqual(pip.calls, [["torch>=2.4", "SimpleITK>=2.4", "imagecodecs>=2025.3.30"]])
        self.assertTrue(self.panel.widget.isHidden())
        self.assertIn("installed", self.widget.ui.messageLabel.text)
        self.assertIn("Downloading x.whl", self.panel.ui.logEdit.plainText)

    def test_whatIsThereStaysAtItsVersion(self):
        import numpy as np

        pip = self.pip(onEnd=self.done)
        self.install()
        self.assertIn(f"numpy=={np.__version__}", pip.constraints.splitlines())
        names = {line.partition("==")[0] for line in pip.constraints.splitlines()}
        self.assertFalse(names & {"torch", "simpleitk", "imagecodecs"})
        self.assertFalse(os.path.exists(pip.path))

    def test_theCpusPyTorchComesFromItsOwnPlace(self):
        pip = self.pip(onEnd=lambda: self.done() if len(pip.calls) == 2 else None)
        self.panel.ui.computeComboBox.setCurrentIndex(1)
        with mock.patch.object(dependencies.sys, "platform", "linux"):
            self.install()
        self.assertEqual(pip.calls[0][:2], ["torch>=2.4", "--index-url"])
        self.assertIn("/cpu", pip.calls[0][2])
        self.assertEqual(pip.calls[1], ["SimpleITK>=2.4", "imagecodecs>=2025.3.30"])

    def test_theExtensionPyTorchIsHonoured(self):
        self.use(mock.patch.object(slicer.modules, "pytorchutils", object(), create=True))
        pip = self.pip(onEnd=lambda: self.done() if len(pip.calls) == 3 else None)
        self.panel.refresh()
        self.assertIn("extension PyTorch", self.panel.ui.computeLabel.text)
        self.install()
        self.assertIn("light-the-torch", pip.calls[0][0])
        self.assertEqual(pip.calls[1][:3], ["light_the_torch", "install", "torch>=2.4"])
        self.assertEqual(pip.calls[2], ["SimpleITK>=2.4", "imagecodecs>=2025.3.30"])

    def test_onWindowsACardGetsItsBuildWithoutTheExtensionToo(self):
        """The package index has none for it."""
        for computeOn, expected in ((0, "light_the_torch"), (1, "torch>=2.4")):
            self.lacking = [TORCH]
            pip = self.pip()
            pip.onEnd = lambda pip=pip, expected=expected: (
                self.done() if expected in pip.calls[-1] else None
            )
            self.panel.ui.computeComboBox.setCurrentIndex(computeOn)
            with mock.patch.object(dependencies.sys, "platform", "win32"):
                self.install()
            self.assertEqual(pip.calls[-1][0], expected)

    def test_aFolderOfWheelsNeedsNoNetwork(self):
        folder = self.temporaryFolder()
        pip = self.pip(onEnd=self.done)
        self.panel.installFromFolder(folder)
        self.waitUntil(lambda: self.panel.installation is None, 5)
        self.assertIn("0 wheels", self.ask.call_args.args[0])
        self.assertEqual(pip.calls[0][-3:], ["--no-index", "--find-links", folder])
        self.assertTrue(self.panel.widget.isHidden())

    def test_failuresNameTheirCauseAndRemedy(self):
        refused = "Failed to establish a new connection: [Errno 111] Connection refused"
        cases = (
            (refused, "cannot be reached", "folder of wheels"),
            ("ERROR: [Errno 28] No space left on device", "disk is full", "Free some space"),
            (
                "ERROR: ResolutionImpossible: for help visit",
                "Another extension",
                "update or remove that",
            ),
            ("PermissionError: [Errno 13] Permission denied: 'x'", "not writable", "Close other"),
            ("ERROR: something else", "could not be installed", "end of the log"),
        )
        for line, message, hint in cases:
            with self.subTest(line):
                self.pip(["Collecting torch", line], code=1)
                self.install()
                text = self.panel.ui.statusLabel.text
                self.assertIn(message, text)
                self.assertIn(hint, text)
                self.assertIn(line, self.panel.ui.logEdit.plainText)
                self.assertFalse(self.panel.ui.logButton.collapsed)
                self.assertTrue(self.panel.ui.installButton.enabled)
                self.assertTrue(self.panel.ui.progressBar.isHidden())

    def test_aWheelThatTheFolderLacks(self):
        line = "ERROR: No matching distribution found for torch>=2.4"
        self.pip([line], code=1)
        self.panel.installFromFolder(self.temporaryFolder())
        self.waitUntil(lambda: self.panel.installation is None, 5)
        self.assertIn("missing in the folder", self.panel.ui.statusLabel.text)
        self.assertIn("pip download", self.panel.ui.statusLabel.text)

    def test_anInstallerThatRaises(self):
        pip = self.pip()
        pip.pip_install = mock.Mock(side_effect=RuntimeError("already in progress"))
        self.install()
        self.assertIn("could not be installed", self.panel.ui.statusLabel.text)
        self.assertTrue(self.panel.ui.installButton.enabled)

    def test_anInstallerThatIsDoneAtOnce(self):
        """As Slicer's in testing mode, which calls nobody back."""
        pip = self.pip()
        pip.pip_install = lambda *_arguments, **_options: self.done()
        self.install()
        self.assertTrue(self.panel.widget.isHidden())

    def test_pipSaysWellButSomethingIsStillMissing(self):
        self.pip()
        self.install()
        self.assertIn("still missing: torch", self.panel.ui.statusLabel.text)
        self.assertIn("Restart Slicer", self.panel.ui.statusLabel.text)

    def test_theModuleClosesDuringAnInstallation(self):
        pip = self.pip(["Collecting torch"], onEnd=self.done)
        self.panel.ui.installButton.click()
        self.panel.cleanup()
        self.waitUntil(lambda: not pip.isBusy, 5)
        self.assertNotIn("Collecting", self.panel.ui.logEdit.plainText)

    @slow
    def test_theComputerIsCheckedInAnotherProcess(self):
        self.panel.ui.checkButton.click()
        self.waitUntil(lambda: self.panel._doctor.isFinished, 60)
        self.assertIn("Computes on: cpu", self.panel.ui.computerLabel.text)
        self.assertIn("free", self.panel.ui.computerLabel.text)

    @slow
    def test_screenshots(self):
        self.screenshot(self.widget.parent, "first-use-missing", height=760)
        pip = self.pip(["Collecting torch>=2.4", "  Downloading torch-2.9.whl (899.8 MB)"])
        pip.delayMs = 500
        self.panel.ui.installButton.click()
        for line in pip.lines:
            self.panel._onLine(line)
        self.screenshot(self.widget.parent, "first-use-installing", height=760)
        pip.lines.append("ERROR: Failed to establish a new connection: [Errno 111]")
        pip.code = 1
        self.waitUntil(lambda: self.panel.installation is None, 5)
        self.screenshot(self.widget.parent, "first-use-failed", height=760)


class MissingTest(MedEnhanceTestCase):
    def setUp(self):
        super().setUp()
        patch = mock.patch.object(dependencies, "_complete", set())
        patch.start()
        self.addCleanup(patch.stop)

    def test_theModuleOpensWithThePageAboveItsTabs(self):
        with mock.patch("MedEnhanceLib.runtime.dependencies.missing", return_value=[TORCH]):
            slicer.util.reloadScriptedModule("MedEnhance")
            self.addCleanup(slicer.util.reloadScriptedModule, "MedEnhance")
            widget = slicer.util.getModuleWidget("MedEnhance")
            panel = widget.panels["firstUse"]
            self.assertFalse(panel.widget.isHidden())
            self.assertEqual(widget.ui.tabs.count, len(widget.PAGES))
        widget.enter()  # another extension brought it meanwhile
        self.assertTrue(panel.widget.isHidden())

    def test_whatIsCompleteIsLookedForOnceUntilAFolderChanges(self):
        folder = self.temporaryFolder()
        dependencies.missing()
        found = mock.patch("MedEnhanceLib.runtime.dependencies.missing", return_value=[TORCH])
        with found as look, mock.patch("sys.path", [*sys.path, folder]):
            self.assertEqual(dependencies.missing(), [TORCH])
            look.return_value = []
            self.assertEqual(dependencies.missing(), [])
            self.assertEqual(dependencies.missing(), [])
            self.assertEqual(look.call_count, 2)
            os.makedirs(os.path.join(folder, "package"))
            os.utime(folder, ns=(1, 1))
            self.assertEqual(dependencies.missing(), [])
            self.assertEqual(look.call_count, 3)

    def test_everythingIsHereAndNothingIsImportedToSee(self):
        self.assertEqual(dependencies.missing(), [])
        self.assertNotIn("firstUse", self.widget.panels)
