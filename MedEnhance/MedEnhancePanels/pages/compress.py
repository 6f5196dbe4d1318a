"""The page Compress: a volume into a file within a guaranteed error bound."""

import os

import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError, guarded
from MedEnhancePanels.job import withWarnings
from MedEnhancePanels.nodes import bridge, results
from MedEnhancePanels.nodes.card import bytesText
from MedEnhancePanels.nodes.preview import isInView
from MedEnhancePanels.pages.decompress import DecompressSection
from MedEnhancePanels.pages.widgets import (
    JobProgress,
    NodeSelectors,
    Page,
    askForNewFile,
    singleShot,
)
from MedEnhancePanels.tasks import compression, compression_texts

#: How long the page waits for further changes before it estimates.
_SETTLE_MS = 500


class CompressPanel(Page):
    """The upper half compresses; the lower half is a DecompressSection."""

    def __init__(self, context):
        super().__init__(context, "Compress")
        self._decompress = DecompressSection(context, self.ui, self._onOpened)
        self._selectors = NodeSelectors(self.ui.inputSelector)
        self._progress = JobProgress(
            self.ui.compressProgressArea,
            self.ui.compressProgressBar,
            self.ui.compressProgressLabel,
            self.ui.compressCancelButton,
        )
        self._isShown, self._isUpdating, self._isBound = False, False, True
        self._volumeObserver = None
        #: What the choice is beside: another volume of the other pages ends it.
        self._input = None
        self._suggested, self._suggestedFor = "", None
        self._estimate, self._estimated = None, None
        self._done = None
        self._settle = singleShot(self.widget, _SETTLE_MS, self._startEstimate)
        self.ui.resultBox.visible = False
        self._connect()
        self.followState()

    def _connect(self):
        ui = self.ui
        ui.inputSelector.currentNodeChanged.connect(self._onInput)
        for button in (ui.losslessButton, *self._modeButtons().values()):
            button.toggled.connect(self._onOptions)
        ui.maxErrorSpinBox.valueChanged.connect(self._onOptions)
        ui.ratioSpinBox.valueChanged.connect(self._onOptions)
        ui.qualitySpinBox.valueChanged.connect(self._onOptions)
        ui.embedCheckBox.toggled.connect(self._onOptions)
        ui.ssimSpinBox.valueChanged.connect(self._onOptions)
        for speed, text in _speeds().items():
            ui.speedComboBox.addItem(text, speed)
        ui.speedComboBox.currentIndexChanged.connect(self._onOptions)
        ui.pathEdit.textChanged.connect(self._onPath)
        ui.pathButton.clicked.connect(self._onBrowse)
        ui.replaceCheckBox.toggled.connect(lambda _checked: self._refreshButton())
        ui.compressButton.clicked.connect(self._onCompress)
        ui.differenceButton.clicked.connect(self._onDifference)

    def _modeButtons(self):
        """The button of each compression mode but lossless."""
        ui = self.ui
        return {
            "max_error": ui.maxErrorButton,
            "ratio": ui.ratioButton,
            "psnr": ui.qualityButton,
            "ssim": ui.ssimButton,
        }

    def enter(self):
        self._isShown = True
        self._decompress.enter()
        self._offer()
        self._lookAtPath()
        self._scheduleEstimate()

    def exit(self):
        self._isShown = False
        self._input = self.state.inputVolume if self.state is not None else None
        self._stopEstimate()

    def cleanup(self):
        super().cleanup()
        self._isBound = False
        self._selectors.cleanup()
        self._stopEstimate()
        self._observeVolume(None)
        self._progress.forget()
        self._decompress.cleanup()

    @property
    def options(self):
        """What the page asks for, as compression.CompressOptions."""
        state = self.state
        return compression.CompressOptions(
            mode=state.compressMode,
            maxError=state.maxError if state.compressMode == "max_error" else None,
            ratio=state.ratio if state.compressMode == "ratio" else None,
            psnr=state.psnr if state.compressMode == "psnr" else None,
            ssim=state.ssim if state.compressMode == "ssim" else None,
            speed=state.value("speed"),
            embedModel=state.embedModel,
        )

    @property
    def path(self):
        """Where the file is to be saved, in full; "" for nowhere yet."""
        return compression.fullPath(self.ui.pathEdit.text)

    # --- state → widgets ---

    def onState(self, state):
        self._decompress.setState(state)
        self.widget.enabled = state is not None
        self._showResult(None)
        self._suggested, self._suggestedFor = "", None
        self._input = state.inputVolume if state is not None else None
        if self._isShown:
            self._offer()
        self.update()

    def _offer(self):
        """Choose the result in view, else the volume of the other pages, for who has not chosen."""
        state = self.state
        if state is None:
            return
        hasChosen = state.compressVolume is not state.compressOffer
        if hasChosen and state.inputVolume is self._input:
            return
        self._input, result = state.inputVolume, state.enhancedVolume
        isOfIt = result is not None and results.linked(result, "input") is self._input
        isLookedAt = isOfIt and isInView(result)
        state.offerToCompress(result if isLookedAt else self._input)

    def _suggest(self):
        """Prepare for another choice: a free name, and labels are kept or nothing."""
        state = self.state
        node = self._suggestedFor = state.compressVolume
        if self._done is not None and self._done[0] is not node:
            self._showResult(None)
        with state.changes():
            if bridge.isLabelMap(node):
                state.compressMode = "lossless"
            if node is not None and state.compressPath in ("", self._suggested):
                self._suggested = compression.suggestPath(node)
                state.compressPath = self._suggested

    def update(self):
        """Show what the state says."""
        if self.state is None or self._isUpdating:
            return
        state, ui = self.state, self.ui
        if state.compressVolume is not self._suggestedFor:
            self._suggest()
        self._isUpdating = True
        try:
            ui.inputSelector.setCurrentNode(state.compressVolume)
            ui.losslessButton.checked = state.compressMode == "lossless"
            ui.maxErrorButton.checked = state.compressMode == "max_error"
            ui.ratioButton.checked = state.compressMode == "ratio"
            ui.qualityButton.checked = state.compressMode == "psnr"
            ui.ssimButton.checked = state.compressMode == "ssim"
            self._setUnits(state.compressVolume)
            ui.maxErrorSpinBox.value = state.maxError
            ui.ratioSpinBox.value = state.ratio
            ui.qualitySpinBox.value = state.psnr
            ui.ssimSpinBox.value = state.ssim
            ui.speedComboBox.setCurrentIndex(list(_speeds()).index(state.value("speed")))
            ui.embedCheckBox.checked = state.embedModel
            if ui.pathEdit.text != state.compressPath:
                ui.pathEdit.text = state.compressPath
        finally:
            self._isUpdating = False
        self._observeVolume(state.compressVolume)
        ui.maxErrorSpinBox.enabled = state.compressMode == "max_error"
        ui.ratioSpinBox.enabled = state.compressMode == "ratio"
        ui.qualitySpinBox.enabled = state.compressMode == "psnr"
        ui.ssimSpinBox.enabled = state.compressMode == "ssim"
        isLossless = bridge.isLabelMap(state.compressVolume)
        for button in self._modeButtons().values():
            button.enabled = not isLossless
        self._refreshButton()
        self._scheduleEstimate()

    def _setUnits(self, node):
        """The error's unit and a sensible step: 1 for whole numbers, else 1 % of the range."""
        ui = self.ui
        image = None if node is None else _firstImage(node)
        if image is None:
            ui.maxErrorSpinBox.suffix = ""
            return
        units = bridge.unitsOf(node)
        ui.maxErrorSpinBox.suffix = f" {units}" if units else ""
        low, high = bridge.rangeOf(image)
        isWhole = image.GetScalarTypeAsString() not in ("float", "double")
        ui.maxErrorSpinBox.decimals = 0 if isWhole else 4
        ui.maxErrorSpinBox.minimum = 1.0 if isWhole else 0.0001
        ui.maxErrorSpinBox.singleStep = 1.0 if isWhole else max(0.0001, (high - low) / 100)

    # --- widgets → state ---

    @guarded
    def _onInput(self, node=None):
        if self.state is None or self._isUpdating:
            return
        self.state.compressVolume = self.ui.inputSelector.currentNode()

    @guarded
    def _onOptions(self, _value=None):
        if self.state is None or self._isUpdating:
            return
        ui, state = self.ui, self.state
        chosen = self._modeButtons()
        with state.changes():
            state.compressMode = next(
                (mode for mode, button in chosen.items() if button.checked), "lossless"
            )
            state.maxError = ui.maxErrorSpinBox.value
            state.ratio = ui.ratioSpinBox.value
            state.psnr = ui.qualitySpinBox.value
            state.ssim = ui.ssimSpinBox.value
            state.embedModel = ui.embedCheckBox.checked
            state.speed = ui.speedComboBox.currentData == "fast"

    @guarded
    def _onPath(self, _text=None):
        self.ui.replaceCheckBox.checked = False
        self.ui.pathEdit.toolTip = self.path or _("The compressed file, ending in .ucv")
        if self.state is not None and not self._isUpdating:
            self.state.compressPath = self.ui.pathEdit.text.strip()
        self._lookAtPath()

    def _lookAtPath(self):
        """Say what there is at the path, which others may change."""
        isTaken = bool(self.path) and compression.isTaken(self.path)
        self.ui.replaceCheckBox.visible = isTaken
        if not isTaken:
            self.ui.replaceCheckBox.checked = False
        self._refreshButton()

    @guarded
    def _onBrowse(self, _checked=False):
        # The page itself asks about a file that exists, also where a path was typed.
        title, kinds = _("Save the compressed volume"), compression.FILTER
        path = askForNewFile(self.widget, title, self.ui.pathEdit.text, kinds)
        if path:
            hasEnding = path.lower().endswith(compression.ENDING)
            self.ui.pathEdit.text = path if hasEnding else path + compression.ENDING
        self._lookAtPath()  # folders are made and files removed in such dialogs

    def _refreshButton(self):
        why = self._whyNot()
        self.ui.compressButton.enabled = not why
        self.ui.compressButton.toolTip = why or _("Write the file and verify it")
        isBusy = self._progress.job is not None  # which the progress shows
        note = why or self._note()
        self.ui.whyLabel.text = note
        # The file that was just written is there, of course; that is no news.
        isResult = self._done is not None and self._done[1] == self.path
        self.ui.whyLabel.visible = bool(note) and not isBusy and not isResult
        if self.state is not None and self.state.compressVolume is None:
            self.ui.estimateLabel.text = _("Choose a volume to see the estimated file size.")

    def _note(self):
        """What Compress does besides writing the file, or nothing."""
        folder = compression.folderToMake(self.path)
        return _("The folder {folder} will be created.").format(folder=folder) if folder else ""

    def _whyNot(self):
        """What is missing before the volume can be compressed, or nothing."""
        if self.state is None:
            return _("There is no scene")
        if self._progress.job is not None:
            return _("The volume is being compressed")
        try:
            compression.checkOptions(self.state.compressVolume, self.options)
            isAgreed = self.ui.replaceCheckBox.checked
            compression.checkDestination(self.path, isAgreed, makesFolder=True)
        except PanelError as error:
            return error.text
        return ""

    # --- estimate ---

    def _observeVolume(self, node):
        """The estimate follows the voxels, the units follow the modality."""
        node = None if node is None or not node.IsA("vtkMRMLVolumeNode") else node
        if self._volumeObserver is not None:
            observed, tag = self._volumeObserver
            if observed is node:
                return
            observed.RemoveObserver(tag)
            self._volumeObserver = None
        if node is not None:
            event = vtk.vtkCommand.ModifiedEvent
            tag = node.AddObserver(event, lambda *_arguments: self.update())
            self._volumeObserver = (node, tag)

    def _scheduleEstimate(self):
        """Estimate soon, unless something changes once more before; nothing where it is known."""
        if not self._isShown or self.state is None or self._progress.job is not None:
            return
        node = self.state.compressVolume
        wanted = None if node is None else (node.GetID(), bridge.voxelState(node), self.options)
        if wanted is not None and wanted == self._estimated:
            return
        self._stopEstimate()
        if wanted is not None:
            self._estimated = wanted
            self.ui.estimateLabel.text = _("Estimating…")
            self._settle.start()

    def _stopEstimate(self):
        """Stop one that is under way, or about to be."""
        isUnderWay = self._estimate is not None or self._settle.active
        if isUnderWay:
            self._estimated, self.ui.estimateLabel.text = None, ""
        self._settle.stop()
        if self._estimate is not None:
            estimate, self._estimate = self._estimate, None
            estimate.cancel()
            estimate.onFinished(self.context.runner.forget)

    @guarded
    def _startEstimate(self):
        node = self.state.compressVolume if self.state is not None else None
        if node is None:
            return
        try:
            self._estimate = compression.startEstimate(self.context.runner, node, self.options)
        except PanelError as error:
            self.ui.estimateLabel.text = error.text
            return
        self._estimate.onFinished(self._onEstimated)

    def _onEstimated(self, job):
        if job is not self._estimate:
            return
        self._estimate = None
        self.context.runner.forget(job)
        if job.state == "done":
            units = bridge.unitsOf(self.state.compressVolume)
            self.ui.estimateLabel.text = compression_texts.estimateText(job.result, units)
        else:
            self.ui.estimateLabel.text = _("No estimate: {why}").format(why=job.error.text)

    # --- compress ---

    @guarded
    def _onCompress(self, _checked=False):
        self._lookAtPath()
        if not self.ui.compressButton.enabled:  # a file has come to the path since
            return
        self._stopEstimate()
        self.context.clearMessage()
        self._showResult(None)
        node, path = self.state.compressVolume, self.path
        units = bridge.unitsOf(node)
        job = compression.startCompress(
            self.context.runner,
            node,
            path,
            self.options,
            self.ui.replaceCheckBox.checked,
            makesFolder=True,
        )
        self._progress.show(job)
        self._refreshButton()
        job.onFinished(lambda done: self._onCompressed(done, node, path, units))

    def _onCompressed(self, job, node, path, units):
        if self.state is None:
            return
        self._onPath()
        self._scheduleEstimate()
        if job.state != "done":
            self.context.showError(job.error)
            return
        self._suggested = self.state.compressPath  # which the next volume does not take over
        self._decompress.offer(path)
        self._done = (node, path, units)
        self._refreshButton()
        self._showResult(compression_texts.resultTable(job.result, units, path))
        self.ui.differenceButton.visible = bridge.isInScene(node) and not bridge.isSequence(node)
        text = _("{name} was compressed and verified: {size}.").format(
            name=os.path.basename(path), size=bytesText(job.result["file_bytes"])
        )
        self.context.message(
            "warning" if job.warnings else "info", withWarnings(text, job.warnings)
        )

    def _onOpened(self, node):
        """All other pages work on it, as after opening it on the page Load; the choice stays."""
        if self.state is not None:
            with self.state.changes():
                self.state.inputVolume, self.state.compressOffer = node, None

    def _showResult(self, table):
        if table is None:
            self._done = None
        self.ui.resultBox.visible = table is not None
        self.ui.resultLabel.text = table or ""

    @guarded
    def _onDifference(self, _checked=False):
        node, path, units = self._done
        if not bridge.isInScene(node):
            raise PanelError(
                _("The volume is no longer in the scene"), _("Load it again."), "input"
            )
        self.context.clearMessage()
        job = compression.startDifference(self.context.runner, node, path)
        self._progress.show(job)
        self.ui.differenceButton.enabled = False
        job.onFinished(lambda done: self._onDifferenceMade(done, node, units))

    def _onDifferenceMade(self, job, node, units):
        if not self._isBound:
            return
        self.ui.differenceButton.enabled = True
        self._refreshButton()
        if job.state != "done":
            self.context.showError(job.error)
            return
        difference = job.nodes["difference"]
        slicer.util.setSliceViewerLayers(
            background=node, foreground=difference, foregroundOpacity=0.5
        )
        self.context.message("info", compression_texts.differenceText(job.result["largest"], units))


def _firstImage(node):
    frames = bridge.frameNodes(node)
    return frames[0].GetImageData() if frames and frames[0] is not None else None


def _speeds():
    """How long compression may take, in words."""
    return {
        "normal": _("Normal speed"),
        "fast": _("Fast, lossless files 5 to 30 % larger"),
    }
