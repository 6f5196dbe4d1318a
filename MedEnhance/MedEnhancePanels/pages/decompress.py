"""The lower half of the page Compress: the card of a compressed file, and opening it."""

import os

from slicer.i18n import tr as _

from MedEnhancePanels.errors import guarded
from MedEnhancePanels.job import withWarnings
from MedEnhancePanels.nodes.preview import showVolume
from MedEnhancePanels.pages.widgets import JobProgress, askForFile
from MedEnhancePanels.tasks import compression, compression_texts


class DecompressSection:
    """Drives the widgets of Compress.ui that open files.

    ui: the page's widgets by name. onOpened(node): called when a file was opened or recovered.
    """

    def __init__(self, context, ui, onOpened):
        self.context, self.ui, self._onNode = context, ui, onOpened
        self._state = None
        self._card, self._inspection, self._inspected = None, None, ""
        self._shownPath = ""
        self._isUpdating, self._isBound = False, True
        self._progress = JobProgress(
            ui.openProgressArea, ui.openProgressBar, ui.openProgressLabel, ui.openCancelButton
        )
        ui.fileEdit.textChanged.connect(self._onFile)
        ui.fileButton.clicked.connect(self._onBrowse)
        ui.regionCheckBox.toggled.connect(lambda _checked: self._refresh())
        for start, stop in self._axes():
            start.valueChanged.connect(self._onRange)
            stop.valueChanged.connect(self._onRange)
        ui.openButton.clicked.connect(self._onOpen)
        ui.recoverButton.clicked.connect(self._onRecover)
        ui.recoverButton.visible = False

    def enter(self):
        """Look at the file again: it may have changed since."""
        self._inspected = ""
        self._onFile()

    def offer(self, path):
        """Fill in a file that has just been written."""
        self.ui.fileEdit.text = path
        self.enter()  # where that file was filled in before, it is another now

    def setState(self, state):
        self._state = state
        if state is not None and self.ui.fileEdit.text != state.decompressPath:
            self.ui.fileEdit.text = state.decompressPath
        self._refresh()

    def cleanup(self):
        self._inspection, self._state, self._isBound = None, None, False
        self._progress.forget()

    @property
    def path(self):
        """The file that is chosen, in full; "" for none."""
        return compression.fullPath(self.ui.fileEdit.text)

    @property
    def region(self):
        """A pair for each axis, or None for the whole volume."""
        if self._card is None or not self.ui.regionCheckBox.checked:
            return None
        axes = self._axes()[-len(self._card["shape"]) :]
        return [[start.value, stop.value + 1] for start, stop in axes]

    def _axes(self):
        """The spin boxes of frames, slices, rows, columns: the order of a volume's axes."""
        ui = self.ui
        return [
            (ui.framesFrom, ui.framesUntil),
            (ui.slicesFrom, ui.slicesUntil),
            (ui.rowsFrom, ui.rowsUntil),
            (ui.columnsFrom, ui.columnsUntil),
        ]

    # --- the file's card ---

    @guarded
    def _onBrowse(self, _checked=False):
        section, title = self.ui.decompressSection, _("Open a compressed volume")
        path = askForFile(section, title, self.ui.fileEdit.text, compression.FILTER)
        if path:
            self.ui.fileEdit.text = path

    @guarded
    def _onFile(self, _text=None):
        path = self.path
        if self._state is not None:
            self._state.decompressPath = self.ui.fileEdit.text.strip()
        if path != self._shownPath:
            self._shownPath = path
            self.context.clearNews()
        if path == self._inspected and self._card is not None:
            return
        self._card, self._inspection, self._inspected = None, None, path
        self.ui.recoverButton.visible = self.ui.regionCheckBox.checked = False
        if os.path.isfile(path):
            self.ui.cardLabel.text = _("Reading…")
            self._inspection = compression.startInspect(self.context.runner, path)
            self._inspection.onFinished(self._onInspected)
        else:
            self.ui.cardLabel.text = (
                _("{path} does not exist.").format(path=path)
                if path
                else _("Choose a file to see its contents.")
            )
        self._refresh()

    def _onInspected(self, job):
        if job is not self._inspection:
            return
        self._inspection = None
        if job.state == "done":
            self._card = job.result["card"]
            self.ui.cardLabel.text = compression_texts.cardText(self._card)
            self._setRanges(self._card["shape"])
        else:
            error = compression.withRemedy(job.error, self.path)
            self.ui.cardLabel.text = error.text
            self.ui.recoverButton.visible = error.code == "codec"
        self._refresh()

    def _setRanges(self, shape):
        self._isUpdating = True
        for (start, stop), count in zip(self._axes()[-len(shape) :], shape, strict=True):
            start.maximum = stop.maximum = count - 1
            start.value, stop.value = 0, count - 1
        self._isUpdating = False

    def _onRange(self, _value=None):
        """Keep the last voxel of each axis at or after the first."""
        if self._isUpdating:
            return
        for start, stop in self._axes():
            stop.minimum = start.value

    def _refresh(self):
        ui, card = self.ui, self._card
        has4D = card is not None and len(card["shape"]) == 4
        for widget in (ui.framesLabel, ui.framesFrom, ui.framesTo, ui.framesUntil):
            widget.visible = has4D
        ui.regionCheckBox.enabled = card is not None
        ui.regionArea.visible = card is not None and ui.regionCheckBox.checked
        isBusy = self._progress.job is not None
        ui.openButton.enabled = card is not None and not card["missing"] and not isBusy
        ui.recoverButton.enabled = not isBusy

    # --- opening ---

    @guarded
    def _onOpen(self, _checked=False):
        self.context.clearMessage()
        path, runner = self.path, self.context.runner
        region = self.region
        if region is None and len(self._card["shape"]) == 3:
            preview = compression.startPreviewLoad(runner, path, self._card)
            self._follow(preview, lambda job: self._onPreviewed(job, path))
        else:
            job = compression.startDecompress(runner, path, region=region, card=self._card)
            self._follow(job, self._onOpened)

    @guarded
    def _onRecover(self, _checked=False):
        self.context.clearMessage()
        self._follow(compression.startRecover(self.context.runner, self.path), self._onRecovered)

    def _follow(self, job, then):
        self._progress.show(job)
        self._refresh()
        job.onFinished(lambda job: then(job) if self._isBound else None)

    def _onPreviewed(self, job, path):
        """The preview is shown; now decode the rest."""
        if job.state != "done":
            self._onOpened(job)
            return
        node = job.nodes["output"]
        showVolume(node)
        self._follow(compression.startFill(self.context.runner, path, node), self._onOpened)

    def _onOpened(self, job):
        self._refresh()
        if job.state != "done":
            error = compression.withRemedy(job.error, self.path)
            self.ui.recoverButton.visible = error.code == "codec"
            self.context.showError(error)
            return
        node = job.nodes["output"]
        self._choose(node)
        loaded = _("{name} was loaded.").format(name=node.GetName())
        level = "warning" if job.warnings else "info"
        self.context.message(level, withWarnings(loaded, job.warnings))

    def _onRecovered(self, job):
        self._refresh()
        if job.state != "done":
            self.context.showError(compression.beyondRecovery(job.error))
            return
        self._choose(job.nodes["output"])
        self.context.message("warning", compression_texts.lostText(job.result["report"]))

    def _choose(self, node):
        showVolume(node)
        self._onNode(node)
