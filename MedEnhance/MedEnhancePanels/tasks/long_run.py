"""Runs that outlive Slicer: a training or a distillation, kept in a folder of its own.

    start → (pause → resume)* → done

`run.json` says what it is and how far it came, `out` holds the checkpoint and in the end the
result. What must not be passed on with a distillation lies in `out-confidential`.
"""

import glob
import os
import time

from MedEnhanceLib.jobs.job import JOBS
from MedEnhanceLib.runtime.text import duration_text
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge
from MedEnhancePanels.nodes.provenance import jsonIn
from MedEnhancePanels.texts import tr as _

RUN_FILE = "run.json"
#: States from which a run can be resumed; "running" remains after a crash.
_UNFINISHED = ("running", "paused", "failed")


class Run:
    """A training or a distillation, in a folder on the disk, and the job that works on it now.

    kind: "train" or "distill". out: the folder of the results. confidential: the folder for files
    of a distillation that show or name patients.
    """

    def __init__(self, folder, record):
        self.folder, self.record = str(folder), record
        self.kind, self.name = record["kind"], record["name"]
        self.out = os.path.join(self.folder, "out")
        self.confidential = f"{self.out}-confidential"
        self.job, self._endsAs = None, "paused"

    @classmethod
    def create(cls, kind, name):
        """Make a folder below `root`, named after the run and the time; kind: see Run."""
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in name).strip("-")[:64]
        name = name or "run"
        folder = bridge.freePath(root(), time.strftime(f"{name}-%Y%m%d-%H%M%S"))
        os.makedirs(os.path.join(folder, "out"))
        record = {"v": 1, "kind": kind, "name": name, "state": "running"}
        return cls(folder, record | {"created": time.time(), "seconds": 0.0})

    @classmethod
    def open(cls, folder):
        """Open a run that was begun before; raises PanelError for a folder that holds none."""
        record = jsonIn(os.path.join(folder, RUN_FILE))
        try:
            return cls(folder, _checkedRecord(record))
        except (ValueError, KeyError, TypeError, OverflowError) as cause:
            message = _("{folder} contains no readable run").format(folder=folder)
            hint = _("Choose the folder of a run.")
            raise PanelError(message, hint, "input", str(cause)) from cause

    def save(self):
        from MedEnhanceLib.io.atomic import write_json

        write_json(os.path.join(self.folder, RUN_FILE), self.record, overwrite=True)

    @property
    def state(self):
        return self.record["state"]

    @property
    def isResumable(self):
        return self.state in _UNFINISHED and "params" in self.record

    @property
    def isActive(self):
        return self.job is not None and not self.job.isFinished

    def begin(self, runner):
        """Save it, and work on it from now on."""
        self.record["state"], self._endsAs = "running", "paused"
        self.save()
        texts = {"train": _("Train {name}"), "distill": _("Distill {name}")}
        title = texts[self.kind].format(name=self.name)
        self.job = runner.submit(self.kind, self.record["params"], title=title, dedicated=True)
        self.job.onFinished(self._onFinished)
        runner.run = self

    def pause(self):
        """Stop after a checkpoint; `resume` goes on from there."""
        self.job.cancel()

    def cancel(self):
        """Stop permanently; the folder is kept."""
        self._endsAs = "cancelled"
        self.job.cancel()

    def _onFinished(self, job):
        record = self.record
        record["state"] = self._endsAs if job.state == "cancelled" else job.state
        if job.started is not None:
            record["seconds"] += job.ended - job.started
        record["error"] = job.error.text if job.state == "failed" else ""
        if job.state == "done" and self.kind == "train":
            record["model"] = job.result["outputs"]["model"]
        if os.path.isdir(self.folder):
            self.save()

    def images(self):
        """List the pictures of a distillation's images, in order."""
        return sorted(glob.glob(os.path.join(glob.escape(self.out), "images", "*.png")))

    def manifest(self):
        """Read the manifest of a distillation's result; empty if there is none."""
        return jsonIn(os.path.join(self.out, "manifest.json"))

    def attacks(self):
        """Count attacks of the audit that could have found a leak, and all; (0, 0) without one."""
        audit = jsonIn(os.path.join(self.out, "audit", "audit.json"))
        findings = audit.get("findings")
        if not isinstance(findings, list):
            return 0, 0
        could = sum(isinstance(each, dict) and each.get("is_blind") is False for each in findings)
        return could, len(findings)


