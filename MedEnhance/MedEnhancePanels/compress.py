"""The page Compress: a volume into a file that keeps what was promised, and files opened again."""

import os

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhancePanels import bridge, compression, compressionwords
from MedEnhancePanels.card import bytesText
from MedEnhancePanels.decompress import DecompressSection
from MedEnhancePanels.errors import PanelError, guarded
from MedEnhancePanels.jobprogress import JobProgress

#: How long the page waits for further changes before it estimates.
_SETTLE_MS = 500


class CompressPanel:
    """The upper half compresses; the lower half is a DecompressSection."""

    def __init__(self, context):
        self.context = context
        self.widget, self.ui = context.ui("Compress")
        self._decompress = DecompressSection(context, self.ui)
        self._progress = JobProgress(
            self.ui.compressProgressArea,
            self.ui.compressProgressBar,
            self.ui.compressProgressLabel,
            self.ui.compressCancelButton,
        )
        self._state, self._stopObserving = None, None
        self._isShown, self._isUpdating, self._isBound = False, False, True
        self._volumeObserver = None
        self._suggested = ""
        self._estimate, self._estimated = None, None
        self._done = None
        self._settle = qt.QTimer()
        self._settle.setSingleShot(True)
        self._settle.setInterval(_SETTLE_MS)
        self._settle.timeout.connect(self._startEstimate)
        self.ui.resultBox.visible = False
        self._connect()
        context.onState(self._onState)

    def _connect(self):
        ui = self.ui
        ui.inputSelector.currentNodeChanged.connect(self._onInput)
        for button in (ui.losslessButton, ui.maxErrorButton, ui.ratioButton, ui.qualityButton):
            button.toggled.connect(self._onOptions)
        ui.maxErrorSpinBox.valueChanged.connect(self._onOptions)
        ui.ratioSpinBox.valueChanged.connect(self._onOptions)
        ui.qualitySpinBox.valueChanged.connect(self._onOptions)
        ui.embedCheckBox.toggled.connect(self._onOptions)
        ui.fastCheckBox.toggled.connect(self._onOptions)
        ui.pathEdit.textChanged.connect(self._onPath)
        ui.pathButton.clicked.connect(self._onBrowse)
        ui.replaceCheckBox.toggled.connect(lambda _checked: self._refreshButton())
        ui.compressButton.clicked.connect(self._onCompress)
        ui.differenceButton.clicked.connect(self._onDifference)

    def enter(self):
        self._isShown = True
        self._decompress.enter()
        self._onPath()
        self._scheduleEstimate()

    def exit(self):
        self._isShown = False
        self._stopEstimate()

    def cleanup(self):
        """Let go of the scene and of the jobs; those that run go on."""
        self._isBound = False
        self._stopEstimate()
        self._observeVolume(None)
        self._progress.forget()
        self._decompress.cleanup()
        if self._stopObserving is not None:
            self._stopObserving()
            self._stopObserving = None
        self._state = None

    @property
    def options(self):
        """What the page asks for, as compression.CompressOptions."""
        state = self._state
        return compression.CompressOptions(
            mode=state.compressMode,
            maxError=state.maxError if state.compressMode == "max_error" else None,
            ratio=state.ratio if state.compressMode == "ratio" else None,
            psnr=state.psnr if state.compressMode == "psnr" else None,
            speed=state.speed,
            embedModel=state.embedModel,
        )

    @property
    def path(self):
        """Where the file is to be saved, in full; "" for nowhere yet."""
        return compression.fullPath(self.ui.pathEdit.text)

    # --- state → widgets ---

    def _onState(self, state):
        if self._stopObserving is not None:
            self._stopObserving()
            self._stopObserving = None
        self._state = state
        self._decompress.setState(state)
        self.widget.enabled = state is not None
        if state is not None:
            self._stopObserving = state.observe(lambda _state: self._refresh())
        self._showResult(None)
        self._refresh()

    def _refresh(self):
        """Show what the state says."""
        if self._state is None or self._isUpdating:
            return
        state, ui = self._state, self.ui
        self._isUpdating = True
        try:
            ui.inputSelector.setCurrentNode(state.inputVolume)
            ui.losslessButton.checked = state.compressMode == "lossless"
            ui.maxErrorButton.checked = state.compressMode == "max_error"
            ui.ratioButton.checked = state.compressMode == "ratio"
            ui.qualityButton.checked = state.compressMode == "psnr"
            self._setUnits(state.inputVolume)
            ui.maxErrorSpinBox.value = state.maxError
            ui.ratioSpinBox.value = state.ratio
            ui.qualitySpinBox.value = state.psnr
            ui.fastCheckBox.checked = state.speed == "fast"
            ui.embedCheckBox.checked = state.embedModel
            if ui.pathEdit.text != state.compressPath:
                ui.pathEdit.text = state.compressPath
        finally:
            self._isUpdating = False
        self._observeVolume(state.inputVolume)
        ui.maxErrorSpinBox.enabled = state.compressMode == "max_error"
        ui.ratioSpinBox.enabled = state.compressMode == "ratio"
        ui.qualitySpinBox.enabled = state.compressMode == "psnr"
        isLossless = bridge.isLabelMap(state.inputVolume)
        for button in (ui.maxErrorButton, ui.ratioButton, ui.qualityButton):
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
        units = bridge.unitsOf(bridge.frameNodes(node)[0])
        ui.maxErrorSpinBox.suffix = f" {units}" if units else ""
        low, high = bridge.rangeOf(image)
        isWhole = image.GetScalarTypeAsString() not in ("float", "double")
        ui.maxErrorSpinBox.decimals = 0 if isWhole else 4
        ui.maxErrorSpinBox.minimum = 1.0 if isWhole else 0.0001
        ui.maxErrorSpinBox.singleStep = 1.0 if isWhole else max(0.0001, (high - low) / 100)

    # --- widgets → state ---

    @guarded
    def _onInput(self, node=None):
        if self._state is None or self._isUpdating:
            return
        node = self.ui.inputSelector.currentNode()
        self._showResult(None)
        with self._state.changes():
            self._state.inputVolume = node
            if bridge.isLabelMap(node):
                self._state.compressMode = "lossless"
            if node is not None and self._state.compressPath in ("", self._suggested):
                self._suggested = compression.suggestPath(node)
                self._state.compressPath = self._suggested

    @guarded
    def _onOptions(self, _value=None):
        if self._state is None or self._isUpdating:
            return
        ui, state = self.ui, self._state
        chosen = {
            "max_error": ui.maxErrorButton,
            "ratio": ui.ratioButton,
            "psnr": ui.qualityButton,
        }
        with state.changes():
            state.compressMode = next(
                (mode for mode, button in chosen.items() if button.checked), "lossless"
            )
            state.maxError = ui.maxErrorSpinBox.value
            state.ratio = ui.ratioSpinBox.value
            state.psnr = ui.qualitySpinBox.value
            state.embedModel = ui.embedCheckBox.checked
            state.speed = "fast" if ui.fastCheckBox.checked else "normal"

    @guarded
    def _onPath(self, _text=None):
        path = self.path
        self.ui.replaceCheckBox.checked = False
        self.ui.replaceCheckBox.visible = bool(path) and compression.isTaken(path)
        self.ui.pathEdit.toolTip = path or _("The compressed file, ending in .ucv")
        if self._state is not None and not self._isUpdating:
            self._state.compressPath = self.ui.pathEdit.text.strip()
        self._refreshButton()

    @guarded
    def _onBrowse(self, _checked=False):
        # The page itself asks about a file that exists, also where a path was typed.
        path = qt.QFileDialog.getSaveFileName(
            self.widget,
            _("Save the compressed volume"),
            self.ui.pathEdit.text,
            _("MedEnhance compressed volume") + " (*.ucv)",
            "",
            qt.QFileDialog.DontConfirmOverwrite,
        )
        path = path[0] if isinstance(path, tuple) else path
        if path:
            hasEnding = path.lower().endswith(compression.ENDING)
            self.ui.pathEdit.text = path if hasEnding else path + compression.ENDING

    def _refreshButton(self):
        why = self._whyNot()
        self.ui.compressButton.enabled = not why
        self.ui.compressButton.toolTip = why or _("Write the file and verify it")
        isBusy = self._progress.job is not None  # which the progress shows
        self.ui.whyLabel.text = why
        # The file that was just written is there, of course; that is no news.
        isResult = self._done is not None and self._done[1] == self.path
        self.ui.whyLabel.visible = bool(why) and not isBusy and not isResult
        if self._state is not None and self._state.inputVolume is None:
            self.ui.estimateLabel.text = _("Choose a volume to see how small it would become.")

    def _whyNot(self):
        """What is missing before the volume can be compressed, or nothing."""
        if self._state is None:
            return _("There is no scene")
        if self._progress.job is not None:
            return _("The volume is being compressed")
        try:
            compression.checkOptions(self._state.inputVolume, self.options)
            compression.checkDestination(self.path, self.ui.replaceCheckBox.checked)
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
            tag = node.AddObserver(event, lambda *_arguments: self._refresh())
            self._volumeObserver = (node, tag)

    def _scheduleEstimate(self):
        """Estimate soon, unless something changes once more before; nothing where it is known."""
        if not self._isShown or self._state is None or self._progress.job is not None:
            return
        node = self._state.inputVolume
        wanted = None if node is None else (node.GetID(), _voxelTime(node), self.options)
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
        node = self._state.inputVolume if self._state is not None else None
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
            units = self._units(self._state.inputVolume)
            self.ui.estimateLabel.text = compressionwords.estimateText(job.result, units)
        else:
            self.ui.estimateLabel.text = _("No estimate: {why}").format(why=job.error.text)

    # --- compress ---

    @guarded
    def _onCompress(self, _checked=False):
        self._stopEstimate()
        self.context.clearMessage()
        self._showResult(None)
        node, path = self._state.inputVolume, self.path
        units = self._units(node)
        job = compression.startCompress(
            self.context.runner, node, path, self.options, self.ui.replaceCheckBox.checked
        )
        self._progress.show(job)
        self._refreshButton()
        job.onFinished(lambda done: self._onCompressed(done, node, path, units))

    def _onCompressed(self, job, node, path, units):
        if self._state is None:
            return
        self._onPath()
        self._scheduleEstimate()
        if job.state != "done":
            self.context.showError(job.error)
            return
        self._done = (node, path, units)
        self._refreshButton()
        self._showResult(compressionwords.resultTable(job.result, units, path))
        self.ui.differenceButton.visible = bridge.isInScene(node) and not bridge.isSequence(node)
        told = _("{name} was compressed and verified: {size}.").format(
            name=os.path.basename(path), size=bytesText(job.result["file_bytes"])
        )
        self.context.message("warning" if job.warnings else "info", " ".join([told, *job.warnings]))

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
        self.context.message("info", compressionwords.differenceText(job.result["largest"], units))

    def _units(self, node):
        return bridge.unitsOf(bridge.frameNodes(node)[0]) if node is not None else ""


def _voxelTime(node):
    """A number that is another one after the voxels changed."""
    image = _firstImage(node)
    scalars = image.GetPointData().GetScalars() if image is not None else None
    return 0 if scalars is None else max(image.GetMTime(), scalars.GetMTime())


def _firstImage(node):
    frames = bridge.frameNodes(node)
    return frames[0].GetImageData() if frames and frames[0] is not None else None
