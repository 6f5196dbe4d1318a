"""The scripted module MedEnhance, which Slicer loads at its start: it imports hardly anything.

Pages, tasks and nodes are in MedEnhancePanels; all computing happens in MedEnhanceLib, in a
separate process.
"""

import importlib.machinery
import importlib.util
import os
import sys

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

#: The published methods: name, authors and year, DOI.
_PAPERS = (
    ("HQG-Net", "He et al. 2024", "10.1109/TNNLS.2023.3315307"),
    ("GradProm", "Zhang and Cheng 2025", "10.1109/TPAMI.2025.3525671"),
    ("UniCompress", "Yang et al. 2024", "10.48550/arXiv.2405.16850"),
    ("SPG", "Xu et al. 2025", "10.48550/arXiv.2511.13106"),
)
#: What is reloaded with the module. Each name has the extension's, as texts are translated by the
#: names of folder and file.
_PACKAGES = ("MedEnhancePanels", "MedEnhancePages", "MedEnhanceTasks", "MedEnhanceNodes")
#: The first page to read; below the home page that CMakeLists.txt states.
_GUIDE = "https://github.com/medenhance/SlicerMedEnhance/blob/main/docs/slicer/user-guide.md"


def findLibrary():
    """Import MedEnhanceLib from beside this module, or from one folder up in a source tree.

    It is not the first one in sys.path: Slicer appends the folders of modules, so that a package
    that pip installed, for other scripts, would win. Neither an older nor a newer one will do, as
    the panel is tested with its own, whose jobs and parameters it knows.
    """
    module, name = os.path.dirname(os.path.abspath(__file__)), "MedEnhanceLib"
    spec = importlib.machinery.PathFinder.find_spec(name, [module, os.path.dirname(module)])
    if name in sys.modules or spec is None:  # the module is reloaded, or was copied alone
        return
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


findLibrary()

# Slicer and scripts look for the logic here.
from MedEnhancePanels.logic import MedEnhanceLogic  # noqa: E402


class MedEnhance(ScriptedLoadableModule):
    """The entry in the list of modules."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedEnhance")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Filtering")]
        parent.dependencies = []
        parent.contributors = ["The MedEnhance developers (MedEnhance)"]
        parent.helpText = _(
            "Removes the noise of MR and CT volumes, and shows what it removed. It also makes thick"
            " slices thin, segments, and compresses. Choose a volume, or load one, then press"
            " Apply: it measures the noise itself, says what it found, and leaves clean scans"
            " alone."
            " Research use only: not a medical device, not for diagnosis. Every result is marked"
            " as derived."
        )
        parent.helpText += f'<p><a href="{_GUIDE}">{_("User guide")}</a></p>'
        parent.acknowledgementText = _(
            "Reimplements published methods; the model cards list data and licenses."
        )
        for method, authors, doi in _PAPERS:
            link = f'<a href="https://doi.org/{doi}">doi {doi}</a>'
            parent.acknowledgementText += f"<br>{method}: {authors}, {link}"
        slicer.app.connect("startupCompleted()", registerSampleData)
        slicer.app.connect("startupCompleted()", registerMenu)
        registerDicomPlugin()


def registerDicomPlugin():
    """Offer results in Slicer's own export to DICOM, where Slicer was built with DICOM."""
    if importlib.util.find_spec("DICOMLib") is not None:
        from MedEnhancePanels.dicom_plugin import NAME, DerivedSeriesPlugin

        plugins = slicer.modules.dicomPlugins = getattr(slicer.modules, "dicomPlugins", {})
        plugins[NAME] = DerivedSeriesPlugin


def registerSampleData():
    """Offer our sample in Slicer's Sample Data module."""
    from MedEnhanceTasks import samples

    samples.registerSampleData()


def registerMenu():
    """Offer enhancing in the menu of a volume in Slicer's module Data."""
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "MedEnhancePanels")
    plugin = slicer.qSlicerSubjectHierarchyScriptedPlugin(None)
    plugin.setPythonSource(os.path.join(folder, "MedEnhanceSubjectHierarchyPlugin.py"))


class _Pages(dict):
    """Pages by name, each made when it is first asked for: all at once would take too long."""

    def __init__(self, make):
        self._make = make

    def __missing__(self, name):
        self[name] = self._make(name)
        return self[name]


class MedEnhanceWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: messages, the volume, a page per task, and the job that runs."""

    #: name, title, module, class
    PAGES = (
        ("enhance", _("Enhance"), "MedEnhancePages.enhance", "EnhancePanel"),
        ("compress", _("Compress"), "MedEnhancePages.compress", "CompressPanel"),
        ("train", _("Train"), "MedEnhancePages.train", "TrainPanel"),
        ("models", _("Models"), "MedEnhancePages.models", "ModelsPanel"),
    )

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic, self.context, self.ui, self.uiWidget = None, None, None, None
        self.volumeRow, self.jobBar = None, None
        self.panels = {}
        self._shown = None

    def setup(self):
        from MedEnhanceLib.runtime.dependencies import has_training
        from MedEnhanceNodes import belongings
        from MedEnhancePages.job_bar import JobBar
        from MedEnhancePages.volume_row import VolumeRow
        from MedEnhancePanels.context import Context
        from MedEnhancePanels.runner import sharedRunner

        ScriptedLoadableModuleWidget.setup(self)
        if not has_training():
            self.PAGES = tuple(page for page in self.PAGES if page[0] != "train")
        self.logic = MedEnhanceLogic()
        self.context = Context(self.logic, sharedRunner(), __file__)
        self.context.showPage = self.showPage
        self.uiWidget, self.ui = self.context.panel, self.context.mainUi
        self.layout.setContentsMargins(4, 4, 4, 4)
        self.layout.addWidget(self.uiWidget)
        self.volumeRow = VolumeRow(self.context, self.ui)
        self.jobBar = JobBar(self.context.runner, self.ui)
        for _name, title, *_rest in self.PAGES:
            self.ui.tabs.addTab(qt.QWidget(), title)
        self.panels = _Pages(self._makePage)
        self.ui.tabs.currentChanged.connect(self.onPageChanged)
        self.onPageChanged(self.ui.tabs.currentIndex)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.initializeState)
        self.addObserver(scene, scene.EndImportEvent, self.initializeState)
        self.addObserver(
            scene, scene.NodeAboutToBeRemovedEvent, belongings.remover(self.context.runner)
        )
        if self.parent.isEntered:  # a module that is reloaded while it is in front
            self.enter()

    def _makePage(self, name):
        """Make a page, in place of the empty one that stands for it."""
        tabs, index = self.ui.tabs, [page[0] for page in self.PAGES].index(name)
        _name, title, module, className = self.PAGES[index]
        panel = getattr(importlib.import_module(module), className)(self.context)
        empty, current, wasBlocked = tabs.widget(index), tabs.currentIndex, tabs.blockSignals(True)
        tabs.insertTab(index, panel.widget, title)
        tabs.removeTab(index + 1)
        tabs.setCurrentIndex(current)
        tabs.blockSignals(wasBlocked)
        empty.deleteLater()
        return panel

    def cleanup(self):
        self.removeObservers()
        for part in (*self.panels.values(), self.jobBar, self.context):
            if part is not None:
                part.cleanup()
        self.panels, self._shown, self.volumeRow, self.jobBar = {}, None, None, None
        if self.uiWidget is not None:
            # Slicer only hides the widgets of a module that it reloads, and these would continue
            # to follow the scene.
            self.uiWidget.deleteLater()
            self.uiWidget = None

    def enter(self):
        self.context.enter()
        self.initializeState()
        self.jobBar.enter()
        self._enterPage()

    def exit(self):
        self.context.exit()
        self.volumeRow.wasAway = True
        self.jobBar.exit()
        self._enterPage()

    def _enterPage(self):
        """Call enter of the page that is now in front, and exit of the one before."""
        shown = self.pageName(self.ui.tabs.currentIndex) if self.context.isEntered else None
        if shown != self._shown:
            if self._shown in self.panels:
                self.panels[self._shown].exit()
            if shown in self.panels:
                self.panels[shown].enter()
            self._shown = shown

    def onReload(self):
        """Reload the pages too, for developers, which ends the jobs."""
        from MedEnhancePanels.runner import endSharedRunner

        endSharedRunner()
        for name in [name for name in sys.modules if name.partition(".")[0] in _PACKAGES]:
            del sys.modules[name]
        registerDicomPlugin()
        ScriptedLoadableModuleWidget.onReload(self)

    def initializeState(self, caller=None, event=None):
        """Show the scene's parameter node, a new one where there is none, in the open module."""
        scene = slicer.mrmlScene
        if not self.context.isEntered or scene.IsClosing() or scene.IsImporting():
            return
        from MedEnhancePanels.state import State

        node, state = self.logic.getParameterNode(), self.context.state
        if state is not None and state.node is node:
            return
        state = State(node)
        self.context.setState(state)
        if any(state.page == name for name, *_rest in self.PAGES):
            self.showPage(state.page)
        else:
            state.page = self.pageName(self.ui.tabs.currentIndex)

    def onSceneStartClose(self, caller=None, event=None):
        for panel in self.panels.values():
            panel.forget()
        self.context.setState(None)
        self.context.clearMessage()

    def pageName(self, index):
        return self.PAGES[index][0] if 0 <= index < len(self.PAGES) else ""

    def showPage(self, name):
        for index in range(self.ui.tabs.count):
            if self.pageName(index) == name:
                self.ui.tabs.setCurrentIndex(index)

    def openWith(self, node):
        """Show the page Enhance with a volume, once the module is open."""
        self.ui.inputSelector.setCurrentNode(node)
        self.showPage("enhance")

    def onPageChanged(self, index):
        name = self.pageName(index)
        self.jobBar.standOn(self.panels[name], name)
        self.context.showMessageOf(name)
        if self.context.state is not None:
            self.context.state.page = name
        self._enterPage()


