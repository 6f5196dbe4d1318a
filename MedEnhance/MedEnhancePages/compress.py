"""The page Compress: a volume into a file within a guaranteed error bound."""

import qt
from slicer.i18n import tr as _

from MedEnhanceLib.unicompress.config import CompressConfig
from MedEnhanceNodes import bridge, results
from MedEnhancePages.widgets import Page, answerOf, askForFile, fill, showValue, singleShot
from MedEnhancePanels import arguments, dependencies
from MedEnhancePanels.errors import PanelError, guarded
from MedEnhanceTasks import compression, files

#: How long the page waits for further changes before it estimates.
_SETTLE_MS = 500


class CompressPanel(Page):
    """Page whose choices live in the state; a file is estimated, written and verified in jobs."""

    def __init__(self, context):
        super().__init__(context, "Compress")
        #: The estimate that runs; the volume and config of the last one, or why there was none.
        self._estimate, self._estimated = None, None
        self._settle = singleShot(self.widget, _SETTLE_MS, self._startEstimate)
        ui = self.ui
        #: The button of each mode, with the field of its value.
        self._modes = {
            "lossless": (ui.losslessButton, None),
            "maxError": (ui.maxErrorButton, ui.maxErrorSpinBox),
            "ratio": (ui.ratioButton, ui.ratioSpinBox),
            "psnr": (ui.psnrButton, ui.psnrSpinBox),
            "ssim": (ui.ssimButton, ui.ssimSpinBox),
        }
        for mode, (button, _field) in self._modes.items():
            button.toggled.connect(lambda checked, mode=mode: self._onMode(checked, mode))
        fields = {mode: field for mode, (_button, field) in self._modes.items()}
        del fields["lossless"]
        entries = {
            "auto": _("Automatic"),
            "implicit": _("Implicit (UniCompress)"),
        }
        fill(ui.codecSelector, entries)
        self.bind(**fields, compressCodec=ui.codecSelector)
        ui.openButton.clicked.connect(self._onOpen)
        ui.compressButton.clicked.connect(self._onCompress)

    def exit(self):
        self._stopEstimate()

    def cleanup(self):
        self.exit()
        self.job = None

    @property
    def config(self):
        """The choices of the page, a CompressConfig."""
        mode, state = self.state.compressMode, self.state
        name = "max_error" if mode == "maxError" else mode
        options = {name: True if mode == "lossless" else getattr(state, mode)}
        if mode == "ratio":
            options["block_type"] = state.compressCodec
        return arguments.checkedConfig(CompressConfig, **options)

    @property
    def _use(self):
        """Return the use of packages that the choices need."""
        isImplicit = self.config.block_type == "implicit"
        return dependencies.ENHANCE if isImplicit else dependencies.COMPRESS

    def offer(self):
        node = self.state.inputVolume
        if bridge.isLabelMap(node):
            self.state.compressMode = "lossless"
        self._setUnits(node)
        least = compression.IMPLICIT_RATIO if self.state.compressCodec == "implicit" else 1.1
        self.ui.ratioSpinBox.minimum = least
        self.state.ratio = max(self.state.ratio, least)

    def show(self):
        state, ui, node = self.state, self.ui, self.state.inputVolume
        isLabelMap = bridge.isLabelMap(node)
        for mode, (button, field) in self._modes.items():
            button.checked = mode == state.compressMode
            button.enabled = mode == "lossless" or not isLabelMap
            if field is not None:
                field.enabled = button.checked
        ui.codecSelector.enabled = ui.ratioButton.checked
        problem = self._problem()
        ui.compressButton.enabled = not problem
        ui.compressButton.toolTip = problem or _("Choose a file, write it and verify it")
        ui.problemLabel.text = problem
        ui.problemLabel.visible = bool(problem) and self.job is None
        self._scheduleEstimate()

    def _setUnits(self, node):
        """Set the error's unit and a sensible step: 1 for whole numbers, else 1 % of the range."""
        spinBox = self.ui.maxErrorSpinBox
        frames = bridge.frameNodes(node) if node is not None else []
        image = frames[0].GetImageData() if frames and frames[0] is not None else None
        showValue(spinBox, "suffix", f" {results.unitOf(node)}" if image is not None else "")
        if image is not None:
            (low, high), isWhole = bridge.rangeOf(image), bridge.isWhole(image)
            showValue(spinBox, "decimals", 0 if isWhole else 4)
            spinBox.minimum = 1.0 if isWhole else 0.0001
            step = 1.0 if isWhole else max(0.0001, (high - low) / 100)
            showValue(spinBox, "singleStep", step)

    def _onMode(self, isChosen, mode):
        if isChosen:
            self._onEdited("compressMode", mode)

    def _problem(self):
        """Say what is missing before the volume can be compressed, or nothing."""
        if self.job is not None:
            return _("The volume is being compressed")
        try:
            compression.checkConfig(self.state.inputVolume, self.config)
        except PanelError as error:
            return error.text
        return ""

    def _scheduleEstimate(self):
        """Estimate soon, unless something changes again before, or the estimate is known."""
        if self.job is not None:
            return
        node = self.state.inputVolume
        request = None if node is None else (node.GetID(), bridge.voxelState(node), self.config)
        lack = dependencies.missingText(self._use)
        if self.config.block_type == "implicit":
            lack = lack or _("There is no estimate for the implicit network, whose loss is larger.")
        if lack:
            self._stopEstimate()
            self._estimated = self.ui.estimateLabel.text = lack
        if lack or request == self._estimated:
            return
        self._stopEstimate()
        self._estimated = request
        self.ui.estimateLabel.text = _("Estimating…") if request else ""
        if request:
            self._settle.start()

    def _stopEstimate(self):
        """Stop an estimate that runs or is scheduled."""
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
            self._estimate = compression.startEstimate(self.context.runner, node, self.config)
        except PanelError as error:
            self.ui.estimateLabel.text = error.text
            return
        self._estimate.onFinished(self._onEstimated)

    def _onEstimated(self, job):
        if job is not self._estimate:
            return
        self._estimate = None
        if job.state == "done":
            units = results.unitOf(self.state.inputVolume)
            self.ui.estimateLabel.text = compression.estimateText(job.result, units)
        else:
            self.ui.estimateLabel.text = _("No estimate: {why}").format(why=job.error.text)

    @guarded
    def _onCompress(self, _checked=False):
        """Ask for the file, which the dialog confirms where it exists, and write it."""
        if not dependencies.ensure(self._use, self.context, self.ui.compressButton):
            return
        node = self.state.inputVolume
        title, start = _("Save the compressed volume"), compression.suggestPath(node)
        kinds = compression.FILTER
        path = answerOf(qt.QFileDialog.getSaveFileName(self.widget, title, start, kinds))
        if not path:
            return
        isConfirmed = path.lower().endswith(compression.ENDING)
        path = path if isConfirmed else path + compression.ENDING
        self._stopEstimate()
        self.context.clearMessage()
        job = compression.startCompress(
            self.context.runner, node, path, self.config, overwrite=isConfirmed
        )
        units = results.unitOf(node)

        def onSuccess(job):
            self.context.report(job, compression.resultText(job.result, units, path))

        self.follow(job, onSuccess)

    @guarded
    def _onOpen(self, _checked=False):
        path = askForFile(self.widget, _("Open a compressed volume"), kinds=compression.FILTER)
        if path:
            self.context.clearMessage()
            self.state.inputVolume = files.opened(path, isShown=True)
