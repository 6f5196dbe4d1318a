"""The module as a whole: it opens quickly, survives everything, and leaves nothing behind."""

import ast
import gc
import itertools
import os
import time
import types
import weakref
from pathlib import Path
from unittest import mock

import qt
import slicer
from medenhance_testing import MedEnhanceTestCase, slow
from slicer import i18n

from MedEnhanceLib.runtime import dependencies as library
from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import PanelError

PAGES = ["enhance", "compress", *(["train"] if library.has_training() else []), "models"]


def extracted():
    """Yield the texts of `_()` as Slicer's tool takes them from files: (context, text)."""
    folder = Path(slicer.modules.medenhance.path).parent
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "_":
                yield i18n.getContext(str(path)), ast.literal_eval(node.args[0])


class ModuleTest(MedEnhanceTestCase):
    def test_everyPageOpensAndIsRemembered(self):
        self.assertEqual([name for name, *_rest in self.widget.PAGES], PAGES)
        for name in [*reversed(PAGES), *PAGES[1:]]:
            self.widget.showPage(name)
            self.assertEqual(self.context.state.page, name)
        self.assertEqual(self.widget.ui.tabs.count, len(PAGES))

    def test_aPageIsMadeWhenItIsFirstAskedFor(self):
        self.reload("enhance")
        self.assertEqual([*self.widget.panels], ["enhance"])
        self.widget.showPage("models")
        self.assertEqual([*self.widget.panels], ["enhance", "models"])
        tabs = self.widget.ui.tabs
        self.assertEqual(tabs.currentWidget(), self.widget.panels["models"].widget)
        self.assertEqual(tabs.tabText(tabs.currentIndex), "Models")

    def test_theSelfTestOpensThePagesAloneWherePackagesAreMissing(self):
        absent = [library.Package("torch>=2.5", "torch", "networks", 4100, use="networks")]
        self.widget.parent.exit()
        with (
            mock.patch.object(dependencies, "missing", lambda *_use: absent),
            self.assertLogs(level="INFO") as log,
        ):
            slicer.selfTests["MedEnhance"]()  # Slicer's Reload and Test
        self.assertRegex(log.output[-1], r"Only the pages were tested\. .*(PyTorch|packages: 1)")
        self.assertFalse(self.widget.parent.isEntered)

    @slow
    def test_theSelfTestEnhancesTheSample(self):
        with self.assertLogs(level="INFO") as log:
            slicer.selfTests["MedEnhance"]()
        self.assertIn("Enhanced", log.output[-1])

    def test_textsAreLookedUpWhereSlicersToolsExtractThem(self):
        """By folder and file, and so in contexts that no other extension has."""
        asked, translate = set(), slicer.app.translate

        def noted(context, text):
            asked.add((context, text))
            return translate(context, text)

        with mock.patch.object(type(slicer.app), "translate", lambda _app, *texts: noted(*texts)):
            self.reload(PAGES[0])
            for name in PAGES:
                self.widget.showPage(name)
        self.assertGreater(len(asked), 50)
        self.assertEqual(asked - set(extracted()), set())
        self.assertEqual({context[:10] for context, _text in extracted()}, {"MedEnhance"})

    def test_openingTakesLessThanHalfASecond(self):
        times = []
        for _attempt in range(3):
            began = time.process_time()  # of the processor: other work does not count
            slicer.util.reloadScriptedModule("MedEnhance")
            times.append(time.process_time() - began)
        print(f"opening the module took {min(times):.3f} s")
        self.assertLess(min(times), 0.5)

    def test_ofManyWarningsTheFirstAreReadAtOnceAndAllOnDemand(self):
        job = self.context.runner.submit("", {}, title="")
        self.finish(job)
        job.warnings += ["one", "two", "three", "four"]
        job.log += [f"warning: {each}" for each in job.warnings]
        self.context.report(job, "Done.")
        ui = self.widget.ui
        lines = ["Done.", "One.", "Two.", "And 2 more, under Details."]
        self.assertEqual(ui.messageLabel.text.splitlines(), lines)
        self.assertIn("warning: four", ui.messageDetails.plainText)

    def test_aMessageIsShownWithItsDetailsOnDemand(self):
        ui = self.widget.ui
        trace = "Traceback (most recent call last):\n  File\nValueError: damaged\n"
        error = PanelError("scan.ucv is damaged", "Run recover.", "input", f"a line\n{trace}end")
        with self.assertLogs(level="WARNING") as log:
            self.context.showError(error)
        self.assertFalse(ui.messageFrame.isHidden())
        self.assertEqual(ui.messageLabel.text, "scan.ucv is damaged. Run recover.")
        self.assertTrue(ui.messageDetails.isHidden())
        ui.messageDetailsButton.click()
        self.assertFalse(ui.messageDetails.isHidden())
        lines = ["scan.ucv is damaged", "Run recover.", "a line", "end"]
        self.assertEqual(ui.messageDetails.plainText.splitlines(), lines)
        for text in ("damaged. Run recover. (input)", trace):
            self.assertIn(text, "".join(log.output), "Slicer's log has the technical part")
        ui.messageCloseButton.click()
        self.assertTrue(ui.messageFrame.isHidden())

    def test_aMessageIsShownOnThePageThatItCameFromAlone(self):
        ui, panels = self.widget.ui, self.widget.panels
        panels["enhance"].context.message("error", "of Enhance")
        self.assertEqual(self.message, "of Enhance")
        panels["compress"].context.message("info", "of Compress")
        self.assertEqual(self.message, "of Enhance")
        self.widget.showPage("compress")
        self.assertEqual(self.message, "of Compress")
        self.assertEqual(ui.messageIcon.accessibleName, "Information")
        ui.messageCloseButton.click()
        self.assertEqual(self.message, "")
        self.widget.showPage("models")
        self.assertEqual(self.message, "")
        self.widget.showPage("enhance")
        self.assertEqual(self.message, "of Enhance")

    def observers(self):
        """Count those of the scene and of the nodes behind the page Enhance."""
        state = self.context.state
        nodes = [state.node, state.inputVolume, state.inputVolume.GetDisplayNode()]
        nodes += slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        return [str(each).count("vtkObserver") for each in (slicer.mrmlScene, *nodes)]

    def test_nothingIsObservedAndNoNodeIsMadeWhileAnotherModuleIsInFront(self):
        node, scene, parent = self.smallVolume(modality="MR"), slicer.mrmlScene, self.widget.parent
        result, page = self.resultOf(node), self.widget.panels["enhance"]
        self.context.state.inputVolume, self.context.state.enhancedVolume = node, result
        compare, self.context.state.outputVolume = page.result.compare, self.resultOf(node, "old")
        parent.exit()
        alone = self.observers()[1:]
        parent.enter()
        compare.show(result, "single")
        observed, updates = self.observers(), []
        parent.exit()
        self.assertEqual(self.observers(), [observed[0] - 3, *alone])
        self.context.onChange(lambda: updates.append(compare.mode))
        scene.RemoveNode(self.context.state.outputVolume)  # the selector goes to the next one
        self.context.changeSoon()  # as a job that ends
        self.processEvents(80)
        self.assertEqual(updates, [])
        job = types.SimpleNamespace(nodes={"output": result}, params={}, warnings=[], log=[])
        page.runs.showResult(job, node, page.options)
        self.assertEqual((self.observers()[1:], compare.mode), (alone, "none"))
        parent.enter()
        self.assertIsNone(page.ui.outputSelector.currentNode() or self.context.state.outputVolume)
        self.assertEqual((self.observers()[0], compare.mode), (observed[0], "none"))
        parent.exit()
        scene.RemoveNode(self.context.state.node)
        scene.Clear(0)
        slicer.util.reloadScriptedModule("MedEnhance")
        self.assertEqual(self.widget.logic.getAllParameterNodes(), [])
        parent.enter()
        slicer.util.reloadScriptedModule("MedEnhance")
        self.assertIsNotNone(slicer.util.getModuleWidget("MedEnhance").context.state)

    def test_everyPageFitsANarrowPanelAndEnhanceAScreenOf900Pixels(self):
        """With a message, all sections open, the font of a usual screen (9 pt) and a larger one."""
        # A fresh panel: Qt keeps the hints of sections whose content was wider before.
        self.reload("enhance")
        source, wide = self.smallVolume(name="scan", modality="MR"), []
        self.context.state.inputVolume = source
        result = self.resultOf(source, difference=source, uncertainty=source)
        self.context.state.enhancedVolume = result
        self.context.message("warning", "The noise is high: look at the result. " * 3, "details")
        font = qt.QApplication.font()
        self.addCleanup(qt.QApplication.setFont, qt.QFont(font))
        for section in self.unfold(self.widget.uiWidget):
            self.addCleanup(setattr, section, "collapsed", True)
        for points in (11, 9):
            font.setPointSize(points)
            qt.QApplication.setFont(font)
            for name in PAGES:
                self.widget.showPage(name)
                self.processEvents(80)
                width = self.widget.parent.minimumSizeHint.width()
                wide += [(points, name, width)] if width > 400 else []
        self.assertEqual(wide, [])
        self.widget.showPage("enhance")
        self.processEvents(80)
        for width in (400, 500):
            self.assertLessEqual(self.widget.parent.layout().totalHeightForWidth(width), 900)


