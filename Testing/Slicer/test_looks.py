"""What the tests of the panel catch, and the looks of its pages."""

import os
import sys
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
from medenhance_testing import MedEnhanceTestCase, copyOfModel, slow


class CatchingTest(MedEnhanceTestCase):
    def failuresOf(self, body):
        """The failures that a test with that body reports."""

        class Inner(MedEnhanceTestCase):
            def runTest(self):
                body()

        result = unittest.TestResult()
        unittest.TestSuite([Inner()]).run(result)
        return "".join(text for _test, text in [*result.failures, *result.errors])

    def test_anExceptionInASlotFails(self):
        button = qt.QPushButton()
        button.clicked.connect(lambda: {}["missing"])
        self.assertIn("KeyError", self.failuresOf(button.click))

    @unittest.skipUnless("SlicerHost.pythonqt" in sys.modules, "it is the stand-in's own message")
    def test_whatSlicerWouldRefuseFails(self):
        button = qt.QPushButton()
        wrong = self.failuresOf(lambda: button.connect("clicked(int)", print))
        self.assertIn("has no signal clicked(int)", wrong)


class LooksTest(MedEnhanceTestCase):
    """Pages in their states; $MEDENHANCE_SCREENSHOTS keeps pictures, by width and theme."""

    def setUp(self):
        super().setUp()
        dark = qt.QPalette(qt.QColor("#353535"))  # of which Qt makes all colors
        self.themes = {"light": qt.QApplication.palette(), "dark": dark}
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
        """Names and texts of widgets that need more pixels than they have."""
        children = slicer.util.findChildren(panel, className="*")
        # First all widgets: measuring a label replaces parts of its text, which are children, too.
        for each in [child for child in children if child.isWidgetType()]:
            texts = self.neededBy(each) if each.isVisibleTo(panel) else ()
            yield from [(each.objectName, *text) for text in texts if text[0] > text[1]]

    def neededBy(self, widget):
        """What each text of a widget needs, what room it has, and the text."""
        kind, width = widget.className(), widget.fontMetrics().horizontalAdvance
        for line in widget.toolTip.splitlines():  # which Qt cuts at the edge of the screen
            yield len(line), 200, line
        if kind == "QLabel" and widget.wordWrap:
            yield widget.heightForWidth(widget.width), widget.height + 1, widget.text
        elif kind in ("QLabel", "QPushButton", "QToolButton", "QCheckBox", "QRadioButton"):
            yield widget.sizeHint.width() if widget.text else 0, widget.width + 1, widget.text
        elif kind in ("QSpinBox", "QDoubleSpinBox"):
            yield width(widget.text), widget.width - 24, widget.text
        elif kind == "QComboBox":
            for text in map(widget.itemText, range(widget.count)):
                if text not in widget.toolTip:
                    yield width(text), widget.width - 34, text

    @slow
    def test_noTextIsCut(self):
        pages = [name for name, *_page in self.widget.PAGES]
        for name in pages:
            self.showPage(name)
            self.look(f"{name}-empty")
        node = self.smallVolume(name="T1 MPRAGE sagittal after contrast", modality="MR")
        self.context.state.inputVolume = node
        for name in pages:
            self.showPage(name)
            for section in self.unfold(self.panel.widget):
                self.addCleanup(setattr, section, "collapsed", True)
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
            self.showPage("train")
            self.pick(self.ui.taskSelector, task)
            self.look(f"train-{task}")
        models = self.temporaryFolder()
        self.enterContext(mock.patch.dict(os.environ, MEDENHANCE_MODELS=models))
        scanner = {"kind": "enhancer", "modality": "CT", "scanner": {"modality": "CT"}}
        copyOfModel("mr-slices", os.path.join(models, "old-scanner"), **scanner)
        self.showPage("enhance")
        self.context.state.inputVolume = self.smallVolume(name="chest", modality="CT")
        self.pick(self.ui.modelComboBox, "old-scanner")
        self.look("enhance-CT")
        self.assertTrue(self.ui.lesionsComboBox.isVisibleTo(self.panel.widget))
        self.context.state.inputVolume = node
        self.context.message("warning", "The noise is not as assumed: look at the result.", "log")
        self.widget.ui.messageDetailsButton.click()
        made = self.resultOf(node, uncertainty=node, difference=node, noise=node)
        self.context.state.enhancedVolume = made
        self.showPage("enhance")
        self.ui.segmentCheckBox.checked = self.ui.biasFieldCheckBox.checked = True
        self.look("enhance-result")
        self.assertEqual(self.cut, [])
