"""Pictures of the panel: every one is shown by a page, and none shows a temporary path."""

import re

from medenhance_testing import ROOT, MedEnhanceTestCase

PICTURES = ROOT / "docs/images/panels"


class PictureTest(MedEnhanceTestCase):
    def test_everyPictureOfAPageIsThereAndNoneWithoutAPage(self):
        pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
        text = "".join(page.read_text(encoding="utf-8") for page in pages)
        shown = set(re.findall(r"images/panels/([\w-]+)\.png", text))
        there = {path.stem for path in PICTURES.glob("*.png")}
        self.assertEqual(shown, there)
