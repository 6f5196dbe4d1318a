"""Names for screen readers, the order of the tab key, and colors that everybody sees apart."""

import itertools
import xml.etree.ElementTree as ElementTree

import medenhance_testing
import numpy as np
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
#: How the three kinds of color blindness see linear RGB, at their full strength (Machado, Oliveira
#: and Fernandes 2009).
SEEN_BY = {
    "everybody": np.eye(3),
    "protanopes": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopes": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopes": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def lab(color, seenBy):
    """CIE L*a*b* of a color in sRGB, 0 to 1, as it is seen."""
    color = np.asarray(color, float)
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(SEEN_BY[seenBy]) @ linear, 0, 1)
    toXyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ratios = np.asarray(toXyz) @ linear / [0.9505, 1.0, 1.089]
    x, y, z = np.where(ratios > 0.008856, np.cbrt(ratios), 7.787 * ratios + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def closest(colors):
    """The smallest distance between two of some colors, for whoever sees it smallest."""
    return min(
        float(np.linalg.norm(lab(one, seenBy) - lab(other, seenBy)))
        for seenBy in SEEN_BY
        for one, other in itertools.combinations(colors, 2)
    )


def parsed(color):
    return [int(color.lstrip("#")[at : at + 2], 16) / 255 for at in (0, 2, 4)]


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

    def test_everybodySeesSegmentsApart(self):
        from MedEnhanceLib.bundles import list_bundles

        for bundle in list_bundles():
            labels = bundle.metadata.get("labels") or ()
            if len(labels) > 1:
                colors = [parsed(label["color"]) for label in labels]
                self.assertGreater(closest(colors), 30, bundle.name)

    def test_eachWeightOfAMessageHasAWord(self):
        from MedEnhancePanels.pages import widgets

        words = set()
        for level in ("info", "warning", "alarm", "error"):
            widgets.showWeight(self.widget.ui.messageIcon, level)
            words.add(self.widget.ui.messageIcon.accessibleName)
        self.assertEqual(len(words), 4)

    def test_colorsThatSomeCannotTellApartAreFound(self):
        self.assertLess(closest([parsed("#c00000"), parsed("#4a6a00")]), 30)
