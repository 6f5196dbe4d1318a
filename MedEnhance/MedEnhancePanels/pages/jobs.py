"""The page Jobs: the jobs since Slicer was started, with their logs. Nothing of it is kept."""

import os
import time

import qt
from slicer.i18n import tr as _

from MedEnhancePanels.errors import guarded
from MedEnhancePanels.job import durationText, stageText, withWarnings
from MedEnhancePanels.pages.first_use import showEnd, startCheck
from MedEnhancePanels.pages.widgets import Page, openPath, ticking

_TITLE, _STATE, _STARTED, _TOOK = range(4)
_TICK_MS = 500


def _pathsIn(result):
    """What of a result says where files lie."""
    outputs = {str(name): str(path) for name, path in dict(result.get("outputs", {})).items()}
    report = result.get("report")  # of a recovery it is an account, not a path
    return {"outputs": outputs} | ({"report": report} if isinstance(report, str) else {})


class JobsPanel(Page):
    """A table of jobs, newest first, and the chosen one in detail."""

    def __init__(self, context):
        super().__init__(context, "Jobs")
        self._rows = []
        self._check = None
        self._shownLog = None
        self._timer = ticking(self.widget, _TICK_MS, self._showTimes)
        self._setup()
        context.runner.onChange(self._onChange)
        self.refresh()

    def _setup(self):
        ui = self.ui
        ui.jobTable.horizontalHeader().setSectionResizeMode(_TITLE, qt.QHeaderView.Stretch)
        ui.jobTable.itemSelectionChanged.connect(self._showDetail)
        ui.cancelButton.clicked.connect(self._onCancel)
        ui.reportButton.clicked.connect(self._onReport)
        ui.folderButton.clicked.connect(self._onFolder)
        ui.clearButton.clicked.connect(self._onClear)
        ui.checkButton.clicked.connect(self._onCheck)

    def enter(self):
        """Called when the page is shown: what somebody comes for is the newest job."""
        self.refresh()
        if self._rows:
            self.ui.jobTable.selectRow(0)

    def cleanup(self):
        super().cleanup()
        self._timer.stop()
        self.context.runner.offChange(self._onChange)
        if self._check is not None:
            self._check.cancel()

    @property
    def selected(self):
        """The chosen Job, or None."""
        row = self.ui.jobTable.currentRow()
        return self._rows[row] if 0 <= row < len(self._rows) else None

    # --- the list -----------------------------------------------------------------------------

    def refresh(self):
        """Fill the table again."""
        kept = self.selected
        self._rows = self._jobs()[::-1]
        table = self.ui.jobTable
        table.setRowCount(len(self._rows))
        for row, job in enumerate(self._rows):
            self._fillRow(row, job)
        for column in (_STATE, _STARTED, _TOOK):
            table.resizeColumnToContents(column)
        if self._rows:
            table.selectRow(self._rows.index(kept) if kept in self._rows else 0)
        self.ui.emptyLabel.visible = not self._rows
        table.visible = bool(self._rows)
        self._showDetail()
        self._tickWhileNeeded()

    def _jobs(self):
        return [job for job in self.context.runner.jobs if job.isWork]

    def _onChange(self, job):
        isListed = job in self._jobs()  # known when its params are set; some are forgotten at once
        if isListed != (job in self._rows):
            self.refresh()
        if not isListed:
            return
        self._fillRow(self._rows.index(job), job)
        if job is self.selected:
            self._showDetail()
        self._tickWhileNeeded()

    def _fillRow(self, row, job):
        texts = (_rowTitle(job), stateText(job), _clock(job.started), _took(job))
        for column, text in enumerate(texts):
            item = self.ui.jobTable.item(row, column)
            if item is None:
                item = qt.QTableWidgetItem("")
                self.ui.jobTable.setItem(row, column, item)
            if item.text() != text:
                item.setText(text)
                item.setToolTip(text)

    def _tickWhileNeeded(self):
        isNeeded = any(not job.isFinished for job in self._jobs())
        if isNeeded and not self._timer.isActive():
            self._timer.start()
        elif not isNeeded:
            self._timer.stop()

    def _showTimes(self):
        for row, job in enumerate(self._rows):
            if not job.isFinished:
                self._fillRow(row, job)

    # --- the chosen job -----------------------------------------------------------------------

    def _showDetail(self):
        job = self.selected
        ui = self.ui
        ui.detailBox.visible = job is not None
        ui.cancelButton.enabled = job is not None and not job.isFinished
        ui.reportButton.visible = bool(_report(job))
        ui.folderButton.visible = bool(_folder(job))
        ui.clearButton.enabled = any(one.isFinished for one in self._rows)
        if job is None:
            return
        ui.detailBox.title = job.title
        ui.stateLabel.text = _sentence(job)
        ui.progressBar.visible = not job.isFinished
        ui.progressBar.value = int(100 * job.fraction)
        error, details = _errorOf(job)
        text = withWarnings(error, job.warnings)
        ui.messageLabel.text = text
        ui.messageLabel.visible = bool(text)
        ui.traceButton.visible = bool(details)
        if ui.traceEdit.plainText != details:
            ui.traceEdit.setPlainText(details)
        self._showLog(job)

    def _showLog(self, job):
        shown = (job, list(job.log))
        if self._shownLog is not None and shown == self._shownLog:
            return
        before = self._shownLog[1] if self._shownLog and self._shownLog[0] is job else None
        self._shownLog = shown
        if before and job.log[: len(before)] == before:  # the whole text for each line adds up
            self.ui.logEdit.appendPlainText("\n".join(job.log[len(before) :]))
        else:
            self.ui.logEdit.setPlainText("\n".join(job.log))
        showEnd(self.ui.logEdit)

    @guarded
    def _onCancel(self, *_checked):
        if self.selected is not None and not self.selected.isFinished:
            self.selected.cancel()

    @guarded
    def _onReport(self, *_checked):
        openPath(_report(self.selected))

    @guarded
    def _onFolder(self, *_checked):
        openPath(_folder(self.selected))

    @guarded
    def _onClear(self, *_checked):
        for job in self._jobs():
            self.context.runner.forget(job)
        self.refresh()

    @guarded
    def _onCheck(self, *_checked):
        self._check = startCheck(self.context, self.ui.checkButton, self.ui.computerLabel)


