"""The code in docs/slicer does what the pages say, and the panel's pictures are those of pages."""

import contextlib
import io
import re
from pathlib import Path

import slicer
from medenhance_testing import ROOT, MedEnhanceTestCase, slow

import MedEnhanceLib

PAGES = ROOT / "docs/slicer"
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


class PagesTest(MedEnhanceTestCase):
    def test_everyPictureOfAPageIsThereAndNoneWithoutAPage(self):
        pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
        text = "".join(page.read_text(encoding="utf-8") for page in pages)
        shown = set(re.findall(r"images/panels/([\w-]+)\.png", text))
        there = {path.stem for path in (ROOT / "docs/images/panels").glob("*.png")}
        self.assertEqual(shown, there)

    def shrink(self, node):
        """Keep a slab of a volume, in place."""
        voxels = slicer.util.arrayFromVolume(node)[SLAB].copy()
        corner = (self.ijkToRas(node) @ (0, 0, SLAB.start, 1))[:3].tolist()
        slicer.util.updateVolumeFromArray(node, voxels)
        node.SetOrigin(*corner)

    @slow
    def test_everyBlockOfTheConsolePageRuns(self):
        blocks = list(blocksOf("console.md"))
        self.assertGreater(len(blocks), 6)
        names = {"slicer": slicer, "__name__": "__console__"}
        printed = io.StringIO()
        for line, block in blocks:
            code = compile("\n" * (line - 1) + block, str(PAGES / "console.md"), "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, names)
            if line == blocks[0][0]:
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
