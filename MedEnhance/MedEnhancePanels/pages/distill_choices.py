"""Parts of the page Distill: the prior, and an estimate of what can be gained."""

from slicer.i18n import tr as _

from MedEnhancePanels.errors import guarded
from MedEnhancePanels.pages.widgets import askForFile
from MedEnhancePanels.tasks.distillation import Prior, startRoom


class PriorChoice:
    """The widgets of the prior, in step with the state; onEdited() is called after a change."""

    def __init__(self, context, ui, onEdited):
        self.context, self._ui = context, ui
        self._kinds = {
            "template": _("Public template (MR)"),
            "file": _("A file"),
            "representative": _("The most typical patient of the cohort"),
        }
        for kind, text in self._kinds.items():
            ui.priorSelector.addItem(text, kind)
        ui.priorSelector.currentIndexChanged.connect(onEdited)
        ui.priorFileEdit.textChanged.connect(onEdited)
        ui.priorFileButton.clicked.connect(self._onBrowse)

    def show(self, state):
        """Show what the state says."""
        ui = self._ui
        ui.priorSelector.currentIndex = list(self._kinds).index(state.distillPrior)
        if ui.priorFileEdit.text != state.distillPriorFile:
            ui.priorFileEdit.text = state.distillPriorFile
        ui.priorFileArea.visible = state.distillPrior == "file"

    def read(self, state):
        """Keep in the state what the widgets say."""
        state.distillPrior = list(self._kinds)[self._ui.priorSelector.currentIndex]
        state.distillPriorFile = self._ui.priorFileEdit.text

    @guarded
    def _onBrowse(self, _checked=False):
        edit = self._ui.priorFileEdit
        path = askForFile(edit, _("Choose a volume"), edit.text)
        if path:
            edit.text = path


def priorIn(state):
    """The prior that a state says."""
    return Prior(kind=state.distillPrior, path=state.distillPriorFile)


class RoomEstimate:
    """A button that starts a `distill-estimate` job, and what the job found, in a label.

    params(): (cohort, prior, options) of what is chosen now, None where it cannot be distilled.
    """

    def __init__(self, context, button, label, params):
        self.context, self._button, self._label, self._params = context, button, label, params
        self._job, self._askedFor = None, None
        self._texts = {False: button.text, True: _("Stop the estimate")}
        button.clicked.connect(self._onClicked)
        self._show("")

    def update(self, why):
        """Forget what was found for other choices; why: there is nothing to ask about, or ""."""
        if self._askedFor is not None and self._params() != self._askedFor:
            self._forget()
        self._button.enabled = not why or self._job is not None
        self._button.text = self._texts[self._job is not None]

    def cleanup(self):
        self._params = lambda: None
        self._forget()

    def _forget(self):
        job, self._job, self._askedFor = self._job, None, None
        if job is not None:
            job.cancel()
        self._show("")

    @guarded
    def _onClicked(self, _checked=False):
        isRunning = self._job is not None
        self._forget()
        if not isRunning:
            self._askedFor = self._params()
            self._show(_("This trains small networks, which can take minutes…"))
            self._job = startRoom(self.context.runner, *self._askedFor)
            self._job.onFinished(self._onFinished)
        self.update("")

    def _onFinished(self, job):
        if job is not self._job:
            return
        self._job = None
        if job.state == "done":
            self._show(job.result["sentence"])
        elif job.state == "failed":
            text = _("What can be gained could not be estimated: {why}")
            self._show(text.format(why=job.error.text))
        else:
            self._forget()
        self.update("" if self._params() is not None else _("Nothing can be distilled."))

    def _show(self, text):
        self._label.text = text
        self._label.visible = bool(text)
