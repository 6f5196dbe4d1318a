"""The page Distill: a cohort, what is made of it, and a run in the background.

It distills the cohort, or trains an enhancer on it; RunArea shows a run and its result.
"""

import os

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.spg.config import DistillConfig
from MedEnhancePanels import arguments, dependencies
from MedEnhancePanels.errors import guarded
from MedEnhancePanels.pages import distill_choices
from MedEnhancePanels.pages.distill_choices import RoomEstimate
from MedEnhancePanels.pages.distill_run import RunArea
from MedEnhancePanels.pages.widgets import Page, askForFile
from MedEnhancePanels.state import State
from MedEnhancePanels.tasks import distillation, long_run, training


class DistillPanel(Page):
    """Fills the options of a run from the page, and starts it."""

    def __init__(self, context):
        super().__init__(context, "Distill")
        self._isUpdating = False
        self._fillSelectors()
        self._describe()
        self._prior = distill_choices.PriorChoice(context, self.ui, self._onEdited)
        ui = self.ui
        self._room = RoomEstimate(context, ui.roomButton, ui.roomLabel, self._distilled)
        self.runs = RunArea(context, self.ui, lambda: self.root, self._refreshButtons)
        self._connect()
        self.runs.followCurrent()
        self.followState()

    def _fillSelectors(self):
        ui = self.ui
        self._choices = {
            "distillTask": (
                ui.taskSelector,
                {
                    "distill": _("Distilled images of a cohort"),
                    "trainMR": _("An enhancer for MR, trained on a cohort"),
                    "trainCT": _("An enhancer for CT, trained on a cohort"),
                },
            ),
            "distillMethod": (ui.methodSelector, _methods()),
            "distillGoal": (
                ui.goalSelector,
                {
                    "denoise": _("Removing noise"),
                    "sr2": _("Doubling the resolution"),
                    "sr4": _("Four times the resolution"),
                    "undersample": _("Completing undersampled MR"),
                },
            ),
            "distillModality": (
                ui.modalitySelector,
                {"auto": _("As in the files"), "MR": _("MR"), "CT": _("CT")},
            ),
            "distillDevice": (
                ui.deviceSelector,
                {
                    "auto": _("Automatic"),
                    "cpu": _("Processor"),
                    "cuda": _("Graphics card (CUDA)"),
                    "mps": _("Graphics card (Apple)"),
                },
            ),
            "distillBudget": (
                ui.budgetSelector,
                {
                    "cpu": _("Short, for a processor"),
                    "full": _("Full, for a graphics card"),
                    "smoke": _("Test: seconds"),
                },
            ),
        }
        for selector, entries in self._choices.values():
            for value, text in entries.items():
                selector.addItem(text, value)

    def _describe(self):
        ui = self.ui
        arguments.describe(ui.methodSelector, DistillConfig, "method")
        arguments.describe(ui.imagesSpinBox, DistillConfig, "images_per_patient")
        arguments.describe(ui.heldOutSpinBox, DistillConfig, "held_out", scale=100)

    def _connect(self):
        ui = self.ui
        for selector, _entries in self._choices.values():
            selector.currentIndexChanged.connect(self._onEdited)
        for edit, _name in self._edits():
            edit.textChanged.connect(self._onEdited)
        for spinBox in (ui.imagesSpinBox, ui.heldOutSpinBox):
            spinBox.valueChanged.connect(self._onEdited)
        ui.rootButton.clicked.connect(lambda _checked=False: self._browse(ui.rootEdit))
        ui.pathButton.clicked.connect(lambda _checked=False: self._browse(ui.pathEdit))
        ui.tableButton.clicked.connect(self._onBrowseTable)
        ui.startButton.clicked.connect(self._onStart)

    def _edits(self):
        """Line edits with the fields of the state that they show."""
        ui = self.ui
        return (
            (ui.highEdit, "distillHigh"),
            (ui.lowEdit, "distillLow"),
            (ui.pathEdit, "distillCohort"),
            (ui.patternEdit, "distillPattern"),
            (ui.nameEdit, "distillName"),
            (ui.licenceEdit, "distillLicence"),
            (ui.rootEdit, "distillRoot"),
        )

    def enter(self):
        self.runs.list()
        self.update()

    def cleanup(self):
        super().cleanup()
        self._room.cleanup()
        self.runs.cleanup()

    @property
    def root(self):
        """The folder that runs are kept in."""
        return self.ui.rootEdit.text.strip() or long_run.defaultRoot()

    @property
    def isDistilling(self):
        """Whether the task is a distillation, not a training."""
        return self.state is not None and self.state.distillTask == "distill"

    @property
    def options(self):
        """What is chosen, as training.TrainingOptions or distillation.DistillOptions."""
        state = self.state
        common = {
            "name": state.distillName,
            "budget": state.distillBudget,
            "device": state.distillDevice,
        }
        if not self.isDistilling:
            modality = "CT" if state.distillTask == "trainCT" else "MR"
            return training.TrainingOptions(modality=modality, **common)
        return distillation.DistillOptions(
            task=state.distillGoal,
            method=state.distillMethod,
            imagesPerPatient=state.distillImages,
            heldOut=state.distillHeldOut,
            modality=state.distillModality,
            licence=state.distillLicence.strip(),
            **common,
        )

    @property
    def cohort(self):
        """The patients whom the run learns from."""
        state = self.state
        if self.isDistilling:
            return distillation.Cohort(state.distillCohort.strip(), state.distillPattern)
        return training.FolderCohort(
            state.distillCohort.strip(),
            training.patternsOf(state.distillHigh),
            training.patternsOf(state.distillLow),
        )

    # --- state ↔ widgets ---

    def onState(self, state):
        self.widget.enabled = state is not None
        self.update()
        self.runs.list()
        if state is not None:
            self.runs.recall(state.distillRun)

    def update(self):
        """Show what the state says."""
        if self.state is None or self._isUpdating:
            return
        state, ui = self.state, self.ui
        self._isUpdating = True
        try:
            for name, (selector, entries) in self._choices.items():
                selector.currentIndex = list(entries).index(getattr(state, name))
            for edit, name in self._edits():
                if edit.text != getattr(state, name):
                    edit.text = getattr(state, name)
            ui.imagesSpinBox.value = state.distillImages
            ui.heldOutSpinBox.value = round(100 * state.distillHeldOut)
            self._prior.show(state)
        finally:
            self._isUpdating = False
        ui.rootEdit.placeholderText = long_run.defaultRoot()
        ui.noticeLabel.text = self._noticeText()
        ui.tableButton.visible = self.isDistilling
        ui.trainArea.visible = not self.isDistilling
        ui.goalSelector.enabled = self.isDistilling
        ui.distillArea.visible = ui.shareLabel.visible = self.isDistilling
        isStatistics = state.distillMethod == "statistics"
        ui.imagesLabel.text = _("Images in all:") if isStatistics else _("Images per patient:")
        warnings = []
        if self.isDistilling:
            prior, options = distill_choices.priorIn(state), self.options
            ui.shareLabel.text = distillation.sharedText(prior, options)
            warnings = distillation.warningsAbout(prior, options)
        ui.warningLabel.text = "\n".join(warnings)
        ui.warningLabel.visible = bool(warnings)
        self._refreshButtons()

    @guarded
    def _onEdited(self, _value=None):
        if self.state is None or self._isUpdating:
            return
        ui, state = self.ui, self.state
        rootBefore = state.distillRoot
        with state.changes():
            for name, (selector, entries) in self._choices.items():
                setattr(state, name, list(entries)[selector.currentIndex])
            for edit, name in self._edits():
                setattr(state, name, edit.text)
            state.distillImages = ui.imagesSpinBox.value
            state.distillHeldOut = ui.heldOutSpinBox.value / 100
            self._prior.read(state)
        if state.distillRoot != rootBefore:
            self.runs.list()

    def _noticeText(self):
        if self.isDistilling:
            return _(
                "A few images stand in for a cohort, to train small networks for one task. "
                "They are audited; this does not prove that nobody can be recognized. If ten real "
                "images may be shared, share those: training works about as well."
            )
        return _("Trains an enhancer on your cohort: its model is then among the models.")

    def _refreshButtons(self):
        ui, isRunning = self.ui, self.runs.isRunning
        why = self._whyNot()
        ui.whyLabel.text = why
        ui.whyLabel.visible = bool(why) and not isRunning
        ui.startButton.enabled = not why and not isRunning
        ui.startButton.toolTip = why or (_("A run is in progress") if isRunning else "")
        self.runs.refresh()
        ui.roomButton.visible = self.isDistilling and not isRunning
        self._room.update(why or (_("A run is in progress") if isRunning else ""))

    def _distilled(self):
        """(cohort, prior, options) of the distillation that is chosen, None where it cannot be."""
        if self.state is None or not self.isDistilling or self._whyNot():
            return None
        return self.cohort, distill_choices.priorIn(self.state), self.options

    def _whyNot(self):
        """What is missing before a run can start, or nothing."""
        state = self.state
        if state is None:
            return _("There is no scene")
        if self.isDistilling:
            return distillation.whyNot(self.cohort, distill_choices.priorIn(state), self.options)
        if not state.distillName.strip():
            return _("Give the model a name.")
        isFolder = os.path.isdir(state.distillCohort.strip())
        return "" if isFolder else _("Choose the folder with the volumes.")

    @guarded
    def _browse(self, edit):
        folder = qt.QFileDialog.getExistingDirectory(self.widget, _("Choose a folder"), edit.text)
        if folder:
            edit.text = folder

    @guarded
    def _onBrowseTable(self, _checked=False):
        title, kinds = _("Choose a table"), _("Tables (*.csv)")
        path = askForFile(self.widget, title, self.ui.pathEdit.text, kinds)
        if path:
            self.ui.pathEdit.text = path

    @guarded
    def _onStart(self, _checked=False):
        if not dependencies.ensure():
            return
        self.context.clearMessage()
        runner, root = self.context.runner, self.root
        if not self.isDistilling:
            self.runs.begin(training.start(runner, root, self.cohort, self.options))
            return
        prior = distill_choices.priorIn(self.state)
        warning = _(
            "Every distilled image will show the anatomy of the most typical patient of the "
            "cohort. Anyone who gets the images can recognize this person, whatever the audit "
            "finds. Continue only if this person consented."
        )
        if prior.exposes and not slicer.util.confirmOkCancelDisplay(
            warning, _("MedEnhance: a patient as the prior"), self.widget
        ):
            return
        self.runs.begin(distillation.start(runner, root, self.cohort, prior, self.options))


def _methods():
    """The methods that the library declares, under short names."""
    texts = {
        "matching": _("Matching: images of each patient (minutes)"),
        "statistics": _("Statistics: the prior with the cohort's means (seconds)"),
    }
    return {method: texts.get(method, method) for method in State.distillMethod.choices}
