"""The code in docs/slicer does what the pages say."""

import contextlib
import importlib.util
import io
import json
import os
import re
from pathlib import Path
from unittest import mock

import numpy as np
import slicer
import vtk
from medenhance_testing import MedEnhanceTestCase, slow

PAGES = Path(__file__).resolve().parents[2] / "docs" / "slicer"
#: A block of Python, and the comment before it that says why it is not run.
BLOCK = re.compile(r"(<!-- not run: [^>]*-->\n)?```python\n(.*?)```", re.S)
#: Slices of the sample that the examples work on here: the way is the same, and it takes seconds.
SLAB = slice(80, 92)


def blocksOf(page):
    """The blocks of a page that are meant to run, with the line they begin at."""
    text = (PAGES / page).read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        if match.group(1) is None:
            yield text.count("\n", 0, match.start(2)) + 1, match.group(2)


def shrink(node):
    """Keep a slab of a volume, in place."""
    voxels = slicer.util.arrayFromVolume(node)[SLAB].copy()
    corner = [0.0, 0.0, float(SLAB.start), 1.0]
    ijkToRas = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(ijkToRas)
    slicer.util.updateVolumeFromArray(node, voxels)
    node.SetOrigin(*ijkToRas.MultiplyPoint(corner)[:3])


class ConsolePageTest(MedEnhanceTestCase):
    @slow
    def test_everyBlockOfTheConsolePageRuns(self):
        import MedEnhanceLib

        blocks = list(blocksOf("console.md"))
        self.assertGreater(len(blocks), 8)
        names = {"slicer": slicer, "__name__": "__console__"}
        printed = io.StringIO()
        for line, block in blocks:
            code = compile("\n" * (line - 1) + block, str(PAGES / "console.md"), "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, names)
            if line == blocks[0][0]:
                shrink(names["volume"])
        self.waitUntil(lambda: not self.context.runner.activeJobs(), 60)
        for path in (names["path"], names["saved"]):
            self.addCleanup(Path(path).unlink)
            self.addCleanup(Path(f"{path}.json").unlink)
        self.assertIn("DERIVED: enhanced", MedEnhanceLib.load(names["saved"]).history[0])
        self.assertLess(len(names["said"]), 60)
        said = printed.getvalue()
        for expected in ("MR", "RAS", "segmentation →", "times smaller", "model | ", "done"):
            self.assertIn(expected, said)
        self.assertEqual(slicer.util.arrayFromVolume(names["slab"]).shape[0], 4)
        self.assertEqual(names["report"]["choice"]["name"], "cpu" if not _hasGpu(names) else "cuda")


def _hasGpu(names):
    return any(d.get("name", "").startswith("cuda") for d in names["report"]["devices"])


class HeadlessPageTest(MedEnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.temporaryFolder()
        specification = importlib.util.spec_from_file_location(
            "enhance_headless", PAGES / "enhance_headless.py"
        )
        self.script = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(self.script)

    def path(self, name):
        return str(Path(self.folder) / name)

    def makeInput(self):
        from MedEnhanceLib.runtime.resources import resource_folder

        node = slicer.util.loadVolume(str(resource_folder("samples") / "mni152_t1.nii.gz"))
        shrink(node)
        voxels = slicer.util.arrayFromVolume(node)
        noise = np.random.default_rng(0).normal(0, 20, (2, *voxels.shape))
        voxels[:] = np.hypot(voxels + noise[0], noise[1]).round().clip(0, 255)
        self.assertTrue(slicer.util.saveNode(node, self.path("in.nrrd")))
        self.node = node
        return slicer.util.arrayFromVolume(node).copy()

    def run_(self, *words):
        """Exit status, stdout and stderr."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = self.script.main(list(words))
        return status, out.getvalue(), err.getvalue()

    @slow
    def test_aVolumeAndItsStructuresAreWritten(self):
        voxels = self.makeInput()
        status, said, wrong = self.run_(
            self.path("in.nrrd"), self.path("out.nrrd"),
            "--modality", "MR", "--segmentation", self.path("out.seg.nrrd"), "--device", "cpu",
        )  # fmt: skip
        self.assertEqual((status, wrong), (0, ""))
        self.assertIn("100%", said)
        better = slicer.util.arrayFromVolume(slicer.util.loadVolume(self.path("out.nrrd")))
        self.assertEqual(better.shape, voxels.shape)
        self.assertFalse((better == voxels).all())
        self.assertTrue(Path(self.path("out.seg.nrrd")).stat().st_size)
        import MedEnhanceLib

        self.assertIn("DERIVED: enhanced", MedEnhanceLib.load(self.path("out.nrrd")).history[0])
        for name in ("out.nrrd", "out.seg.nrrd"):
            manifest = json.loads(Path(self.path(f"{name}.json")).read_text(encoding="utf-8"))
            self.assertIn(manifest["model"]["name"], ("mr", "brain-tissue"))
            self.assertEqual(manifest["inputs"], {"input": "a volume"})

    @slow
    def test_aCompressedFileIsReadAndWritten(self):
        from MedEnhance import MedEnhanceLogic

        self.makeInput()
        logic = MedEnhanceLogic()
        packed = self.path("in.ucv")
        logic.compress(self.node, packed, lossless=True)
        status, _said, wrong = self.run_(
            packed, self.path("out.ucv"), "--modality", "MR", "--device", "cpu"
        )
        self.assertEqual((status, wrong), (0, ""))
        self.assertTrue(logic.inspect(self.path("out.ucv"))["derived"])

    def test_whatCannotBeWrittenIsRefusedBeforeTheWork(self):
        self.makeInput()
        here = sorted(os.listdir(self.folder))
        output = self.path("out.nrrd")
        for words, said in (
            ((self.path("q.xyz"),), "unsupported output extension"),
            ((self.path("none/q.nrrd"),), "not there"),
            ((self.path("none/q.ucv"),), "not there"),
            ((self.path("in.nrrd"), "--overwrite"), "same file"),
            ((output, "--segmentation", self.path("s.nii.gz")), ".seg.nrrd"),
            ((output, "--segmentation", self.path("none/s.seg.nrrd")), "does not exist"),
        ):
            with mock.patch.object(self.script, "enhance") as enhance:
                status, _said, wrong = self.run_(self.path("in.nrrd"), *words)
            self.assertEqual(status, 1, words)
            self.assertIn(said, wrong)
            enhance.assert_not_called()
        self.assertEqual(sorted(os.listdir(self.folder)), here)

    def test_anOutputThatExistsIsNotReplaced(self):
        Path(self.path("out.nrrd")).write_text("mine")
        status, _said, wrong = self.run_(self.path("in.nrrd"), self.path("out.nrrd"))
        self.assertEqual(status, 1)
        self.assertIn("exists", wrong)
        self.assertEqual(Path(self.path("out.nrrd")).read_text(), "mine")

    @slow
    def test_anErrorIsASentenceAndAnExitStatus(self):
        self.makeInput()
        status, _said, wrong = self.run_(
            self.path("in.nrrd"), self.path("out.nrrd"), "--model", "no-such-model"
        )
        self.assertEqual(status, 1)
        self.assertIn("no-such-model", wrong)
        self.assertNotIn("Traceback", wrong)
        self.assertFalse(Path(self.path("out.nrrd")).exists())

    def test_thePageNamesEveryOption(self):
        page = (PAGES / "headless.md").read_text(encoding="utf-8")
        script = (PAGES / "enhance_headless.py").read_text(encoding="utf-8")
        for option in re.findall(r'"(--\w+)"', script):
            self.assertIn(f"`{option}", page)
