"""Runs that outlive Slicer: a training or a distillation, kept in a folder of its own.

    start → (pause → resume)* → done

`run.json` says what it is and how far it came, `out` holds the checkpoint and in the end the
result, `metrics.csv` the losses. What must not be passed on with a distillation lies in
`out-confidential`. training.py and distillation.py start them.
"""

import csv
import glob
import json
import os
import time
from dataclasses import asdict

from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.job import durationText

RUN_FILE, METRICS_FILE = "run.json", "metrics.csv"
#: Kinds of runs, which are kinds of jobs, and the parameter that says where the cohort is.
COHORT_PARAM = {"train": "data", "distill": "cohort"}
#: States from which a run can be resumed; "running" remains after a crash.
_UNFINISHED = ("running", "paused", "failed")
#: What every run.json holds.
_RECORD = {"name": str, "state": str, "created": (int, float), "seconds": (int, float)}


class Run:
    """A training or a distillation, in a folder on the disk."""

    def __init__(self, folder, record):
        self.folder, self.record = str(folder), record

    @classmethod
    def create(cls, root, options, kind="train"):
        """A new folder below `root`, named after the run and the time.

        kind: "train" or "distill". options: a dataclass with a `name`.
        """
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in options.name).strip("-")[:64]
        if not name:
            raise PanelError(_("The run has no name"), _("Give it one."), "config")
        base = os.path.join(root, time.strftime(f"{name}-%Y%m%d-%H%M%S"))
        folder, number = base, 2
        while os.path.exists(folder):
            folder, number = f"{base}-{number}", number + 1
        try:
            os.makedirs(os.path.join(folder, "out"))
        except OSError as cause:
            raise PanelError(
                _("{folder} cannot be created: {why}").format(folder=folder, why=cause.strerror),
                _("Choose another folder for runs."),
                "output",
            ) from cause
        record = {
            "v": 1,
            "kind": kind,
            "name": name,
            "state": "running",
            "created": time.time(),
            "seconds": 0.0,
            "options": asdict(options) | {"name": name},
        }
        return cls(folder, record)

    @classmethod
    def open(cls, folder):
        """A run that was begun before; raises PanelError for a folder that holds none."""
        try:
            with open(os.path.join(folder, RUN_FILE), encoding="utf-8") as file:
                record = json.load(file)
            if record["v"] != 1:
                raise ValueError(record["v"])
            _checkRecord(record)
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as cause:
            raise PanelError(
                _("{folder} contains no readable run").format(folder=folder),
                _("Choose the folder of a run."),
                "input",
                str(cause),
            ) from cause
        return cls(folder, record)

    def save(self):
        """Write run.json, whole or not at all."""
        path = os.path.join(self.folder, RUN_FILE)
        with open(f"{path}.part", "w", encoding="utf-8") as file:
            json.dump(self.record, file, indent=1)
        os.replace(f"{path}.part", path)

    @property
    def kind(self):
        """What is made: "train" or "distill"."""
        return self.record["kind"]

    @property
    def out(self):
        """The folder of the results."""
        return os.path.join(self.folder, "out")

    @property
    def confidential(self):
        """The folder for files of a distillation that show or name patients."""
        return os.path.join(self.folder, "out-confidential")

    @property
    def name(self):
        return self.record["name"]

    @property
    def state(self):
        return self.record["state"]

    @property
    def isResumable(self):
        """Whether it has all it needs and has not ended."""
        return self.state in _UNFINISHED and "params" in self.record

    def attacks(self):
        """How many attacks of a distillation's audit could have found a leak, and of how many.

        None: the audit's figures are not there.
        """
        audit = _jsonIn(os.path.join(self.out, "audit", "audit.json"))
        found, others = audit.get("findings"), audit.get("not_run")
        if not isinstance(found, list) or not isinstance(others, list):
            return None
        could = sum(isinstance(one, dict) and one.get("is_blind") is False for one in found)
        return could, len(found) + len(others)

    @property
    def modelFolder(self):
        """The folder of the trained model, or ""."""
        return self.record.get("model", "")

    def metrics(self):
        """What was measured so far: (name, value, step), oldest first."""
        try:
            with open(
                os.path.join(self.folder, METRICS_FILE), newline="", encoding="utf-8"
            ) as file:
                rows = list(csv.reader(file))
        except FileNotFoundError:
            return []
        metrics = []
        for row in rows:
            try:
                step, name, value = row
                metrics.append((name, float(value), int(step)))
            except ValueError:  # a line that a crash or a full disk cut short
                continue
        return metrics

    def keepMetric(self, name, value, step):
        with open(
            os.path.join(self.folder, METRICS_FILE), "a", newline="", encoding="utf-8"
        ) as file:
            csv.writer(file).writerow([step, name, value])

    def pictures(self, folder="**"):
        """Paths of the pictures that the run left below out/, or in a folder there."""
        return picturesIn(os.path.join(glob.escape(self.out), folder))

    def manifest(self):
        """The manifest of a distillation's result; empty if there is none that can be read."""
        return _jsonIn(os.path.join(self.out, "manifest.json"))


