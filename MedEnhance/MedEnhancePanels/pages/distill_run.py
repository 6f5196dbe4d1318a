"""The run on the page Distill: its buttons, curve and result, and runs to resume."""

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import guarded
from MedEnhancePanels.pages.widgets import fill, showWeight
from MedEnhancePanels.tasks import long_run

#: More pictures than these are not looked at in a panel; the folder has them all.
_MOST_PICTURES = 100
#: Figures that are on another scale than the curves, or no losses.
_NO_CURVES = ("structure of", "saturation of", "change of", "weight of", "gate")


class RunArea:
    """Part of the page that shows a run, and resumes one."""

    def __init__(self, page):
        self.context, self._page, self._ui = page.context, page, page.ui
        self._run = None
        #: What slicer.util.plot has made, by kind; empty for no curve.
        self.plot = {}
        ui = self._ui
        ui.pauseButton.clicked.connect(lambda *_checked: self._end("pause"))
        ui.cancelButton.clicked.connect(lambda *_checked: self._end("cancel"))
        ui.resumeButton.clicked.connect(self._onResume)
        ui.plotButton.clicked.connect(self._onPlot)
        ui.resultButton.clicked.connect(self._onFolder)
        self._showRun(None)

    @property
    def isRunning(self):
        return self._run is not None and self._run.isActive

    def cleanup(self):
        """Let go of the widgets; a run goes on."""
        self._page = self._run = None

    def begin(self, run):
        """Follow a run that has just begun, with a curve of its own."""
        self.context.state.distillRun = run.folder
        self.plot = {}
        self._showRun(run)
        run.job.onEvent(self._onEvent)
        run.job.onFinished(self._onFinished)
        self._page.update()

    def recall(self, folder):
        """Show the run that the scene remembers, where its folder is still there."""
        if not self.isRunning:
            self._showRun(long_run.runAt(folder))

    def show(self):
        ui, isRunning = self._ui, self.isRunning
        for button in (ui.pauseButton, ui.cancelButton):
            button.visible = isRunning
            button.enabled = isRunning and not self._run.job.wantsCancel
        ui.startButton.visible = not isRunning
        ui.resumeArea.visible = ui.runSelector.count > 0 and not isRunning
        ui.plotButton.visible = self._run is not None

    @guarded
    def _end(self, how):
        """Pause or cancel the run, as `how` says."""
        getattr(self._run, how)()
        self._page.update()

    def _onEvent(self, job, name, _fields):
        if self._run is not None and job is self._run.job and name == "metric" and self.plot:
            self._drawCurve()

    def _onFinished(self, job):
        run = self._run
        if run is None or job is not run.job:
            return
        self._showRun(run)
        self.list()
        self._page.update()
        if job.state == "failed":
            self.context.showError(job.error)
        elif job.state == "done" and run.kind == "train":
            title = _("Add {name} to the models").format(name=run.name)
            params = {"action": "import", "path": run.record["model"]}
            importing = self.context.runner.submit("models", params, title=title)
            importing.onFinished(lambda done: self._onImported(done, run))
        elif job.state == "done":
            level, verdict, _limits = verdictOf(run)
            text = _(
                "{name} is finished. {verdict} Read PRIVACY.md in its folder before sharing it."
            )
            self.context.message(level, text.format(name=run.name, verdict=verdict))

    def _onImported(self, job, run):
        if job.state == "done":
            text = _("{name} is trained. Models, Use by default, takes it for Enhance.").format(
                name=run.name
            )
            self.context.message("info", text)
        else:
            text = _("{name} is trained, but could not be added to the models: {why}")
            text = text.format(name=run.name, why=job.error.text)
            self.context.message("warning", text, job.error.details)

    @guarded
    def _onPlot(self, _checked=False):
        self._drawCurve()
        if self.plot:
            slicer.modules.plots.logic().ShowChartInLayout(self.plot["chart"])

    def _drawCurve(self):
        """Put all that the run has measured so far into the nodes of its chart."""
        names, table = curvesOf(self._run)
        if self.plot and self.plot["chart"].GetScene() is None:  # the scene was closed since
            self.plot = {}
        if names:
            title = _("{name}: loss").format(name=self._run.name)
            slicer.util.plot(table, 0, ["step", *names], title, show=False, nodes=self.plot)

    def _showRun(self, run):
        """Show how a run ended, and what it left; of one that goes on nothing yet."""
        ui, self._run = self._ui, run
        hasEnded = run is not None and not run.isActive
        manifest = run.manifest() if hasEnded and run.kind == "distill" else {}
        ui.resultBox.visible = hasEnded
        ui.distilledArea.visible = bool(manifest)
        if hasEnded:
            ui.resultLabel.text = long_run.runText(run)
        if manifest:
            images = run.images()
            _fillGallery(ui.imageGallery, images[:_MOST_PICTURES])
            ui.imagesTitle.text = _("Middle slices of the volumes ({count})").format(
                count=len(images)
            )
            level, verdict, limits = verdictOf(run)
            showWeight(ui.auditIcon, level)
            ui.auditLabel.text = f"{verdict} {limits}"

    @guarded
    def _onFolder(self, _checked=False):
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(self._run.out))

    def list(self):
        """Offer the runs that can go on; the scene's own first."""
        if self.context.state is None:
            return
        own = long_run.runAt(self.context.state.distillRun)
        runs = [own] if own is not None and own.isResumable else []
        runs += long_run.resumable()
        running = self._run.folder if self.isRunning else ""
        entries = {run.folder: long_run.choiceText(run) for run in runs if run.folder != running}
        fill(self._ui.runSelector, entries)

    @guarded
    def _onResume(self, _checked=False):
        self.context.clearMessage()
        self.begin(long_run.resume(self.context.runner, self._ui.runSelector.currentData))


