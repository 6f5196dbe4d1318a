"""What MedEnhance is for, through each door, as it ships: a table of rows and doors.

Rows: enhance and segment, train without pairs, distill on a device, compress and decompress without
loss and at a ratio. Doors: the panel with its worker, the command line, Python.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
from medenhance_testing import ROOT, SAMPLE, MedEnhanceTestCase, slow

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.bundles.store import open_bundle
from MedEnhanceLib.core.imaging import averaged
from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.runtime import dependencies as library
from MedEnhanceNodes import provenance
from MedEnhancePages import compress

MODES = {"lossless": True, "ratio": 8}


@functools.cache
def half():
    """The brain that ships, with voxels of 2 mm."""
    whole = me.load(str(SAMPLE), modality="MR").crop(*np.s_[:188, :232, :196])
    return averaged(whole, (2, 2, 2))


def head(mm, seed=0):
    """The same brain at another voxel size, in mm, and contrast; a small head takes less time."""
    voxels = (half().voxels / 255.0) ** (1 + 0.1 * seed) * 1000
    return me.Volume(voxels.astype(np.int16), me.Geometry((mm, mm, mm)), modality="MR")


class PythonDoor:
    """Functions of the library."""

    def __init__(self, test):
        self.test, self.folder = test, Path(test.temporaryFolder())
        self.log = []  # of a distillation

    def enhance(self, scan):
        result = me.enhance(str(scan), modality="MR", segment=True)
        return result.volume, np.asarray(result.segmentation.volume.voxels)

    def train(self, low, high):
        config = {"preset": "smoke", "name": "trained", "low_quality": str(low)}
        return me.train("hqg", config, high_quality=str(high), out=str(self.folder / "run"))

    def distill(self, cohort):
        cohort = me.Cohort.open(str(cohort), modality="MR")
        config = {"preset": "smoke", "method": "matching", "device": "auto"}
        out, log = str(self.folder / "set"), self.log.append
        return me.distill(cohort, out, config=config, progress=lambda event: log(str(event.fields)))

    def compress(self, scan, mode):
        path = str(self.folder / "scan.ucv")
        me.compress(str(scan), path, modality="MR", **{mode: MODES[mode]})
        return path

    def decompress(self, path):
        return me.decompress(path)


class CommandDoor(PythonDoor):
    """Commands in a process of their own."""

    def run(self, *words):
        command = [sys.executable, "-m", "MedEnhanceLib", *map(str, words), "--json"]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        self.test.assertEqual(ran.returncode, 0, ran.stderr)
        return json.loads(ran.stdout)["outputs"]

    def enhance(self, scan):
        out, labels = self.folder / "out.nii.gz", self.folder / "labels.nii.gz"
        self.run("enhance", scan, out, "--modality", "MR", "--segment", labels)
        return me.load(out), me.load(labels).voxels

    def train(self, low, high):
        words = ("--low-quality", low, "--high-quality", high, "--modality", "MR")
        words += ("--preset", "smoke", "--name", "trained", "--out", self.folder / "run")
        return self.run("train", "hqg", *words)["model"]

    def distill(self, cohort):
        words = ("--modality", "MR", "--preset", "smoke", "--method", "matching")
        out = self.folder / "set"
        return self.run("distill", cohort, out, *words, "--device", "auto")["output"]

    def compress(self, scan, mode):
        value = () if mode == "lossless" else (MODES[mode],)
        path = self.folder / "scan.ucv"
        return self.run("compress", scan, path, "--modality", "MR", f"--{mode}", *value)["output"]

    def decompress(self, path):
        self.run("decompress", path, self.folder / "back.nrrd")
        return me.load(self.folder / "back.nrrd")


class PanelDoor(PythonDoor):
    """The pages of the panel, pressed as a user does."""

    def load(self, scan):
        node = slicer.util.loadVolume(str(scan))
        node.SetAttribute("MedEnhance.modality", "MR")
        self.test.choose(node)

    def saved(self, node):
        path = str(self.folder / "saved.nrrd")
        slicer.util.saveNode(node, path)
        return me.load(path)

    def enhance(self, scan):
        test = self.test
        test.showPage("enhance")
        self.load(scan)
        test.ui.segmentCheckBox.checked = True
        test.ui.applyButton.click()
        job = test.finish(test.panel.job)
        test.assertEqual(job.state, "done", test.message)
        labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode")
        slicer.modules.segmentations.logic().ExportVisibleSegmentsToLabelmapNode(
            job.nodes["segmentation"], labels, job.nodes["output"]
        )
        return self.saved(job.nodes["output"]), slicer.util.arrayFromVolume(labels)

    def start(self, task, folder, good=""):
        """Fill the page Train, press Start, and wait for the end; the run."""
        test = self.test
        test.showPage("train")
        test.pick(test.ui.taskSelector, task)
        test.pick(test.ui.presetSelector, "smoke")
        test.ui.pathEdit.text, test.ui.nameEdit.text = str(folder), "trained"
        test.ui.goodEdit.text = str(good)
        test.assertTrue(test.ui.startButton.enabled, test.ui.problemLabel.text)
        test.ui.startButton.click()
        job = test.finish(test.context.runner.run.job, 900)
        test.assertEqual(job.state, "done", job.error)
        return test.context.runner.run

    def train(self, low, high):
        """Train a model, and invert the scanner of a volume with it."""
        self.test.context.runner.shutdown()  # the next worker knows this test's folder of models
        run, test = self.start("trainMR", low, high), self.test
        test.waitUntil(lambda: "listed on the page Models" in test.message)
        test.showPage("models")
        test.waitUntil(lambda: test.panel.job is None and test.ui.modelList.count)
        items = [test.ui.modelList.item(row).text() for row in range(test.ui.modelList.count)]
        test.assertTrue(any(text.startswith("trained: inverts a scanner") for text in items), items)
        test.showPage("enhance")
        self.load(next(Path(low).iterdir()))
        test.pick(test.ui.modelComboBox, "trained")
        test.ui.applyButton.click()
        job = test.finish(test.panel.job)
        test.assertEqual(job.state, "done", test.message)
        output = job.nodes["output"]
        test.assertIn("scanner inverted", output.GetName())
        test.assertEqual(output.GetAttribute("MedEnhance.model"), "trained")
        test.assertIn("intensities are not those measured", provenance.historyOf(output)[-1])
        return run.record["model"]

    def distill(self, cohort):
        self.test.context.state.distillMethod = "matching"
        run = self.start("distillMR", cohort)
        self.log += run.job.log
        return run.out

    def compress(self, scan, mode):
        test, path = self.test, str(self.folder / "scan.ucv")
        test.showPage("compress")
        self.load(scan)
        test.pick(test.ui.modeSelector, mode)
        if mode == "ratio":
            test.ui.valueSpinBox.value = MODES[mode]
        with mock.patch.object(qt.QFileDialog, "getSaveFileName", return_value=path):
            test.ui.compressButton.click()
        job = test.finish(test.panel.job)
        test.assertEqual(job.state, "done", job.error)
        return path

    def decompress(self, path):
        with mock.patch.object(compress, "askForFile", return_value=path):
            self.test.ui.openButton.click()
        return self.saved(self.test.context.state.inputVolume)


class MissionTest(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        self.folder = Path(self.temporaryFolder())
        models = str(self.folder / "models")
        self.enterContext(mock.patch.dict(os.environ, MEDENHANCE_MODELS=models))
        if library.has_training():
            place = mock.patch("MedEnhanceTasks.long_run.root", lambda: self.folder / "runs")
            self.enterContext(place)

    def scan(self, volume, name="scan.nii.gz"):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        me.save(volume, path)
        return path

    def check_enhance(self, door):
        """The whole head, so that brain takes it for one."""
        clean = head(1.7)
        noisy = me.degrade(clean, rician=0.08, seed=1)
        result, labels = door.enhance(self.scan(noisy))
        self.assertTrue(result.geometry.is_close(clean.geometry, shape=clean.shape))
        errors = [np.square(each.voxels - clean.voxels.astype(float)) for each in (result, noisy)]
        self.assertLess(errors[0].mean(), 0.5 * errors[1].mean())
        self.assertEqual(labels.shape, clean.shape)
        self.assertGreater(np.unique(labels).size, 20)

    def check_train(self, door):
        from Library.scanner.test_scanner import phantom, scanned

        for number in range(3):
            self.scan(scanned(phantom(number), number), f"low/person {number}.nii.gz")
            self.scan(phantom(number + 6), f"high/person {number + 6}.nii.gz")
        folder = str(door.train(self.folder / "low", self.folder / "high"))
        bundle = open_bundle(folder, kind="enhancer", modality="MR")
        self.assertEqual((bundle.name, bundle.inverts), ("trained", True))
        self.assertNotIn("person ", str(bundle.metadata["scanner"]))

    def check_distill(self, door):
        for number in range(3):
            part = head(2, number).crop(*np.s_[36:60, 46:70, 37:61])
            self.scan(part, f"cohort/person {number}/T1.nii.gz")
        out = Path(door.distill(self.folder / "cohort"))
        manifest = json.loads((out / "manifest.json").read_text())
        self.assertEqual((manifest["patients"], manifest["modality"]), (3, "MR"))
        volumes = [me.load(path) for path in (out / "volumes").iterdir()]
        self.assertEqual(len(volumes), manifest["volumes"])
        self.assertTrue(all(np.ptp(volume.voxels) for volume in volumes))
        self.assertEqual(manifest["config"]["method"], "matching")  # which computes on the device
        if not isinstance(door, CommandDoor):
            self.assertRegex("\n".join(door.log), "distilling on (cpu|cuda|mps): ")

    def check_compress(self, door, mode):
        scan = me.load(str(SAMPLE), modality="MR").crop(*np.s_[80:96, 60:156, 40:136])
        path = door.compress(self.scan(scan), mode)
        back = door.decompress(path)
        size = scan.voxels.nbytes / Path(path).stat().st_size
        self.assertTrue(back.geometry.is_close(scan.geometry, shape=scan.shape))
        if mode == "lossless":
            np.testing.assert_array_equal(back.voxels, scan.voxels)
            self.assertGreater(size, 1.5)
        else:
            self.assertGreaterEqual(size, MODES[mode])
            self.assertGreater(psnr(scan.voxels, back.voxels, 255.0), 30)


def _addTable():
    """A test for each row and each door."""
    rows = {"enhance": ()} | {f"compress_{m}": (m,) for m in MODES}
    rows |= {"train": (), "distill": ()} if library.has_training() else {}
    for door in (PanelDoor, CommandDoor, PythonDoor):
        for row, given in rows.items():

            def test(self, door=door, row=row, given=given):
                getattr(self, f"check_{row.partition('_')[0]}")(door(self), *given)

            name = f"test_{row}_{door.__name__}"
            setattr(MissionTest, name, test if given else slow(test))


_addTable()