def _jsonIn(path):
    """The object in a file; an empty one where there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            fields = json.load(file)
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


def picturesIn(pattern):
    """Paths of the pictures in the folders that a pattern names, in order."""
    return sorted(glob.glob(os.path.join(pattern, "*.png"), recursive=True))


def runsIn(root):
    """The runs below a folder that can go on, newest first."""
    runs = []
    for path in glob.glob(os.path.join(glob.escape(root), "*", RUN_FILE)):
        try:
            run = Run.open(os.path.dirname(path))
        except PanelError:  # a damaged record hides its run, not the others
            continue
        if run.isResumable:
            runs.append(run)
    return sorted(runs, key=lambda run: -run.record["created"])


def _checkRecord(record):
    """Raise KeyError, TypeError or ValueError for what is not a run."""
    for field, kinds in _RECORD.items():
        if not isinstance(record[field], kinds):
            raise TypeError(f"{field} is {record[field]!r}")
    time.localtime(record["created"])
    cohort = COHORT_PARAM[record["kind"]]
    params = record.get("params")
    if params is not None and not all(isinstance(params[name], str) for name in (cohort, "out")):
        raise TypeError(f"params lack {cohort} or out")


class LongRun:
    """A run together with the job that works on it now."""

    def __init__(self, run, job):
        self.run, self.job = run, job
        self._endsAs = "paused"
        job.onEvent(self._onEvent)
        job.onFinished(self._onFinished)

    def pause(self):
        """Stop after a checkpoint; `resume` goes on from there."""
        self.job.cancel()

    def cancel(self):
        """Stop permanently; the folder is kept."""
        self._endsAs = "cancelled"
        self.job.cancel()

    def _onEvent(self, _job, name, fields):
        if name == "metric" and fields.get("value") is not None:
            self.run.keepMetric(fields["name"], fields["value"], fields["step"])

    def _onFinished(self, job):
        record = self.run.record
        record["state"] = self._endsAs if job.state == "cancelled" else job.state
        if job.started is not None:
            record["seconds"] += job.ended - job.started
        record["error"] = job.error.text if job.state == "failed" else ""
        if job.state == "done" and self.run.kind == "train":
            record["model"] = job.result["outputs"]["model"]
        if os.path.isdir(self.run.folder):
            self.run.save()


def begin(runner, run):
    """Save a run, and work on it from now on; returns a LongRun."""
    run.record["state"] = "running"
    run.save()
    texts = {"train": _("Train {name}"), "distill": _("Distill {name}")}
    title = texts[run.kind].format(name=run.name)
    job = runner.submit(run.kind, run.record["params"], title=title, own=True)
    runner.longRun = LongRun(run, job)
    return runner.longRun


def resume(runner, folder):
    """Go on with a run from its last checkpoint; returns a LongRun."""
    checkIdle(runner)
    run = Run.open(folder)
    if not run.isResumable:
        raise PanelError(
            _("{name} cannot be resumed: it is {state}").format(name=run.name, state=run.state),
            _("Start a new run."),
            "config",
        )
    run.record["params"]["out"] = run.out  # its folder may have been moved
    return begin(runner, run)


def current(runner):
    """The LongRun in progress, or None; only one, as a second would compete for the processors."""
    running = runner.longRun
    return running if running is not None and not running.job.isFinished else None


def checkIdle(runner):
    """Raise PanelError while a run is in progress."""
    running = current(runner)
    if running is not None:
        texts = {"train": _("{name} is being trained"), "distill": _("{name} is being distilled")}
        raise PanelError(
            texts[running.run.kind].format(name=running.run.name),
            _("Pause it, or wait for its end."),
            "config",
        )


def defaultRoot():
    """Where runs are kept unless the user says otherwise; made when the first one starts."""
    return os.path.join(os.path.expanduser("~"), "MedEnhance", "runs")


def choiceText(run):
    """A run in a list of runs that can go on."""
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.record["created"]))
    texts = {
        "train": _("{name}, training started {time}, {state}"),
        "distill": _("{name}, distillation started {time}, {state}"),
    }
    return texts[run.kind].format(name=run.name, time=begun, state=stateText(run.state))


def stateText(state):
    """The texts for a run's state; one that nobody ended was interrupted."""
    texts = {
        "running": _("interrupted"),
        "paused": _("paused"),
        "failed": _("failed"),
        "cancelled": _("cancelled"),
        "done": _("done"),
    }
    return texts.get(state, state)


def runText(run):
    """How a run ended, and where its results are."""
    spent = durationText(run.record["seconds"])
    first = _("{name}: {state} after {time}.").format(
        name=run.name, state=stateText(run.state), time=spent
    )
    lines = [first]
    if run.record.get("error"):
        lines.append(run.record["error"])
    if run.modelFolder:
        lines.append(_("The model is in {folder}.").format(folder=run.modelFolder))
    elif run.kind == "distill" and run.state == "done":
        lines.append(_madeText(run.manifest()))
    elif run.isResumable:
        lines.append(_("Resume continues from its last checkpoint."))
    else:
        lines.append(_("Its folder is kept: {folder}").format(folder=run.folder))
    return "\n".join(lines)


def _madeText(manifest):
    return _(
        "{images} images from {patients} patients; {held} patients were held out. The images are "
        "for training only: structures that look like organs may not exist in any patient."
    ).format(
        images=manifest.get("images", "?"),
        patients=manifest.get("patients", "?"),
        held=manifest.get("held_out", "?"),
    )


def progressText(status):
    """How far a distillation is, from the fields of a `distill-status` job."""
    share = _("{percent} % done").format(percent=int(100 * (status.get("fraction") or 0.0)))
    if "done" not in status:
        return f"{share}."
    return _("{share}: {done} of {patients} patients.").format(
        share=share, done=status["done"], patients=status["patients"]
    )
