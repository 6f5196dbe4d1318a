"""The run on the page Distill: its buttons, curve and result, and runs to resume."""

import logging
import os
from dataclasses import dataclass
from html import escape

import numpy as np
import qt
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util import numpy_support

from MedEnhancePanels.errors import PanelError, guarded
from MedEnhancePanels.job import withWarnings
from MedEnhancePanels.pages.widgets import openPath, setBorder
from MedEnhancePanels.tasks import long_run
from MedEnhancePanels.tasks.long_run import picturesIn

#: More pictures than these are not looked at in a panel; the folder has them all.
_MOST_PICTURES = 100
_ICON_PIXELS = 24


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
        ui.pauseButton.clicked.connect(self._onPause)
        ui.cancelButton.clicked.connect(self._onCancel)
        ui.resumeButton.clicked.connect(self._onResume)
        ui.plotButton.clicked.connect(self._onPlot)
        ui.runSelector.currentIndexChanged.connect(self._askStatus)
        self._showProgress()
        self._showRun(None)

    @property
    def isRunning(self):
        return self._long is not None

    def cleanup(self):
        """Let go of the widgets; a run goes on."""
        self._isBound = False
        self._long = self._status = None

    def followCurrent(self):
        """Follow the run that is in progress, as after a reload."""
        running = long_run.current(self.context.runner)
        if running is not None:
            self._follow(running)

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
        for button in (ui.pauseButton, ui.cancelButton):
            button.visible = isRunning
            button.enabled = isRunning and not self._long.job.wantsCancel
        ui.startButton.visible = not isRunning
        ui.resumeArea.visible = ui.runSelector.count > 0 and not isRunning
        ui.statusLabel.visible = bool(ui.statusLabel.text) and not isRunning
        ui.plotButton.visible = isRunning or self._lastRun is not None

    # --- the run that goes on ---

    def _follow(self, begun):
        self._long = begun
        self._showRun(None)
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
        self._showProgress()
        self._showRun(run)
        self.list()
        self._onChange()
        if job.state == "failed":
            self.context.showError(job.error)
        elif job.state == "done" and run.kind == "train":
            self._importModel(run)
        elif job.state == "done":
            self._reportDistilled(run)

    def _reportDistilled(self, run):
        manifest = run.manifest()
        if isAlarming(manifest):
            headline = str((manifest.get("audit") or {}).get("summary", "")).partition("\n\n")[0]
            text = _("{name} is finished. {headline}")
            self.context.message("warning", text.format(name=run.name, headline=headline))
        else:
            text = _("{name} is finished. Read the audit before sharing the images.")
            self.context.message("info", text.format(name=run.name))

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
            text = _("{name} is trained, but could not be added to the models: {why}")
            text = text.format(name=run.name, why=job.error.text)
            self.context.message("warning", text, job.error.details)

    def _showProgress(self):
        ui, running = self._ui, self._long
        job = running.job if running is not None else None
        # Warnings have a label of their own.
        news = [line for line in job.log if not line.startswith("warning: ")] if job else []
        text = withWarnings(news[-1] if news else "", job.warnings if job else [])
        if ui.newsLabel.text != text:
            ui.newsLabel.text = text
        ui.newsLabel.visible = bool(text)

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
        if run is not None:
            ui.resultLabel.text = long_run.runText(run)

    def list(self):
        """Offer the runs that can go on; the scene's own first."""
        selector = self._ui.runSelector
        selector.clear()
        remembered = self.context.state.distillRun if self.context.state is not None else ""
        runs = {run.folder: run for run in long_run.runsIn(self._root())}
        elsewhere = _runAt(remembered) if remembered not in runs else None
        if elsewhere is not None and elsewhere.isResumable:
            runs[remembered] = elsewhere
        running = self._long.run.folder if self._long is not None else ""
        for folder in sorted(runs, key=lambda folder: folder != remembered):
            if folder != running:
                selector.addItem(long_run.choiceText(runs[folder]), folder)
        self.refresh()

    @guarded
    def _onResume(self, _checked=False):
        self.context.clearMessage()
        folder = self._ui.runSelector.itemData(self._ui.runSelector.currentIndex)
        self.begin(long_run.resume(self.context.runner, folder))

    def _askStatus(self, index):
        """How far the chosen distillation is, from its folder; a training does not say."""
        self._status = None
        self._ui.statusLabel.text = ""
        self._ui.resumeButton.enabled = index >= 0
        run = _runAt(self._ui.runSelector.itemData(index)) if index >= 0 else None
        if run is None or run.kind != "distill":
            self.refresh()
            return
        title = _("Check the progress of {name}").format(name=run.name)
        params = {"out": run.record["params"]["out"]}
        self._status = self.context.runner.submit("distill-status", params, title=title)
        self._status.onFinished(self._onStatus)

    def _onStatus(self, job):
        if job is not self._status:
            return
        self._status = None
        if job.state == "done":
            isElsewhere = job.result.get("state") == "running"
            text = long_run.progressText(job.result)
            if isElsewhere:
                text += " " + _("Another process is running it: wait for it, or stop it there.")
            self._ui.statusLabel.text = text
            self._ui.resumeButton.enabled = not isElsewhere
        self.refresh()


