"""Trainings of enhancers: the cohort, checks before the start, and the start of a run."""

import glob
import os
from dataclasses import dataclass

from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge
from MedEnhancePanels.nodes.cautions import modalityName
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


def warningsAbout(members, modality):
    """What the user should know of a cohort before a long training, as sentences.

    modality: what is trained for, "MR" or "CT".
    """
    warnings = []
    used = [member for member in members if member.role != "none"]
    others = [m.node.GetName() for m in used if bridge.modalityOf(m.node) not in (modality, "OT")]
    if others:
        warnings.append(
            _("{names}: not {modality}; better leave them out.").format(
                names=", ".join(others), modality=modalityName(modality)
            )
        )
    patients = {role: {m.patient for m in members if m.role == role} for role in ("high", "low")}
    both = sorted(patients["high"] & patients["low"] - {""})
    if both:
        warnings.append(
            _("{names}: good and poor images should come from different patients.").format(
                names=", ".join(both)
            )
        )
    if any(not member.patient for member in members if member.role != "none"):
        warnings.append(
            _("Volumes without a patient in the subject hierarchy count as one patient.")
        )
    return warnings


def whyNotTrainable(members, modality):
    """Why a cohort of the scene cannot be learned from, or nothing."""
    high = [member for member in members if member.role == "high"]
    if not high:
        return _("Mark at least one volume of the cohort as good.")
    if all(bridge.modalityOf(member.node) not in (modality, "OT") for member in high):
        return _("None of the good volumes is {modality}.").format(modality=modalityName(modality))
    if {m.patient for m in high} & {m.patient for m in members if m.role == "low"}:
        return _(
            "Good and poor volumes must come from different patients: assign them to patients in "
            "the subject hierarchy, or leave the poor ones out."
        )
    return ""


def patternsOf(text):
    """Patterns of files that a user wrote with commas between them."""
    return tuple(pattern.strip() for pattern in text.split(",") if pattern.strip())


def start(runner, root, cohort, options):
    """Begin a training in a new folder below `root`; returns a LongRun.

    cohort: a FolderCohort, or a list of Member whose volumes are copied into the run's folder.
    """
    long_run.checkIdle(runner)
    isFolder = isinstance(cohort, FolderCohort)
    members = [] if isFolder else [member for member in cohort if member.role != "none"]
    if isFolder:
        _checkFolder(cohort)
    elif why := whyNotTrainable(members, options.modality):
        raise PanelError(_("No model can be trained on this cohort"), why, "input")
    run = Run.create(root, options)
    run.record["params"] = _params(run, options, cohort if isFolder else members)
    if isFolder:
        run.record["state"] = "running"
    run.save()
    pools = {"high": "hq", "low": "lq"}
    copies = [
        (member.node, os.path.join(run.folder, "data", pools[member.role], f"{index:03d}.nrrd"))
        for index, member in enumerate(members)
    ]
    return long_run.begin(runner, run, copies)


def _params(run, options, cohort):
    """The job's parameters, as docs/jobs.md says."""
    if isinstance(cohort, FolderCohort):
        data, high, low, subjects = (
            cohort.folder,
            list(cohort.high),
            list(cohort.low),
            _("a folder"),
        )
    else:
        data, high = os.path.join(run.folder, "data"), ["hq/*"]
        low = ["lq/*"] if any(member.role == "low" for member in cohort) else []
        patients = len({member.patient for member in cohort})
        subjects = _("{patients} patients, {volumes} volumes").format(
            patients=patients, volumes=len(cohort)
        )
    config = {
        "preset": options.budget,
        "modality": options.modality,
        "name": run.name,
        "device": options.device,
        "high_quality": high,
        "low_quality": low,
        "data": [
            {
                "name": _("local cohort"),
                "subjects": subjects,
                "licence": _("not stated"),
                "source": "",
            }
        ],
    }
    if options.steps:
        config["steps"] = int(options.steps)
    out = os.path.join(run.folder, "out")
    return {"method": "hqg", "config": config, "data": data, "out": out}


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
