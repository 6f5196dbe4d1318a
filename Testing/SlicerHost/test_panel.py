"""The panel on the host alone: what its tests catch, and the looks of its pages."""

import os
import sys
import unittest
from pathlib import Path

import numpy as np
import pytest
import qt
import slicer

from SlicerHost import modules

sys.path.append(str(Path(__file__).resolve().parents[1] / "Slicer"))

from medenhance_testing import ROOT, MedEnhanceTestCase


@pytest.fixture(autouse=True, scope="module")
def module():
    """The module MedEnhance, which the tests of Testing/Slicer load too."""
    isLoaded = hasattr(slicer.modules, "medenhance")
    if not isLoaded:
        modules.load(ROOT / "MedEnhance/MedEnhance.py")
    yield
    if not isLoaded:
        modules.unload("MedEnhance")


class CatchingTest(MedEnhanceTestCase):
    def failuresOf(self, body):
        """The failures that a test with that body reports."""

        class Inner(MedEnhanceTestCase):
            def runTest(self):
                body(self)

        result = unittest.TestResult()
        unittest.TestSuite([Inner()]).run(result)
        return "".join(text for _test, text in [*result.failures, *result.errors])

    def test_anExceptionInASlotAndWhatSlicerWouldRefuseFail(self):
        def raises(inner):
            button = qt.QPushButton()
            button.clicked.connect(lambda: {}["missing"])
            button.click()

        def isRefused(inner):
            qt.QPushButton().connect("clicked(int)", print)

        self.assertIn("KeyError", self.failuresOf(raises))
        self.assertIn("has no signal clicked(int)", self.failuresOf(isRefused))


#: The colors of a dark theme, as roles of a palette.
_DARK = {
    "Window": "#353535", "Button": "#353535", "Base": "#232323", "AlternateBase": "#353535",
    "WindowText": "#fff", "ButtonText": "#fff", "Text": "#fff", "PlaceholderText": "#999",
    "Light": "#505050", "Midlight": "#454545", "Mid": "#2a2a2a", "Dark": "#202020",
    "Highlight": "#2a82da", "HighlightedText": "#000",
}  # fmt: skip


class LooksTest(MedEnhanceTestCase):
    """Pages in their states; $MEDENHANCE_SCREENSHOTS keeps pictures, by width and theme."""

    def setUp(self):
        super().setUp()
        self.themes = {"light": qt.QApplication.palette(), "dark": qt.QPalette()}
        for role, color in _DARK.items():
            self.themes["dark"].setColor(getattr(qt.QPalette, role), qt.QColor(color))
            if role.endswith("Text"):
                disabled = (qt.QPalette.Disabled, getattr(qt.QPalette, role))
                self.themes["dark"].setColor(*disabled, qt.QColor("#7f7f7f"))
        self.addCleanup(qt.QApplication.setPalette, self.themes["light"])
        self.cut = []

    def look(self, name):
        """Note what is cut on the page in front; with a picture of it in each theme."""
        panel, folder = self.widget.parent, os.environ.get("MEDENHANCE_SCREENSHOTS")
        for width in (400, 500):
            for _turn in range(2):  # sections are laid out when they are shown
                panel.resize(width, panel.layout().totalHeightForWidth(width))
                self.processEvents(20)
            self.cut += [(name, width, *each) for each in self.cutTexts(panel)]
            for theme, palette in self.themes.items() if folder else ():
                qt.QApplication.setPalette(palette)
                self.processEvents(20)
                path = Path(folder, f"{width}-{theme}", f"{name}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                self.assertTrue(panel.grab().save(str(path)))

    def cutTexts(self, panel):
        for each in slicer.util.findChildren(panel, className="QWidget"):
            for line in each.toolTip.splitlines():  # which Qt cuts at the edge of the screen
                if len(line) > 200:
                    yield each.objectName, len(line), 200, line
        for kind in ("QLabel", "QPushButton", "QToolButton", "QCheckBox", "QRadioButton"):
            for each in slicer.util.findChildren(panel, className=kind):
                isWrapped = kind == "QLabel" and each.wordWrap
                needs = each.heightForWidth(each.width) if isWrapped else each.sizeHint.width()
                room = each.height if isWrapped else each.width
                if each.text and each.isVisibleTo(panel) and needs > room + 1:
                    yield each.objectName, needs, room, each.text
        for kind in ("QSpinBox", "QDoubleSpinBox"):
            for box in slicer.util.findChildren(panel, className=kind):
                needs, room = box.fontMetrics().horizontalAdvance(box.text), box.width - 24
                if box.isVisibleTo(panel) and needs > room:
                    yield box.objectName, needs, room, box.text
        for box in slicer.util.findChildren(panel, className="QComboBox"):
            texts = [box.itemText(at) for at in range(box.count)]
            needs = {text: box.fontMetrics().horizontalAdvance(text) for text in texts}
            for text in needs if box.isVisibleTo(panel) else ():
                if needs[text] > box.width - 34 and text not in box.toolTip:
                    yield box.objectName, needs[text], box.width - 34, text

    @pytest.mark.slow
    def test_noTextIsCut(self):
        pages = [name for name, *_page in self.widget.PAGES]
        for name in pages:
            self.showPage(name)
            self.look(f"{name}-empty")
        node = self.smallVolume(name="T1 MPRAGE sagittal after contrast", modality="MR")
        self.context.state.inputVolume = node
        for name in pages:
            self.showPage(name)
            self.addCleanup(self.fold, self.unfold(self.panel.widget))
            self.look(f"{name}-volume")
        self.context.state.inputVolume = self.smallVolume(dtype=np.float32, modality="MR")
        self.showPage("compress")
        self.look("compress-float")
        self.widget.parent.resize(400, 600)
        self.processEvents(20)
        row = [getattr(self.ui, name) for name in ("modeLabel", "modeSelector")]
        places = [each.mapTo(self.panel.widget, qt.QPoint(0, 0)).y() for each in row]
        self.assertLess(abs(places[0] - places[1]), 9, "the label stands above its choices")
        self.context.state.inputVolume = node
        for task in ("distillCT", "trainMR", "slicesCT"):
            self.showPage("distill")
            self.pick(self.ui.taskSelector, task)
            self.look(f"distill-{task}")
        self.context.message("warning", "The noise is not as assumed: look at the result.", "log")
        self.widget.ui.messageDetailsButton.click()
        made = self.resultOf(node, uncertainty=node, difference=node, noise=node)
        self.context.state.enhancedVolume = made
        self.showPage("enhance")
        self.ui.segmentCheckBox.checked = self.ui.biasFieldCheckBox.checked = True
        self.look("enhance-result")
        self.assertEqual(self.cut, [])

    def fold(self, sections):
        for section in sections:
            section.collapsed = True
