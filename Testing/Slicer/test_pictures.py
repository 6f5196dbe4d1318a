"""Pictures of the panel: every one is shown by a page, and none shows a temporary path."""

import re

import qt
from medenhance_testing import ROOT, MedEnhanceTestCase

PICTURES = ROOT / "docs/images/panels"


class PictureTest(MedEnhanceTestCase):
    def test_everyPictureOfAPageIsThereAndNoneWithoutAPage(self):
        pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
        text = "".join(page.read_text(encoding="utf-8") for page in pages)
        shown = set(re.findall(r"images/panels/([\w-]+)\.png", text))
        there = {path.stem for path in PICTURES.glob("*.png")}
        self.assertEqual(shown, there)

    def test_aPictureShowsNoTemporaryPath(self):
        window = qt.QWidget()
        layout, field, label = qt.QVBoxLayout(window), qt.QLineEdit(), qt.QLabel()
        path = f"{self.temporaryFolder()}/scan.ucv"
        for each in (field, label):
            layout.addWidget(each)
            each.text = path
        text, changes = field.text, []
        field.textChanged.connect(lambda changed: changes.append(changed))
        with self._withoutTemporaryPaths(window):
            seen = [field.text, label.text]
        self.assertEqual(seen, ["/home/you/scans/scan.ucv"] * 2)
        self.assertEqual((field.text, label.text, changes), (text, text, []))
