"""The page Distill: a cohort, what is made of it, and a run that goes on in the background.

It distils the cohort into a few images, or trains an enhancer on it. What runs and what came out
is shown by RunArea.
"""

import os

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels import distilling, longrun, priorchoice, training
from MedEnhancePanels.cohorttable import CohortTable
from MedEnhancePanels.errors import guarded
from MedEnhancePanels.runarea import RunArea
from MedEnhancePanels.timeestimate import TimeEstimate


class DistillPanel:
    """Fills the options of a run from the page, and starts it."""

    def __init__(self, context):
        self.context = context
        self.widget, self.ui = context.ui("Distill")
        self._state, self._stopObserving = None, None
        self._isUpdating, self._isShown = False, False
        self._names = []
        self._cohort = CohortTable(self.ui.cohortTable, self._refresh)
        self._fillSelectors()
        self._prior = priorchoice.PriorChoice(context, self.ui, self._onEdited)
        self._estimate = TimeEstimate(context.runner, self.ui.estimateLabel, self._onNames)
        self.runs = RunArea(context, self.ui, lambda: self.root, self._refreshButtons)
        self._connect()
        context.onState(self._onState)

    def _fillSelectors(self):
        ui = self.ui
        self._choices = {
            "distillTask": (
                ui.taskSelector,
                {
                    "trainMR": _("Train an enhancer for MR"),
                    "trainCT": _("Train an enhancer for CT"),
                    "distill": _("Distill the cohort"),
                },
            ),
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
                {"auto": _("What they say"), "MR": _("MR"), "CT": _("CT")},
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
                    "smoke": _("Try it out: seconds"),
                },
            ),
        }
        for selector, entries in self._choices.values():
            for value, text in entries.items():
                selector.addItem(text, value)

    def _connect(self):
        ui = self.ui
        for selector, _entries in self._choices.values():
            selector.currentIndexChanged.connect(self._onEdited)
        for edit, _name in self._edits():
            edit.textChanged.connect(self._onEdited)
        ui.sceneButton.toggled.connect(self._onEdited)
        for spinBox in (ui.stepsSpinBox, ui.imagesSpinBox, ui.heldOutSpinBox):
            spinBox.valueChanged.connect(self._onEdited)
        ui.dataButton.clicked.connect(lambda _checked=False: self._browse(ui.dataEdit))
        ui.rootButton.clicked.connect(lambda _checked=False: self._browse(ui.rootEdit))
        ui.pathButton.clicked.connect(lambda _checked=False: self._browse(ui.pathEdit))
        ui.tableButton.clicked.connect(self._onBrowseTable)
        ui.startButton.clicked.connect(self._onStart)

    def _edits(self):
        """Line edits with the fields of the state that they show."""
        ui = self.ui
        return (
            (ui.dataEdit, "distillFolder"),
            (ui.highEdit, "distillHigh"),
            (ui.lowEdit, "distillLow"),
            (ui.pathEdit, "distillCohort"),
            (ui.patternEdit, "distillPattern"),
            (ui.nameEdit, "distillName"),
            (ui.rootEdit, "distillRoot"),
        )

    def enter(self):
        self._isShown = True
        self._cohort.observe(True)
        self.runs.list()
        self._refresh()

    def exit(self):
        self._isShown = False
        self._cohort.observe(False)
        self._refreshEstimate()

    def cleanup(self):
        """Let go of the scene; a run goes on."""
        self._estimate.cleanup()
        self.runs.cleanup()
        self._cohort.cleanup()
        if self._stopObserving is not None:
            self._stopObserving()
            self._stopObserving = None
        self._state = None

    @property
    def root(self):
        """The folder that runs are kept in."""
        return self.ui.rootEdit.text.strip() or longrun.defaultRoot()

    @property
    def isDistilling(self):
        """Whether the task is a distillation, not a training."""
        return self._state is not None and self._state.distillTask == "distill"

    @property
    def options(self):
        """What is chosen, as training.TrainingOptions or distilling.DistillOptions."""
        state = self._state
        common = {
            "name": state.distillName,
            "budget": state.distillBudget,
            "device": state.distillDevice,
        }
        if not self.isDistilling:
            modality = "CT" if state.distillTask == "trainCT" else "MR"
            return training.TrainingOptions(modality=modality, steps=state.distillSteps, **common)
        return distilling.DistillOptions(
            task=state.distillGoal,
            images=state.distillImages,
            heldOut=state.distillHeldOut,
            modality=state.distillModality,
            **common,
        )

    @property
    def cohort(self):
        """What the run learns from: members of the scene, or what lies at a path."""
        state = self._state
        if state.distillSource == "scene":
            return self._cohort.members
        if self.isDistilling:
            return distilling.PathCohort(state.distillCohort.strip(), state.distillPattern)
        return training.FolderCohort(
            state.distillFolder,
            training.patternsOf(state.distillHigh),
            training.patternsOf(state.distillLow),
        )

    # --- state ↔ widgets ---

    def _onState(self, state):
        if self._stopObserving is not None:
            self._stopObserving()
            self._stopObserving = None
        self._state = state
        self.widget.enabled = state is not None
        if state is not None:
            self._stopObserving = state.observe(lambda _state: self._refresh())
        self._refresh()
        self.runs.list()
        if state is not None:
            self.runs.recall(state.distillRun)

    def _refresh(self):
        """Show what the state says."""
        if self._state is None or self._isUpdating:
            return
        state, ui = self._state, self.ui
        self._cohort.setPurpose("distill" if self.isDistilling else "train")
        self._isUpdating = True
        try:
            ui.sceneButton.checked = state.distillSource == "scene"
            ui.folderButton.checked = state.distillSource == "folder"
            for name, (selector, entries) in self._choices.items():
                selector.currentIndex = list(entries).index(getattr(state, name))
            for edit, name in self._edits():
                if edit.text != getattr(state, name):
                    edit.text = getattr(state, name)
            ui.stepsSpinBox.value = state.distillSteps
            ui.imagesSpinBox.value = state.distillImages
            ui.heldOutSpinBox.value = round(100 * state.distillHeldOut)
            self._prior.show(state, self._patientNames(), self.isDistilling)
        finally:
            self._isUpdating = False
        ui.rootEdit.placeholderText = longrun.defaultRoot()
        ui.noticeLabel.text = self._noticeText()
        isScene = state.distillSource == "scene"
        ui.sceneArea.visible = isScene
        ui.folderArea.visible = not isScene and not self.isDistilling
        ui.pathArea.visible = not isScene and self.isDistilling
        for widget in (
            *(ui.goalLabel, ui.goalSelector, ui.modalityLabel, ui.modalitySelector),
            *(ui.imagesLabel, ui.imagesSpinBox, ui.heldOutLabel, ui.heldOutSpinBox),
        ):
            widget.visible = self.isDistilling
        ui.stepsLabel.visible = ui.stepsSpinBox.visible = not self.isDistilling
        ui.cohortLabel.text = self._cohortText()
        self._refreshButtons()

    @guarded
    def _onEdited(self, _value=None):
        if self._state is None or self._isUpdating:
            return
        ui, state = self.ui, self._state
        rootBefore, pathBefore = state.distillRoot, state.distillCohort
        with state.changes():
            state.distillSource = "scene" if ui.sceneButton.checked else "folder"
            for name, (selector, entries) in self._choices.items():
                setattr(state, name, list(entries)[selector.currentIndex])
            for edit, name in self._edits():
                setattr(state, name, edit.text)
            state.distillSteps = ui.stepsSpinBox.value
            state.distillImages = ui.imagesSpinBox.value
            state.distillHeldOut = ui.heldOutSpinBox.value / 100
            self._prior.read(state)
        if state.distillCohort != pathBefore:
            self._names = []
        if state.distillRoot != rootBefore:
            self.runs.list()

    def _patientNames(self):
        """Who can be the prior, as far as that is known."""
        if self._state.distillSource == "scene":
            return distilling.patientsOf(self._cohort.members) if self.isDistilling else []
        return self._names

    def _onNames(self, names):
        self._names = list(names)
        self._refresh()

    def _noticeText(self):
        if self.isDistilling:
            return _(
                "Distillation makes a few images in place of a cohort, on which small networks "
                "learn one task. The images are audited; that is no proof that no patient can be "
                "read back from them. Where ten real images may be shared, take those: they train "
                "about as well."
            )
        return _(
            "Trains an enhancer on your cohort. “Distill the cohort” makes a few images in its "
            "place."
        )

    def _cohortText(self):
        members, options = self._cohort.members, self.options
        if self._state.distillSource == "folder":
            told, doubts = _("The files are read where they lie."), []
        elif not members:
            return _("The scene holds no volumes yet: load some on the page Load.")
        elif self.isDistilling:
            told = _(
                "{patients} patients, {volumes} volumes. They are copied into the run's folder "
                "without names of patients, and removed from it at the end."
            ).format(
                patients=len(distilling.patientsOf(members)), volumes=len(distilling.used(members))
            )
        else:
            counts = {role: sum(m.role == role for m in members) for role in ("high", "low")}
            told = _(
                "Good: {high}. Poor: {low}. They are copied into the run's folder, without names "
                "of patients."
            ).format(**counts)
            doubts = training.doubtsAbout(members, options.modality)
        if self.isDistilling:
            doubts = distilling.doubtsAbout(self.cohort, priorchoice.priorIn(self._state), options)
        return "\n".join([told, *doubts])

    def _refreshButtons(self):
        ui, isRunning = self.ui, self.runs.isRunning
        why = self._whyNot()
        ui.whyLabel.text = why
        ui.whyLabel.visible = bool(why) and not isRunning
        ui.startButton.enabled = not why and not isRunning
        ui.startButton.toolTip = why or (_("A run goes on") if isRunning else "")
        self.runs.refresh()
        self._refreshEstimate()

    def _whyNot(self):
        """What is missing before a run can start, or nothing."""
        state = self._state
        if state is None:
            return _("There is no scene")
        if self.isDistilling:
            return distilling.whyNot(self.cohort, priorchoice.priorIn(state), self.options)
        if not state.distillName.strip():
            return _("Give the model a name.")
        if state.distillSource == "folder":
            isFolder = os.path.isdir(state.distillFolder)
            return "" if isFolder else _("Choose the folder that holds the volumes.")
        return training.whyNotTrainable(self._cohort.members, self.options.modality)

    def _refreshEstimate(self):
        isAsked = self._isShown and self.isDistilling and not self.runs.isRunning
        if isAsked and not self._whyNot():
            prior = priorchoice.priorIn(self._state)
            self._estimate.ask(distilling.estimateParams(self.cohort, prior, self.options))
        else:
            self._estimate.ask(None)

    @guarded
    def _browse(self, edit):
        folder = qt.QFileDialog.getExistingDirectory(self.widget, _("Choose a folder"), edit.text)
        if folder:
            edit.text = folder

    @guarded
    def _onBrowseTable(self, _checked=False):
        path = qt.QFileDialog.getOpenFileName(
            self.widget, _("Choose a table"), self.ui.pathEdit.text, _("Tables (*.csv)")
        )
        path = path[0] if isinstance(path, tuple) else path  # one binding adds the filter
        if path:
            self.ui.pathEdit.text = path

    @guarded
    def _onStart(self, _checked=False):
        self.context.clearMessage()
        self._cohort.update()
        runner, root = self.context.runner, self.root
        if not self.isDistilling:
            self.runs.begin(training.start(runner, root, self.cohort, self.options))
            return
        prior = priorchoice.priorIn(self._state)
        if prior.exposes and not slicer.util.confirmOkCancelDisplay(
            priorchoice.warningOf(prior), _("MedEnhance: a patient as the prior"), self.widget
        ):
            return
        self.runs.begin(distilling.start(runner, root, self.cohort, prior, self.options))
