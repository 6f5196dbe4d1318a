"""The page Models: listed, imported, verified and removed by the real worker."""

import json
import os
import shutil
import zipfile
from unittest import mock

import slicer
from medenhance_testing import MedEnhanceTestCase, slow

from MedEnhanceLib.runtime.resources import resource_folder

CODECS = ["codec-ct", "codec-em", "codec-mr"]
SHIPPED = sorted(
    [
        *CODECS,
        "brain-tissue",
        "ct",
        "ct-slices",
        "mr",
        "mr-slices",
        "sarcoma-ct",
    ]
)


class ModelsTest(MedEnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.temporaryFolder()
        self.installed = os.path.join(self.folder, "installed")
        patch = mock.patch.dict(os.environ, MEDENHANCE_MODELS=self.installed)
        patch.start()
        self.addCleanup(patch.stop)
        self.context.runner.shutdown()  # a worker of an earlier test knows another folder
        self.addCleanup(self.context.runner.shutdown)
        self.panel = self.widget.panels["models"]
        self.panel.ui.modelTable.setRowCount(0)
        self.panel.models = []
        self.widget.showPage("models")

    def finish(self, job):
        self.waitUntil(lambda: job.isFinished, 60)
        return job

    def listed(self):
        table = self.panel.ui.modelTable
        return [table.item(row, 0).text() for row in range(table.rowCount)]

    def message(self):
        ui = self.widget.ui
        return "" if ui.messageFrame.isHidden() else ui.messageLabel.text

    def bundle(self, name="mine"):
        """A copy of a model that ships, under a name of its own."""
        folder = os.path.join(self.folder, name)
        shutil.copytree(resource_folder("models") / "mr", folder)
        path = os.path.join(folder, "configs", "metadata.json")
        with open(path, encoding="utf-8") as file:
            metadata = json.load(file)
        metadata["name"] = name
        os.chmod(path, 0o644)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(metadata, file)
        return folder

    def choose(self, name):
        self.panel.ui.modelTable.selectRow(self.listed().index(name))

    @slow
    def test_thePageListsWhatIsInstalledWhenItIsShown(self):
        self.panel.enter()
        self.waitUntil(lambda: self.listed() == SHIPPED, 60)
        self.choose("ct")
        self.assertEqual(self.panel.ui.cardBox.title, "ct")
        self.assertIn("Measured", self.panel.ui.cardBrowser.toPlainText())
        row = self.listed().index("ct")
        texts = [self.panel.ui.modelTable.item(row, column).text() for column in range(4)]
        self.assertEqual(texts, ["ct", "Enhancing CT", "Shipped", "Apache-2.0"])
        self.assertIn("Version 0.1.0", self.panel.ui.summaryLabel.text)
        self.widget.uiWidget.resize(400, 700)
        self.widget.uiWidget.show()
        self.processEvents(20)
        header = self.panel.ui.modelTable.horizontalHeader()
        self.assertLessEqual(header.length(), self.panel.ui.modelTable.width)
        self.assertFalse(self.panel.ui.removeButton.enabled)

    @slow
    def test_aFolderIsImportedAndRemoved(self):
        self.finish(self.panel.refresh())
        self.finish(self.panel.importFrom(self.bundle()))
        self.assertEqual(self.listed(), [*sorted(SHIPPED), "mine"])
        self.assertIn("mine is installed", self.message())
        self.assertEqual(self.panel.selected["name"], "mine")
        self.assertTrue(os.path.isdir(os.path.join(self.installed, "mine")))
        self.choose("mine")
        self.assertTrue(self.panel.ui.removeButton.enabled)
        with mock.patch.object(slicer.util, "confirmOkCancelDisplay", return_value=True):
            self.panel.ui.removeButton.click()
        self.waitUntil(lambda: self.listed() == SHIPPED, 60)
        self.assertFalse(os.path.exists(os.path.join(self.installed, "mine")))

    @slow
    def test_aZipIsImported(self):
        folder = self.bundle("zipped")
        path = os.path.join(self.folder, "zipped.zip")
        with zipfile.ZipFile(path, "w") as archive:
            for root, _folders, names in os.walk(folder):
                for name in names:
                    full = os.path.join(root, name)
                    archive.write(full, os.path.relpath(full, self.folder))
        self.assertEqual(self.finish(self.panel.importFrom(path)).state, "done")
        self.assertIn("zipped", self.listed())

    @slow
    def test_aDamagedModelIsNamed(self):
        self.finish(self.panel.importFrom(self.bundle()))
        path = os.path.join(self.installed, "mine", "configs", "metadata.json")
        os.chmod(path, 0o644)
        with open(path, "w", encoding="utf-8") as file:
            file.write("{")
        self.finish(self.panel.refresh())
        self.assertNotIn("mine", self.listed())

    @slow
    def test_whatIsNoModelIsRefusedWithASentence(self):
        damaged = self.bundle("damaged")
        weights = os.path.join(damaged, "models", "model.safetensors")
        os.chmod(weights, 0o644)
        with open(weights, "r+b") as file:
            file.truncate(100)
        text = os.path.join(self.folder, "text.zip")
        with open(text, "w", encoding="utf-8") as file:
            file.write("no zip")
        for path, words in (
            (damaged, "damaged"),
            (text, "not a readable zip"),
            (self.temporaryFolder(), "cannot be read"),
            (os.path.join(self.folder, "absent"), "absent"),
        ):
            with self.subTest(words):
                job = self.finish(self.panel.importFrom(path))
                self.assertEqual(job.error.code, "model")
                self.assertIn(words, self.message())
                self.assertIn(job.error.hint, self.message())
        self.assertEqual(os.listdir(self.installed), [])
        self.assertTrue(self.panel.ui.importButton.enabled)

    @slow
    def test_screenshot(self):
        self.finish(self.panel.refresh())
        self.choose("mr")
        self.screenshot(self.widget.parent, "models-ready", height=700)
