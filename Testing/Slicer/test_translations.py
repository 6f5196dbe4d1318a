"""The panel in another language: the translation file is compiled and loaded as Slicer does it."""

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import qt
import slicer
from medenhance_testing import ROOT, MedEnhanceTestCase, slow

SPANISH = ROOT / "MedEnhance/Resources/Translations/MedEnhance_es.ts"
PANELS = "MedEnhancePanels"
SHOWN = ("text", "title", "toolTip", "placeholderText", "accessibleName", "suffix", "noneDisplay")


def lrelease():
    """Qt's compiler of translations, "" where there is none."""
    found = shutil.which("lrelease") or shutil.which("pyside6-lrelease")
    if found is None:
        try:
            import PySide6
        except ImportError:  # Slicer's Qt is another
            return ""
        found = os.path.join(os.path.dirname(PySide6.__file__), "lrelease")
    return found if os.path.exists(found) else ""


def changedTexts():
    """The texts that read otherwise in Spanish."""
    messages = ElementTree.parse(SPANISH).getroot().iter("message")
    pairs = [(each.findtext("source"), each.findtext("translation")) for each in messages]
    same = {there for _text, there in pairs}
    return {text for text, there in pairs if text != there} - same


class SpanishTest(MedEnhanceTestCase):
    def setUp(self):
        if not lrelease():
            self.skipTest("there is no lrelease")
        super().setUp()
        compiled = os.path.join(self.temporaryFolder(), "MedEnhance_es.qm")
        subprocess.run([lrelease(), "-silent", str(SPANISH), "-qm", compiled], check=True)
        self.translator = qt.QTranslator()
        self.assertTrue(self.translator.load(compiled))
        self.english = {
            name: module for name, module in sys.modules.items() if name.startswith(PANELS)
        }
        self.addCleanup(self._backToEnglish)
        qt.QCoreApplication.installTranslator(self.translator)
        self.widget.onReload()
        self.widget = slicer.util.getModuleWidget("MedEnhance")
        self.context = self.widget.context
        self.widget.enter()

    def _backToEnglish(self):
        """With the modules of before, which other tests hold."""
        qt.QCoreApplication.removeTranslator(self.translator)
        sys.modules[f"{PANELS}.runner"].endSharedRunner()
        sys.modules.update(self.english)
        slicer.util.reloadScriptedModule("MedEnhance")

    def test_thePanelIsSpanish(self):
        tabs = self.widget.ui.tabs
        titles = [tabs.tabText(index) for index in range(tabs.count)]
        self.assertEqual(
            titles, ["Cargar", "Mejorar", "Comprimir", "Destilar", "Trabajos", "Modelos"]
        )
        self.context.state.inputVolume = self.smallVolume(name="scan")
        self.processEvents()
        english = changedTexts()
        shown = {
            (widget.objectName, text)
            for widget in slicer.util.findChildren(self.widget.uiWidget)
            for text in (getattr(widget, name, None) for name in SHOWN)
            if isinstance(text, str) and text
        }
        self.assertGreater(len(shown), 300)
        slicers = {("parameterNodeSelector", "None")}  # which the form leaves to the class
        self.assertEqual({each for each in shown - slicers if each[1] in english}, set())

    @slow
    def test_everyPageFitsANarrowPanelWithItsResult(self):
        self.assertEqual(self.widePages(9, 10, 11), [])
