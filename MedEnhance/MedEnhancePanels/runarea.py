"""The section Run of the page Distill: a run that goes on, how it ended, and those that wait."""

import logging
import os

import qt
from slicer.i18n import tr as _

from MedEnhancePanels import distilling, longrun, runfolder, runwords
from MedEnhancePanels.distilledview import DistilledView, fill, isAlarming
from MedEnhancePanels.errors import PanelError, guarded
from MedEnhancePanels.jobprogress import durationText, stageText
from MedEnhancePanels.lossplot import LossPlot

_CLOCK_MS = 1000


class RunArea:
    """Follows a LongRun, and resumes one.

    root(): the folder that runs are kept in. onChange(): called after a run began or ended.
    """

    def __init__(self, context, ui, root, onChange):
        self.context, self._ui = context, ui
        self._root, self._onChange = root, onChange
        self._long, self._lastRun, self._status = None, None, None
        self.plot = None
        self._isBound = True
        self._distilled = DistilledView(context, ui)
        self._clock = qt.QTimer()
        self._clock.setInterval(_CLOCK_MS)
        self._clock.timeout.connect(self._showTime)
        ui.pauseButton.clicked.connect(self._onPause)
        ui.cancelButton.clicked.connect(self._onCancel)
        ui.resumeButton.clicked.connect(self._onResume)
        ui.plotButton.clicked.connect(self._onPlot)
        ui.runSelector.currentIndexChanged.connect(self._askStatus)
        self._showProgress()
        self._showRun(None)
        if longrun.current() is not None:
            self._follow(longrun.current())

    @property
    def isRunning(self):
        return self._long is not None

    def cleanup(self):
        """Let go of the widgets; a run goes on."""
        self._isBound = False
        self._clock.stop()
        self._long = self._status = None

    def begin(self, begun):
        """Follow a LongRun that has just begun, with a plot of its own."""
        self.context.state.distillRun = begun.run.folder
        if self.plot is not None:
            self.plot.remove()
        self.plot = LossPlot.ofRun(begun.run)
        self._follow(begun)

    def recall(self, folder):
        """Show the run that the scene remembers, where its folder is still there."""
        if not self.isRunning:
            self._showRun(_runAt(folder))
            self.refresh()

    def refresh(self):
        """Enable what can be done now."""
        ui, isRunning = self._ui, self.isRunning
        ui.pauseButton.enabled = ui.cancelButton.enabled = (
            isRunning and not self._long.job.wantsCancel
        )
        why = "" if isRunning else _("No run goes on")
        ui.pauseButton.toolTip = why or _(
            "Stop after writing a checkpoint; Resume goes on from there, also after Slicer was "
            "closed"
        )
        ui.cancelButton.toolTip = why or _("Stop for good; the run's folder stays")
        ui.resumeArea.visible = ui.runSelector.count > 0 and not isRunning
        ui.statusLabel.visible = bool(ui.statusLabel.text) and not isRunning
        ui.plotButton.enabled = isRunning or self._lastRun is not None
        ui.plotButton.toolTip = (
            _("Show the loss in a plot view of the layout")
            if ui.plotButton.enabled
            else _("There is no run to show")
        )

    # --- the run that goes on ---

    def _follow(self, begun):
        self._long = begun
        self._showRun(None)
        self._clock.start()
        self._showProgress()
        begun.job.onEvent(self._onEvent)
        begun.job.onFinished(self._onFinished)
        self._onChange()

    @guarded
    def _onPause(self, _checked=False):
        self._long.pause()
        self.refresh()

    @guarded
    def _onCancel(self, _checked=False):
        self._long.cancel()
        self.refresh()

    def _onEvent(self, job, name, fields):
        if self._long is None or job is not self._long.job:
            return
        if name == "metric" and self.plot is not None:
            self.plot.add(fields["name"], fields["value"], fields["step"])
        if name in ("progress", "state", "log", "warning"):
            self._showProgress()

    def _onFinished(self, job):
        if self._long is None or job is not self._long.job:
            return
        run, self._long = self._long.run, None
        self._clock.stop()
        self._showProgress()
        self._showRun(run)
        self.list()
        self._onChange()
        if job.state == "failed":
            error = job.error
            told = distilling.withNames(run, error.message)
            hint = distilling.withNames(run, error.hint)
            self.context.showError(PanelError(told, hint, error.code, error.details))
        elif job.state == "done" and run.kind == "train":
            self._importModel(run)
        elif job.state == "done":
            self._tellDistilled(run)

    def _tellDistilled(self, run):
        manifest = run.manifest()
        if isAlarming(manifest):
            headline = str((manifest.get("audit") or {}).get("summary", "")).partition("\n\n")[0]
            told = _("{name} is distilled. {headline}")
            self.context.message("warning", told.format(name=run.name, headline=headline))
        else:
            told = _("{name} is distilled. Read the audit below before sharing the images.")
            self.context.message("info", told.format(name=run.name))

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
        ui, running = self._ui, self._long
        for widget in (ui.progressBar, ui.progressLabel, ui.timeLabel):
            widget.visible = running is not None
        job = running.job if running is not None else None
        said = job.log[-1] if job is not None and job.log else ""
        warned = "\n".join(job.warnings) if job is not None else ""
        for label, text in ((ui.logLabel, said), (ui.noteLabel, warned)):
            text = distilling.withNames(running.run, text) if text else ""
            if label.text != text:
                label.text = text
            label.visible = bool(text)
        if running is not None:
            ui.progressBar.value = int(100 * job.fraction)
            ui.progressLabel.text = stageText(job)
            self._showTime()

    def _showTime(self):
        if self._long is not None:
            elapsed = durationText(self._long.elapsedSeconds)
            self._ui.timeLabel.text = _("Elapsed: {time}").format(time=elapsed)

    @guarded
    def _onPlot(self, _checked=False):
        run = self._long.run if self._long is not None else self._lastRun
        if self.plot is None or not self.plot.isInScene:
            self.plot = LossPlot.ofRun(run)
        self.plot.show()

    # --- runs that have ended, or wait ---

    def _showRun(self, run):
        """How a run ended, and the pictures that it left."""
        ui, self._lastRun = self._ui, run
        ui.resultBox.visible = run is not None
        self._distilled.show(run)
        pictures = run.pictures() if run is not None and run.kind == "train" else []
        ui.gallery.visible = bool(pictures)
        fill(ui.gallery, pictures)
        if run is not None:
            ui.resultLabel.text = distilling.withNames(run, runwords.runText(run))

    def list(self):
        """Offer the runs that can go on; the scene's own first."""
        selector = self._ui.runSelector
        selector.clear()
        remembered = self.context.state.distillRun if self.context.state is not None else ""
        runs = {run.folder: run for run in runfolder.runsIn(self._root())}
        elsewhere = _runAt(remembered) if remembered not in runs else None
        if elsewhere is not None and elsewhere.isResumable:
            runs[remembered] = elsewhere
        running = self._long.run.folder if self._long is not None else ""
        for folder in sorted(runs, key=lambda folder: folder != remembered):
            if folder != running:
                selector.addItem(runwords.choiceText(runs[folder]), folder)
        self.refresh()

    @guarded
    def _onResume(self, _checked=False):
        self.context.clearMessage()
        folder = self._ui.runSelector.itemData(self._ui.runSelector.currentIndex)
        self.begin(longrun.resume(self.context.runner, folder))

    def _askStatus(self, index):
        """How far the chosen distillation is, from its folder; a training does not say."""
        self._status = None
        self._ui.statusLabel.text = ""
        self._ui.resumeButton.enabled = index >= 0
        run = _runAt(self._ui.runSelector.itemData(index)) if index >= 0 else None
        if run is None or run.kind != "distill":
            self.refresh()
            return
        title = _("Look how far {name} is").format(name=run.name)
        params = {"out": run.record["params"]["out"]}
        self._status = self.context.runner.submit("distill-status", params, title=title)
        self._status.onFinished(self._onStatus)

    def _onStatus(self, job):
        if job is not self._status:
            return
        self._status = None
        if job.state == "done":
            isElsewhere = job.result.get("state") == "running"
            text = runwords.progressText(job.result)
            if isElsewhere:
                text += " " + _("Another process is working on it: wait for it, or stop it there.")
            self._ui.statusLabel.text = text
            self._ui.resumeButton.enabled = not isElsewhere
        self.refresh()


def _runAt(folder):
    """The run that a scene remembers, None where its folder is gone or holds none that is ours."""
    if not folder or not os.path.isfile(os.path.join(folder, runfolder.RUN_FILE)):
        return None
    try:
        return runfolder.Run.open(folder)
    except PanelError as error:
        logging.warning("MedEnhance: %s", error.details or error.text)
        return None