def _runAt(folder):
    """The run that a scene remembers, None where its folder is gone or holds none that is ours."""
    if not folder or not os.path.isfile(os.path.join(folder, long_run.RUN_FILE)):
        return None
    try:
        return long_run.Run.open(folder)
    except PanelError as error:
        logging.warning("MedEnhance: %s", error.details or error.text)
        return None


class DistilledView:
    """Shows the result of one run; hidden where there is none."""

    def __init__(self, context, ui):
        self.context, self._ui, self._run = context, ui, None
        ui.resultButton.clicked.connect(self._onFolder)
        ui.confidentialButton.clicked.connect(self._onConfidential)

    def show(self, run):
        """Show a finished distillation; anything else, and None, hide the view."""
        manifest = run.manifest() if run is not None and run.kind == "distill" else {}
        self._run = run if manifest else None
        self._ui.distilledArea.visible = bool(manifest)
        if manifest:
            self._showPictures(run)
            self._showAudit(manifest.get("audit") or {}, run.attacks())
            self._showFolders(run)

    def _showFolders(self, run):
        button = self._ui.confidentialButton
        button.enabled = os.path.isdir(run.confidential)
        button.toolTip = (
            _("Pictures and names of patients: do not share them")
            if button.enabled
            else _("There are no confidential files: no audit compared patients")
        )

    def _showPictures(self, run):
        ui = self._ui
        secret = os.path.join(run.confidential, "prior")
        prior, isSecret = run.pictures("prior"), False
        if not prior and os.path.isdir(secret):
            prior, isSecret = picturesIn(secret), True
        images = run.pictures("images")
        fill(ui.priorGallery, prior)
        fill(ui.imageGallery, images[:_MOST_PICTURES])
        ui.priorTitle.text = _("Prior (shows a patient)") if isSecret else _("Prior")
        title = _("Distilled images ({count})")
        if len(images) > _MOST_PICTURES:
            title = _("The first {most} of {count} distilled images")
        ui.imagesTitle.text = title.format(count=len(images), most=_MOST_PICTURES)

    def _showAudit(self, audit, attacks):
        ui = self._ui
        verdict = verdictOf(audit, attacks)
        icons = {
            "red": qt.QStyle.SP_MessageBoxCritical,
            "green": qt.QStyle.SP_MessageBoxInformation,
        }
        icon = icons.get(verdict.color, qt.QStyle.SP_MessageBoxWarning)
        icon = ui.distilledArea.style().standardIcon(icon)
        ui.auditIcon.setPixmap(icon.pixmap(_ICON_PIXELS, _ICON_PIXELS))
        setBorder(ui.auditFrame, verdict.color)
        ui.auditLabel.text = f"<b>{escape(verdict.found)}</b> {escape(verdict.limits)}"

    @guarded
    def _onFolder(self, _checked=False):
        openPath(self._run.out)

    @guarded
    def _onConfidential(self, _checked=False):
        text = _(
            "Pictures and names of patients are in {folder}. Do not share that folder."
        ).format(folder=self._run.confidential)
        self.context.message("warning", text)


def fill(gallery, paths):
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


@dataclass(frozen=True)
class Verdict:
    """What an audit found, in a sentence, and what that does not say; color: of the frame."""

    color: str
    found: str
    limits: str


