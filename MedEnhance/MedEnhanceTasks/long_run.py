"""Runs that outlive Slicer, such as a training, and the jobs that work on them.

start → (pause → resume)* → done
"""

import time
from pathlib import Path

from slicer.i18n import tr as _

from MedEnhanceLib.runtime.text import duration_text
from MedEnhanceLib.training.jobs.runs import LongRun
from MedEnhancePanels.errors import PanelError


class Run(LongRun):
    """A run in a folder, and the job that works on it now; None for a run that rests."""

    def __init__(self, folder, record):
        super().__init__(folder, record)
        self.job, self._endsAs = None, "paused"

    @property
    def isActive(self):
        return self.job is not None and not self.job.isFinished

    def begin(self, runner):
        """Save the run's record, and start its job."""
        self.record["state"] = "running"
        self.record["params"]["out"] = str(self.out)  # its folder may have been moved
        self.save()
        texts = {"train": _("Train {name}"), "distill": _("Distill {name}")}
        title = texts.get(self.kind, _("Measure {name}")).format(name=self.name)
        self.job = runner.submit(self.kind, self.record["params"], title=title, dedicated=True)
        self._endsAs = "paused" if self.job.declares("is_resumable") else "cancelled"
        self.job.onFinished(self._onFinished)
        runner.run = self

    def end(self):
        """Stop for good; a job that is cancelled stops after a checkpoint, and can be resumed."""
        self._endsAs = "cancelled"
        self.job.cancel()

    def _onFinished(self, job):
        record = self.record
        record["state"] = self._endsAs if job.state == "cancelled" else job.state
        if job.started is not None:
            record["seconds"] += job.ended - job.started
        record["error"] = job.error.text if job.state == "failed" else ""
        if job.state == "done" and self.kind != "distill":
            record["model"] = job.result["outputs"].get("model", "")
            record["sentence"] = job.result.get("sentence", "")
        if self.folder.is_dir():
            self.save()


def resume(runner, folder):
    """Resume a run from its last checkpoint; returns the Run."""
    checkIdle(runner)
    run = Run.open(Path(folder))
    if not run.is_resumable:
        message = _("{name} cannot be resumed: it is {state}")
        message = message.format(name=run.name, state=_stateText(run.state))
        raise PanelError(message, _("Start a new run."), "config")
    run.begin(runner)
    return run


def checkIdle(runner):
    """Raise PanelError while a run is in progress: a second would compete for the processors."""
    if runner.run is not None and runner.run.isActive:
        message = _("The run {name} is in progress").format(name=runner.run.name)
        raise PanelError(message, _("Pause it, or wait for its end."), "config")


def root():
    """Return the folder where runs are kept; made when the first one starts."""
    return Path.home() / "MedEnhance" / "runs"


def choiceText(run):
    """Name a run in a list, which may have no room for all of a long name."""
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.record["created"]))
    return f"{_stateText(run.state)}, {begun}: {run.name}"


def _stateText(state):
    """Return the text for a run's state; one that is recorded as running was interrupted."""
    texts = {
        "running": _("interrupted"),
        "paused": _("paused"),
        "failed": _("failed"),
        "cancelled": _("cancelled"),
        "done": _("done"),
    }
    return texts.get(state, state)


def runText(run):
    isSet = run.kind == "distill" and run.state == "done"
    place = _("The distilled set: {folder}") if isSet else _("Its folder is {folder}")
    lines = [
        _("{name}: {state} after {time}.").format(
            name=run.name, state=_stateText(run.state), time=duration_text(run.record["seconds"])
        ),
        run.record.get("error", ""),
        run.record.get("sentence", ""),
        place.format(folder=run.out if isSet else run.folder),
    ]
    if isSet:
        counts = {"volumes": "?", "patients": "?", "held_out": "?"} | run.manifest()
        text = _(
            "Volumes: {volumes}; patients used: {patients}, held out: {held_out}. The volumes are "
            "for training only: structures that look like organs may not exist in any patient."
        )
        lines.append(text.format(**counts))
    if run.confidential.is_dir():
        warning = _("Do not share {folder}: it has pictures and names of patients.")
        lines.append(warning.format(folder=run.confidential))
    return "\n".join(filter(None, lines))