def _checkedRecord(record):
    """Return the record; raises KeyError, TypeError or ValueError for what is not a run."""
    kinds = {"name": str, "state": str, "created": (int, float), "seconds": (int, float)}
    for field, kind in kinds.items():
        if not isinstance(record[field], kind):
            raise TypeError(f"{field} is {record[field]!r}")
    time.localtime(record["created"])
    cohort, params = JOBS[record["kind"]].cohort, record.get("params")
    if params is not None and not all(isinstance(params[name], str) for name in (cohort, "out")):
        raise TypeError(f"params lack {cohort} or out")
    return record


def runAt(folder):
    """Open the run in a folder, as a scene remembers it; None where it is gone."""
    try:
        return Run.open(folder) if folder else None
    except PanelError:
        return None


def resumable():
    """Return the runs that can go on, newest first."""
    paths = glob.glob(os.path.join(glob.escape(root()), "*", RUN_FILE))
    # A damaged record hides its run, not the others.
    runs = [run for run in map(runAt, map(os.path.dirname, paths)) if run is not None]
    runs = [run for run in runs if run.isResumable]
    return sorted(runs, key=lambda run: run.record["created"], reverse=True)


def resume(runner, folder):
    """Go on with a run from its last checkpoint; returns the Run."""
    checkIdle(runner)
    run = Run.open(folder)
    if not run.isResumable:
        message = _("{name} cannot be resumed: it is {state}")
        message = message.format(name=run.name, state=_stateText(run.state))
        raise PanelError(message, _("Start a new run."), "config")
    run.record["params"]["out"] = run.out  # its folder may have been moved
    run.begin(runner)
    return run


def checkIdle(runner):
    """Raise PanelError while a run is in progress: a second would compete for the processors."""
    if runner.run is not None and runner.run.isActive:
        message = _("The run {name} is in progress").format(name=runner.run.name)
        raise PanelError(message, _("Pause it, or wait for its end."), "config")


def root():
    """Return the folder where runs are kept; made when the first one starts."""
    return os.path.join(os.path.expanduser("~"), "MedEnhance", "runs")


def choiceText(run):
    """Name a run in a list, which may have no room for all of a long name."""
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.record["created"]))
    return f"{_stateText(run.state)}, {begun}: {run.name}"


def _stateText(state):
    """Return the texts for a run's state; one that nobody ended was interrupted."""
    texts = {
        "running": _("interrupted"),
        "paused": _("paused"),
        "failed": _("failed"),
        "cancelled": _("cancelled"),
        "done": _("done"),
    }
    return texts.get(state, state)


def runText(run):
    lines = [
        _("{name}: {state} after {time}.").format(
            name=run.name, state=_stateText(run.state), time=duration_text(run.record["seconds"])
        ),
        run.record.get("error", ""),
        _("Its folder is {folder}").format(folder=run.folder),
    ]
    if run.kind == "distill" and run.state == "done":
        counts = {"volumes": "?", "patients": "?", "held_out": "?"} | run.manifest()
        lines.append(
            _(
                "{volumes} volumes from {patients} patients; {held_out} patients were held out. "
                "The volumes are for training only: structures that look like organs may not exist "
                "in any patient."
            ).format(**counts)
        )
    if os.path.isdir(run.confidential):
        warning = _("Do not share {folder}: it has pictures and names of patients.")
        lines.append(warning.format(folder=run.confidential))
    return "\n".join(filter(None, lines))
