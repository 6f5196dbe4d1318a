"""The scripted module MedEnhance: what Slicer loads at its start, so it imports next to nothing.

Pages, jobs and bridges live in MedEnhancePanels; all computing happens in MedEnhanceLib, in a
process of its own.
"""

import importlib
import os
import sys

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


def findLibrary():
    """Make MedEnhanceLib importable from a source tree too, where it lies one folder up."""
    here = os.path.dirname(os.path.abspath(__file__))
    above = os.path.dirname(here)
    for folder in (here, above):
        if os.path.isdir(os.path.join(folder, "MedEnhanceLib")):
            if folder not in sys.path:
                sys.path.append(folder)
            return


findLibrary()


class MedEnhance(ScriptedLoadableModule):
    """What the module list shows."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedEnhance")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Filtering")]
        parent.dependencies = []
        parent.contributors = ["The MedEnhance developers"]
        parent.helpText = _(
            "Enhances, segments and compresses volumes. Pick a volume on the Load page, then"
            " choose what to do with it. Research software, not a medical device."
        )
        parent.acknowledgementText = _(
            "Published methods, reconstructed; the model cards name data and licences."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer our sample in Slicer's Sample Data module."""
    from MedEnhancePanels import samples

    samples.registerSampleData()


class MedEnhanceWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: a message bar, a page per task, and the choice of the parameter node."""

    #: name, title, module, class
    PAGES = (
        ("load", _("Load"), "MedEnhancePanels.load", "LoadPanel"),
        ("enhance", _("Enhance"), "MedEnhancePanels.enhance", "EnhancePanel"),
        ("compress", _("Compress"), "MedEnhancePanels.compress", "CompressPanel"),
        ("distill", _("Distill"), "MedEnhancePanels.distill", "DistillPanel"),
        ("jobs", _("Jobs"), "MedEnhancePanels.jobs", "JobsPanel"),
        ("models", _("Models"), "MedEnhancePanels.models", "ModelsPanel"),
    )

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic, self.context, self.ui, self.uiWidget = None, None, None, None
        self.panels = {}
        self._knownNodes = set()
        self._isEntered, self._shown = False, []

    def setup(self):
        from MedEnhancePanels.context import Context
        from MedEnhancePanels.runner import sharedRunner

        ScriptedLoadableModuleWidget.setup(self)
        self.logic = MedEnhanceLogic()
        self.context = Context(
            self.logic, sharedRunner(), __file__, self.showMessage, self.showPage
        )
        self.uiWidget, self.ui = self.context.ui("MedEnhance")
        self.layout.setContentsMargins(4, 4, 4, 4)  # six tabs fit into a panel of 400 pixels
        self.layout.addWidget(self.uiWidget)
        self.ui.parameterNodeSelector.addAttribute(
            "vtkMRMLScriptedModuleNode", "ModuleName", self.moduleName
        )
        self.ui.parameterNodeSelector.currentNodeChanged.connect(self.onParameterNodeSelected)
        self.ui.parameterNodeSelector.nodeAddedByUser.connect(self.onParameterNodeAdded)
        self.ui.messageCloseButton.clicked.connect(self.onMessageClosed)
        self.ui.messageDetailsButton.toggled.connect(self.ui.messageDetails.setVisible)
        self._addPages()
        self.ui.tabs.currentChanged.connect(self.onPageChanged)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.initializeState()

    def _addPages(self):
        from MedEnhancePanels import dependencies

        if dependencies.missing():
            from MedEnhancePanels.firstuse import FirstUsePanel

            self.panels["firstUse"] = FirstUsePanel(self.context)
            self.uiWidget.layout().insertWidget(0, self.panels["firstUse"].widget)
        for name, title, module, className in self.PAGES:
            panel = getattr(importlib.import_module(module), className)(self.context)
            self.panels[name] = panel
            self.ui.tabs.addTab(panel.widget, title)

    def cleanup(self):
        """Slicer closes, or the module is loaded anew."""
        self.removeObservers()
        for panel in self.panels.values():
            panel.cleanup()
        self.panels, self._shown = {}, []
        if self.context is not None:
            self.context.cleanup()
        if self.uiWidget is not None:
            # Slicer only hides the widgets of a module that it loads anew, and these would go on
            # following the scene.
            self.uiWidget.deleteLater()
            self.uiWidget = None

    def enter(self):
        self.initializeState()
        self._isEntered = True
        self._enterPage()

    def exit(self):
        self._isEntered = False
        self._enterPage()

    def _enterPage(self):
        """Let the page in front know that it is, and the one before that it is not any more."""
        shown = self.pageName(self.ui.tabs.currentIndex) if self._isEntered else None
        wanted = [name for name in ("firstUse", shown) if self._isEntered and name in self.panels]
        for name in [name for name in self._shown if name not in wanted]:
            self.panels[name].exit()
        for name in [name for name in wanted if name not in self._shown]:
            self.panels[name].enter()
        self._shown = wanted

    def onReload(self):
        """For developers: the pages are loaded anew as well, which ends the jobs."""
        from MedEnhancePanels.runner import sharedRunner

        sharedRunner().shutdown()
        for name in [name for name in sys.modules if name.startswith("MedEnhancePanels")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    # --- state ---

    def initializeState(self):
        """Show the parameter node of the scene, a new one where there is none."""
        if not self.panels or slicer.mrmlScene.IsClosing() or slicer.mrmlScene.IsImporting():
            return
        shown = self.ui.parameterNodeSelector.currentNode()
        node = shown if shown is not None else self.logic.getParameterNode()
        self.ui.parameterNodeSelector.setCurrentNode(node)
        self._showState(node)

    def _showState(self, node):
        from MedEnhancePanels.state import State

        state = State(node) if node is not None else None
        if state == self.context.state:
            return
        self.context.setState(state)
        if state is None:
            return
        if state.page in self.panels:
            self.showPage(state.page)
        else:
            state.page = self.pageName(self.ui.tabs.currentIndex)

    def onParameterNodeSelected(self, node=None):
        if slicer.mrmlScene.IsClosing() or slicer.mrmlScene.IsImporting():
            return
        shown = self.ui.parameterNodeSelector.currentNode()
        self._showState(shown)
        if shown is None:  # it was removed: there is always one, but not made while one goes
            qt.QTimer.singleShot(0, self.initializeState)

    def onParameterNodeAdded(self, node):
        node.SetModuleName(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)

    def onSceneStartClose(self, caller=None, event=None):
        self.context.setState(None)
        self.context.clearMessage()

    def onSceneEndClose(self, caller=None, event=None):
        self.initializeState()

    def onSceneStartImport(self, caller=None, event=None):
        self.context.clearNews()
        self._knownNodes = {node.GetID() for node in self.logic.getAllParameterNodes()}

    def onSceneEndImport(self, caller=None, event=None):
        """Show the choices that came with a scene; a set that nobody used makes way for them."""
        shown = self.context.state
        for node in self.logic.getAllParameterNodes():
            if node.GetID() not in self._knownNodes:
                self.ui.parameterNodeSelector.setCurrentNode(node)
                if shown is not None and shown.isUntouched:
                    slicer.mrmlScene.RemoveNode(shown.node)
                break
        self.initializeState()

    # --- pages and messages ---

    def pageName(self, index):
        return self.PAGES[index][0] if 0 <= index < len(self.PAGES) else ""

    def showPage(self, name):
        for index in range(self.ui.tabs.count):
            if self.pageName(index) == name:
                self.ui.tabs.setCurrentIndex(index)

    def onPageChanged(self, index):
        if self.context.state is not None:
            self.context.state.page = self.pageName(index)
        self.context.clearNews()
        self._enterPage()

    def showMessage(self, level, text, details=""):
        self.ui.messageLabel.text = text
        self.ui.messageDetails.setPlainText(details)
        self.ui.messageDetailsButton.checked = False
        self.ui.messageDetailsButton.visible = bool(details)
        self.ui.messageFrame.visible = bool(text)
        if text:
            icons = {
                "info": qt.QStyle.SP_MessageBoxInformation,
                "warning": qt.QStyle.SP_MessageBoxWarning,
                "error": qt.QStyle.SP_MessageBoxCritical,
            }
            icon = self.uiWidget.style().standardIcon(icons[level])
            self.ui.messageIcon.setPixmap(icon.pixmap(20, 20))

    def onMessageClosed(self):
        self.showMessage("", "")


class MedEnhanceLogic(ScriptedLoadableModuleLogic):
    """The library for nodes: the methods of MedEnhanceLib with nodes in and nodes out.

    Every method runs its work in the worker process. With wait=True (the default) it returns
    what came out, and meanwhile keeps Slicer's event loop going; with wait=False it returns a
    Job at once: see job.onFinished, job.cancel, job.nodes. Errors are raised as PanelError, with
    .message, .hint and .code.

        logic = slicer.modules.medenhance.widgetRepresentation().self().logic
        better = MedEnhanceLogic().enhance(slicer.util.getNode("MRHead"), segment=True)
    """

    def __init__(self, parent=None):
        ScriptedLoadableModuleLogic.__init__(self, parent)
        self.isSingletonParameterNode = False  # several sets of choices can live in one scene

    @property
    def runner(self):
        """The jobs of this Slicer, shared with the panel."""
        from MedEnhancePanels.runner import sharedRunner

        return sharedRunner()

    def enhance(
        self,
        node,
        model="auto",
        guide=None,
        uncertainty=0,
        segment=False,
        device="auto",
        *,
        strength=1.0,
        biasCorrection="none",
        output=None,
        wait=True,
    ):
        """Enhance a volume node, or every frame of a sequence node; returns the new node.

        model: a model's name or folder; "auto" takes the one for the modality. guide: a volume
        node of the same modality and high quality. uncertainty: number of samples of the map
        (8 is usual), 0 for none. segment: find labels too. device: "auto", "cpu", "cuda", ….
        strength: share of the correction. biasCorrection: "n4" removes shading of MR.
        output: a volume node to fill instead of a new one.
        The node refers to what else was made: node.GetNodeReference("MedEnhance.segmentation"),
        also .input, .uncertainty, .table, .difference.
        """
        from MedEnhancePanels import arguments, enhancement

        arguments.checkNode("node", node)
        for name, other in (("guide", guide), ("output", output)):
            if other is not None:
                arguments.checkNode(name, other)
        for name, text in (
            ("model", model),
            ("device", device),
            ("biasCorrection", biasCorrection),
        ):
            arguments.checkText(name, text)
        arguments.checkNumber("strength", strength)
        arguments.checkCount("uncertainty", uncertainty)
        options = enhancement.EnhanceOptions(
            model=os.fspath(model),
            guide=guide,
            uncertainty=int(uncertainty),
            segment=segment,
            device=device,
            strength=strength,
            biasCorrection=biasCorrection,
            output=output,
        )
        return self._output(enhancement.start(self.runner, node, options), wait, "output")

    def segment(self, node, model="auto", device="auto", *, wait=True):
        """Find labels in a volume node; returns a segmentation node with terminology."""
        from MedEnhancePanels import arguments, enhancement

        arguments.checkNode("node", node)
        for name, text in (("model", model), ("device", device)):
            arguments.checkText(name, text)
        job = enhancement.startSegment(self.runner, node, model=os.fspath(model), device=device)
        return self._output(job, wait, "segmentation")

    def compress(
        self,
        node,
        path,
        *,
        lossless=False,
        maxError=None,
        ratio=None,
        speed="normal",
        overwrite=False,
        wait=True,
    ):
        """Compress a volume node into a file (.ucv); returns its figures as a dictionary.

        Exactly one promise: lossless, maxError (in the volume's units), or ratio. The file
        appears only after it was decoded again and compared.
        """
        from MedEnhancePanels import arguments, compression

        arguments.checkNode("node", node)
        arguments.checkPath("path", path)
        mode = compression.modeOf(lossless=lossless, maxError=maxError, ratio=ratio)
        options = compression.CompressOptions(mode, maxError=maxError, ratio=ratio, speed=speed)
        job = compression.startCompress(self.runner, node, path, options, overwrite=overwrite)
        return self._result(job, wait)

    def decompress(self, path, region=None, layers=None, *, name=None, wait=True):
        """Load a compressed file, or a part of it, as a new volume node.

        region: as numpy takes it, (slice(40, 60), ...), or for each axis, slices first, a pair
        (start, stop) or None: ((40, 60), None, None). The stop is not part of it.
        layers: fewer is coarser, where the file has several.
        """
        from MedEnhancePanels import arguments, compression

        arguments.checkPath("path", path)
        if layers is not None:
            arguments.checkCount("layers", layers)
        job = compression.startDecompress(
            self.runner, path, region=region, layers=layers, name=name
        )
        return self._output(job, wait, "output")

    def save(self, node, path, *, overwrite=False, wait=True):
        """Write a volume node as its path ends (.nrrd, .nii.gz, .nii, .mha); returns the path.

        Unlike Slicer's own Save, the header says DERIVED of a result, with all steps, and its
        manifest lies beside the file, <path>.json.
        """
        from MedEnhancePanels import arguments, saving

        arguments.checkNode("node", node)
        arguments.checkPath("path", path)
        job = saving.startSave(self.runner, node, path, overwrite=overwrite)
        result = self._result(job, wait, "outputs")
        return result["output"] if wait else job

    def exportDicom(
        self,
        node,
        folder=None,
        *,
        database=True,
        segmentation=True,
        uncertainty=True,
        patientId="",
        patientName="",
        studyDescription="",
        seriesDescription="",
        multiframe=False,
        deidentify=False,
        wait=True,
    ):
        """Export a volume node as a derived DICOM series; returns the paths of the files.

        It goes into Slicer's DICOM database unless database=False, and into `folder`, new or
        empty, where one is given; without a folder the paths are those in the database. Patient
        and study are those of the series that the volume was made from; a volume that never was
        DICOM needs patientId. segmentation, uncertainty: what a result refers to as well, the
        table of structures with the segmentation. multiframe: one file instead of one a slice.
        deidentify: without what names the patient. With wait=False: a piece of work that has the
        methods of a Job.
        """
        from MedEnhancePanels import arguments, dicomexport, dicomsource, runner

        arguments.checkNode("node", node)
        if folder is not None:
            arguments.checkPath("folder", folder)
        source = dicomsource.sourceOf(node) if not patientId else None
        wanted = {"volume": True, "segmentation": segmentation, "uncertainty": uncertainty}
        options = dicomexport.ExportOptions(
            folder=os.path.expanduser(os.fspath(folder)) if folder is not None else "",
            database=bool(database),
            parts=tuple(role for role in dicomexport.PARTS if wanted[role]),
            source=source,
            patientId=str(patientId),
            patientName=str(patientName),
            studyDescription=str(studyDescription),
            seriesDescription=str(seriesDescription),
            multiframe=bool(multiframe),
            deidentify=bool(deidentify),
        )
        work = dicomexport.start(self.runner, node, options)
        return runner.wait(work).files if wait else work

    def inspect(self, nodeOrPath, *, wait=True):
        """The card of a volume node, a file, a DICOM folder or a .ucv, as a dictionary."""
        from MedEnhancePanels import arguments, bridge

        if isinstance(nodeOrPath, (str, os.PathLike)):
            job = self.runner.submit(
                "inspect", {"input": os.fspath(nodeOrPath)}, title=_("Inspect a file")
            )
            return self._result(job, wait, "card")

        arguments.checkNode("node", nodeOrPath)

        def send(job):
            job.params = {"input": os.path.join(job.folder, "input.nrrd")}
            yield from bridge.sendVolume(nodeOrPath, job.params["input"])

        title = _("Inspect {name}").format(name=nodeOrPath.GetName())
        return self._result(
            self.runner.submit("inspect", {"input": "volume"}, title=title, before=send),
            wait,
            "card",
        )

    def train(self, method, config, data, out, *, wait=True):
        """Train a model on a folder of volumes, or go on with a training; the model's folder.

        method: "hqg" (an enhancer) or "head". config: a preset ("smoke", "cpu", "full") or the
        method's fields as a dictionary. out: a folder; the same call goes on from what is there.
        """
        fields = {"preset": config} if isinstance(config, str) else dict(config)
        params = {"method": method, "config": fields, "data": str(data), "out": str(out)}
        job = self.runner.submit("train", params, title=_("Train a model"), own=True)
        result = self._result(job, wait, "outputs")
        return result["model"] if wait else job

    def doctor(self, *, wait=True):
        """Device with the reason for the choice, memory and packages, as a dictionary."""
        job = self.runner.submit("doctor", {}, title=_("Check this computer"))
        return self._result(job, wait)

    def _output(self, job, wait, name):
        from MedEnhancePanels import runner

        return runner.wait(job).nodes[name] if wait else job

    def _result(self, job, wait, name=None):
        from MedEnhancePanels import runner

        if not wait:
            return job
        result = runner.wait(job).result
        return result[name] if name else result


class MedEnhanceFileReader:
    """Opens .ucv files through Slicer's own dialogs, and by drag and drop."""

    def __init__(self, parent):
        self.parent = parent

    def description(self):
        return _("MedEnhance compressed volume")

    def fileType(self):
        return "MedEnhanceCompressedVolume"

    def extensions(self):
        return [_("MedEnhance compressed volume") + " (*.ucv)"]

    def canLoadFile(self, filePath):
        from MedEnhancePanels import fileio

        return fileio.canLoadFile(filePath)

    def load(self, properties):
        from MedEnhancePanels import fileio

        return fileio.load(self.parent, properties)


class MedEnhanceFileWriter:
    """Saves volumes as .ucv, without loss."""

    def __init__(self, parent):
        self.parent = parent

    def description(self):
        return _("MedEnhance compressed volume")

    def fileType(self):
        """Slicer's own type for volumes: among its writers the one for the ending is taken, so
        that slicer.util.saveNode(node, "scan.ucv") finds this one."""
        return "VolumeFile"

    def extensions(self, obj):
        return [_("MedEnhance compressed volume, lossless") + " (*.ucv)"]

    def canWriteObject(self, obj):
        from MedEnhancePanels import fileio

        return fileio.canWriteObject(obj)

    def canWriteObjectConfidence(self, obj):
        """Less than Slicer's own writer, which stays the default."""
        return 0.3 if self.canWriteObject(obj) else 0.0

    def write(self, properties):
        from MedEnhancePanels import fileio

        return fileio.write(self.parent, properties)


class MedEnhanceTest(ScriptedLoadableModuleTest):
    """A short way through the module, for Reload and Test; Testing/Slicer has the long ones."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def runTest(self):
        self.setUp()
        self.test_pagesOpen()
        self.setUp()
        self.test_compressedFileReturnsEqual()

    def test_pagesOpen(self):
        widget = slicer.util.getModuleWidget("MedEnhance")
        for name, *_rest in reversed(widget.PAGES):
            widget.showPage(name)
            self.assertEqual(widget.context.state.page, name)
        self.delayDisplay("Pages open")

    def test_compressedFileReturnsEqual(self):
        import numpy as np

        from MedEnhancePanels import dependencies

        if dependencies.missing():
            self.delayDisplay("Packages are missing: nothing can be computed yet")
            return
        voxels = np.arange(20 * 24 * 28, dtype=np.int16).reshape(20, 24, 28)
        node = slicer.util.addVolumeFromArray(voxels, name="MedEnhanceTest")
        folder = slicer.util.tempDirectory()
        path = os.path.join(folder, "test.ucv")
        MedEnhanceLogic().compress(node, path, lossless=True)
        back = MedEnhanceLogic().decompress(path)
        self.assertTrue(np.array_equal(slicer.util.arrayFromVolume(back), voxels))
        os.remove(path)
        self.delayDisplay("Test passed")