def verdictOf(audit, attacks):
    """The Verdict of a manifest's audit; attacks: see Run.attacks."""
    if audit.get("alarm"):
        return Verdict(
            "red",
            _("Leak found: do not share this."),
            _("The report says what was found; the attacks may have missed other leaks."),
        )
    careful = _("Treat the images as the patients' own.")
    if audit.get("alarm") is None:
        return Verdict("gray", _("Not audited."), careful)
    could, count = attacks or (None, None)
    if could == 0:
        found = _("Nothing is known: none of {count} attacks could have found a leak.")
        return Verdict("gray", found.format(count=count), careful)
    limits = _("This is no proof: weaker leaks than those in the report, or others, can be there.")
    if could is None:
        return Verdict("amber", _("These attacks found no leak."), limits)
    found = _("No leak was found by the {could} of {count} attacks that could have found one.")
    color = "green" if could > count / 2 else "amber"
    return Verdict(color, found.format(could=could, count=count), limits)


def isAlarming(manifest):
    """Whether the audit found a leak, or there was none to look for one."""
    return (manifest.get("audit") or {}).get("alarm") is not False


class LossPlot:
    """The losses of a run as nodes of the scene: a table, a series for each loss, a chart."""

    def __init__(self, name):
        title = _("{name}: loss").format(name=name)
        self.table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", title)
        self.chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", title)
        self.chart.SetTitle(title)
        self.chart.SetXAxisTitle(_("step"))
        self.chart.SetYAxisTitle(_("loss"))
        self._addColumn("step")

    @classmethod
    def ofRun(cls, run):
        """A plot with everything that a run measured so far."""
        plot = cls(run.name)
        for name, value, step in run.metrics():
            plot.add(name, value, step)
        return plot

    @property
    def isInScene(self):
        """Whether the scene was not closed, nor the nodes deleted, since they were made."""
        return all(
            node.GetScene() is not None and node.GetScene() is slicer.mrmlScene
            for node in (self.table, self.chart)
        )

    def add(self, name, value, step):
        """A figure of the run; one that went back to a checkpoint overwrites its steps."""
        if not self.isInScene or value is None or _isOnAnotherScale(name):
            return
        table = self.table.GetTable()
        column = table.GetColumnByName(name)
        if column is None:
            column = self._addSeries(name)
        column.SetValue(self._rowOf(step), float(value))
        column.Modified()
        table.Modified()
        self.table.Modified()

    def values(self, name):
        """The column of a loss; not-a-number where it was not measured."""
        return np.array(numpy_support.vtk_to_numpy(self._column(name)))

    def show(self):
        """Show the chart in a plot view; the layout gets one where it has none."""
        slicer.modules.plots.logic().ShowChartInLayout(self.chart)

    def remove(self):
        """Take the nodes out of the scene."""
        if self.isInScene:
            ids = [self.chart.GetNthPlotSeriesNodeID(i) for i in range(self._seriesCount())]
            for node in [*map(slicer.mrmlScene.GetNodeByID, ids), self.chart, self.table]:
                slicer.mrmlScene.RemoveNode(node)

    def _seriesCount(self):
        return self.chart.GetNumberOfPlotSeriesNodes()

    def _column(self, name):
        return self.table.GetTable().GetColumnByName(name)

    def _addColumn(self, name):
        column = vtk.vtkDoubleArray()
        column.SetName(name)
        column.SetNumberOfValues(self.table.GetTable().GetNumberOfRows())
        column.Fill(float("nan"))
        self.table.AddColumn(column)
        return self._column(name)

    def _addSeries(self, name):
        column = self._addColumn(name)
        series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
        series.SetAndObserveTableNodeID(self.table.GetID())
        series.SetXColumnName("step")
        series.SetYColumnName(name)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
        series.SetUniqueColor()
        self.chart.AddAndObservePlotSeriesNodeID(series.GetID())
        return column

    def _rowOf(self, step):
        steps = self._column("step")
        last = steps.GetNumberOfValues() - 1
        for row in range(last, -1, -1):
            if steps.GetValue(row) == step:
                return row
            if steps.GetValue(row) < step and row == last:
                break
        self.table.AddEmptyRow()
        table = self.table.GetTable()
        for index in range(table.GetNumberOfColumns()):
            table.GetColumn(index).SetValue(last + 1, float("nan"))
        steps.SetValue(last + 1, float(step))
        return last + 1


def _isOnAnotherScale(name):
    """Of a distillation the alignment alone is drawn, a curve for each patient.

    Of a training for a segmenter the losses are, not what the gate decides.
    """
    return name.endswith(("_db", "(dB)")) or name.startswith(
        ("structure of", "saturation of", "weight of", "gate")
    )
