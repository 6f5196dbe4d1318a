"""A job: its state, its events, its end."""

import itertools
import os
import shutil
import sys
import time

from slicer.i18n import tr as _

from MedEnhanceLib.runtime.text import duration_text

_LOG_LINES = 5000
_LINES_IN_DETAILS = 200


class Job:
    """Piece of work; see Runner.submit for how it is made.

    state: waiting, running, done, failed, cancelled. fraction: 0…1. result: the worker's result
    event. error: a PanelError, or None. nodes: MRML nodes that came out, by name. summary: its
    outcome in words, for the panel if no page reports it. folder: private to this job, gone when it
    has ended.
    """

    _numbers = itertools.count(1)

    def __init__(self, runner, kind, params, title, before, after, dedicated):
        self._listeners, self._finishers, self._runner = [], [], runner
        self.id = f"{os.getpid()}-{next(Job._numbers)}"
        self.kind, self.params, self.title = kind, dict(params), title
        self.before, self.after, self.dedicated = before, after, dedicated
        self.state, self.stage, self.fraction, self.etaSeconds = "waiting", _("waiting"), 0.0, None
        self.log, self.warnings = [], []
        self.result, self.error, self.nodes, self.summary = {}, None, {}, ""
        self.started, self.ended = None, None
        self.folder = ""
        #: The worker that has it, and its line for that; the generator that runs for it here.
        self.worker, self.line, self.steps, self.then = None, b"", None, None
        #: Whether a worker started it, whether it was sent twice, whether it is to stop, and why.
        self.reached, self.isResent, self.wantsCancel, self.why = False, False, False, None

    @property
    def isFinished(self):
        return self.state in ("done", "failed", "cancelled")

    @property
    def isQuestion(self):
        """Whether it only answers a question of the panel, and so is no work for the user."""
        return self.declares("is_question")

    def declares(self, property):
        """Return whether the library's declaration of this kind of job has a property."""
        from MedEnhanceLib.jobs.job import JOBS

        return self.kind in JOBS and getattr(JOBS[self.kind], property)

    def cancel(self, why=None):
        """Stop at the next safe point; returns at once.

        why: a sentence, where no user did it; empty to show none.
        """
        self._runner.cancel(self, why)

    def onEvent(self, callback):
        """Call callback(job, name, fields) at each event: state, progress, log, warning, …"""
        self._listeners.append(callback)

    def onFinished(self, callback):
        """Call callback(job) once, when the job ends; at once if it has ended."""
        if self.isFinished:
            callback(self)
        else:
            self._finishers.append(callback)

    def notify(self, name, /, **fields):
        for callback in list(self._listeners):
            call(callback, self, name, fields)
        for callback in list(self._runner.listeners):
            call(callback, self)

    def progress(self, fraction, stage=None, etaSeconds=None):
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
        if state == "failed":  # for a report
            lines = [line for line in self.log[-_LINES_IN_DETAILS:] if line not in error.details]
            error.details = "\n".join(filter(None, [*lines, error.details]))
        if state == "done":
            self.fraction = 1.0
        shutil.rmtree(self.folder, ignore_errors=True)
        finishers, self._finishers = self._finishers, []
        for callback in finishers:
            call(callback, self)
        self.notify("state", state=state)


def call(callback, *arguments):
    """Call a listener; its exception is reported as in any slot, and the others are called too."""
    try:
        callback(*arguments)
    except Exception:
        sys.excepthook(*sys.exc_info())


def stageText(job):
    """Say what a job does now, and how much time is left, if known."""
    if job.etaSeconds is None:
        return job.stage
    return _("{stage}, about {time} left").format(
        stage=job.stage, time=duration_text(job.etaSeconds)
    )
