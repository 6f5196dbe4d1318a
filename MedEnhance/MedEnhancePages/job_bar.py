"""The job that runs: a bar below all pages, and in Slicer's status bar while they are not shown."""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.job import stageText


class JobBar:
    """Bar for the newest job that works for the user, with Cancel."""

    def __init__(self, runner, ui):
        self._runner, self._ui = runner, ui
        #: The job that is shown, None for none; whether another module is in front.
        self._job, self._isAway = None, False
        runner.onChange(self._onChange)
        ui.jobCancelButton.clicked.connect(self._onCancel)
        self._show()

    def cleanup(self):
        """Release the widgets; the jobs continue."""
        self._runner.offChange(self._onChange)

    def exit(self):
        """Show the job in Slicer's status bar, as the module is left."""
        self._isAway = True
        self._show()

    def enter(self):
        """Leave the status bar: the module's own bar is shown."""
        self._isAway = False
        slicer.util.showStatusMessage("")

    def _onChange(self, job):
        if job.kind == "install":  # packages that the pages need change meanwhile
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
        ui.jobFrame.visible, status = job is not None, ""
        if job is not None:
            stage, metrics = stageText(job), ui.jobLabel.fontMetrics()
            text, percent = f"{stage[:1].upper()}{stage[1:]} · {job.title}", int(100 * job.fraction)
            # Two lines, of which a word that does not fit may leave a part empty.
            width = max(100, int(1.8 * ui.jobLabel.width))
            ui.jobLabel.text = metrics.elidedText(text, qt.Qt.ElideRight, width)
            ui.jobLabel.toolTip, ui.jobBar.value = text, percent
            ui.jobCancelButton.enabled = not job.wantsCancel
            ui.jobCancelButton.text = _("Pause") if job.declares("is_resumable") else _("Cancel")
            status = f"{text} ({percent} %)"
        if self._isAway:
            slicer.util.showStatusMessage(status)
