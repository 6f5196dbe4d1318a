"""Pictures in the documentation show the pages as they are."""

import json
import re
from pathlib import Path
from unittest import mock

import medenhance_testing as testing
import qt
from medenhance_testing import ROOT, STRUCTURES, MedEnhanceTestCase

PICTURES = ROOT / "docs/images/panels"


def stale(folder):
    """Pictures of pages that have changed since, and those of which nothing is known."""
    known = json.loads((folder / STRUCTURES).read_text(encoding="utf-8"))
    names = sorted(path.stem for path in folder.glob("*.png"))
    return [name for name in names if known.get(name) != testing.structureOf(name)]


class PictureTest(MedEnhanceTestCase):
    def test_noPictureIsOlderThanItsPageButThoseThatAreSaidToBe(self):
        """A folder in $MEDENHANCE_SCREENSHOTS takes new ones, from all tests with -m "".

        The list is of pictures that wait for it: it must name no other, and none that is as it
        should be.
        """
        waiting = (PICTURES / "stale.txt").read_text(encoding="utf-8").split()
        self.assertEqual(stale(PICTURES), waiting)
        guide = (ROOT / "docs/slicer/user-guide.md").read_text(encoding="utf-8")
        self.assertEqual("older than the pages" in guide, bool(waiting))

    def test_everyPictureOfAPageIsThereAndNoneWithoutAPage(self):
        pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
        text = "".join(page.read_text(encoding="utf-8") for page in pages)
        shown = set(re.findall(r"images/panels/([\w-]+)\.png", text))
        there = {path.stem for path in PICTURES.glob("*.png")}
        self.assertEqual(shown, there)
        known = json.loads((PICTURES / STRUCTURES).read_text(encoding="utf-8"))
        self.assertEqual(set(known), there)

    def test_aPageThatChangesMakesItsPicturesStale(self):
        folder = Path(self.temporaryFolder())
        forms = Path(self.temporaryFolder())
        for form in testing.FORMS.glob("*.ui"):
            (forms / form.name).write_bytes(form.read_bytes())
        for name in ("load-ready", "train-done", "first-use-missing"):
            (folder / f"{name}.png").touch()
            testing.recordStructure(folder, name)
        with mock.patch.object(testing, "FORMS", forms):
            self.assertEqual(stale(folder), [])
            path = forms / "Load.ui"
            text = path.read_text(encoding="utf-8")
            changed = text.replace("Open &amp;file…", "Open a &amp;file…")
            self.assertNotEqual(changed, text)
            path.write_text(changed, encoding="utf-8")
            self.assertEqual(stale(folder), ["load-ready"])
            (folder / "jobs-new.png").touch()  # of which nothing is known
            self.assertEqual(stale(folder), ["jobs-new", "load-ready"])

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
