"""Waiting for a job, in scripts and in Slicer's readers of files: progress, Cancel and Ctrl+C."""

import signal

import qt
import slicer

from MedEnhancePanels.job import stageText

#: How often the dialog is brought up to date, and Python learns of a Ctrl+C.
_LOOK_MS = 100


def wait(job):
    """Wait until a job has ended; raises its PanelError, or KeyboardInterrupt after Ctrl+C.

    Meanwhile the views are drawn and timers fire. The dialog is modal: a second click on what waits
    here, for example a dialog of Slicer's that loads a file, would begin the same work once more,
    within this or after it.
    """
    if not job.isFinished:
        interrupts = []  # what is raised within a slot would only be printed
        before = signal.signal(signal.SIGINT, lambda *_arguments: interrupts.append(True))
        try:
            _showUntilEnd(job, interrupts)
        finally:  # None: it was not set by Python
            signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
        if interrupts:
            raise KeyboardInterrupt
    if job.error is not None:
        raise job.error
    return job


def _showUntilEnd(job, interrupts):
    loop, parent = qt.QEventLoop(), qt.QApplication.activeModalWidget() or slicer.util.mainWindow()
    dialog = slicer.util.createProgressDialog(
        parent, windowTitle=job.title, autoClose=False, autoReset=False
    )
    dialog.setWindowModality(qt.Qt.ApplicationModal)
    timer = qt.QTimer(dialog)

    def look():
        if interrupts or dialog.wasCanceled:
            job.cancel()
        dialog.show()  # Cancel hides it, and stopping takes a moment
        dialog.labelText, dialog.value = stageText(job), int(100 * job.fraction)

    dialog.canceled.connect(look)
    timer.timeout.connect(look)
    job.onFinished(lambda _job: loop.quit())
    try:
        look()
        timer.start(_LOOK_MS)
        if not job.isFinished:
            loop.exec_()
    finally:
        # A dialog without a parent that goes with its connections is deleted twice by PythonQt.
        dialog.canceled.disconnect(look)
        timer.timeout.disconnect(look)
        dialog.hide()
        dialog.deleteLater()
