"""The prior of a distillation on the page Distill: which kind, and which volume or patient."""

import qt
from slicer.i18n import tr as _

from MedEnhancePanels.distilling import Prior
from MedEnhancePanels.errors import guarded


class PriorChoice:
    """The widgets of the prior, in step with the state; onEdited() is called after a change."""

    def __init__(self, context, ui, onEdited):
        self.context, self._ui = context, ui
        self._kinds = {
            "template": _("Public template (MR)"),
            "scene": _("A volume of the scene"),
            "file": _("A file"),
            "patient": _("A patient of the cohort"),
            "representative": _("The most typical patient of the cohort"),
        }
        for kind, text in self._kinds.items():
            ui.priorSelector.addItem(text, kind)
        self._names = []
        ui.priorSelector.currentIndexChanged.connect(onEdited)
        ui.priorVolumeSelector.currentNodeChanged.connect(onEdited)
        ui.priorFileEdit.textChanged.connect(onEdited)
        ui.priorPatientSelector.editTextChanged.connect(onEdited)
        ui.priorFileButton.clicked.connect(self._onBrowse)

    def show(self, state, names, isUsed):
        """Show what the state says; names: of the patients who can be chosen.

        isUsed: whether the task takes a prior; else nothing of it is shown.
        """
        ui, kind = self._ui, state.distillPrior
        ui.priorSelector.currentIndex = list(self._kinds).index(kind)
        ui.priorVolumeSelector.setCurrentNode(state.distillPriorVolume)
        if ui.priorFileEdit.text != state.distillPriorFile:
            ui.priorFileEdit.text = state.distillPriorFile
        if names != self._names:
            self._names = list(names)
            ui.priorPatientSelector.clear()
            for name in names:
                ui.priorPatientSelector.addItem(name)
        if ui.priorPatientSelector.currentText != state.distillPriorPatient:
            ui.priorPatientSelector.setEditText(state.distillPriorPatient)
        for widgets, shownFor in (
            ((ui.priorLabel, ui.priorSelector), kind),
            ((ui.priorVolumeLabel, ui.priorVolumeSelector), "scene"),
            ((ui.priorFileLabel, ui.priorFileArea), "file"),
            ((ui.priorPatientLabel, ui.priorPatientSelector), "patient"),
        ):
            for widget in widgets:
                widget.visible = isUsed and kind == shownFor

    def read(self, state):
        """Keep in the state what the widgets say."""
        ui = self._ui
        state.distillPrior = list(self._kinds)[ui.priorSelector.currentIndex]
        state.distillPriorVolume = ui.priorVolumeSelector.currentNode()
        state.distillPriorFile = ui.priorFileEdit.text
        state.distillPriorPatient = ui.priorPatientSelector.currentText

    @guarded
    def _onBrowse(self, _checked=False):
        path = qt.QFileDialog.getOpenFileName(
            self._ui.priorFileEdit, _("Choose a volume"), self._ui.priorFileEdit.text
        )
        path = path[0] if isinstance(path, tuple) else path  # one binding adds the filter
        if path:
            self._ui.priorFileEdit.text = path


def priorIn(state):
    """The prior that a state says."""
    return Prior(
        kind=state.distillPrior,
        patient=state.distillPriorPatient.strip(),
        path=state.distillPriorFile,
        node=state.distillPriorVolume,
    )


def warningOf(prior):
    """What is asked before a patient of the cohort becomes the prior."""
    who = (
        _("patient {name}").format(name=prior.patient)
        if prior.kind == "patient"
        else _("the most typical patient of the cohort")
    )
    return _(
        "Every distilled image will show the anatomy of {who}. Whoever gets the images can "
        "recognise this person, whatever the audit finds. Go on only if this person consented."
    ).format(who=who)
