"""README's picture: the page Enhance beside a slice, of a noisy brain and of its result."""

import os
from pathlib import Path

import numpy as np
import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import slow

from MedEnhancePanels.nodes.preview import compositeOf

_HEIGHT, _VIEW = 560, 280


class AtWorkTest(EnhanceTestCase):
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
        looks = [self.look()]
        self.apply(120)
        self.panel.result.compare.show(self.context.state.enhancedVolume, "single")
        for isInput in (False, True):
            self.panel.result.compare.setInput(isInput)
            looks.append(self.look())
        self.panel.result.leave()
        views = [np.asarray(each.crop((408, 0, 408 + _VIEW, _HEIGHT)), int) for each in looks]
        self.assertGreater(np.abs(views[1] - views[2]).max(), 10)
        if folder := os.environ.get("MEDENHANCE_SCREENSHOTS"):
            os.makedirs(folder, exist_ok=True)
            path = Path(folder) / "enhance-at-work.png"
            looks[0].save(path, save_all=True, append_images=looks[1:], duration=1200, loop=0)