def stateText(job):
    """The state in one or two words, with the share while it runs."""
    texts = {
        "waiting": _("Waiting"),
        "running": _("Running"),
        "done": _("Done"),
        "failed": _("Failed"),
        "cancelled": _("Cancelled"),
    }
    text = texts.get(job.state, job.state)
    if job.state == "running":
        return f"{text}, {100 * job.fraction:.0f} %"
    failed, count = _failedOf(job) or (0, 0)
    if job.state == "done" and failed:
        return _("Done, {failed} of {count} failed").format(failed=failed, count=count)
    return text


def _failedOf(job):
    """(how many volumes of a batch failed, of how many); empty for other jobs."""
    isBatch = job.kind == "batch" and job.result
    return (job.result["failed"], job.result["total"]) if isBatch else ()


def _madeBy(job):
    """The name of what came out of a job: a volume of the scene, or a file; "" for neither."""
    if not job.isFinished:
        return ""
    node = job.nodes.get("output") or next(iter(job.nodes.values()), None)
    if node is not None:
        return node.GetName() or ""
    path = _pathsIn(job.result)["outputs"].get("output", "")
    return os.path.basename(path) if os.path.exists(path) else ""


def _rowTitle(job):
    """The title, and what came out where that has another name: runs on one volume differ by it."""
    made = _madeBy(job)
    return job.title if not made or job.title.endswith(f" {made}") else f"{job.title} → {made}"


def _sentence(job):
    if not job.isFinished:
        return stageText(job)
    text = _("{state}; started {when}, took {time}").format(
        state=stateText(job), when=_clock(job.started), time=_took(job)
    )
    made = _madeBy(job)
    return "\n".join([text, _("Result: {name}").format(name=made)]) if made else text


def _took(job):
    if job.started is None:
        return ""
    return durationText((job.ended or time.time()) - job.started)


def _clock(started):
    if started is None:
        return ""
    isToday = time.strftime("%x", time.localtime(started)) == time.strftime("%x")
    return time.strftime("%H:%M" if isToday else "%Y-%m-%d %H:%M", time.localtime(started))


def _errorOf(job):
    """The sentence of what went wrong, and its details; empty for a job that was well."""
    if job.state == "cancelled":
        return "", ""
    return ("", "") if job.error is None else (job.error.text, job.error.details)


def _report(job):
    paths = _pathsIn(job.result) if job is not None else {"outputs": {}}
    report = paths.get("report") or paths["outputs"].get("report")
    if not report:
        return ""
    page = os.path.join(report, "index.html") if os.path.isdir(report) else report
    # The desktop opens it with whatever its ending says, also where the list was tampered with.
    return page if page.endswith(".html") and os.path.exists(page) else ""


def _folder(job):
    """Where the files lie that the job left; "" where they went into the scene or are gone."""
    outputs = job.result.get("outputs", {}) if job is not None else {}
    for path in outputs.values():
        if os.path.exists(path):
            return path if os.path.isdir(path) else os.path.dirname(path)
    return ""