class LeakTest(MedEnhanceTestCase):
    """What opening and closing leave, where connections hold their slots as PythonQt's do."""

    #: 200 in the long run that is documented; fewer in every run of the tests.
    CYCLES = int(os.environ.get("MEDENHANCE_CYCLES", "8"))

    @slow
    def test_openingClosingAndReloadingDoesNotGrow(self):
        counts = []
        gc.collect()
        gc.freeze()  # what is there before is neither searched nor counted
        self.addCleanup(gc.unfreeze)
        for _round in range(3 + self.CYCLES):
            self.cycle()
            counts.append(self.count())
        counts = counts[2:]  # the first ones load what is loaded once
        *named, _objects = counts[0]
        kinds = ("nodes", "observers", "widgets")
        for kind, before, after in zip(kinds, named, counts[-1], strict=False):
            self.assertEqual(after, before, kind)
        steps = sorted(after[-1] - before[-1] for before, after in itertools.pairwise(counts))
        # A leak grows in every cycle; what comes once, as the answer to a question, does not.
        usual = steps[2:-2] or steps
        growth = sum(usual) / len(usual)
        print(f"{self.CYCLES} cycles: {growth:+.1f} Python objects a cycle; all: {steps}")
        self.assertLess(growth, 1, "Python objects that each cycle leaves")

    @slow
    def test_aModuleThatWasReloadedIsGone(self):
        self.cycle()  # the tests before keep the one that they had
        old = slicer.util.getModuleWidget("MedEnhance")
        held = [*old.panels.values(), old.context, old]
        left = [(type(each).__name__, weakref.ref(each)) for each in held]
        self.widget = self.context = None
        del old, held
        self.cycle()
        self.settle()
        self.assertEqual([name for name, each in left if each() is not None], [])

    def cycle(self):
        slicer.util.reloadScriptedModule("MedEnhance")
        widget = slicer.util.getModuleWidget("MedEnhance")
        widget.enter()
        node = self.smallVolume()
        widget.context.state.inputVolume = node
        self.compare(widget, node)
        self.processEvents()
        slicer.mrmlScene.Clear(0)
        widget.exit()
        self.processEvents()

    def compare(self, widget, node):
        """What observes views; each other cycle ends while it does."""
        for name, *_page in widget.PAGES:
            widget.showPage(name)
        widget.showPage("enhance")
        ui = widget.panels["enhance"].ui
        widget.context.state.enhancedVolume = self.resultOf(node, difference=node)
        widget.panels["enhance"].update()
        self.pick(ui.compareComboBox, "difference")
        self.assertEqual(widget.panels["enhance"].result.compare.mode, "single")
        self.rounds = getattr(self, "rounds", 0) + 1
        if self.rounds % 2:
            widget.panels["enhance"].result.leave()

    def settle(self):
        """Let go of what is due: Qt drops a connection in the turn after its receiver went.

        A question that a page asked keeps it until the answer, which a busy machine gives late; the
        runner outlives a reload.
        """
        runner = slicer.util.getModuleWidget("MedEnhance").context.runner
        self.waitUntil(lambda: not runner.activeJobs())
        for _round in range(3):
            gc.collect()
            self.processEvents()
            self.deleteWhatIsDue()
        gc.collect()

    def count(self):
        self.settle()
        scene = slicer.mrmlScene
        return (
            scene.GetNumberOfNodes(),
            str(scene).count("vtkCommand") + str(scene).count("Observer"),
            sum(map(_isOurs, qt.QApplication.allWidgets())),
            len(gc.get_objects()),
        )


def _isOurs(widget):
    """Whether a widget may be of the panel: Slicer's tree leaves menus without a parent."""
    return not widget.inherits("QMenu") or widget.parentWidget() is not None