def _fillGallery(gallery, paths):
    """Show pictures in a list, as large as its icons, with their paths as tool tips."""
    gallery.clear()
    size = gallery.iconSize
    for path in paths:
        picture = qt.QPixmap(path)
        if not picture.isNull():
            picture = picture.scaled(size.width(), size.height(), qt.Qt.KeepAspectRatio)
        item = qt.QListWidgetItem(qt.QIcon(picture), "")
        item.setToolTip(path)
        gallery.addItem(item)


def verdictOf(run):
    """Sum up a distillation's audit: (level of a message, sentence, what that does not say)."""
    audit, (could, count) = run.manifest().get("audit") or {}, run.attacks()
    hasAlarm = audit.get("alarm")
    if hasAlarm:
        return (
            "alarm",
            _("Leak found: do not share this."),
            _("The report says what was found; the attacks may have missed other leaks."),
        )
    careful = _("Treat the volumes as the patients' own.")
    if run.manifest().get("config", {}).get("method") == "statistics":
        verdict = _("This audit could not have found a leak: there is no patient image to find.")
        return "info", verdict, _("The set contains averages over all patients.")
    if hasAlarm is None or not count:
        return "warning", _("This audit could not have found a leak: none was run."), careful
    if not could:
        verdict = _("This audit could not have found a leak: none of {count} attacks is able to.")
        return "warning", verdict.format(count=count), careful
    verdict = _("{could} of {count} attacks could have found a leak; none did.")
    limits = _("This is not a proof: weaker leaks, or leaks of another kind, may exist.")
    level = "info" if could > count / 2 else "warning"
    return level, verdict.format(could=could, count=count), limits


def curvesOf(run):
    """Name a run's losses, and make a table of them: the step, then a column for each.

    A run that went back to a checkpoint overwrites its steps; not-a-number where a loss was not
    measured. Of a distillation the alignment is drawn, a curve for each patient.
    """
    values = {
        (step, name): value
        for name, value, step in run.metrics()
        if not name.endswith(("_db", "(dB)")) and not name.startswith(_NO_CURVES)
    }
    steps = sorted({step for step, _name in values})
    names = list(dict.fromkeys(name for _step, name in values))
    rows = [[step, *(values.get((step, name), np.nan) for name in names)] for step in steps]
    return names, np.array(rows, dtype=float)
