"""Names for screen readers, and the order of the tab key."""

import itertools
import xml.etree.ElementTree as ElementTree

import medenhance_testing
import qt
from medenhance_testing import MedEnhanceTestCase, alone

FORMS = ["Enhance", "Compress", "Distill", "Models"]
#: Classes of what a screen reader would announce for more than its text.
ASKED = (
    "QAbstractButton",
    "QComboBox",
    "QAbstractSpinBox",
    "QLineEdit",
    "QTextEdit",
    "QPlainTextEdit",
    "QAbstractItemView",
    "QProgressBar",
    "QTabWidget",
    "qMRMLNodeComboBox",
    "ctkSliderWidget",
)


class AccessibilityTest(MedEnhanceTestCase):
    def form(self, name):
        """A page or window of its own, as its form has it: what code adds to tables is left out."""
        load = self.context.dialog if name == "ExportDicom" else self.context.ui
        widget, ui = load(name)
        self.addCleanup(self.deleteWhatIsDue)
        self.addCleanup(widget.deleteLater)
        return widget, ui

    def focusable(self, page):
        """What the tab key reaches on a page, in its order; parts of a widget count as it."""
        found, each = [], page
        while True:
            each = each.nextInFocusChain()
            if each is page:
                return found
            canTab = int(each.focusPolicy) & int(qt.Qt.TabFocus) == int(qt.Qt.TabFocus)
            named = self.namedIn(each, page) if canTab and page.isAncestorOf(each) else None
            if named is not None and named not in found[-1:]:
                found.append(named)

    def namedIn(self, widget, page):
        """The widget of a form that a part belongs to; None for a cell of a table, made later."""
        while widget is not page:
            if widget.parent().objectName == "qt_scrollarea_viewport":
                return None
            if widget.objectName and not widget.objectName.startswith("qt_"):
                return widget
            widget = widget.parent()
        return None

    def test_everyWidgetHasAName(self):
        nameless, interactive = [], 0
        for name in [*FORMS, "MedEnhance", "ExportDicom"]:
            _widget, ui = self.form(name)
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

    @alone
    def test_theTabKeyGoesDownThePage(self):
        """PySide6 ties what it finds in this order to what it began with, so that the panel would
        go with one of its pages: the pages here are others.
        """
        wrong = []
        for name in FORMS:
            page, _ui = self.form(name)
            self.unfold(page)
            page.resize(400, max(400, page.sizeHint.height()))
            page.show()
            self.processEvents(50)
            shown = [each for each in self.focusable(page) if each.isVisibleTo(page)]
            places = [each.mapTo(page, qt.QPoint(0, min(each.height, 24) // 2)) for each in shown]
            self.assertGreater(len(shown), 2, name)
            wrong += [
                (name, one.objectName, other.objectName)
                for (one, at), (other, then) in itertools.pairwise(zip(shown, places, strict=True))
                if then.y() < at.y() - 12 or (abs(then.y() - at.y()) <= 4 and then.x() < at.x())
            ]
            page.hide()
        self.assertEqual(wrong, [])

    def test_aLabelLeadsToItsField(self):
        """Its mnemonic, and a screen reader, go by it; read from the forms, see `alone`."""
        fields = 0
        for path in medenhance_testing.FORMS.glob("*.ui"):
            _page, ui = self.form(path.stem)
            for form in ElementTree.parse(path).iter("layout"):
                if form.get("class") != "QFormLayout":
                    continue
                rows = {}
                for item in form.findall("item"):
                    rows.setdefault(item.get("row"), {})[item.get("column")] = item
                for row in rows.values():
                    label = row["0"].find("widget") if len(row) == 2 else None
                    if label is None or label.get("class") != "QLabel":
                        continue
                    names = [each.get("name") for each in row["1"].iter("widget")]
                    if any(self.isAsked(getattr(ui, name)) for name in names):
                        fields += 1
                        buddy = label.findtext("property[@name='buddy']/cstring")
                        self.assertIn(buddy, names, label.get("name"))
        self.assertGreater(fields, 20)

    def test_eachWeightOfAMessageHasAWord(self):
        from MedEnhancePanels.pages import widgets

        words = set()
        for level in ("info", "warning", "alarm", "error"):
            widgets.showWeight(self.widget.ui.messageIcon, level)
            words.add(self.widget.ui.messageIcon.accessibleName)
        self.assertEqual(len(words), 4)
