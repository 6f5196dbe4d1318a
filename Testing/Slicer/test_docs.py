"""The code in docs/slicer does what the pages say; the pictures of pages and of README."""

import contextlib
import inspect
import io
import os
import re
import runpy
from pathlib import Path

import numpy as np
import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import ROOT, MedEnhanceTestCase, slow

import MedEnhanceLib
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.unicompress.config import CompressConfig
from MedEnhanceNodes.preview import compositeOf
from MedEnhancePanels.logic import MedEnhanceLogic
from MedEnhanceTasks.dicom_export import ExportOptions

PAGE = ROOT / "docs/slicer/console.md"
#: A block of Python, and the comment before it that says why it is not run.
BLOCK = re.compile(r"(<!-- not run: [^>]*-->\n)?```python\n(.*?)```", re.S)
CONFIGS = (EnhanceConfig, CompressConfig, ExportOptions)
#: Slices of the sample that the examples work on here: the way is the same, and it takes seconds.
#: The model of the brain refuses fewer.
SLAB = slice(76, 108)


class PagesTest(MedEnhanceTestCase):
    def test_theConsolePageAndThatOfCommandsHaveEveryOption(self):
        named = set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8")))
        page = runpy.run_path(str(ROOT / "docs/commands.py"))["reference"]()
        named |= {name.replace("-", "_") for name in re.findall(r"`--([\w-]+)", page)}
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
        self.assertGreater(len(blocks), 4)
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
        said = printed.getvalue()
        self.assertLess(len(set(re.findall(r"^\d\.\d .*$", said, re.M))), 60)
        for expected in ("segmentation →", "times smaller", "model | ", "done"):
            self.assertIn(expected, said)
        self.assertEqual(slicer.util.arrayFromVolume(names["slab"]).shape[0], 4)


_HEIGHT, _VIEW = 560, 280


class AtWorkTest(EnhanceTestCase):
    """README's picture: the page Enhance beside a slice, of a noisy brain and of its result."""

    def look(self):
        """The panel, and beside it a slice of what the views show."""
        from PIL import Image

        window, path = self.panel.widget.window(), Path(self.temporaryFolder()) / "page.png"
        window.show()
        window.resize(400, _HEIGHT)
        self.processEvents(50)
        self.assertTrue(window.grab().save(str(path)))
        view = compositeOf(slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode"))
        shown = slicer.mrmlScene.GetNodeByID(view.GetBackgroundVolumeID())
        pixels = slicer.util.arrayFromVolume(shown)[6, ::-1].clip(0, 220) * (255 / 220)
        whole = Image.new("RGB", (400 + _VIEW + 16, _HEIGHT))
        whole.paste(Image.open(path).crop((0, 0, 400, _HEIGHT)), (0, 0))
        width = _VIEW * pixels.shape[1] // pixels.shape[0]
        part = Image.fromarray(pixels.astype(np.uint8)).resize((width, _VIEW))
        whole.paste(part, (408 + (_VIEW - width) // 2, (_HEIGHT - _VIEW) // 2))
        return whole

    @slow
    def test_theInputAndItsResultAreShown(self):
        self.choose(self.brain("Noisy brain", np.s_[70:82]))  # which a CPU takes seconds for
        self.waitUntil(lambda: ":" in self.ui.deviceComboBox.currentText, 60)
        self.waitUntil(lambda: "enhancing removes" in self.ui.verdictLabel.text, 60)
        looks = [self.look()]
        self.apply(120)
        self.panel.result.choose("single")
        self.waitUntil(lambda: "enhancing removes" in self.ui.verdictLabel.text, 60)
        looks.append(self.look())
        self.panel.result.leave()
        views = [np.asarray(each.crop((408, 0, 408 + _VIEW, _HEIGHT)), int) for each in looks]
        self.assertGreater(np.abs(views[0] - views[1]).max(), 10)
        if folder := os.environ.get("MEDENHANCE_SCREENSHOTS"):
            os.makedirs(folder, exist_ok=True)
            path = Path(folder) / "enhance-at-work.png"
            looks[0].save(path, save_all=True, append_images=looks[1:], duration=1200, loop=0)
