"""The page Load: a volume from the scene, a file, DICOM images or a sample, and its card."""

import os
from html import escape

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhancePanels.errors import guarded
from MedEnhancePanels.nodes import bridge, card
from MedEnhancePanels.pages.load_choices import (
    RepairOffer,
    SeriesTable,
    repairsFor,
    seriesKey,
    seriesName,
    startSeries,
)
from MedEnhancePanels.pages.widgets import (
    JobProgress,
    NodeSelectors,
    Page,
    askForFile,
    singleShot,
)
from MedEnhancePanels.tasks import compression, samples
from MedEnhancePanels.tasks.files import (
    CONTAINER,
    DISC,
    READABLE,
    asksForSeries,
    isForTheLibrary,
    loadWithSlicer,
    startLoad,
    withRemedy,
)

_SETTLE_MS = 50


class LoadPanel(Page):
    """Picks or loads the volume that all pages work on, and describes it."""

    def __init__(self, context):
        super().__init__(context, "Load")
        self._job = None
        self._asked = {}
        self._series = SeriesTable(self.ui, self._onSeries)
        self._repair = RepairOffer(self.ui)
        frame, bar, label = self.ui.progressFrame, self.ui.progressBar, self.ui.progressLabel
        self._selectors = NodeSelectors(self.ui.inputSelector)
        self._progress = JobProgress(frame, bar, label, self.ui.cancelButton, hasTitle=True)
        self._observed = []
        self._settle = singleShot(self.widget, _SETTLE_MS, self.updateCard)
        self._sampleMenu = qt.QMenu(self.ui.sampleButton)
        self._sampleActions = []
        self._download = None
        self._setup()
        self.followState()

    def _setup(self):
        ui = self.ui
        for modality in card.MODALITIES:
            ui.modalityComboBox.addItem(card.modalityName(modality), modality)
        for sample in samples.SAMPLES:
            self._addSample(sample)
        ui.sampleButton.setMenu(self._sampleMenu)
        icon = self.widget.style().standardIcon(qt.QStyle.SP_MessageBoxWarning)
        ui.warningsIcon.setPixmap(icon.pixmap(24, 24))
        ui.inputSelector.currentNodeChanged.connect(self._onNodeChosen)
        ui.openFileButton.clicked.connect(self._onOpenFile)
        ui.openFolderButton.clicked.connect(self._onOpenFolder)
        ui.modalityComboBox.activated.connect(self._onModality)
        ui.enhanceButton.clicked.connect(lambda *_checked: self.context.showPage("enhance"))
        ui.compressButton.clicked.connect(self._onCompress)
        ui.exportButton.clicked.connect(self._onExport)
        self.updateCard()

    def enter(self):
        """Called when the page is shown: models may have come or gone."""
        self.updateCard()

    def cleanup(self):
        super().cleanup()
        self._selectors.cleanup()
        self._settle.stop()
        self._observe(None)
        self._progress.forget()
        self._job = None  # it continues without the page
        download, self._download = self._download, None
        if download is not None:
            download.cancel()

    @property
    def node(self):
        """The chosen volume or sequence node, or None."""
        return self.ui.inputSelector.currentNode()

    # --- loading ------------------------------------------------------------------------------

    @guarded
    def openPath(
        self, path, series=None, modality=None, name=None, repairs=None, steps=(), note=""
    ):
        """Load a file or folder; the Job, or None if Slicer's own loader did it."""
        self.context.clearMessage()
        self._series.hide()
        self._repair.hide()
        asked = {"series": series, "modality": modality, "name": name, "repairs": repairs}
        asked |= {"steps": steps, "note": note}
        self._asked = {"path": path, **asked}
        if str(path).lower().endswith(CONTAINER):
            job = compression.startInspect(self.context.runner, path)
            return self._follow(job, self._openContainer)
        if isForTheLibrary(path):
            return self._follow(startLoad(self.context.runner, path, **asked))
        self._show(loadWithSlicer(path))
        return None

    def _openContainer(self, inspection):
        """A compressed volume comes as a preview first, then in full; a sequence in one go."""
        runner, path = self.context.runner, inspection.params["input"]
        found = inspection.result["card"]
        if len(found["shape"]) == 4:
            self._follow(compression.startDecompress(runner, path, card=found))
        else:
            preview = compression.startPreviewLoad(runner, path, found)
            self._follow(preview, self._completeContainer)

    def _completeContainer(self, preview):
        node = preview.nodes["output"]
        self._show(node)
        path = preview.params["input"]
        self._follow(compression.startFill(self.context.runner, path, node))

    def _follow(self, job, then=None):
        """Show a job's progress; after it `then(job)`, or the node that came out."""
        self._setJob(job)
        self._progress.show(job)
        job.onFinished(lambda job: self._onLoaded(job, then))
        return job

    def _setJob(self, job):
        self._job = job
        for button in (self.ui.openFileButton, self.ui.openFolderButton, self.ui.sampleButton):
            button.enabled = job is None

    @guarded
    def _onLoaded(self, job, then):
        if job is not self._job:
            return
        self._setJob(None)
        if job.error is None and then is not None:
            then(job)
        elif job.error is None:
            self._show(job.nodes["output"])
        elif asksForSeries(job.error):
            self.context.runner.forget(job)  # it did not fail, it asks
            self._follow(startSeries(self.context.runner, self._asked["path"]), self._showSeries)
        elif not job.error.isCancellation:
            self._showError(job.error)

    def _showError(self, error):
        """Say what failed; where resampling would help, offer it."""
        path, asked = self._asked["path"], dict(self._asked)
        self.context.showError(compression.withRemedy(withRemedy(error, path), path))
        repairs = repairsFor(error)
        if repairs:
            asked["repairs"] = {**(asked["repairs"] or {}), **repairs}
            self._repair.show(asked["repairs"], lambda: self.openPath(**asked))

    def _show(self, node):
        """Choose a node that has just come, and put it into the slice views."""
        self.ui.inputSelector.setCurrentNode(node)
        volume = card.firstVolume(node)
        if volume is not None and bridge.isInScene(volume):
            slicer.util.setSliceViewerLayers(background=volume, fit=True)

    @guarded
    def _onOpenFile(self, *_checked):
        endings = " ".join([*(f"*{ending}" for ending in (*READABLE, CONTAINER)), DISC])
        kinds = _("Volumes ({endings});;All files (*)").format(endings=endings)
        path = askForFile(self.widget, _("Open a volume"), self._lastFolder(), kinds)
        if path:
            self._rememberFolder(os.path.dirname(path))
            self.openPath(path)

    @guarded
    def _onOpenFolder(self, *_checked):
        path = qt.QFileDialog.getExistingDirectory(
            self.widget, _("Open a folder of DICOM images"), self._lastFolder()
        )
        if path:
            self._rememberFolder(path)
            self.openPath(path)

    @guarded
    def _onCompress(self, *_checked):
        self.context.showPage("compress")
        self.context.state.offerToCompress(self.node)

    @guarded
    def _onExport(self, *_checked):
        self.context.exportDicom(self.node)

    def _lastFolder(self):
        return slicer.util.settingsValue("MedEnhance/LastFolder", "", converter=str)

    def _rememberFolder(self, folder):
        slicer.app.userSettings().setValue("MedEnhance/LastFolder", str(folder))

    # --- several series -----------------------------------------------------------------------

    def _showSeries(self, job):
        enhanced = {model.modality for model in installedModels() if model.kind == "enhancer"}
        self._series.show(job.result["series"], enhanced)

    def _onSeries(self, row):
        """Load a series of the table, with the other settings as before."""
        name = seriesName(row) or self._asked["name"]
        self.openPath(**{**self._asked, "series": seriesKey(row), "name": name})

    # --- samples ------------------------------------------------------------------------------

    def _addSample(self, sample):
        action = self._sampleMenu.addAction(sample.title)
        action.setToolTip(sample.description)
        picture = samples.thumbnail(sample)
        if picture is not None:
            action.setIcon(qt.QIcon(picture))
        action.triggered.connect(lambda *_checked: self.openSample(sample))
        self._sampleActions.append(action)

    @guarded
    def openSample(self, sample):
        """Load a sample: ours from its file, Slicer's own through its SampleData module."""
        self.context.clearMessage()
        if sample.path is not None:
            return self._openSampleFile(sample, samples.checkedPath(sample))
        self._asked = {"path": ""}
        self._download = samples.Download(sample, self.widget)
        self._follow(self._download, self._onDownload if sample.steps else None)
        self._download.start()
        return None

    def _onDownload(self, download):
        """A sample with steps has come as a file; the worker makes them."""
        self._openSampleFile(download.sample, download.path)

    def _openSampleFile(self, sample, path):
        how = {"steps": sample.steps, "note": sample.note}
        return self.openPath(path, modality=sample.modality, name=sample.name, **how)

    # --- the card -----------------------------------------------------------------------------

    def update(self):
        """Show the volume that is chosen on any page."""
        node = self.state.inputVolume if self.state is not None else None
        if self.node is not node:
            self.ui.inputSelector.setCurrentNode(node)

    def _onNodeChosen(self, *_node):
        if self.context.state is not None:
            self.context.state.inputVolume = self.node
        self._observe(self.node)
        self.updateCard()

    def _observe(self, node):
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        self._observed = []
        events = [vtk.vtkCommand.ModifiedEvent]
        if node is not None and node.IsA("vtkMRMLVolumeNode"):
            events += [node.ImageDataModifiedEvent, node.TransformModifiedEvent]
        for event in events if node is not None else []:
            tag = node.AddObserver(event, lambda *_arguments: self._settle.start())
            self._observed.append((node, tag))

    def updateCard(self):
        """Say what the chosen node is."""
        node = self.node
        found = card.describe(node, installedModels(), freeMemory()) if node is not None else None
        ui = self.ui
        ui.emptyLabel.visible = node is None
        ui.cardBox.visible = found is not None
        for button in (ui.enhanceButton, ui.compressButton, ui.exportButton):
            button.visible = found is not None
        if found is None:
            self._showWarnings([] if node is None else [_noVoxels(node)], "")
            return
        ui.cardBox.title = found.name
        ui.modalityComboBox.setCurrentIndex(card.MODALITIES.index(found.modality))
        unit = bridge.unitsOf(card.firstVolume(node))
        low, high = (card.numberText(value) for value in found.range)
        size = _("{frames} frames of {size} voxels") if found.frames > 1 else _("{size} voxels")
        across = " × ".join(map(str, found.size))
        ui.sizeLabel.text = size.format(size=across, frames=found.frames)
        ui.extentLabel.text = _("{size} mm").format(
            size=" × ".join(card.numberText(round(value, 1)) for value in found.extentMm)
        )
        ui.spacingLabel.text = _("{size} mm").format(
            size=" × ".join(f"{value:.4g}" for value in found.spacing)
        )
        ui.orientationLabel.text = found.orientation or _("not rectangular")
        ui.typeLabel.text = (
            _("{low} to {high} {unit} ({type})")
            .format(low=low, high=high, unit=unit, type=found.type)
            .replace("  ", " ")
        )
        ui.memoryLabel.text = card.bytesText(found.bytes)
        codes = {caution.code for caution in found.warnings}
        ui.enhanceButton.enabled = not codes & {"color", "labels", "sheared", "preview"}
        ui.compressButton.enabled = not codes & {"color", "sheared", "preview"}
        ui.exportButton.enabled = ui.enhanceButton.enabled
        self._showWarnings(found.warnings, node.GetAttribute(compression.NOTES) or "")

    def _showWarnings(self, warnings, notes):
        lines = [
            f"<b>{escape(one.text, quote=False)}.</b> {escape(one.remedy, quote=False)}"
            for one in warnings
        ]
        lines += [escape(note, quote=False) for note in notes.splitlines()]
        self.ui.warningsFrame.visible = bool(lines)
        self.ui.warningsLabel.text = "".join(f"<p>{line}</p>" for line in lines)

    @guarded
    def _onModality(self, index):
        node = self.node
        if node is None:
            return
        for frame in bridge.frameNodes(node):
            frame.SetAttribute(bridge.MODALITY, card.MODALITIES[int(index)])
        notes = (node.GetAttribute(compression.NOTES) or "").splitlines()
        # A guess that was corrected is no news any more.
        kept = [note for note in notes if "modality" not in note]
        node.SetAttribute(compression.NOTES, "\n".join(kept))
        node.Modified()


def installedModels():
    """The models on this computer; none if they cannot be read, which the page Models reports."""
    from MedEnhanceLib.bundles import list_bundles
    from MedEnhanceLib.errors import MedEnhanceError

    try:
        return list_bundles()
    except MedEnhanceError:
        return []


def freeMemory():
    """Bytes that are free, None where the system does not say."""
    from MedEnhanceLib.runtime.machine import memory

    return memory()["free"]


def _noVoxels(node):
    return card.Caution(
        "empty",
        _("“{name}” holds no volume").format(name=node.GetName()),
        _("Load it again, or choose another."),
    )
