"""Trainings of enhancers, as runs that outlive Slicer: what they learn from, and how they start."""

import glob
import os
from dataclasses import dataclass

from slicer.i18n import tr as _

from MedEnhancePanels import bridge, longrun
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.runfolder import Run


@dataclass(frozen=True)
class TrainingOptions:
    """What is trained, and how long.

    modality: "MR" or "CT". budget: a preset, "smoke", "cpu" or "full"; steps: 0 takes the
    budget's. name: of the model. device: "auto", "cpu", "cuda" or "mps".
    """

    name: str
    modality: str = "MR"
    budget: str = "cpu"
    steps: int = 0
    device: str = "auto"


@dataclass(frozen=True)
class FolderCohort:
    """Files below a folder as they are; high, low: patterns relative to it, low may be empty."""

    folder: str
    high: tuple = ("hq/*",)
    low: tuple = ("lq/*",)


def doubtsAbout(members, modality):
    """What the user should know of a cohort before a long training, as sentences.

    modality: what is trained for, "MR" or "CT".
    """
    doubts = []
    used = [member for member in members if member.role != "none"]
    others = [m.node.GetName() for m in used if bridge.modalityOf(m.node) not in (modality, "OT")]
    if others:
        doubts.append(
            _("{names}: not {modality}, so better left out.").format(
                names=", ".join(others), modality=modality
            )
        )
    patients = {role: {m.patient for m in members if m.role == role} for role in ("high", "low")}
    both = sorted(patients["high"] & patients["low"] - {""})
    if both:
        doubts.append(
            _("{names}: good and poor images should come from different patients.").format(
                names=", ".join(both)
            )
        )
    if any(not member.patient for member in members if member.role != "none"):
        doubts.append(_("Volumes without a patient in the subject hierarchy count as one patient."))
    return doubts


def whyNotTrainable(members, modality):
    """Why a cohort of the scene cannot be learnt from, or nothing."""
    high = [member for member in members if member.role == "high"]
    if not high:
        return _("Mark at least one volume of the cohort as good.")
    if all(bridge.modalityOf(member.node) not in (modality, "OT") for member in high):
        return _("None of the good volumes is {modality}.").format(modality=modality)
    if {m.patient for m in high} & {m.patient for m in members if m.role == "low"}:
        return _(
            "Good and poor volumes have to come from different patients: put them under patients "
            "in the subject hierarchy, or leave the poor ones out."
        )
    return ""


def patternsOf(text):
    """Patterns of files that a user wrote with commas between them."""
    return tuple(pattern.strip() for pattern in text.split(",") if pattern.strip())


def start(runner, root, cohort, options):
    """Begin a training in a new folder below `root`; returns a LongRun.

    cohort: a FolderCohort, or a list of Member whose volumes are copied into the run's folder.
    """
    longrun.checkIdle()
    isFolder = isinstance(cohort, FolderCohort)
    members = [] if isFolder else [member for member in cohort if member.role != "none"]
    if isFolder:
        _checkFolder(cohort)
    elif why := whyNotTrainable(members, options.modality):
        raise PanelError(_("The cohort cannot be learnt from"), why, "input")
    run = Run.create(root, options)
    run.record["params"] = _params(run, options, cohort if isFolder else members)
    if isFolder:
        run.record["state"] = "running"
    run.save()
    before = None if isFolder else lambda job: _sendCohort(job, run, members)
    return longrun.begin(runner, run, before)


def _sendCohort(_job, run, members):
    """Copy the volumes into the run's folder, under numbers: no name of a patient gets there."""
    for index, member in enumerate(members):
        pool = "hq" if member.role == "high" else "lq"
        folder = os.path.join(run.folder, "data", pool)
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"{index:03d}.nrrd")
        for fraction in bridge.sendVolume(member.node, path, source=f"{index:03d}"):
            yield (index + fraction) / len(members)
    run.record["state"] = "running"
    run.save()


def _params(run, options, cohort):
    """The job's parameters, as docs/jobs.md says."""
    if isinstance(cohort, FolderCohort):
        data, high, low, said = cohort.folder, list(cohort.high), list(cohort.low), _("a folder")
    else:
        data, high = os.path.join(run.folder, "data"), ["hq/*"]
        low = ["lq/*"] if any(member.role == "low" for member in cohort) else []
        patients = len({member.patient for member in cohort})
        said = _("{patients} patients, {volumes} volumes").format(
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
            {"name": _("local cohort"), "subjects": said, "licence": _("not stated"), "source": ""}
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
                    _("{folder}: no file is named {pattern}").format(
                        folder=cohort.folder or _("The folder"), pattern=pattern
                    ),
                    _("Choose another folder, or change the pattern."),
                    "input",
                )
    if not cohort.high:
        raise PanelError(_("No pattern for good images"), _("Give one, such as hq/*."), "config")
