"""Waiting for a job, in scripts and in Slicer's readers of files, with progress and Cancel."""

import qt
import slicer

from MedEnhancePanels.job import stageText


def wait(job):
    """Wait until a job has ended; raises its PanelError.

    Meanwhile the views are drawn and timers fire. The dialog is modal: a second click on what waits
    here, such as a dialog of Slicer's that loads a file, would begin the same work once more.
    """
    if not job.isFinished:
        _showUntilEnd(job)
    if job.error is not None:
        raise job.error
    return job


def _showUntilEnd(job):
    loop, parent = qt.QEventLoop(), qt.QApplication.activeModalWidget() or slicer.util.mainWindow()
    dialog = slicer.util.createProgressDialog(
        parent, windowTitle=job.title, autoClose=False, autoReset=False
    )
    dialog.setWindowModality(qt.Qt.ApplicationModal)

    def show(*_event):
        if not job.isFinished:
            dialog.show()  # Cancel hides it, and stopping takes a moment
            dialog.labelText, dialog.value = stageText(job), int(100 * job.fraction)

    def cancel():
        job.cancel()
        show()

    dialog.canceled.connect(cancel)
    job.onEvent(show)
    job.onFinished(lambda _job: loop.quit())
    try:
        show()
        if not job.isFinished:
            loop.exec_()
    finally:
        # A dialog without a parent that goes with its connections is deleted twice by PythonQt.
        dialog.canceled.disconnect(cancel)
        dialog.hide()
        dialog.deleteLater()
