"""The noise of the volume, measured while a user looks at it; or in a region that he marks."""

import math
import re

import qt
from slicer.i18n import tr as _

from MedEnhanceLib.core.findings import CLEAN, level_of
from MedEnhanceLib.runtime.text import sentence
from MedEnhanceLib.runtime.texts import Text
from MedEnhanceNodes import bridge, model_choice, preview, region, results, sending
from MedEnhancePages.widgets import confirm, singleShot
from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import PanelError, guarded
from MedEnhancePanels.messages import translated
from MedEnhanceTasks import enhancement, node_job

#: How long a volume must stay unchanged before it is measured: not while frames are played.
_SETTLE_MS = 500
#: Millions of voxels above which a volume is sent when it is asked for, not ahead.
_MOST_AHEAD = 200
_REGION_MM = 12
#: Odd frames that are seen without scrolling.
_ROWS = 5


class NoiseArea:
    """Verdict above Apply: what an enhancement can be expected to remove.

    The measurement is shared by previews. Where it is uncertain, a user marks even tissue by a box,
    in which the noise is measured, and which stays until he agrees to what was found.
    """

    def __init__(self, page):
        self.context, self._page, self._ui = page.context, page, page.ui
        self._settle = singleShot(page.widget, _SETTLE_MS, self._begin)
        self._node = self._state = self._job = None
        #: The verdict, as the job `noise` has it; {} for none.
        self._noise = {}
        #: The box that a user places, the job that measures in it, and the noise that it found.
        self._roi = self._regionJob = self._found = None
        #: The rows of the table of odd frames: number and text of each.
        self._odd = []
        self._ui.regionButton.clicked.connect(self._onRegion)
        self._ui.regionCancelButton.clicked.connect(self._onCancel)
        self._ui.oddTable.itemSelectionChanged.connect(self._onOddFrame)

    @property
    def isClean(self):
        """Whether the volume has hardly any noise, as far as it was measured."""
        return self._noise.get("verdict") == CLEAN

    def follow(self, node):
        """Measure a volume or sequence that can be enhanced; None for none."""
        if node is not None and dependencies.missing(dependencies.BASIC):
            node = None
        state = sending.stateOf(node) if node is not None else None
        if state != self._state:
            self.stop()
            self._node, self._state, self._noise, self._job = node, state, {}, None
            self._removeRegion()
            if node is None:
                node_job.forgetSent()
            elif bridge.millionVoxels(node) < _MOST_AHEAD:
                self._settle.start()
        self._show()

    def stop(self):
        """Put the work off for a preview or a run, unless a worker has begun it."""
        if self._settle.active:
            self._state = None
        self._settle.stop()
        if self._job is not None and self._job.worker is None and not self._job.isFinished:
            self._state = None
            self._job.cancel()

    def leave(self):
        """Put the box away, when another page or module is shown."""
        self.stop()
        self._removeRegion()

    def _begin(self):
        if bridge.isInScene(self._node):
            self._job = enhancement.startMeasuring(self.context.runner, self._node)
            self._job.onFinished(self._onMeasured)

    def _onMeasured(self, job):
        if job is self._job:
            self.take(job.result)

    def take(self, result):
        """Take the result of the job `noise`."""
        self._noise = result.get("noise") or {}
        self._page.update()

    def _show(self):
        """Show the verdict, and offer a region where it is uncertain."""
        ui, state, noise, text = self._ui, self.context.state, self._noise, ""
        isPlacing, found = bridge.isInScene(self._roi), self._found
        if self._node is None or state is None or state.task == "slices":
            text = ""
        elif found is not None:
            text = sentence(translated(Text.from_json(found)))
        elif isPlacing:
            text = _("Move the box into even tissue, away from edges and vessels. Then measure.")
        elif state.noise:
            text = _("Noise as stated: ±{noise:g} {units} (1 SD).")
            text = text.format(noise=state.noise, units=results.unitOf(self._node))
        elif noise and model_choice.isJoint(self._node, state.sequence):
            text = _("Noise {level} (1 SD). The run says what filtering frames together removes.")
            text = text.format(level=level_of(noise["sigma"], noise.get("units", "")))
        elif noise:
            text = sentence(translated(Text.from_json(noise)))
        elif self._settle.active or (self._job is not None and not self._job.isFinished):
            text = _("Measuring the noise…")
        ui.verdictLabel.text, ui.verdictLabel.visible = text, bool(text)
        isUncertain = bool(noise) and not noise.get("is_certain") and not (state and state.noise)
        hasFrames = self._node is not None and bridge.hasFrames(self._node)
        ui.regionButton.visible = bool(text) and (isPlacing or (isUncertain and not hasFrames))
        ui.regionButton.text = _("Measure in the box") if isPlacing else _("Measure in a region…")
        if found is not None:
            ui.regionButton.text = _("Use {level}").format(level=level_of(found["sigma"]))
        ui.regionButton.enabled = self._regionJob is None
        ui.regionCancelButton.visible = isPlacing and bool(text)
        self._showOdd(noise.get("odd_frames", []) if text else [])

    def _showOdd(self, texts):
        """List the frames that are unlike the others; what is selected stays so."""
        rows, table = [(each["numbers"]["frame"], each) for each in texts], self._ui.oddTable
        table.visible = bool(rows)
        if rows == self._odd:
            return
        self._odd, table.rowCount = rows, len(rows)
        for row, (frame, text) in enumerate(rows):
            # "frame 12, slice no. 3: stripes": the number stands in its own column.
            about = sentence(re.sub(rf"^\D*{frame}\W+", "", translated(Text.from_json(text))))
            for column, cell in enumerate((str(frame), about)):
                table.setItem(row, column, qt.QTableWidgetItem(cell))
        table.resizeColumnToContents(0)
        table.resizeRowsToContents()
        height = sum(table.rowHeight(row) for row in range(min(len(rows), _ROWS)))
        table.setFixedHeight(height + table.horizontalHeader().sizeHint.height() + 4)

    @guarded
    def _onOddFrame(self):
        """Show the frame of the row that is selected."""
        row = self._ui.oddTable.currentRow()
        if 0 <= row < len(self._odd) and bridge.isInScene(self._node):
            preview.showFrame(self._node, self._odd[row][0])

    @guarded
    def _onRegion(self, *_checked):
        """Place the box, measure in it, or use what was measured."""
        if not bridge.isInScene(self._roi):
            self._roi = region.newRegion(self._node, _("Noise region"), _REGION_MM)
            self._roi.SetSaveWithScene(False)
            self._roi.AddObserver("ModifiedEvent", self._onMoved)
            self._show()
            return
        if self._found is not None:
            self._use(self._found)
            return
        if problem := region.problemOf(self._roi, self._node):
            raise PanelError(problem, code="input")
        box = region.boxOf(self._roi, self._node)
        self.context.clearMessage()
        self._regionJob = enhancement.startMeasuring(self.context.runner, self._node, box)
        self._regionJob.onFinished(self._onRegionMeasured)
        self._show()

    def _onMoved(self, *_event):
        """Forget what was measured elsewhere, and what is being measured there."""
        if self._found is not None or self._regionJob is not None:
            self._found = self._regionJob = None
            self.context.changeSoon()

    def _onRegionMeasured(self, job):
        if job is not self._regionJob:
            return
        self._regionJob = None
        noise = job.result.get("noise") or {}
        if noise.get("is_certain"):
            self._found = noise
        else:
            text = Text.from_json(noise or job.result.get("sentence", ""))
            self.context.report(job, sentence(translated(text)))
        self._page.update()

    def _use(self, noise):
        """State the noise of the box, after a question if neither volume nor even tissue has it."""
        low, high = self._noise.get("interval") or (0, math.inf)
        question = _(
            "The noise in the box is {level}; that of the volume is {low} to {high}. Anatomy may be"
            " in the box, which Apply would then remove. Look at the box. Use it all the same?"
        )
        levels = {"level": noise["sigma"], "low": low, "high": high}
        question = question.format(**{name: level_of(value) for name, value in levels.items()})
        isLikely = low <= noise["sigma"] <= high or "even_sigma" in noise
        if isLikely or confirm(self._page.widget, _("Use the noise of the box"), question):
            self._removeRegion()
            self._page.stateNoise(noise["sigma"])

    @guarded
    def _onCancel(self, *_checked):
        self._removeRegion()
        self._show()

    def _removeRegion(self):
        roi, self._roi, self._regionJob, self._found = self._roi, None, None, None
        if bridge.isInScene(roi):
            results.remove(roi)