class _CompressedVolume:
    """Base of reader and writer: their format, as Slicer asks for it."""

    def __init__(self, parent):
        self.parent = parent

    def description(self):
        return _("MedEnhance compressed volume")

    def fileType(self):
        return "MedEnhanceCompressedVolume"


class MedEnhanceFileReader(_CompressedVolume):
    """Reader of .ucv files, through Slicer's own dialogs, and by drag and drop.

    Slicer decides by the ending alone: a damaged file gets our sentence, not "no reader".
    """

    def extensions(self):
        return [f"{self.description()} (*.ucv)"]

    def load(self, properties):
        from MedEnhanceTasks import files

        return files.load(self.parent, properties)


class MedEnhanceFileWriter(_CompressedVolume):
    """Writer of .ucv files, without loss, in Slicer's Save and Export dialogs.

    Right before a node is written, Slicer asks for its extensions: that node is kept, as an ID does
    not lead to the copies, in a scene of their own, that Export has written.
    """

    def extensions(self, obj):
        from vtk import vtkWeakReference

        self._asked = vtkWeakReference()
        self._asked.Set(obj)
        return [f"{self.description()} (.ucv)"]

    def canWriteObjectConfidence(self, obj):
        """Return less than Slicer's writers do, which would otherwise not be the default ones."""
        from MedEnhanceTasks import files

        return 0.2 if files.canWrite(obj) else 0.0

    def write(self, properties):
        from MedEnhanceTasks import files

        node = self._asked.Get()
        if node is None or node.GetID() != properties["nodeID"]:
            return False
        return files.write(self.parent, node, properties)


class MedEnhanceTest(ScriptedLoadableModuleTest):
    """Short test of the module, for Reload and Test; Testing/Slicer has the others."""

    def runTest(self):
        from MedEnhancePanels import dependencies

        slicer.mrmlScene.Clear(0)
        widget = slicer.util.getModuleWidget("MedEnhance")
        wasEntered = widget.parent.isEntered
        widget.parent.enter()
        try:
            self.checkPages(widget)
            if dependencies.missing():
                text = _("Only the pages were tested. {lack}")
                self.delayDisplay(text.format(lack=dependencies.missingText()))
            else:
                self.checkEnhancing(widget.logic)
        finally:
            if not wasEntered:
                widget.parent.exit()

    def checkPages(self, widget):
        for name, *_rest in reversed(widget.PAGES):
            widget.showPage(name)
            self.assertEqual(widget.context.state.page, name)
        self.delayDisplay(_("Pages open"))

    def checkEnhancing(self, logic):
        """Enhance some slices of the sample that ships."""
        from MedEnhanceTasks import samples

        node = samples.load(samples.SAMPLES[0])
        slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node)[80:92].copy())
        before, after = map(slicer.util.arrayFromVolume, (node, logic.enhance(node)))
        self.assertLess(_roughness(after), 0.8 * _roughness(before))
        self.delayDisplay(_("Enhanced"))


def _roughness(voxels):
    """Return the standard deviation of the differences of neighbors, most of which is noise."""
    return (voxels[:, :, 1:].astype(float) - voxels[:, :, :-1]).std()
