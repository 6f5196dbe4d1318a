"""The page Enhance beside a slice view: a noisy brain, its result, and both in turn."""

import os
from pathlib import Path

import numpy as np
import qt
import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import slow

_NAME, _HEIGHT, _VIEW = "enhance-at-work", 560, 280
#: Slices of the sample: a few, so that a CPU takes seconds.
_SLICES = slice(70, 82)
#: Seconds that a picture stays.
_SECONDS = 1.2


class AtWorkTest(EnhanceTestCase):
    def noisyBrain(self):
        whole = self.loadSample()
        voxels = slicer.util.arrayFromVolume(whole)[_SLICES].astype(np.float64)
        slicer.mrmlScene.RemoveNode(whole)
        noise = np.random.default_rng(0).normal(0, 18, (2, *voxels.shape))
        voxels = np.hypot(voxels + noise[0], noise[1]).round().clip(0, 255).astype(np.uint8)
        node = slicer.util.addVolumeFromArray(voxels, name="Noisy brain")
        node.GetDisplayNode().SetAutoWindowLevel(False)
        node.GetDisplayNode().SetWindowLevel(220.0, 110.0)
        slicer.util.setSliceViewerLayers(background=node, fit=True)
        return node

    def look(self):
        """Paths of a picture of the panel, and of one of the view."""
        window, folder = self.panel.widget.window(), self.temporaryFolder()
        window.show()
        window.resize(400, _HEIGHT)
        self.processEvents(50)
        page, view = (os.path.join(folder, f"{name}.png") for name in ("page", "view"))
        self.assertTrue(window.grab(qt.QRect(0, 0, 400, _HEIGHT)).save(page))
        from SlicerHost import slice_view

        slice_view.save("Red", view, _VIEW)
        return page, view

    def column(self, looked):
        """The middle column of a view's picture."""
        picture = qt.QImage(looked[1])
        return np.array(
            [qt.QColor(picture.pixel(_VIEW // 2, row)).red() for row in range(_VIEW)], int
        )

    @slow
    def test_theInputTakesTurnsWithItsResult(self):
        self.choose(self.noisyBrain())
        looks = [self.look()]
        self.ui.applyButton.click()
        job = self.panel.job
        looks.append(self.look())
        self.waitUntil(lambda: self.panel.job is None, 120)
        self.assertEqual(job.state, "done", self.message)
        looks.append(self.look())
        with self.shownViews(_VIEW):
            self.panel.result.update()
            self.panel.result.compare.show(job.nodes["output"], "single")
            for _time in range(2):
                self.panel.result._showInput(not self.panel.result.compare.isInput)
                looks.append(self.look())
            self.panel.result.leave()
        # First stood the input alone there, then the result again.
        self.assertGreater(np.abs(self.column(looks[3]) - self.column(looks[4])).max(), 10)
        if folder := os.environ.get("MEDENHANCE_SCREENSHOTS"):
            os.makedirs(folder, exist_ok=True)
            _write(looks, Path(folder) / f"{_NAME}.png")


def _write(looks, path):
    """Page and view side by side, one after the other, as a picture that moves."""
    from PIL import Image

    wholes = []
    for names in looks:
        page, view = (Image.open(name).convert("RGB") for name in names)
        whole = Image.new("RGB", (400 + _VIEW + 16, _HEIGHT))
        whole.paste(page, (0, 0))
        whole.paste(view, (408, (_HEIGHT - _VIEW) // 2))
        wholes.append(whole)
    palette = wholes[-1].quantize(64)
    frames = [whole.quantize(palette=palette, dither=Image.Dither.NONE) for whole in wholes]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=1000 * _SECONDS, loop=0)
