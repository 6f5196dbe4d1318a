"""The page Compress: a volume into a file within a guaranteed error bound."""

import os

import qt
import vtk
from slicer.i18n import tr as _

from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import PanelError, guarded
from MedEnhancePanels.job import withWarnings
from MedEnhancePanels.nodes import bridge
from MedEnhancePanels.nodes.cautions import bytesText
from MedEnhancePanels.pages.widgets import Page, pathOf, singleShot
from MedEnhancePanels.tasks import compression, compression_texts

#: How long the page waits for further changes before it estimates.
_SETTLE_MS = 500
#: The state's fields of the targets below Advanced, with the range, decimals and unit of each.
_TARGETS = {
    "ratio": (1.1, 1000.0, 1, ""),
    "psnr": (10.0, 120.0, 1, " dB"),
    "ssim": (0.5, 0.9999, 4, ""),
}


class CompressPanel(Page):
    """What is chosen lives in the state; a file is estimated, written and verified in jobs."""

    def __init__(self, context):
        super().__init__(context, "Compress")
        self._isShown, self._isUpdating, self._job = False, False, None
        self._volumeObserver = None
        self._estimate, self._estimated = None, None
        self._settle = singleShot(self.widget, _SETTLE_MS, self._startEstimate)
        ui = self.ui
        for target, text in {
            "": _("None: the guarantee above"),
            "ratio": _("Compression ratio"),
            "psnr": _("Quality (PSNR), at least"),
            "ssim": _("Similarity (SSIM), at least"),
        }.items():
            ui.targetComboBox.addItem(text, target)
        ui.losslessButton.toggled.connect(self._onOptions)
        ui.maxErrorSpinBox.valueChanged.connect(self._onOptions)
        ui.targetComboBox.activated.connect(self._onOptions)
        ui.targetSpinBox.valueChanged.connect(self._onTarget)
        ui.compressButton.clicked.connect(self._onCompress)
        self.followState()

    def enter(self):
        self._isShown = True
        self.update()

    def exit(self):
        self._isShown = False
        self._stopEstimate()

    def cleanup(self):
        super().cleanup()
        self._stopEstimate()
        self._observeVolume(None)
        self._job = None

    @property
    def options(self):
        """What the page asks for, as compression.CompressOptions."""
        state, mode = self.state, self.state.compressMode
        return compression.CompressOptions(
            lossless=mode == "lossless",
            maxError=state.maxError if mode == "max_error" else None,
            **{target: getattr(state, target) if mode == target else None for target in _TARGETS},
        )

    # --- state → widgets ---

    def onState(self, state):
        self.widget.enabled = state is not None
        self._showResult("")
        self.update()

    def update(self):
        """Show what the state says."""
        state, ui = self.state, self.ui
        if state is None or self._isUpdating:
            return
        node = state.inputVolume
        self._isUpdating = True
        try:
            isLabelMap = bridge.isLabelMap(node)
            if isLabelMap:
                state.compressMode = "lossless"
            mode = state.compressMode
            hasTarget = mode in _TARGETS
            ui.losslessButton.checked = mode != "max_error"
            ui.maxErrorButton.checked = mode == "max_error"
            ui.losslessButton.enabled = not hasTarget
            ui.maxErrorButton.enabled = not hasTarget and not isLabelMap
            ui.maxErrorSpinBox.enabled = mode == "max_error"
            self._setUnits(node)
            ui.maxErrorSpinBox.value = state.maxError
            ui.targetComboBox.currentIndex = ui.targetComboBox.findData(mode if hasTarget else "")
            ui.targetComboBox.enabled = not isLabelMap
            ui.targetSpinBox.enabled = hasTarget
            if hasTarget:
                self._showTarget(mode)
        finally:
            self._isUpdating = False
        self._observeVolume(node)
        self._refreshButton()
        self._scheduleEstimate()

    def _setUnits(self, node):
        """The error's unit and a sensible step: 1 for whole numbers, else 1 % of the range."""
        spinBox = self.ui.maxErrorSpinBox
        frames = bridge.frameNodes(node) if node is not None else []
        image = frames[0].GetImageData() if frames and frames[0] is not None else None
        if image is None:
            spinBox.suffix = ""
            return
        units = bridge.unitsOf(node)
        spinBox.suffix = f" {units}" if units else ""
        low, high = bridge.rangeOf(image)
        isWhole = image.GetScalarTypeAsString() not in ("float", "double")
        spinBox.decimals = 0 if isWhole else 4
        spinBox.minimum = 1.0 if isWhole else 0.0001
        spinBox.singleStep = 1.0 if isWhole else max(0.0001, (high - low) / 100)

    def _showTarget(self, target):
        spinBox, (low, high, decimals, unit) = self.ui.targetSpinBox, _TARGETS[target]
        spinBox.decimals, spinBox.suffix = decimals, unit
        spinBox.minimum, spinBox.maximum = low, high
        spinBox.singleStep = 10.0**-decimals if decimals > 1 else 1.0
        spinBox.value = getattr(self.state, target)

    # --- widgets → state ---

    @guarded
    def _onOptions(self, _value=None):
        if self.state is None or self._isUpdating:
            return
        ui, state = self.ui, self.state
        kept = "max_error" if ui.maxErrorButton.checked else "lossless"
        with state.changes():
            state.compressMode = ui.targetComboBox.currentData or kept
            state.maxError = ui.maxErrorSpinBox.value

    @guarded
    def _onTarget(self, value):
        if self.state is not None and not self._isUpdating and self.state.compressMode in _TARGETS:
            setattr(self.state, self.state.compressMode, value)

    def _refreshButton(self):
        ui, why = self.ui, self._whyNot()
        ui.compressButton.enabled = not why
        ui.compressButton.toolTip = why or _("Choose a file, write it and verify it")
        ui.whyLabel.text = why
        ui.whyLabel.visible = bool(why) and self._job is None
        if self.state is not None and self.state.inputVolume is None:
            ui.estimateLabel.text = ""

    def _whyNot(self):
        """What is missing before the volume can be compressed, or nothing."""
        if self.state is None:
            return _("There is no scene")
        if self._job is not None:
            return _("The volume is being compressed")
        try:
            compression.checkOptions(self.state.inputVolume, self.options)
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
            self._showResult("")
        if node is not None:
            event = vtk.vtkCommand.ModifiedEvent
            tag = node.AddObserver(event, lambda *_arguments: self.update())
            self._volumeObserver = (node, tag)

    def _scheduleEstimate(self):
        """Estimate soon, unless something changes once more before; nothing where it is known."""
        if not self._isShown or self.state is None or self._job is not None:
            return
        node = self.state.inputVolume
        asked = None if node is None else (node.GetID(), bridge.voxelState(node), self.options)
        if (asked is not None and asked == self._estimated) or dependencies.missing():
            return
        self._stopEstimate()
        if asked is not None:
            self._estimated = asked
            self.ui.estimateLabel.text = _("Estimating…")
            self._settle.start()

    def _stopEstimate(self):
        """Stop one that is under way, or about to be."""
        if self._estimate is not None or self._settle.active:
            self._estimated, self.ui.estimateLabel.text = None, ""
        self._settle.stop()
        if self._estimate is not None:
            estimate, self._estimate = self._estimate, None
            estimate.cancel()

    @guarded
    def _startEstimate(self):
        node = self.state.inputVolume if self.state is not None else None
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
        if job.state == "done":
            units = bridge.unitsOf(self.state.inputVolume)
            self.ui.estimateLabel.text = compression_texts.estimateText(job.result, units)
        else:
            self.ui.estimateLabel.text = _("No estimate: {why}").format(why=job.error.text)

    # --- compress ---

    @guarded
    def _onCompress(self, _checked=False):
        """Ask for the file, which the dialog confirms where it exists, and write it."""
        if not dependencies.ensure():
            return
        node = self.state.inputVolume
        title, start = _("Save the compressed volume"), compression.suggestPath(node)
        path = pathOf(qt.QFileDialog.getSaveFileName(self.widget, title, start, compression.FILTER))
        if not path:
            return
        isConfirmed = path.lower().endswith(compression.ENDING)
        path = path if isConfirmed else path + compression.ENDING
        self._stopEstimate()
        self.context.clearMessage()
        self._showResult("")
        self._job = compression.startCompress(
            self.context.runner, node, path, self.options, overwrite=isConfirmed
        )
        self._refreshButton()
        units = bridge.unitsOf(node)
        self._job.onFinished(lambda job: self._onCompressed(job, path, units))

    def _onCompressed(self, job, path, units):
        if job is not self._job:
            return
        self._job = None
        if self.state is None:
            return
        self._refreshButton()
        self._scheduleEstimate()
        if job.state != "done":
            self.context.showError(job.error)
            return
        compression.rememberFolder(path)
        self._showResult(compression_texts.resultTable(job.result, units, path))
        text = _("{name} was compressed and verified: {size}.").format(
            name=os.path.basename(path), size=bytesText(job.result["file_bytes"])
        )
        level = "warning" if job.warnings else "info"
        self.context.message(level, withWarnings(text, job.warnings))

    def _showResult(self, table):
        self.ui.resultLabel.visible = bool(table)
        self.ui.resultLabel.text = table
