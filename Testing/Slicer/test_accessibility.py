"""Names for screen readers, and the keyboard."""

import itertools

import qt
import slicer
from medenhance_testing import MedEnhanceTestCase

FORMS = ["Enhance", "Compress", "Train", "Models"]
#: Classes of what a screen reader would announce for more than its text.
ASKED = (
    "QAbstractButton", "QComboBox", "QAbstractSpinBox", "QLineEdit", "QTextEdit", "QPlainTextEdit",
    "QAbstractItemView", "QProgressBar", "QTabWidget", "qMRMLNodeComboBox", "ctkSliderWidget",
)  # fmt: skip


class AccessibilityTest(MedEnhanceTestCase):
    def form(self, name):
        """A page of its own, as its form has it: what code adds to tables is left out."""
        widget, ui = self.context.ui(name)
        self.addCleanup(self.deleteWhatIsDue)
        self.addCleanup(widget.deleteLater)
        return widget, ui

    def test_everyWidgetHasAName(self):
        nameless, interactive = [], 0
        for name in [*FORMS, "MedEnhance"]:
            page, ui = self.form(name)
            for label in slicer.util.findChildren(page, className="QLabel"):
                self.assertEqual(label.textFormat, qt.Qt.PlainText, "a name may look like a tag")
            for widget in vars(ui).values():
                if not self.isAsked(widget):
                    continue
                interactive += 1
                text = widget.accessibleName
                if not text and hasattr(widget, "text"):
                    text = widget.text
                if not any(letter.isalnum() for letter in text):
                    nameless.append(widget.objectName)
        self.assertGreater(interactive, 50)
        self.assertEqual(nameless, [])

    def isAsked(self, widget):
        """Whether a screen reader would announce it, for more than its text."""
        isOurs = widget.isWidgetType() and not widget.objectName.startswith("qt_")
        return isOurs and any(widget.inherits(kind) for kind in ASKED)

    def test_atMostFifteenControlsAreVisibleBeforeAdvanced(self):
        node = self.smallVolume(name="scan", modality="MR")
        self.resultOf(node, difference=node)
        self.choose(node)
        for name, *_page in self.widget.PAGES:
            self.showPage(name)
            parts = [each for each in vars(self.ui).values() if self.isAsked(each)]
            parts = [each for each in parts if each.isVisibleTo(self.panel.widget)]
            names = [each.objectName for each in parts]
            self.assertLessEqual(len(names) + 2, 15, names)  # the volume, and Load

    def test_theTabKeyGoesDownEachPageAndStopsAtSelectorsOfNodes(self):
        self.context.state.inputVolume = self.smallVolume(modality="MR")
        self.widget.ui.jobFrame.visible, kinds = True, []
        for name, *_page in self.widget.PAGES:
            self.widget.showPage(name)
            self.unfold(self.widget.panels[name].widget)
            self.processEvents(50)
            stops = self.stops()
            heights = [each.mapTo(self.widget.uiWidget, qt.QPoint(0, 0)).y() for each in stops]
            steps = [low - high for high, low in itertools.pairwise(heights)]
            self.assertGreater(min(steps), -9, [each.objectName for each in stops])
            kinds += [each.className() for each in stops]
        self.assertEqual(kinds.count("ctkComboBox"), len(self.widget.PAGES) + 2)  # output, region

    def stops(self):
        """What the tab key comes to, from the selector of the volume until it comes there again."""
        self.widget.parent.activateWindow()
        self.waitUntil(lambda: self.widget.parent.isActiveWindow)  # else nothing has the focus
        self.widget.ui.inputSelector.setFocus()
        stops = []
        while (stop := qt.QApplication.focusWidget()) not in stops:
            stops.append(stop)
            key = qt.QKeyEvent(qt.QEvent.KeyPress, qt.Qt.Key_Tab, qt.Qt.NoModifier)
            qt.QApplication.sendEvent(stop, key)
        return stops

    def test_listsOfVolumesHaveNoKindsOfNodesThatDeriveFromThem(self):
        """Else a list of volumes offers label maps, and a new node can be one. None makes nodes."""
        count = 0
        for name in [*FORMS, "MedEnhance"]:
            widget, _ui = self.form(name)
            for selector in slicer.util.findChildren(widget, className="qMRMLNodeComboBox"):
                count += 1
                self.assertFalse(selector.showChildNodeTypes, selector.objectName)
                self.assertFalse(selector.addEnabled, selector.objectName)
        self.assertEqual(count, 4)
