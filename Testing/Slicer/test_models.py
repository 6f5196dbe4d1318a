"""The page Models: listed and imported by the real worker."""

import os
import shutil
from pathlib import Path
from unittest import mock

import qt
import slicer
from medenhance_testing import MedEnhanceTestCase, copyOfModel, slow

from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import PanelError

#: The codec's networks are chosen by the codec itself, and are no choice of a user.
SHIPPED = sorted(
    each.name
    for each in resource_folder("models").iterdir()
    if each.is_dir() and not each.name.startswith("codec-")
)


class ModelsTest(MedEnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.temporaryFolder()
        self.installed = os.path.join(self.folder, "installed")
        self.enterContext(mock.patch.dict(os.environ, MEDENHANCE_MODELS=self.installed))
        self.context.runner.shutdown()  # a worker of an earlier test knows another folder
        self.addCleanup(self.context.runner.shutdown)
        self.panel = self.widget.panels["models"]
        self.panel.ui.modelList.clear()
        self.panel.models = []
        self.widget.showPage("models")

    def importFrom(self, path):
        """Press Import, and choose the file in the dialog; the job at its end."""
        self.waitUntil(lambda: self.panel.ui.importButton.enabled)
        with mock.patch.object(qt.QFileDialog, "getOpenFileName", return_value=path):
            self.panel.ui.importButton.click()
        return self.finish(self.panel.job)

    def listed(self):
        """Names of the models in the list, sorted."""
        box = self.panel.ui.modelList
        return sorted(box.item(row).text().partition(":")[0] for row in range(box.count))

    def refresh(self):
        self.panel.enter()
        self.waitUntil(lambda: self.panel.job is None, 60)

    def bundle(self):
        """A zip of a model that ships, under a name of its own."""
        folder = Path(self.folder, "zipped")
        copyOfModel("mr-slices", folder / "mine")
        return shutil.make_archive(str(folder), "zip", folder)

    def test_brokenPackagesAreInstalledAgainInTheirVersionsIfAgreed(self):
        packages = [
            {"name": "torch", "installed": "2.6.0", "fault": "libcudart.so is missing"},
            {"name": "nibabel", "installed": "5.3", "fault": ""},
            {"name": "av", "installed": None, "fault": ""},
        ]
        ask = "slicer.util.confirmOkCancelDisplay"
        with mock.patch.object(self.context.runner, "submit") as submit:
            with mock.patch(ask, return_value=False) as asked:
                dependencies.repair(self.context, packages)
            submit.assert_not_called()
            lines = ["torch 2.6.0 libcudart.so is missing", "nibabel 5.3"]
            self.assertEqual(asked.call_args.kwargs["detailedText"].splitlines(), lines)
            with mock.patch(ask, return_value=True):
                dependencies.repair(self.context, packages)
        kind, params = submit.call_args.args
        wanted = {"requirements": ["torch==2.6.0"], "reinstalls": True, "chooses_build": False}
        self.assertEqual((kind, params), ("install", wanted))
        dependencies.repair(self.context, packages[1:])
        self.assertEqual(self.message, "All packages that are installed can be loaded.")
        hint = "Repair what the reason names: a system library. Or install torch again."
        error = PanelError.fromLibrary("torch cannot be loaded", hint, "dependency")
        self.assertIn("Repair packages… on the page Models", error.text)

    def choose(self, name):
        names = [model["name"] for model in self.panel.models]
        self.panel.ui.modelList.currentRow = names.index(name)

    @slow
    def test_thePageListsWhatIsInstalledWhenItIsShown(self):
        self.refresh()
        self.assertEqual(self.listed(), SHIPPED)
        ui = self.panel.ui
        self.choose("ct-slices")
        self.assertIn("Measured", ui.cardBrowser.toPlainText())
        title = "ct-slices: makes thin slices of CT (default)"
        self.assertEqual(ui.modelList.currentItem().text(), title)
        self.assertFalse(ui.defaultButton.enabled)
        for words in ("Version 0.1.0", "Apache-2.0", "Came with MedEnhance"):
            self.assertIn(words, ui.summaryLabel.text)
        self.choose("brain")
        self.picture("models-ready", height=700)
        self.assertFalse(ui.cardBrowser.horizontalScrollBar().visible)

    @slow
    def test_aModelIsImportedAndADamagedOneIsNotListed(self):
        self.refresh()
        archive = self.bundle()
        self.importFrom(archive)
        self.assertEqual(self.listed(), sorted([*SHIPPED, "mine"]))
        self.assertIn("mine is installed", self.message)
        self.assertEqual(self.panel.selected["name"], "mine")
        ui = self.panel.ui
        self.assertNotIn("(default)", ui.modelList.currentItem().text())
        ui.defaultButton.click()
        self.waitUntil(lambda: self.panel.job is None, 60)
        self.assertIn("(default)", ui.modelList.currentItem().text())
        self.assertFalse(ui.defaultButton.enabled)
        ui.removeButton.click()
        self.waitUntil(lambda: self.panel.job is None, 60)
        self.assertEqual((self.listed(), os.listdir(self.installed)), (SHIPPED, ["defaults.json"]))
        self.assertIn("mine was removed", self.message)
        self.importFrom(archive)
        self.assertNotIn("(default)", ui.modelList.currentItem().text())
        path = Path(self.installed, "mine/configs/metadata.json")
        path.chmod(0o644)
        path.write_text("{")
        self.refresh()
        self.assertEqual(self.listed(), SHIPPED)

    def listing(self, **fields):
        """Show two models of a kind, of which the second, an imported one, has these fields."""
        model = {
            "name": "mr-slices",
            "kind": "slices",
            "modality": "MR",
            "shipped": True,
            "default_warning": "",
        }
        model |= {"default": True, "ok": True, "version": "1", "bytes": 1000, "license": "MIT"}
        model |= {"card": "Card", "description": "", "folder": "/models/mr-slices"}
        mine = {"name": "mine", "shipped": False, "default": False, "folder": "/models/mine"}
        job = mock.Mock(error=None, warnings=[], log=[])
        job.result = {"models": [model, model | mine | fields], "unreadable": []}
        submit = mock.patch.object(self.context.runner, "submit", return_value=job)
        self.submitted = self.enterContext(submit)
        self.panel.enter()
        self.end(job)
        self.choose("mine")
        self.enterContext(mock.patch.object(type(slicer.app), "testingEnabled", lambda _app: False))
        self.asked = self.enterContext(mock.patch.object(qt.QMessageBox, "question"))
        return job

    def end(self, job):
        job.onFinished.call_args.args[0](job)

    def asks(self, button):
        """Press a button, answer its question with No, then with Yes; the question."""
        for self.asked.return_value in (qt.QMessageBox.No, qt.QMessageBox.Yes):
            count = self.submitted.call_count
            button.click()
        self.assertEqual(self.submitted.call_count, count + 1)
        return self.asked.call_args.args[2]

    def test_anImportedModelIsRemovedAfterAQuestionAShippedOneNever(self):
        job, ui = self.listing(), self.panel.ui
        self.assertIn("model mine with its folder /models/mine?", self.asks(ui.removeButton))
        params = {"action": "remove", "name": "mine"}
        self.assertEqual(self.submitted.call_args.args, ("models", params))
        job.result = {"models": job.result["models"][:1], "removed": "mine"}
        job.warnings = ["the model mine was the default slices MR: the one that ships is it again"]
        self.end(job)
        self.assertEqual(self.listed(), ["mr-slices"])
        self.assertIn("The model mine was removed.\nThe model mine was the default", self.message)
        self.assertFalse(ui.removeButton.enabled)

    def test_aWorseDefaultIsMadeOnAQuestionWithTheDifference(self):
        text = "mine is 0.19 dB worse than the shipped model, as its training measured"
        self.listing(default_warning=text)
        self.assertIn("0.19 dB worse than", self.asks(self.panel.ui.defaultButton))
        params = {"action": "default", "name": "mine"}
        self.assertEqual(self.submitted.call_args.args, ("models", params))

    def test_aModelThatInvertsAScannerIsListedAsSuchAndNoDefault(self):
        self.listing(kind="enhancer")
        ui = self.panel.ui
        self.assertEqual(ui.modelList.currentItem().text(), "mine: inverts a scanner of MR")
        self.assertFalse(ui.defaultButton.enabled)

    def test_aBetterDefaultIsMadeWithoutAQuestion(self):
        self.listing()
        self.panel.ui.defaultButton.click()
        self.assertEqual(self.submitted.call_args.args[1]["action"], "default")
        self.asked.assert_not_called()

    @slow
    def test_whatIsNoModelIsRefusedWithASentence(self):
        Path(self.folder, "text.zip").write_text("no zip")
        for name, words in (("text.zip", "not a readable zip"), ("absent.zip", "absent")):
            job = self.importFrom(os.path.join(self.folder, name))
            self.assertIn(job.error.code, ("model", "input"))
            self.assertIn(words, self.message)
            self.assertIn(job.error.hint, self.message)
        self.assertEqual(os.listdir(self.installed), [])
        self.assertTrue(self.panel.ui.importButton.enabled)
