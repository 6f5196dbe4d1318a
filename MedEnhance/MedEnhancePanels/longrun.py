"""Runs that outlive Slicer: a run is a folder, and its job may be started again and again.

    start → (pause → resume)* → done

Everything that a run needs lies in its folder: see runfolder.py. What is run: training.py,
distilling.py.
"""

import os
import shutil
import time

from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.runfolder import COHORT_PARAM, Run


class LongRun:
    """A run together with the job that works on it now."""

    def __init__(self, run, job):
        self.run, self.job = run, job
        self._endsAs = "paused"
        job.onEvent(self._onEvent)
        job.onFinished(self._onFinished)

    @property
    def elapsedSeconds(self):
        """Time spent on the run, earlier jobs included."""
        isCounted = self.job.isFinished or self.job.started is None
        return self.run.record["seconds"] + (0.0 if isCounted else time.time() - self.job.started)

    def pause(self):
        """Stop after a checkpoint; `resume` goes on from there."""
        self.job.cancel()

    def cancel(self):
        """Stop for good. The folder stays, for whoever wants to look into it."""
        self._endsAs = "cancelled"
        self.job.cancel()

    def _onEvent(self, _job, name, fields):
        if name == "metric" and fields.get("value") is not None:
            self.run.keepMetric(fields["name"], fields["value"], fields["step"])

    def _onFinished(self, job):
        record = self.run.record
        if record["state"] == "preparing":
            # Half a cohort is none: it could not go on, and nobody asked to keep these copies.
            self._endsAs = "cancelled"
            del record["params"]
            removeCopies(self.run)
        record["state"] = self._endsAs if job.state == "cancelled" else job.state
        if job.started is not None:
            record["seconds"] += job.ended - job.started
        record["error"] = job.error.text if job.state == "failed" else ""
        if job.state == "done" and self.run.kind == "train":
            record["model"] = job.result["outputs"]["model"]
        elif job.state == "done":
            # What may be shared lies in the same folder: no copy of a patient has to lie beside it.
            removeCopies(self.run)
        if os.path.isdir(self.run.folder):
            self.run.save()


def removeCopies(run):
    """Delete the volumes that were copied into a run's folder; the scene has the originals."""
    for folder in ("data", "prior"):
        shutil.rmtree(os.path.join(run.folder, folder), ignore_errors=True)


def begin(runner, run, before=None):
    """Work on a run from now on; returns a LongRun. before: sends volumes of the scene first."""
    global _current
    words = {"train": _("Train {name}"), "distill": _("Distill {name}")}
    title = words[run.kind].format(name=run.name)
    job = runner.submit(run.kind, run.record["params"], title=title, before=before, own=True)
    _current = LongRun(run, job)
    return _current


def resume(runner, folder):
    """Go on with a run from its last checkpoint; returns a LongRun."""
    checkIdle()
    run = Run.open(folder)
    if not run.isResumable:
        raise PanelError(
            _("{name} cannot go on: it is {state}").format(name=run.name, state=run.state),
            _("Start a new run."),
            "config",
        )
    _settleIn(run)
    run.record["state"] = "running"
    run.save()
    return begin(runner, run)


def _settleIn(run):
    """Let a run work where its folder is now: it may have been moved, or come from elsewhere."""
    params = run.record["params"]
    before = os.path.dirname(params["out"])
    params["out"] = run.out
    config = params.get("config", {})
    for fields, name in ((params, COHORT_PARAM[run.kind]), (config, "prior")):
        path = fields.get(name, "")
        if before and path.startswith(os.path.join(before, "")):
            fields[name] = os.path.join(run.folder, os.path.relpath(path, before))


def current():
    """The LongRun that goes on now, whoever started it, or None."""
    return _current if _current is not None and not _current.job.isFinished else None


#: One at a time: a second one would only take the first one's processors.
_current = None


def checkIdle():
    """Raise PanelError while a run goes on."""
    running = current()
    if running is not None:
        words = {"train": _("{name} is being trained"), "distill": _("{name} is being distilled")}
        raise PanelError(
            words[running.run.kind].format(name=running.run.name),
            _("Pause it, or wait for its end."),
            "config",
        )


def defaultRoot():
    """Where runs are kept unless the user says otherwise; made when the first one starts."""
    return os.path.join(os.path.expanduser("~"), "MedEnhance", "runs")
