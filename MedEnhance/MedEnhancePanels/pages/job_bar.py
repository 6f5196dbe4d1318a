"""The job that runs: a bar below all pages, and in Slicer's status bar while they are not shown."""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.job import stageText


class JobBar:
    """Bar for the newest job that works for the user, with Cancel."""

    def __init__(self, runner, ui):
        self._runner, self._ui = runner, ui
        #: What is shown: it runs; None for nothing.
        self._job, self._status, self._statusLabel = None, None, None
        runner.onChange(self._onChange)
        ui.jobCancelButton.clicked.connect(self._onCancel)
        self._show()

    def cleanup(self):
        """Let go of the widgets; the jobs continue."""
        self._runner.offChange(self._onChange)
        self.enter()

    def exit(self):
        """Show the job in Slicer's status bar, as the module is left."""
        window = slicer.util.mainWindow()
        if window is None or self._status is not None:
            return
        self._status = qt.QWidget(window)
        layout = qt.QHBoxLayout(self._status)
        layout.setContentsMargins(0, 0, 0, 0)
        self._statusLabel = qt.QLabel("", self._status)
        self._statusLabel.textFormat = qt.Qt.PlainText
        button = qt.QPushButton(_("Cancel"), self._status)
        button.clicked.connect(self._onCancel)
        layout.addWidget(self._statusLabel)
        layout.addWidget(button)
        window.statusBar().addPermanentWidget(self._status)
        self._show()

    def enter(self):
        """Leave the status bar: the module's own bar is shown."""
        if self._status is not None:
            self._status.parent().removeWidget(self._status)
            self._status.deleteLater()
            self._status = self._statusLabel = None

    def _onChange(self, job):
        if job.kind == "install":  # what the pages need comes and goes meanwhile
            self._ui.tabs.enabled = self._ui.loadButton.enabled = job.isFinished
        if not job.isQuestion:
            running = [each for each in self._runner.activeJobs() if not each.isQuestion]
            self._job = running[-1] if running else None
            self._show()

    def _onCancel(self, *_checked):
        if self._job is not None:
            self._job.cancel()

    def _show(self):
        ui, job = self._ui, self._job
        ui.jobFrame.visible = job is not None
        if self._status is not None:
            self._status.visible = job is not None
            self._statusLabel.text = ""
        if job is None:
            return
        text, metrics = f"{stageText(job)} · {job.title}", ui.jobLabel.fontMetrics()
        width = max(100, ui.jobLabel.width)
        ui.jobLabel.text = metrics.elidedText(text, qt.Qt.ElideRight, width)
        ui.jobLabel.toolTip = text
        ui.jobBar.value = int(100 * job.fraction)
        ui.jobCancelButton.enabled = not job.wantsCancel
        if self._status is not None:
            self._statusLabel.text = f"{text} ({ui.jobBar.value} %)"
