"""Files: .ucv through Slicer's own loading; what was derived says so in any format."""

import json
import os
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
from medenhance_testing import MedEnhanceTestCase, slow
from test_frames import diffusionVolume

import MedEnhanceLib
from MedEnhanceLib.io.json_input import read_object
from MedEnhanceNodes import bridge, provenance
from MedEnhancePanels.errors import PanelError
from MedEnhanceTasks import files, node_job


class FileTest(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        self.logic, self.folder = self.context.logic, self.temporaryFolder()

    def path(self, name="scan.ucv"):
        return os.path.join(self.folder, name)

    def formats(self, node):
        """The formats that Slicer's Save dialog offers for a node."""
        return [*slicer.app.coreIOManager().fileWriterExtensions(node)]

    def savedByDialog(self, node, path, isAsked=True):
        """Save as Slicer's Save dialog does; returns whether it did, and what it would show."""
        manager = slicer.app.coreIOManager()
        node.AddDefaultStorageNode()
        storage, dialog = node.GetStorageNode(), qt.QDialog()
        if storage.GetFileName() is None:
            storage.SetFileName(self.path(f"{node.GetName()}.nrrd"))
        (kind,) = (each for each in self.formats(node) if "ucv" in each)
        properties = {"nodeID": node.GetID(), "fileName": path, "fileFormat": kind}
        dialog.setModal(True)
        dialog.visible = isAsked  # it has then asked whether to replace a file
        storage.GetUserMessages().ClearMessages()
        isSaved = manager.saveNodes(manager.fileWriterFileType(node, kind), properties)
        dialog.visible = False
        return isSaved, storage.GetUserMessages().GetAllMessagesAsString()

    def test_slicersSaveDialogWritesEveryKindOfVolume(self):
        labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
        slicer.util.updateVolumeFromArray(labels, np.eye(8, dtype=np.uint8)[None].repeat(4, 0))
        diffusion, _frames = diffusionVolume(self)
        sequence = self.sequenceOf("beating", (0, 0.5))
        for node in (self.smallVolume(), labels, diffusion, sequence):
            path = self.path(f"{node.GetName()}.ucv")
            self.assertNotIn("ucv", self.formats(node)[0], "Slicer's own format is the default")
            self.assertTrue(self.savedByDialog(node, path)[0])
            last = (bridge.framesOf(each)[-1] for each in (node, self.logic.decompress(path)))
            np.testing.assert_array_equal(*last)

    def test_whatIsNoVolumeIsNotOfferedInThatFormat(self):
        scene = slicer.mrmlScene
        for name in ("vtkMRMLDiffusionTensorVolumeNode", "vtkMRMLTableNode"):
            self.assertFalse(
                any("ucv" in each for each in self.formats(scene.AddNewNodeByClass(name)))
            )
        color = slicer.util.addVolumeFromArray(
            np.zeros((2, 3, 4, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode"
        )
        self.assertFalse(any("ucv" in each for each in self.formats(color)))
        self.assertTrue(slicer.util.saveNode(self.smallVolume(), self.path("as before.nrrd"), {}))

    def test_aSceneThatWouldReferToNoFileIsWarnedOf(self):
        node = self.smallVolume()
        isSaved, shown = self.savedByDialog(node, self.path())
        self.assertTrue(isSaved)
        self.assertIn("Scene files do not refer to .ucv", shown)
        self.assertTrue(node.GetModifiedSinceRead(), "Slicer asks for it before it closes")
        self.assertTrue(node.GetStorageNode().GetFileName().endswith("small.nrrd"))
        slicer.util.saveNode(node, self.path("small.nrrd"), {})
        self.assertEqual(self.savedByDialog(node, self.path()), (True, ""))

    def test_aFileThatSlicerHasNotAskedAboutIsKept(self):
        node, path = self.smallVolume(), self.path()
        with open(path, "w") as file:
            file.write("mine")
        isSaved, shown = self.savedByDialog(node, path, isAsked=False)
        self.assertFalse(isSaved)
        self.assertIn("exists", shown)
        self.assertEqual(os.path.getsize(path), 4)
        self.assertTrue(self.savedByDialog(node, path)[0])
        self.assertGreater(os.path.getsize(path), 100)

    def test_exportWritesTheVolumeItselfAndSaysThatItIsEqual(self):
        first, node = self.smallVolume(), self.smallVolume(seed=9, modality="MR")
        manager, messages = slicer.app.coreIOManager(), slicer.vtkMRMLMessageCollection()
        (kind,) = (each for each in self.formats(first) if "ucv" in each)
        paths, properties = [self.path()], {"fileFormat": kind}
        self.assertTrue(manager.exportNodes([node.GetID()], paths, properties, False, messages))
        said = messages.GetAllMessagesAsString()
        self.assertRegex(
            said, r"^scan.ucv was compressed and verified equal: \d.* times smaller\.$"
        )
        back = self.logic.decompress(paths[0])
        self.assertSameVoxels(back, node)
        self.assertEqual(back.GetAttribute("MedEnhance.modality"), "MR")

    @slow
    def test_aDamagedFileIsReportedWithItsRemedyAndLeavesNothing(self):
        node = self.smallVolume((70, 70, 70))
        path = self.path()
        self.logic.compress(node, path, lossless=True)
        with open(path, "r+b") as file:
            file.seek(os.path.getsize(path) // 3)
            file.write(b"\0" * (os.path.getsize(path) // 10))
        count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
        with self.assertRaisesRegex(RuntimeError, "Copy the file again"):
            slicer.util.loadNodeFromFile(path, None, {})
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"), count)

    def test_aSecondClickInADialogThatLoadsDoesNothingAndNoJobIsWaitedFor(self):
        self.logic.compress(self.smallVolume(), self.path(), lossless=True)
        runs = self.context.runner.submit("ping", {"count": 3, "seconds": 60}, title="Ping")
        dialog, loaded = qt.QDialog(), []
        button = qt.QPushButton("OK", dialog)

        def load():
            loaded.append(None)
            loaded[-1] = slicer.util.loadNodeFromFile(self.path(), None, {})
            dialog.accept()

        def clickAgain(job):
            if job.reached and job is not runs and not pressed:  # the loop waits by then
                pressed.append(True)
                self.click(button)

        pressed = []
        button.clicked.connect(load)
        self.context.runner.onChange(clickAgain)
        self.addCleanup(self.context.runner.offChange, clickAgain)
        dialog.show()
        self.click(button)
        self.processEvents(50)
        self.assertEqual((len(pressed), len(loaded)), (1, 1))
        self.assertEqual((loaded[0].GetName(), runs.isFinished), ("scan", False))

    def result(self):
        model = {"name": "knee", "sha256": "0123456789abcdef"}
        manifest, source = {"action": "enhanced", "model": model}, self.smallVolume(modality="MR")
        return self.resultOf(source, model=model, manifest=manifest)

    def test_aSavedResultSaysDerivedInEachFormat(self):
        node = self.result()
        for ending in ("nrrd", "nii.gz", "mha"):
            path = self.path(f"better.{ending}")
            self.assertEqual(self.logic.save(node, path), path)
            volume = MedEnhanceLib.load(path)
            self.assertEqual(len(volume.history), 1)
            self.assertTrue(volume.history[0].startswith("DERIVED: enhanced (knee 0123456789ab)"))
            self.assertEqual(volume.modality, "MR")
            self.assertTrue(np.array_equal(volume.voxels, slicer.util.arrayFromVolume(node)))
            with open(f"{path}.json", encoding="utf-8") as file:
                self.assertEqual(json.load(file)["model"]["name"], "knee")
        self.assertTrue(node.GetDescription().startswith("DERIVED: enhanced"))
        self.assertIn("research use only", node.GetDescription())

    def test_theManifestBesideAFileIsThatOfItsVoxels(self):
        """Not what the node says when the file is complete: a user works on meanwhile."""
        node, path = self.result(), self.path("better.nrrd")

        def sent(job, node):
            yield from node_job.send(job, node)
            provenance.setManifest(node, {"model": {"name": "later"}})

        with mock.patch.object(files, "send", sent):
            self.logic.save(node, path)
        self.assertEqual(read_object(Path(f"{path}.json"))["model"]["name"], "knee")

    def test_aResultStaysDerivedWhenItIsOpenedWithWordsOfAnyKind(self):
        node, path = self.result(), self.path("better.ucv")
        steps = ['DERIVED: by "Ä" in C:\\new\\table', "two\nlines"]
        provenance.setHistory(node, steps)
        saved = self.logic.save(node, self.path("words.nrrd"))
        self.assertEqual(list(MedEnhanceLib.load(saved).history), steps)
        self.logic.compress(node, path, lossless=True)
        self.assertTrue(MedEnhanceLib.inspect(path)["derived"])
        back = self.logic.decompress(path)
        self.assertEqual(provenance.historyOf(back), steps)
        self.assertEqual(back.GetAttribute("MedEnhance.derived"), "file")

    @slow
    def test_whatCannotBeSavedIsRefusedBeforeTheWork(self):
        node, taken = self.smallVolume(), self.path("taken.nrrd")
        with open(taken, "w") as file:
            file.write("mine")
        refused = (
            (self.path("q.xyz"), "unsupported output extension", "ending"),
            (taken, "exists", "output"),
        )
        for path, words, code in refused:
            with self.assertRaises(PanelError) as caught:
                self.logic.save(node, path)
            self.assertEqual(caught.exception.code, code)
            self.assertIn(words, caught.exception.message)
        self.assertEqual(os.listdir(self.folder), ["taken.nrrd"])
        self.logic.save(node, taken, overwrite=True)
        self.assertGreater(os.path.getsize(taken), 100)

    def test_messagesNameTheNodeAndNoTemporaryFile(self):
        node = self.smallVolume(name="MR_T1", modality="MR", dtype=np.float32)
        slicer.util.arrayFromVolume(node)[2] = np.nan
        slicer.util.arrayFromVolumeModified(node)
        with self.assertRaisesRegex(PanelError, "^MR_T1: "):
            self.logic.enhance(node)
