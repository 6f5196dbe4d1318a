"""A job: its state, its events, its end; and several jobs as one piece of work."""

import itertools
import os
import shutil
import sys
import time

import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError

_LOG_LINES = 5000


class Notifier:
    """Calls listeners at its events, and once at its end; subclasses define `isFinished`."""

    def __init__(self):
        self._listeners, self._finishers = [], []

    def onEvent(self, callback):
        """Call callback(job, name, fields) at each event: state, progress, log, warning, …"""
        self._listeners.append(callback)

    def onFinished(self, callback):
        """Call callback(job) once, at the end; now if that was already."""
        if self.isFinished:
            callback(self)
        else:
            self._finishers.append(callback)

    def _notifyListeners(self, name, fields):
        for callback in list(self._listeners):
            call(callback, self, name, fields)

    def _notifyFinished(self):
        finishers, self._finishers = self._finishers, []
        for callback in finishers:
            call(callback, self)


class Job(Notifier):
    """One piece of work; see Runner.submit for how it is made.

    state: waiting, running, done, failed, cancelled. fraction: 0…1. result: the worker's result
    event. error: a PanelError, or None. nodes: MRML nodes that came out, by name. folder: private
    to this job, gone when it has ended.
    """

    _numbers = itertools.count(1)

    def __init__(self, runner, kind, params, title, before, after, own):
        super().__init__()
        self.id = f"{os.getpid()}-{next(Job._numbers)}"
        self.kind, self.params, self.title = kind, dict(params), title
        self.before, self.after, self.own = before, after, own
        self.state, self.stage, self.fraction, self.etaSeconds = "waiting", _("waiting"), 0.0, None
        self.log, self.warnings, self.metrics, self.previews = [], [], [], []
        self.result, self.error, self.nodes = {}, None, {}
        self.started, self.ended = None, None
        self.folder = ""
        self.worker = None
        #: Whether a worker started it, whether it was sent twice, whether it is to stop.
        self.reached, self.resent, self.wantsCancel = False, False, False
        self._runner = runner

    @property
    def isFinished(self):
        return self.state in ("done", "failed", "cancelled")

    @property
    def isQuestion(self):
        """Whether it only answers a question of the panel, and so is no work for the user."""
        from MedEnhanceLib.jobs.job import JOBS

        return self.kind in JOBS and JOBS[self.kind].is_question

    @property
    def isRunning(self):
        return self.state == "running"

    def cancel(self):
        """Stop at the next safe point; returns at once."""
        self._runner.cancel(self)

    def notify(self, name, /, **fields):
        """Call all listeners."""
        self._notifyListeners(name, fields)
        for callback in list(self._runner.listeners):
            call(callback, self)

    def progress(self, fraction, stage=None, etaSeconds=None):
        """How far the job is, as a whole."""
        self.fraction = min(max(float(fraction), 0.0), 1.0)
        self.stage, self.etaSeconds = stage or self.stage, etaSeconds
        self.notify("progress", fraction=self.fraction, stage=self.stage, eta_s=etaSeconds)

    def keepLog(self, line):
        self.log.append(line)
        del self.log[:-_LOG_LINES]
        self.notify("log", message=line)

    def finish(self, state, error=None):
        """End the job; a second end is ignored."""
        if self.isFinished:
            return
        self.state, self.error, self.ended, self.etaSeconds = state, error, time.time(), None
        if state == "done":
            self.fraction = 1.0
        shutil.rmtree(self.folder, ignore_errors=True)
        self._notifyFinished()
        self.notify("state", state=state)


def call(callback, *arguments):
    """Call a listener; its exception is reported as in any slot, and the others are called too."""
    try:
        callback(*arguments)
    except Exception:
        sys.excepthook(*sys.exc_info())


class Work(Notifier):
    """State, progress, listeners and the end; a subclass does the jobs and calls `_end`.

    The fields are those of job.Job. Closing the scene cancels it.
    """

    def __init__(self, title):
        super().__init__()
        self.title = title
        self.state, self.stage, self.fraction, self.etaSeconds = "running", "", 0.0, None
        self.nodes, self.log, self.warnings, self.error = {}, [], [], None
        self._job = None
        scene = slicer.mrmlScene
        self._observed = (scene, scene.AddObserver(scene.StartCloseEvent, self._onSceneCloses))

    @property
    def isFinished(self):
        return self.state != "running"

    @property
    def isRunning(self):
        return not self.isFinished

    def cancel(self):
        """Stop what runs and drop what waits."""
        if self.isRunning and self.error is None:
            self.error = PanelError.cancelled()
            self._drop()
            if self._job is not None:
                self._job.cancel()

    def _drop(self):
        """Called once when it is cancelled: forget what has not begun."""

    def _onSceneCloses(self, *_arguments):
        self.cancel()

    def _end(self, state):
        scene, tag = self._observed
        scene.RemoveObserver(tag)
        self.state, self.fraction, self.etaSeconds = state, 1.0, None
        self._notifyListeners("state", {"state": self.state})
        self._notifyFinished()


def stageText(job):
    """What a job does now, and how long it will take where that is known."""
    if job.etaSeconds is None:
        return job.stage
    return _("{stage}, about {time} left").format(
        stage=job.stage, time=durationText(job.etaSeconds)
    )


def durationText(seconds):
    """Seconds as a person reads them."""
    seconds = round(max(0.0, seconds))
    if seconds < 60:
        return _("{seconds} s").format(seconds=seconds)
    if seconds < 3600:
        return _("{minutes} min {seconds} s").format(minutes=seconds // 60, seconds=seconds % 60)
    return _("{hours} h {minutes} min").format(hours=seconds // 3600, minutes=seconds % 3600 // 60)


def sentence(text):
    """A warning or a remark with a capital letter and a full stop."""
    first = text.partition(" ")[0]
    # "scan.ucv is damaged": names stay as they are.
    begin = text[:1] if "." in first.rstrip(".") or "_" in first else text[:1].upper()
    return f"{begin}{text[1:].rstrip('. ')}."


def withWarnings(first, warnings):
    """A text and, each in a line of its own, warnings."""
    return "\n".join([*([first] if first else []), *map(sentence, warnings)])
