"""One job as the panel sees it: its state, its events, its end."""

import itertools
import os
import shutil
import sys
import time

from slicer.i18n import tr as _

_LOG_LINES = 5000
#: Kinds that answer a question of the panel at once; a list of past work is no place for them.
QUESTIONS = (
    "doctor",
    "models",
    "inspect",
    "estimate",
    "distill-estimate",
    "distill-status",
    "ping",
)


class Listened:
    """Whoever wants to know hears of its events, and once of its end; `isFinished` is its own."""

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

    def _tellListeners(self, name, fields):
        for callback in list(self._listeners):
            call(callback, self, name, fields)

    def _tellFinishers(self):
        finishers, self._finishers = self._finishers, []
        for callback in finishers:
            call(callback, self)


class Job(Listened):
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
        #: Whether a worker said that it began, whether it was sent twice, whether it is to stop.
        self.reached, self.resent, self.wantsCancel = False, False, False
        self._runner = runner

    @property
    def isFinished(self):
        return self.state in ("done", "failed", "cancelled")

    @property
    def isWork(self):
        """Whether it is worth remembering: no question of the panel, and no preview."""
        isPreview = "slices" in self.params or bool(self.params.get("preview"))
        return self.kind not in QUESTIONS and not isPreview

    @property
    def isRunning(self):
        return self.state == "running"

    def cancel(self):
        """Stop at the next safe point; returns at once."""
        self._runner.cancel(self)

    def tell(self, name, /, **fields):
        """Tell everybody who listens."""
        self._tellListeners(name, fields)
        for callback in list(self._runner.listeners):
            call(callback, self)

    def progress(self, fraction, stage=None, etaSeconds=None):
        """How far the job is, as a whole."""
        self.fraction = min(max(float(fraction), 0.0), 1.0)
        self.stage, self.etaSeconds = stage or self.stage, etaSeconds
        self.tell("progress", fraction=self.fraction, stage=self.stage, eta_s=etaSeconds)

    def keepLog(self, line):
        self.log.append(line)
        del self.log[:-_LOG_LINES]
        self.tell("log", message=line)

    def finish(self, state, error=None):
        """End the job; a second end is ignored."""
        if self.isFinished:
            return
        self.state, self.error, self.ended, self.etaSeconds = state, error, time.time(), None
        if state == "done":
            self.fraction = 1.0
        shutil.rmtree(self.folder, ignore_errors=True)
        self._tellFinishers()
        self.tell("state", state=state)


def call(callback, *arguments):
    """One listener's fault must not keep the others from hearing; it is told as in any slot."""
    try:
        callback(*arguments)
    except Exception:
        sys.excepthook(*sys.exc_info())
