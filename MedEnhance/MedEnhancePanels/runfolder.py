"""A run as it lies on the disk: a folder that says all of itself.

A run is a training or a distillation. `run.json` says what it is and how far, `data` holds volumes
of the scene that it learns from, `out` the checkpoint and in the end what was made, `metrics.csv`
the losses. What must not be passed on with a distillation lies in `out-confidential`.
"""

import csv
import glob
import json
import os
import time
from dataclasses import asdict

from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError

RUN_FILE, METRICS_FILE = "run.json", "metrics.csv"
#: Kinds of runs, which are kinds of jobs, and the parameter that says where the cohort is.
COHORT_PARAM = {"train": "data", "distill": "cohort"}
#: States from which a run can go on; "running" is one that nobody ended, as after a crash.
_UNFINISHED = ("running", "paused", "failed")
#: What every run.json holds.
_RECORD = {"name": str, "state": str, "created": (int, float), "seconds": (int, float)}


class Run:
    """A training or a distillation as it lies on the disk."""

    def __init__(self, folder, record):
        self.folder, self.record = str(folder), record

    @classmethod
    def create(cls, root, options, kind="train"):
        """A new folder below `root`, named after what is made and the time.

        kind: "train" or "distill". options: a dataclass with a `name`.
        """
        name = "".join(c if c.isalnum() or c in "-_" else "-" for c in options.name).strip("-")
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
                _("{folder} cannot be made: {why}").format(folder=folder, why=cause.strerror),
                _("Choose another place to keep runs in."),
                "output",
            ) from cause
        record = {
            "v": 1,
            "kind": kind,
            "name": name,
            "state": "preparing",
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
                _("{folder} holds no run that can be read").format(folder=folder),
                _("Choose the folder that a run was started in."),
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
        """What is made: "train" or "distill"; the first runs that there were do not say."""
        return self.record.get("kind", "train")

    @property
    def out(self):
        """The folder of what is made."""
        return os.path.join(self.folder, "out")

    @property
    def confidential(self):
        """Where a distillation puts what shows and names patients."""
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

    @property
    def modelFolder(self):
        """Where the trained model lies, or an empty text."""
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
        """What a distillation tells of its result; empty where there is none that can be read."""
        try:
            with open(os.path.join(self.out, "manifest.json"), encoding="utf-8") as file:
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
    """Raise KeyError, TypeError or ValueError for what is not a run of ours."""
    for field, kinds in _RECORD.items():
        if not isinstance(record[field], kinds):
            raise TypeError(f"{field} is {record[field]!r}")
    time.localtime(record["created"])
    cohort = COHORT_PARAM[record.get("kind", "train")]
    params = record.get("params")
    if params is not None and not all(isinstance(params[name], str) for name in (cohort, "out")):
        raise TypeError(f"params lack {cohort} or out")
