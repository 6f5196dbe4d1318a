"""The queue: the job that runs, on the page in front, or in Slicer's status bar; jobs that wait."""

import itertools

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.job import stageText

#: By page: the control after which the tab key comes to the frame.
_BEFORE = {
    "enhance": "previewButton",
    "compress": "openButton",
    "train": "cancelButton",
    "models": "importButton",
}
#: Waiting jobs that are seen without scrolling.
_ROWS = 4


class JobBar:
    """Frame with the job that works for the user, with Cancel, and with those that wait for it."""

    def __init__(self, runner, ui):
        self._runner, self._ui = runner, ui
        #: The job that is shown, None for none; the jobs in the list; whether another module is in
        #: front.
        self._job, self._listed, self._isAway = None, [], False
        #: The page in front, and its name.
        self._page, self._name = None, ""
        runner.onChange(self._onChange)
        ui.jobCancelButton.clicked.connect(self._onCancel)
        ui.queueRemoveButton.clicked.connect(self._onRemove)
        ui.queueList.itemSelectionChanged.connect(self._show)
        ui.jobFrame.setSizePolicy(qt.QSizePolicy.Preferred, qt.QSizePolicy.Maximum)
        shortcut = qt.QShortcut(qt.QKeySequence(qt.Qt.Key_Delete), ui.queueList)
        shortcut.context = qt.Qt.WidgetShortcut
        shortcut.activated.connect(self._onRemove)
        self._show()

    def cleanup(self):
        """Release the widgets; the jobs continue."""
        self._runner.offChange(self._onChange)
        self._page = None

    def exit(self):
        """Show the job in Slicer's status bar, as the module is left."""
        self._isAway = True
        self._show()

    def enter(self):
        """Leave the status bar: the frame is shown."""
        self._isAway = False
        slicer.util.showStatusMessage("")

    def standOn(self, page, name):
        """Move the frame to a page that comes to the front, below its main button."""
        self._page, self._name = page, name
        self._place()
        self._show()  # as a widget that gets another parent is hidden

    def _place(self):
        """Place the frame on the page; below all of them while they are disabled."""
        frame, tabs = self._ui.jobFrame, self._ui.tabs
        if self._page is None or not tabs.enabled:
            tabs.parentWidget().layout().addWidget(frame)
            return
        self._page.ui.progressArea.layout().addWidget(frame)
        order = [getattr(self._page.ui, _BEFORE[self._name]), self._ui.jobCancelButton]
        order += [self._ui.queueList, self._ui.queueRemoveButton]
        for first, second in itertools.pairwise(order):
            qt.QWidget.setTabOrder(first, second)

    def _onChange(self, job):
        if job.kind == "install":  # packages that the pages need change meanwhile
            self._ui.tabs.enabled = self._ui.loadButton.enabled = job.isFinished
            self._place()
        if not job.isQuestion:
            jobs = [each for each in self._runner.activeJobs() if not each.isQuestion]
            waiting = [each for each in self._runner.waitingJobs() if each in jobs]
            started = [each for each in jobs if each not in waiting]
            self._job = (started or waiting[:1] or [None])[-1]
            self._list([each for each in waiting if each is not self._job])
            self._show()

    def _list(self, jobs):
        """List the jobs that wait; what is selected stays so while nothing changes."""
        if jobs != self._listed:
            self._listed, box = jobs, self._ui.queueList
            box.clear()
            box.addItems([job.title for job in jobs])
            rows = min(len(jobs), _ROWS)
            box.setFixedHeight(rows * max(1, box.sizeHintForRow(0)) + 2 * box.frameWidth)

    def _onCancel(self, *_checked):
        if self._job is not None:
            self._job.cancel()

    def _onRemove(self, *_checked):
        box = self._ui.queueList
        rows = [at for at in range(box.count) if box.item(at).isSelected()]
        for job in [self._listed[row] for row in rows]:
            job.cancel()

    def _show(self, *_arguments):
        ui, job, count = self._ui, self._job, len(self._listed)
        ui.jobFrame.visible, status = job is not None, ""
        ui.queueArea.visible = count > 0
        ui.queueRemoveButton.enabled = bool(ui.queueList.selectedItems())
        if job is not None:
            stage, metrics = stageText(job), ui.jobLabel.fontMetrics()
            text, percent = f"{stage[:1].upper()}{stage[1:]} · {job.title}", int(100 * job.fraction)
            # Two lines, of which a word that does not fit may leave a part empty.
            width = max(100, int(1.8 * ui.jobLabel.width))
            ui.jobLabel.text = metrics.elidedText(text, qt.Qt.ElideRight, width)
            ui.jobLabel.toolTip, ui.jobBar.value = text, percent
            ui.jobCancelButton.enabled = not job.wantsCancel
            ui.jobCancelButton.text = _("Pause") if job.declares("is_resumable") else _("Cancel")
            texts = _("{job} ({percent} %)"), _("{job} ({percent} %), {count} waiting")
            status = texts[count > 0].format(job=text, percent=percent, count=count)
        if self._isAway:
            slicer.util.showStatusMessage(status)
