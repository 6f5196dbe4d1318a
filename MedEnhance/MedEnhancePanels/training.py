"""Trainings that outlive Slicer: a run is a folder, and its job may be started again and again.

    start → (pause → resume)* → done

Everything that a run needs lies in its folder: see trainingrun.py.
"""

import glob
import os
import shutil
import time
from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from MedEnhancePanels import bridge
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.trainingrun import Run

#: The attribute of a volume node that says what it is used as: "high", "low" or "none".
ROLE_ATTRIBUTE = "MedEnhance.trainAs"


@dataclass(frozen=True)
class Member:
    """A volume of the cohort. role: "high" to learn from, "low" for ordinary quality, "none"."""

    patient: str
    node: object
    role: str


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


def membersOfScene():
    """Every single scalar volume of the scene with its patient, as the subject hierarchy has it."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    members = []
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        isPicture = node.GetImageData() is not None and not node.GetHideFromEditors()
        if not isPicture or node.IsA("vtkMRMLLabelMapVolumeNode"):
            continue
        patient = _patientOf(hierarchy, node)
        preset = "high" if patient and _isOriginal(node) else "none"
        members.append(Member(patient, node, node.GetAttribute(ROLE_ATTRIBUTE) or preset))
    return sorted(members, key=lambda member: (member.patient, member.node.GetName()))


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


def _isOriginal(node):
    """Whether a volume is neither a result, nor in part, nor without loss."""
    marks = ("MedEnhance.derived", "MedEnhance.history", "MedEnhance.preview")
    return not any(node.GetAttribute(mark) for mark in marks)


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


def defaultRoot():
    """Where runs are kept unless the user says otherwise; made when the first one starts."""
    return os.path.join(os.path.expanduser("~"), "MedEnhance", "runs")


def patternsOf(text):
    """Patterns of files that a user wrote with commas between them."""
    return tuple(pattern.strip() for pattern in text.split(",") if pattern.strip())


class Training:
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
            shutil.rmtree(os.path.join(self.run.folder, "data"), ignore_errors=True)
        record["state"] = self._endsAs if job.state == "cancelled" else job.state
        if job.started is not None:
            record["seconds"] += job.ended - job.started
        record["error"] = job.error.text if job.state == "failed" else ""
        if job.state == "done":
            record["model"] = job.result["outputs"]["model"]
        if os.path.isdir(self.run.folder):
            self.run.save()


def start(runner, root, cohort, options):
    """Begin a training in a new folder below `root`; returns a Training.

    cohort: a FolderCohort, or a list of Member whose volumes are copied into the run's folder.
    """
    _checkIdle()
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
    return _submit(runner, run, before)


def resume(runner, folder):
    """Go on with a run from its last checkpoint; returns a Training."""
    _checkIdle()
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
    return _submit(runner, run, None)


def _settleIn(run):
    """Let a run work where its folder is now: it may have been moved, or come from elsewhere."""
    params = run.record["params"]
    before, params["out"] = os.path.dirname(params["out"]), os.path.join(run.folder, "out")
    if params["data"] == os.path.join(before, "data"):
        params["data"] = os.path.join(run.folder, "data")


def current():
    """The Training that runs now, whoever started it, or None."""
    return _current if _current is not None and not _current.job.isFinished else None


#: One at a time: a second one would only take the first one's processors.
_current = None


def _submit(runner, run, before):
    global _current
    title = _("Train {name}").format(name=run.name)
    job = runner.submit("train", run.record["params"], title=title, before=before, own=True)
    _current = Training(run, job)
    return _current


def _checkIdle():
    running = current()
    if running is not None:
        raise PanelError(
            _("{name} is being trained").format(name=running.run.name),
            _("Pause it, or wait for its end."),
            "config",
        )


def _sendCohort(_job, run, members):
    """Copy the volumes into the run's folder, under numbers: no name of a patient gets there."""
    for index, member in enumerate(members):
        pool = "hq" if member.role == "high" else "lq"
        folder = os.path.join(run.folder, "data", pool)
        os.makedirs(folder, exist_ok=True)
        for fraction in bridge.sendVolume(member.node, os.path.join(folder, f"{index:03d}.nrrd")):
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


def _patientOf(hierarchy, node):
    """The name of the patient that a volume belongs to, or of its outermost folder, or nothing."""
    item = hierarchy.GetItemByDataNode(node)
    patient = hierarchy.GetItemAncestorAtLevel(item, "Patient") if item else 0
    if not patient and item:
        patient, parent = 0, hierarchy.GetItemParent(item)
        while parent and parent != hierarchy.GetSceneItemID():
            patient, parent = parent, hierarchy.GetItemParent(parent)
    return hierarchy.GetItemName(patient) if patient else ""
