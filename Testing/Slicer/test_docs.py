"""The code in docs/slicer does what the pages say, and the panel's pictures are those of pages."""

import contextlib
import inspect
import io
import re
from pathlib import Path

import slicer
from medenhance_testing import ROOT, MedEnhanceTestCase, slow

import MedEnhanceLib
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.unicompress.config import CompressConfig
from MedEnhancePanels.logic import MedEnhanceLogic
from MedEnhancePanels.tasks.dicom_export import ExportOptions

PAGE = ROOT / "docs/slicer/console.md"
#: A block of Python, and the comment before it that says why it is not run.
BLOCK = re.compile(r"(<!-- not run: [^>]*-->\n)?```python\n(.*?)```", re.S)
CONFIGS = (EnhanceConfig, CompressConfig, ExportOptions)
#: Slices of the sample that the examples work on here: the way is the same, and it takes seconds.
SLAB = slice(80, 92)


class PagesTest(MedEnhanceTestCase):
    def test_everyPictureOfAPageIsThereAndNoneWithoutAPage(self):
        pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
        text = "".join(page.read_text(encoding="utf-8") for page in pages)
        shown = set(re.findall(r"images/panels/([\w-]+)\.png", text))
        there = {path.stem for path in (ROOT / "docs/images/panels").glob("*.png")}
        self.assertEqual(shown, there)

    def test_theConsolePageHasEveryOption(self):
        named = set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8")))
        options = {name for each in CONFIGS for name in vars(each)["__dataclass_fields__"]}
        for method in ("enhance", "compress", "decompress", "save", "exportDicom"):
            options |= set(inspect.signature(getattr(MedEnhanceLogic, method)).parameters)
        self.assertEqual(options - named, {"self", "node", "path", "options"})

    def shrink(self, node):
        """Keep a slab of a volume, in place."""
        voxels = slicer.util.arrayFromVolume(node)[SLAB].copy()
        corner = (self.ijkToRas(node) @ (0, 0, SLAB.start, 1))[:3].tolist()
        slicer.util.updateVolumeFromArray(node, voxels)
        node.SetOrigin(*corner)

    @slow
    def test_everyBlockOfTheConsolePageRuns(self):
        text = PAGE.read_text(encoding="utf-8")
        blocks = [match for match in BLOCK.finditer(text) if match[1] is None]
        self.assertGreater(len(blocks), 6)
        names = {"slicer": slicer, "__name__": "__console__"}
        printed = io.StringIO()
        for block in blocks:
            before = "\n" * text.count("\n", 0, block.start(2))
            with contextlib.redirect_stdout(printed):
                exec(compile(before + block[2], str(PAGE), "exec"), names)
            if block is blocks[0]:
                self.shrink(names["volume"])
        self.waitUntil(lambda: not self.context.runner.activeJobs(), 60)
        for path in (names["path"], names["saved"]):
            self.addCleanup(Path(path).unlink)
            self.addCleanup(Path(f"{path}.json").unlink)
        self.assertIn("DERIVED: enhanced", MedEnhanceLib.load(names["saved"]).history[0])
        self.assertLess(len(names["said"]), 60)
        said = printed.getvalue()
        for expected in ("segmentation →", "times smaller", "model | ", "done"):
            self.assertIn(expected, said)
        self.assertEqual(slicer.util.arrayFromVolume(names["slab"]).shape[0], 4)
