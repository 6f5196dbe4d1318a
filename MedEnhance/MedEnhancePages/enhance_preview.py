"""The part of the page Enhance about the preview: a slice, enhanced in place."""

from slicer.i18n import tr as _

from MedEnhanceNodes import bridge, preview
from MedEnhancePages.widgets import Follower, singleShot
from MedEnhancePanels.errors import PanelError, guarded
from MedEnhanceTasks import enhancement

#: How long a view must stay at a slice before that is computed: not while one scrolls.
_SETTLE_MS = 200


class SlicePreview(preview.Preview, Follower):
    """Preview of the slice in a view, and of another slice once the view shows that.

    There is one job at a time: that of the former slice is cancelled. It shows a draft first.
    """

    def __init__(self, page):
        super().__init__()
        self._page, self.context, self.update = page, page.context, page.update
        self._settle = singleShot(page.widget, _SETTLE_MS, self._onSettled)
        self._node = self._view = self._index = None
        page.ui.previewButton.clicked.connect(self.onClicked)

    @property
    def isOn(self):
        """Whether a preview is shown, or on its way."""
        return self.isShown or self.job is not None

    def problem(self):
        """Say why no preview can be made: of the volume, or because no view shows a slice."""
        problem = self._volumeProblem()
        if not problem and preview.currentSlice(self._page.target) is None:
            problem = _("No slice view shows a slice of the volume: fit the views to it.")
        return problem

    def _volumeProblem(self):
        """Say why there is no preview of any slice of the page's volume; empty where there is."""
        if self._page.state.task == "slices":
            return _("Thin slices have a new grid: no preview is available.")
        if bridge.hasFrames(self._page.target):
            return _("A preview needs a single volume, such as one that shows a frame.")
        return ""

    @guarded
    def onClicked(self, *_checked):
        """Enhance the slice that is shown, or take the preview away."""
        page = self._page
        self.context.clearMessage()
        if self.isOn:
            self.hide()
            self.update()
        elif page.ensure(page.ui.previewButton):
            if problem := self.problem():  # as the view may have moved
                raise PanelError(problem, code="input")
            self._compute(*preview.currentSlice(page.target))

    def keepTo(self, node):
        """Take the preview away unless it is of this volume."""
        if self._node is not node:
            self.hide()

    def show(self, node, source, view):
        """Show a preview, and follow the view from now on."""
        super().show(node, source, view)
        tag = view.AddObserver("ModifiedEvent", lambda *_: self._settle.start())
        self._observed.append((view.GetID(), tag))
        self._settle.start()  # the view may have moved meanwhile

    def hide(self):
        """Take the preview away, and stop what is computed of it."""
        self._end()
        super().hide()

    _onOthersShown = hide

    def forget(self):
        self._end()
        super().forget()

    def _end(self):
        self._settle.stop()
        self.stop()
        self._node = self._view = None

    @guarded
    def _onSettled(self):
        """Go on with the slice that the view shows now."""
        if self._node is None or self._volumeProblem():
            return
        index = preview.sliceIn(self._view, self._node)
        if index not in (None, self._index):
            self._compute(self._view, index)

    def _compute(self, view, index):
        """Compute a slice: a draft of what is in sight, that, then the rest."""
        node, options = self._page.target, self._page.options
        self._node, self._view, self._index = node, view, index
        region = preview.firstRegion(node, view)
        place = {"number": index + 1, "view": view.GetLayoutName()}

        def start(region, onDraft=None):
            self.stop()
            self._page.noise.stop()
            about = node, index, options, region, onDraft
            job = enhancement.startPreview(self.context.runner, *about)
            job.onFinished(self._dropDraft)
            self.follow(job, lambda job: onSuccess(job, region))

        def showDraft(draft):
            self.show(draft, node, view)
            text = _("Draft of slice {number} in the {view} view. The preview follows.")
            self.context.message("info", text.format(**place))

        def onSuccess(job, region):
            self.show(job.nodes["output"], node, view)
            shown = _("Preview of slice {number} in the {view} view.").format(**place)
            if options.config.correct_bias_field:
                shown += " " + _("It shows noise removal alone; Apply does the rest too.")
            if region is not None:
                start(None)
                shown += " " + _("The rest of the slice follows.")
            self.context.report(job, shown)

        start(region, showDraft)

    def _dropDraft(self, job):
        """Take the draft of a job that brought no preview away."""
        draft = job.nodes.pop("draft", None)
        if job.state != "done" and draft is not None and draft is preview.nodeOf(self._nodeID):
            self.context.clearMessage()
            super().hide()
