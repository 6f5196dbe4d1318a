"""The page Compress: a volume into a file within a guaranteed error bound."""

import qt
from slicer.i18n import tr as _

from MedEnhanceLib.io.formats import CONTAINER
from MedEnhanceLib.unicompress.config import CompressConfig
from MedEnhanceNodes import bridge, results
from MedEnhancePages.widgets import Page, answerOf, askForFile, fill, showValue, singleShot
from MedEnhancePanels import arguments, dependencies
from MedEnhancePanels.errors import PanelError, guarded
from MedEnhanceTasks import compression, files

#: How long the page waits for further changes before it estimates.
_SETTLE_MS = 500
#: Properties of the field of a value, in the order that sets them: decimals round the others.
_PROPERTIES = ("decimals", "minimum", "maximum", "singleStep", "suffix", "value")
_UNBOUNDED = _("The error of a single voxel is not bounded.")
#: By mode: its name, what it guarantees, and the properties of its value.
_MODES = {
    "lossless": (_("Lossless"), _("Every voxel is restored exactly."), ()),
    "maxError": (
        _("Maximum error"),
        _("No voxel differs by more than this."),
        (0, 1.0, 1e6, 1.0, ""),
    ),
    "psnr": (_("PSNR at least"), _UNBOUNDED, (1, 10.0, 120.0, 1.0, " dB")),
    "ratio": (_("Compression ratio"), _UNBOUNDED, (1, 1.1, 1000.0, 1.0, "")),
}


class CompressPanel(Page):
    """Page whose choices live in the state; a file is estimated, written and verified in jobs."""

    def __init__(self, context):
        super().__init__(context, "Compress")
        #: The estimate that runs; the volume and config of the last one, or why there was none.
        self._estimate, self._estimated = None, None
        self._settle = singleShot(self.widget, _SETTLE_MS, self._startEstimate)
        ui = self.ui
        fill(ui.codecSelector, {"auto": _("Automatic"), "implicit": _("Implicit (UniCompress)")})
        self.bind(compressMode=ui.modeSelector, compressCodec=ui.codecSelector)
        ui.valueSpinBox.valueChanged.connect(self._onValue)
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
        return dependencies.NETWORKS if isImplicit else dependencies.BASIC

    def offer(self):
        state, names = self.state, {mode: each[0] for mode, each in _MODES.items()}
        if bridge.isLabelMap(state.inputVolume):
            state.compressMode, names = "lossless", {"lossless": names["lossless"]}
        fill(self.ui.modeSelector, names)
        if state.compressCodec == "implicit":
            state.ratio = max(state.ratio, compression.IMPLICIT_RATIO)

    def show(self):
        ui, mode = self.ui, self.state.compressMode
        ui.valueSpinBox.accessibleName, ui.guaranteeLabel.text, _field = _MODES[mode]
        ui.codecRow.visible = mode == "ratio"
        ui.valueSpinBox.visible = mode != "lossless"
        if mode != "lossless":
            values = (*self._fieldOf(mode), getattr(self.state, mode))
            for name, value in zip(_PROPERTIES, values, strict=True):
                showValue(ui.valueSpinBox, name, value)
        problem = self._problem()
        ui.compressButton.enabled = not problem
        ui.compressButton.toolTip = problem or _("Choose a file, write it and verify it")
        ui.problemLabel.text = problem
        ui.problemLabel.visible = bool(problem) and self.job is None
        self._scheduleEstimate()

    def _fieldOf(self, mode):
        """Return the properties of a mode's value.

        Of a maximum error: the volume's unit, and steps of 1, or of 1 % of the range.
        """
        _name, _guarantee, field = _MODES[mode]
        node = self.state.inputVolume
        if mode == "ratio" and self.state.compressCodec == "implicit":
            field = (field[0], compression.IMPLICIT_RATIO, *field[2:])
        elif mode == "maxError" and bridge.isUsable(node):
            image, units = bridge.frameNodes(node)[0].GetImageData(), f" {results.unitOf(node)}"
            field = (*field[:4], units)
            if not bridge.isWhole(image):
                low, high = bridge.rangeOf(image)
                field = 4, 0.0001, 1e6, max(0.0001, (high - low) / 100), units
        return field

    def _onValue(self, value):
        if self.state is not None:
            self._onEdited(self.state.compressMode, value)

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
        isConfirmed = path.lower().endswith(CONTAINER)
        path = path if isConfirmed else path + CONTAINER
        self._stopEstimate()
        self.context.clearMessage()
        job = compression.startCompress(
            self.context.runner, node, path, self.config, overwrite=isConfirmed
        )
        self.follow(job, lambda _job: None)  # the panel shows its summary

    @guarded
    def _onOpen(self, _checked=False):
        path = askForFile(self.widget, _("Open a compressed volume"), kinds=compression.FILTER)
        if path:
            self.context.clearMessage()
            self.state.inputVolume = files.opened(path, isShown=True).nodes["output"]
