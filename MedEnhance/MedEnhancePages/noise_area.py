"""The noise of the volume, measured while a user looks at it; or in a region that he marks."""

from slicer.i18n import tr as _

from MedEnhanceLib.runtime.text import sentence
from MedEnhanceLib.runtime.texts import Text
from MedEnhanceNodes import bridge, region, results, sending
from MedEnhancePages.widgets import singleShot
from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import PanelError, guarded
from MedEnhancePanels.messages import translated
from MedEnhanceTasks import enhancement, node_job

#: How long a volume must stay unchanged before it is measured: not while frames are played.
_SETTLE_MS = 500
#: Millions of voxels above which a volume is sent when it is asked for, not ahead.
_MOST_AHEAD = 200
_REGION_MM = 12


class NoiseArea:
    """Verdict above Apply: what an enhancement can be expected to remove.

    The measurement is shared by previews. Where it is uncertain, a user marks even tissue by a box,
    in which the noise is measured.
    """

    def __init__(self, page):
        self.context, self._page, self._ui = page.context, page, page.ui
        self._settle = singleShot(page.widget, _SETTLE_MS, self._begin)
        self._node = self._state = self._job = self._verdict = None
        #: The box that a user places, and the job that measures in it.
        self._roi = self._regionJob = None
        self._ui.regionButton.clicked.connect(self._onRegion)

    def follow(self, node):
        """Measure a volume or sequence that can be enhanced; None for none."""
        if node is not None and dependencies.missing(dependencies.COMPRESS):
            node = None
        state = sending.stateOf(node) if node is not None else None
        if state != self._state:
            self.stop()
            self._node, self._state, self._verdict, self._job = node, state, None, None
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
        if job is not self._job:
            return
        self._verdict = job.result if job.state == "done" else None
        self._page.update()

    def _show(self):
        """Show the verdict, and offer a region where it is uncertain."""
        ui, state, text = self._ui, self.context.state, ""
        noise = (self._verdict or {}).get("noise") or {}
        isPlacing = bridge.isInScene(self._roi)
        if self._node is None or state is None or state.task == "slices":
            text = ""
        elif isPlacing:
            text = _(
                "Move the box into even tissue, away from edges and vessels. Then press Use region."
            )
        elif state.noise:
            text = _("Noise as stated: ±{noise:g} {units} (1 SD).")
            text = text.format(noise=state.noise, units=results.unitOf(self._node))
        elif noise:
            text = sentence(translated(Text.from_json(noise)))
        elif self._settle.active or (self._job is not None and not self._job.isFinished):
            text = _("Measuring the noise…")
        ui.verdictLabel.text, ui.verdictLabel.visible = text, bool(text)
        isUncertain = bool(noise) and not noise.get("is_certain") and not (state and state.noise)
        hasFrames = self._node is not None and bridge.hasFrames(self._node)
        ui.regionButton.visible = bool(text) and (isPlacing or (isUncertain and not hasFrames))
        ui.regionButton.text = _("Use region") if isPlacing else _("Measure in a region…")
        ui.regionButton.enabled = self._regionJob is None

    @guarded
    def _onRegion(self, *_checked):
        """Place the box, or measure in it."""
        if not bridge.isInScene(self._roi):
            self._roi = region.newRegion(self._node, _("Noise region"), _REGION_MM)
            self._show()
            return
        if problem := region.problemOf(self._roi, self._node):
            raise PanelError(problem, code="input")
        box = region.boxOf(self._roi, self._node)
        self.context.clearMessage()
        self._regionJob = enhancement.startMeasuring(self.context.runner, self._node, box)
        self._regionJob.onFinished(self._onRegionMeasured)
        self._show()

    def _onRegionMeasured(self, job):
        if job is not self._regionJob:
            return
        self._regionJob = None
        noise = job.result.get("noise") or {}
        if noise.get("is_certain") and self.context.state is not None:
            self._page.stateNoise(noise["sigma"])
            self._removeRegion()
        text = Text.from_json(noise or job.result.get("sentence", ""))
        self.context.report(job, sentence(translated(text)))
        self._page.update()

    def _removeRegion(self):
        roi, self._roi, self._regionJob = self._roi, None, None
        if bridge.isInScene(roi):
            results.remove(roi)
