"""The page Distill: a cohort, what is made of it, and a run that goes on in the background.

Today it trains an enhancer on the cohort; distillation itself comes with a later version, and the
page says so.
"""

import logging
import os

import qt
from slicer.i18n import tr as _

from MedEnhancePanels import training, trainingrun, trainingwords
from MedEnhancePanels.cohorttable import CohortTable
from MedEnhancePanels.errors import PanelError, guarded
from MedEnhancePanels.jobprogress import durationText, stageText
from MedEnhancePanels.lossplot import LossPlot

_CLOCK_MS = 1000


class DistillPanel:
    """Fills a training's options from the page, and follows the run."""

    def __init__(self, context):
        self.context = context
        self.widget, self.ui = context.ui("Distill")
        self._state, self._stopObserving = None, None
        self._isUpdating, self._isBound = False, True
        self._training, self._plot, self._lastRun = None, None, None
        self._cohort = CohortTable(self.ui.cohortTable, self._refresh)
        self._clock = qt.QTimer()
        self._clock.setInterval(_CLOCK_MS)
        self._clock.timeout.connect(self._showTime)
        self._fillSelectors()
        self._connect()
        self._showProgress()
        self._showRun(None)
        context.onState(self._onState)
        if training.current() is not None:
            self._follow(training.current())

    def _fillSelectors(self):
        ui = self.ui
        self._choices = {
            "distillTask": (
                ui.taskSelector,
                {
                    "trainMR": _("Train an enhancer for MR"),
                    "trainCT": _("Train an enhancer for CT"),
                    "distill": _("Distill the cohort (in a later version)"),
                },
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
                    "cpu": _("Within an hour on a processor"),
                    "full": _("Full: hours on a graphics card"),
                    "smoke": _("Try it out: seconds"),
                },
            ),
        }
        for selector, entries in self._choices.values():
            for value, text in entries.items():
                selector.addItem(text, value)
        ui.priorSelector.addItem(_("Public template"))
        later = _("Used by distillation, which comes with a later version")
        for widget in (ui.priorSelector, ui.imagesSpinBox):
            widget.enabled = False
            widget.toolTip = later

    def _connect(self):
        ui = self.ui
        for selector, _entries in self._choices.values():
            selector.currentIndexChanged.connect(self._onEdited)
        for edit in (ui.dataEdit, ui.highEdit, ui.lowEdit, ui.nameEdit, ui.rootEdit):
            edit.textChanged.connect(self._onEdited)
        ui.sceneButton.toggled.connect(self._onEdited)
        ui.stepsSpinBox.valueChanged.connect(self._onEdited)
        ui.dataButton.clicked.connect(lambda _checked=False: self._browse(ui.dataEdit))
        ui.rootButton.clicked.connect(lambda _checked=False: self._browse(ui.rootEdit))
        ui.startButton.clicked.connect(self._onStart)
        ui.pauseButton.clicked.connect(self._onPause)
        ui.cancelButton.clicked.connect(self._onCancel)
        ui.resumeButton.clicked.connect(self._onResume)
        ui.plotButton.clicked.connect(self._onPlot)

    def enter(self):
        self._cohort.observe(True)
        self._listRuns()
        self._refresh()

    def exit(self):
        self._cohort.observe(False)

    def cleanup(self):
        """Let go of the scene; a run goes on."""
        self._isBound = False
        self._clock.stop()
        self._cohort.cleanup()
        if self._stopObserving is not None:
            self._stopObserving()
            self._stopObserving = None
        self._state, self._training = None, None

    @property
    def root(self):
        """The folder that runs are kept in."""
        return self.ui.rootEdit.text.strip() or training.defaultRoot()

    @property
    def options(self):
        state = self._state
        return training.TrainingOptions(
            name=state.distillName,
            modality="CT" if state.distillTask == "trainCT" else "MR",
            budget=state.distillBudget,
            steps=state.distillSteps,
            device=state.distillDevice,
        )

    @property
    def cohort(self):
        """What the run learns from: members of the scene, or a training.FolderCohort."""
        state = self._state
        if state.distillSource == "scene":
            return self._cohort.members
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
        self._listRuns()
        if state is not None and self._training is None:
            self._recallRun(state.distillRun)

    def _refresh(self):
        """Show what the state says."""
        if self._state is None or self._isUpdating:
            return
        state, ui = self._state, self.ui
        self._isUpdating = True
        try:
            ui.sceneButton.checked = state.distillSource == "scene"
            ui.folderButton.checked = state.distillSource == "folder"
            for name, (selector, entries) in self._choices.items():
                selector.currentIndex = list(entries).index(getattr(state, name))
            for edit, text in (
                (ui.dataEdit, state.distillFolder),
                (ui.highEdit, state.distillHigh),
                (ui.lowEdit, state.distillLow),
                (ui.nameEdit, state.distillName),
                (ui.rootEdit, state.distillRoot),
            ):
                if edit.text != text:
                    edit.text = text
            ui.stepsSpinBox.value = state.distillSteps
        finally:
            self._isUpdating = False
        ui.rootEdit.placeholderText = training.defaultRoot()
        ui.sceneArea.visible = state.distillSource == "scene"
        ui.folderArea.visible = state.distillSource == "folder"
        ui.cohortLabel.text = self._cohortText()
        self._refreshButtons()

    @guarded
    def _onEdited(self, _value=None):
        if self._state is None or self._isUpdating:
            return
        ui, state = self.ui, self._state
        rootBefore = state.distillRoot
        with state.changes():
            state.distillSource = "scene" if ui.sceneButton.checked else "folder"
            for name, (selector, entries) in self._choices.items():
                setattr(state, name, list(entries)[selector.currentIndex])
            state.distillFolder = ui.dataEdit.text
            state.distillHigh = ui.highEdit.text
            state.distillLow = ui.lowEdit.text
            state.distillName = ui.nameEdit.text
            state.distillRoot = ui.rootEdit.text
            state.distillSteps = ui.stepsSpinBox.value
        if state.distillRoot != rootBefore:
            self._listRuns()

    def _cohortText(self):
        if self._state.distillSource == "folder":
            return _("The files are read where they lie.")
        members = self._cohort.members
        if not members:
            return _("The scene holds no volumes yet: load some on the page Load.")
        counts = {role: sum(m.role == role for m in members) for role in ("high", "low")}
        told = _(
            "Good: {high}. Poor: {low}. They are copied into the run's folder, without names of "
            "patients."
        ).format(**counts)
        return "\n".join([told, *training.doubtsAbout(members, self.options.modality)])

    def _refreshButtons(self):
        ui, isRunning = self.ui, self._training is not None
        why = self._whyNot()
        ui.whyLabel.text = why
        ui.whyLabel.visible = bool(why) and not isRunning
        ui.startButton.enabled = not why and not isRunning
        ui.pauseButton.enabled = ui.cancelButton.enabled = (
            isRunning and not self._training.job.wantsCancel
        )
        ui.resumeArea.visible = ui.runSelector.count > 0 and not isRunning
        ui.plotButton.enabled = isRunning or self._lastRun is not None

    def _whyNot(self):
        """What is missing before a run can start, or nothing."""
        state = self._state
        if state is None:
            return _("There is no scene")
        if state.distillTask == "distill":
            return _("Distillation comes with a later version: choose another task.")
        if not state.distillName.strip():
            return _("Give the model a name.")
        if state.distillSource == "folder":
            isFolder = os.path.isdir(state.distillFolder)
            return "" if isFolder else _("Choose the folder that holds the volumes.")
        return training.whyNotTrainable(self._cohort.members, self.options.modality)

    @guarded
    def _browse(self, edit):
        folder = qt.QFileDialog.getExistingDirectory(self.widget, _("Choose a folder"), edit.text)
        if folder:
            edit.text = folder

    # --- the run ---

    @guarded
    def _onStart(self, _checked=False):
        self.context.clearMessage()
        self._cohort.update()
        runner = self.context.runner
        self._begin(training.start(runner, self.root, self.cohort, self.options))

    @guarded
    def _onResume(self, _checked=False):
        self.context.clearMessage()
        folder = self.ui.runSelector.itemData(self.ui.runSelector.currentIndex)
        self._begin(training.resume(self.context.runner, folder))

    def _begin(self, begun):
        self._state.distillRun = begun.run.folder
        if self._plot is not None:
            self._plot.remove()
        self._plot = LossPlot.ofRun(begun.run)
        self._follow(begun)

    def _follow(self, begun):
        self._training = begun
        self._showRun(None)
        self._clock.start()
        self._showProgress()
        self._refreshButtons()
        begun.job.onEvent(self._onEvent)
        begun.job.onFinished(self._onFinished)

    @guarded
    def _onPause(self, _checked=False):
        self._training.pause()
        self._refreshButtons()

    @guarded
    def _onCancel(self, _checked=False):
        self._training.cancel()
        self._refreshButtons()

    def _onEvent(self, job, name, fields):
        if self._training is None or job is not self._training.job:
            return
        if name == "metric" and self._plot is not None:
            self._plot.add(fields["name"], fields["value"], fields["step"])
        if name in ("progress", "state"):
            self._showProgress()

    def _onFinished(self, job):
        if self._training is None or job is not self._training.job:
            return
        run, self._training = self._training.run, None
        self._clock.stop()
        self._showProgress()
        self._showRun(run)
        self._listRuns()
        self._refreshButtons()
        if job.state == "failed":
            self.context.showError(job.error)
        elif job.state == "done":
            self._importModel(run)

    def _importModel(self, run):
        title = _("Add {name} to the models").format(name=run.name)
        params = {"action": "import", "path": run.modelFolder}
        job = self.context.runner.submit("models", params, title=title)
        job.onFinished(lambda done: self._onImported(done, run))

    def _onImported(self, job, run):
        if not self._isBound:
            return
        if job.state == "done":
            text = _("{name} is trained. Choose it on the page Enhance.").format(name=run.name)
            self.context.message("info", text)
        else:
            told = _("{name} is trained, but not in the list of models: {why}")
            text = told.format(name=run.name, why=job.error.text)
            self.context.message("warning", text, job.error.details)

    def _showProgress(self):
        running = self._training
        for widget in (self.ui.progressBar, self.ui.progressLabel, self.ui.timeLabel):
            widget.visible = running is not None
        if running is not None:
            self.ui.progressBar.value = int(100 * running.job.fraction)
            self.ui.progressLabel.text = stageText(running.job)
            self._showTime()

    def _showTime(self):
        if self._training is not None:
            elapsed = durationText(self._training.elapsedSeconds)
            self.ui.timeLabel.text = _("Elapsed: {time}").format(time=elapsed)

    # --- runs that have ended, or wait ---

    def _recallRun(self, folder):
        """Show the run that the scene remembers, where its folder is still there."""
        self._showRun(_runAt(folder))
        self._refreshButtons()

    def _showRun(self, run):
        """How a run ended, and the pictures that it left."""
        self._lastRun = run
        self.ui.resultBox.visible = run is not None
        if run is None:
            return
        self.ui.resultLabel.text = trainingwords.runText(run)
        pictures = run.pictures()
        self.ui.gallery.clear()
        self.ui.gallery.visible = bool(pictures)
        for path in pictures:
            item = qt.QListWidgetItem(qt.QIcon(path), os.path.basename(path))
            item.setToolTip(path)
            self.ui.gallery.addItem(item)

    def _listRuns(self):
        """Offer the runs that can go on; the scene's own first."""
        selector = self.ui.runSelector
        selector.clear()
        remembered = self._state.distillRun if self._state is not None else ""
        runs = {run.folder: run for run in trainingrun.runsIn(self.root)}
        elsewhere = _runAt(remembered) if remembered not in runs else None
        if elsewhere is not None and elsewhere.isResumable:
            runs[remembered] = elsewhere
        running = self._training.run.folder if self._training is not None else ""
        for folder in sorted(runs, key=lambda folder: folder != remembered):
            if folder != running:
                selector.addItem(trainingwords.choiceText(runs[folder]), folder)
        self._refreshButtons()

    @guarded
    def _onPlot(self, _checked=False):
        run = self._training.run if self._training is not None else self._lastRun
        if self._plot is None or not self._plot.isInScene:
            self._plot = LossPlot.ofRun(run)
        self._plot.show()


def _runAt(folder):
    """The run that a scene remembers, None where its folder is gone or holds none that is ours."""
    if not folder or not os.path.isfile(os.path.join(folder, trainingrun.RUN_FILE)):
        return None
    try:
        return trainingrun.Run.open(folder)
    except PanelError as error:
        logging.warning("MedEnhance: %s", error.details or error.text)
        return None
