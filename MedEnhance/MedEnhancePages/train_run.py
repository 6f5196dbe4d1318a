"""The run on the page Train: its buttons and result; earlier runs to resume, see or remove."""

from pathlib import Path

import qt
from slicer.i18n import tr as _

from MedEnhanceLib.runtime.text import size_text
from MedEnhanceLib.runtime.texts import Text
from MedEnhanceLib.training.spg.folder import SHEET
from MedEnhancePages.widgets import confirm, fill, showText, showWeight
from MedEnhancePanels.errors import guarded
from MedEnhancePanels.messages import translated
from MedEnhanceTasks import long_run

#: More pictures than these are not looked at in a panel; the folder has them all.
_MOST_PICTURES = 100


class RunArea:
    """Part of the page that shows a run, and those on this computer: earlier."""

    def __init__(self, page):
        self.context, self._page, self._ui = page.context, page, page.ui
        self._run, self.earlier = None, []
        ui = self._ui
        ui.cancelButton.clicked.connect(self._onEnd)
        ui.runSelector.activated.connect(self._onChosen)
        ui.resumeButton.clicked.connect(self._onResume)
        ui.removeButton.clicked.connect(self._onRemove)
        ui.trainButton.clicked.connect(self._onUse)
        self._menu, self.actions = qt.QMenu(ui.openButton), {}
        self.actions["privacy"] = self._menu.addAction(_("Privacy sheet"))
        self.actions["privacy"].triggered.connect(self._onSheet)
        self.actions["page"] = self._menu.addAction(_("Page"))
        self.actions["page"].triggered.connect(
            lambda *_checked: _open(self._run.out / "index.html")
        )
        self.actions["folder"] = self._menu.addAction(_("Result folder"))
        self.actions["folder"].triggered.connect(self._onFolder)
        ui.openButton.setMenu(self._menu)
        self._showRun(None)

    @property
    def isRunning(self):
        return self._run is not None and self._run.isActive

    def cleanup(self):
        """Release the widgets; a run continues."""
        self._page = self._run = None

    def begin(self, run):
        """Follow a run that has just begun."""
        self.context.state.trainRun = str(run.folder)
        self._showRun(run)
        run.job.onFinished(self._onFinished)
        self._page.update()

    def recall(self, folder):
        """Show the run that the scene remembers, where its folder is still there."""
        if not self.isRunning:
            self._showRun(long_run.Run.at(Path(folder)))

    def show(self):
        ui, isRunning = self._ui, self.isRunning
        ui.cancelButton.visible = isRunning
        ui.cancelButton.enabled = isRunning and not self._run.job.wantsCancel
        ui.startButton.visible = not isRunning
        chosen, isIdle = self._chosen, self._page.job is None
        ui.runsArea.visible = chosen is not None and not isRunning
        ui.resumeButton.enabled = isIdle and chosen is not None and chosen.is_resumable
        ui.removeButton.enabled = isIdle

    @guarded
    def _onEnd(self, *_checked):
        """End the run for good; the job's own button pauses one that can be resumed."""
        question = _("End {name} for good? It cannot be resumed.").format(name=self._run.name)
        if confirm(self._page.widget, _("End run"), question):
            self._run.end()
            self._page.update()

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
            importing.onFinished(lambda job: self._onImported(job, run))
        elif job.state == "done" and run.kind == "scanner":
            text = _("{name} is measured. Details: Open → Page.").format(name=run.name)
            self.context.report(job, text)
        elif job.state == "done":
            level, verdict = _verdictOf(run.manifest())
            text = _("{name} is finished. {verdict} Details: Open → Privacy sheet.")
            self.context.message(level, text.format(name=run.name, verdict=verdict))

    def _onImported(self, job, run):
        if job.state == "done":
            text = _("{name} is trained, and listed on the page Models. {measured}")
            measured = run.record["sentence"] or _("It was not compared with a model.")
            self.context.message("info", text.format(name=run.name, measured=measured))
        else:
            text = _("{name} is trained, but could not be added to the models: {why}")
            text = text.format(name=run.name, why=job.error.text)
            self.context.message("warning", text, job.error.shown)
        if self._page is not None:
            self._page.update()  # its name is taken now

    def _showRun(self, run):
        """Show how a run ended, and its results; nothing while it is in progress."""
        ui, self._run = self._ui, run
        hasEnded = run is not None and not run.isActive
        manifest = run.manifest() if hasEnded and run.kind == "distill" else {}
        ui.resultBox.visible = hasEnded
        isMeasured = hasEnded and run.kind == "scanner" and run.state == "done"
        ui.openButton.visible = ui.trainButton.visible = isMeasured or bool(manifest)
        ui.trainButton.text = _("Use in Enhance") if isMeasured else _("Train on this set")
        self.actions["page"].visible = isMeasured
        self.actions["privacy"].visible = hasEnded and (run.out / SHEET).is_file()
        ui.distilledArea.visible = bool(manifest)
        if hasEnded:
            ui.resultLabel.text = long_run.runText(run)
        if manifest:
            _fillGallery(ui.imageGallery, list(map(str, run.images()[:_MOST_PICTURES])))
            level, verdict = _verdictOf(manifest)
            showWeight(ui.auditIcon, level)
            ui.auditLabel.text = verdict

    @guarded
    def _onSheet(self, *_checked):
        showText(self._page.widget, _("Privacy sheet"), self._run.out / SHEET)

    @guarded
    def _onUse(self, _checked=False):
        """Choose the set as the data of a training, or the scanner on the page Enhance."""
        state = self.context.state
        if self._run.kind == "scanner":
            state.scanner, state.scannerWithout = str(self._run.out / "scanner.json"), ""
            state.scannerFor = ""  # whatever volume is chosen there
            self.context.showPage("enhance")
            return
        state.trainTask = f"slices{self._run.manifest()['modality']}"
        state.trainData = str(self._run.out)

    @guarded
    def _onFolder(self, _checked=False):
        _open(self._run.out)

    def list(self):
        """Offer the runs on this computer, and select that of the scene."""
        if self.context.state is not None:
            self.earlier, box = long_run.Run.below(long_run.root()), self._ui.runSelector
            fill(box, {str(run.folder): long_run.choiceText(run) for run in self.earlier})
            box.currentIndex = max(0, box.findData(self.context.state.trainRun))

    @property
    def _chosen(self):
        folder = self._ui.runSelector.currentData
        return next((run for run in self.earlier if str(run.folder) == folder), None)

    @guarded
    def _onChosen(self, *_index):
        """Show how the chosen run ended, and its results."""
        self.context.state.trainRun = self._ui.runSelector.currentData
        self.recall(self.context.state.trainRun)
        self._page.update()

    @guarded
    def _onResume(self, _checked=False):
        self.context.clearMessage()
        self.begin(long_run.resume(self.context.runner, self._ui.runSelector.currentData))

    @guarded
    def _onRemove(self, _checked=False):
        run, title = self._chosen, _("Remove {name}").format(name=self._chosen.name)
        question = _(
            "Remove the run {name} with its folder {folder} ({size})? A distilled set or a model "
            "in it is deleted for good; models on the page Models stay."
        ).format(name=run.name, folder=run.folder, size=size_text(run.size))
        if confirm(self._page.widget, title, question):
            job = self.context.runner.submit("", {}, title=title, before=lambda _job: run.remove())
            self._page.follow(job, lambda _job: self._forget(run))

    def _forget(self, run):
        """Show no run that was removed."""
        if self.context.state.trainRun == str(run.folder):
            self.context.state.trainRun = ""
            self._showRun(None)
        self.list()


def _open(path):
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path)))


def _verdictOf(manifest):
    """Return the weight of a set's audit and its result."""
    audit = manifest.get("audit") or {}
    verdict = Text.from_json(audit.get("verdict", _("Not audited.")))
    return audit.get("weight", "warning"), translated(verdict)


def _fillGallery(gallery, paths):
    """Show pictures in a list, with their paths as tool tips."""
    gallery.clear()
    for path in paths:
        item = qt.QListWidgetItem(qt.QIcon(path), "")
        item.setToolTip(path)
        gallery.addItem(item)
