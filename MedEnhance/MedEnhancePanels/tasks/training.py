"""Trainings of enhancers: the cohort, checks before the start, and the start of a run."""

import glob
import os
from dataclasses import dataclass

from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.tasks import long_run
from MedEnhancePanels.tasks.long_run import Run


@dataclass(frozen=True)
class TrainingOptions:
    """What is trained, and how long."""

    name: str  # of the model
    modality: str = "MR"  # or "CT"
    budget: str = "cpu"  # a preset: "smoke", "cpu" or "full"
    steps: int = 0  # 0: those of the budget
    device: str = "auto"  # or "cpu", "cuda", "mps"


@dataclass(frozen=True)
class FolderCohort:
    """Files below a folder as they are. high, low: patterns relative to it; low may be empty."""

    folder: str
    high: tuple = ("hq/*",)
    low: tuple = ("lq/*",)


def patternsOf(text):
    """Patterns of files that a user wrote with commas between them."""
    return tuple(pattern.strip() for pattern in text.split(",") if pattern.strip())


def start(runner, root, cohort, options):
    """Begin a training in a new folder below `root`; returns a LongRun.

    cohort: a FolderCohort.
    """
    long_run.checkIdle(runner)
    _checkFolder(cohort)
    run = Run.create(root, options)
    run.record["params"] = _params(run, options, cohort)
    return long_run.begin(runner, run)


def _params(run, options, cohort):
    """The job's parameters, as docs/jobs.md says."""
    config = {
        "preset": options.budget,
        "modality": options.modality,
        "name": run.name,
        "device": options.device,
        "high_quality": list(cohort.high),
        "low_quality": list(cohort.low),
        "data": [
            {
                "name": _("local cohort"),
                "subjects": _("a folder"),
                "licence": _("not stated"),
                "source": "",
            }
        ],
    }
    if options.steps:
        config["steps"] = int(options.steps)
    return {"method": "hqg", "config": config, "data": cohort.folder, "out": run.out}


def _checkFolder(cohort):
    for patterns in (cohort.high, cohort.low):
        for pattern in patterns:
            if not glob.glob(os.path.join(glob.escape(cohort.folder), pattern)):
                raise PanelError(
                    _("{folder}: no file matches {pattern}").format(
                        folder=cohort.folder or _("The folder"), pattern=pattern
                    ),
                    _("Choose another folder, or change the pattern."),
                    "input",
                )
    if not cohort.high:
        raise PanelError(
            _("There is no pattern for good images"), _("Enter one, such as hq/*."), "config"
        )
