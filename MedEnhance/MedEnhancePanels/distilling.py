"""Distillations of cohorts, as runs that outlive Slicer: of whom, from what, and how they start.

Volumes of the scene are copied into the run's folder, a folder for each patient, under numbers.
Which number is whose is told by attributes of the nodes alone, where the names are anyway.
"""

import os
import re
from dataclasses import dataclass

from slicer.i18n import tr as _

from MedEnhancePanels import bridge, longrun
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.members import membersOfScene
from MedEnhancePanels.runfolder import Run

MODALITIES = ("MR", "CT")
#: Priors that are a patient of the cohort, whom every image then shows.
EXPOSING = ("patient", "representative")
#: Of a volume node: the run that it was copied for, and the number of its patient there.
_NUMBER_ATTRIBUTE = "MedEnhance.distilledAs"
_NUMBER = re.compile(r"\bpatient-\d{3}\b")
#: The library distils nobody of whom there are fewer slices, however few images are wished.
_LEAST_SLICES = 4
#: With fewer patients nobody can be held out and compared with.
_FEW_PATIENTS = 4


@dataclass(frozen=True)
class DistillOptions:
    """What is distilled, and how long; nothing of it names a patient.

    task: "denoise", "sr2", "sr4" or "undersample". images: of each patient. heldOut: share of the
    patients kept for the audit. modality: "MR", "CT", or "auto": as the volumes say. budget: a
    preset, "smoke", "cpu" or "full". name: of the run. device: "auto", "cpu", "cuda" or "mps".
    """

    name: str
    task: str = "denoise"
    images: int = 10
    heldOut: float = 0.2
    modality: str = "auto"
    budget: str = "cpu"
    device: str = "auto"


@dataclass(frozen=True)
class Prior:
    """What all images start from and stay near.

    kind: "template" (a public average, for MR), "scene" (node), "file" (path), "patient" (patient:
    a name of the cohort) or "representative" (the most typical patient).
    """

    kind: str = "template"
    patient: str = ""
    path: str = ""
    node: object = None

    @property
    def exposes(self):
        """Whether a patient of the cohort is recognisable in every image by construction."""
        return self.kind in EXPOSING


@dataclass(frozen=True)
class PathCohort:
    """What lies at a path: a folder for each patient, DICOM, or a table. pattern: of file names."""

    path: str
    pattern: str = "*"


def used(members):
    """The volumes of a cohort of the scene that are not left out."""
    return [member for member in members if member.role == "use"]


def patientsOf(members):
    """The names of the patients who are distilled or held out, in order."""
    return sorted({member.patient for member in used(members)})


def modalityOf(members, options):
    """ "MR" or "CT": as the user says, or as all volumes of the scene do; else ""."""
    if options.modality in MODALITIES:
        return options.modality
    found = {bridge.modalityOf(member.node) for member in used(members)}
    return found.pop() if len(found) == 1 and found <= set(MODALITIES) else ""


def whyNot(cohort, prior, options):
    """What is missing before a distillation can start, in a sentence, or nothing.

    cohort: a PathCohort, or a list of Member.
    """
    if isinstance(cohort, PathCohort):
        problem, modality = _pathProblem(cohort), options.modality
    else:
        problem, modality = _sceneProblem(cohort, options), modalityOf(cohort, options)
    return problem or _taskProblem(prior, options, modality) or _priorProblem(prior, cohort)


def _pathProblem(cohort):
    path = cohort.path
    if os.path.isdir(path) or (path.lower().endswith(".csv") and os.path.isfile(path)):
        return ""
    return _("Choose a folder of patients, a folder of DICOM, or a table (CSV: patient, path).")


def _sceneProblem(members, options):
    chosen = used(members)
    if not chosen:
        return _("Take at least one volume of a patient.")
    homeless = [member.node.GetName() for member in chosen if not member.patient]
    if homeless:
        return _(
            "{names}: nothing says whose they are. Put them under patients in the subject "
            "hierarchy, or leave them out."
        ).format(names=", ".join(homeless))
    if not modalityOf(members, options):
        return _(
            "The volumes are not all MR, nor all CT: leave the others out, or say below what they "
            "are."
        )
    return _slicesProblem(chosen, max(options.images, _LEAST_SLICES))


def _slicesProblem(chosen, least):
    slices = {}
    for member in chosen:
        count = member.node.GetImageData().GetDimensions()[2]
        slices[member.patient] = slices.get(member.patient, 0) + count
    few = [name for name, count in slices.items() if count < least]
    if few:
        return _(
            "{name} has {count} slices; at least {least} are needed. Leave the patient out, or ask "
            "for fewer images of each."
        ).format(name=few[0], count=slices[few[0]], least=least)
    return ""


def _taskProblem(prior, options, modality):
    if modality == "CT" and options.task == "undersample":
        return _("Undersampling is a task of MR: choose another one.")
    if modality == "CT" and prior.kind == "template":
        return _(
            "There is no public template of CT: choose a volume that may be shared, or a patient "
            "who consented to be recognised."
        )
    return "" if options.name.strip() else _("Give the run a name.")


def _priorProblem(prior, cohort):
    if prior.kind == "file" and not os.path.isfile(prior.path):
        return _("Choose the file of the prior.")
    if prior.kind == "scene":
        if not bridge.isInScene(prior.node):
            return _("Choose the volume of the prior.")
        isOfCohort = not isinstance(cohort, PathCohort) and any(
            member.node is prior.node for member in used(cohort)
        )
        if isOfCohort:  # the audit has to know whom the images show
            return _(
                "The prior is a volume of the cohort: choose “A patient of the cohort” for it, or "
                "leave it out of the cohort."
            )
    if prior.kind == "patient":
        if not prior.patient.strip():
            return _("Choose the patient who is the prior.")
        if not isinstance(cohort, PathCohort) and prior.patient not in patientsOf(cohort):
            return _("The cohort has no patient {name}.").format(name=prior.patient)
    return ""


def doubtsAbout(cohort, prior, options):
    """What the user should know before a long run, as sentences."""
    doubts = []
    if prior.kind == "scene" or prior.kind == "file":
        doubts.append(
            _(
                "Every image will show the prior's anatomy: take a volume that is public, or whose "
                "patient consented."
            )
        )
    if prior.exposes:
        doubts.append(
            _("Every image will show a patient of the cohort, who can be recognised in it.")
        )
    if options.heldOut == 0:
        doubts.append(_("Nobody is held out: the audit has nobody to compare with."))
    elif not isinstance(cohort, PathCohort) and 0 < len(patientsOf(cohort)) < _FEW_PATIENTS:
        doubts.append(_("On so few patients the audit can tell hardly anything."))
    return doubts


def start(runner, root, cohort, prior, options):
    """Begin a distillation in a new folder below `root`; returns a LongRun.

    cohort: a PathCohort, or a list of Member whose volumes are copied into the run's folder.
    """
    longrun.checkIdle()
    if why := whyNot(cohort, prior, options):
        raise PanelError(_("The cohort cannot be distilled"), why, "input")
    members = [] if isinstance(cohort, PathCohort) else used(cohort)
    run = Run.create(root, options, "distill")
    numbers = _numbersOf(members)
    run.record["params"] = _params(run, options, prior, cohort, numbers)
    copies = _copies(run, members, numbers, prior)
    if not copies:
        run.record["state"] = "running"
    run.save()
    return longrun.begin(runner, run, (lambda job: _send(job, run, copies)) if copies else None)


def _params(run, options, prior, cohort, numbers):
    """The job's parameters, as docs/jobs.md says."""
    isPath = isinstance(cohort, PathCohort)
    named = {
        "file": prior.path,
        "scene": _priorCopy(run),
        "patient": f"patient:{numbers.get(prior.patient, prior.patient)}",
    }
    return {
        "cohort": cohort.path if isPath else os.path.join(run.folder, "data"),
        "pattern": (cohort.pattern.strip() or "*") if isPath else "*",
        "modality": options.modality if options.modality in MODALITIES else None,
        "out": run.out,
        "config": _config(options) | {"prior": named.get(prior.kind, prior.kind)},
    }


def _config(options):
    return {
        "preset": options.budget,
        "task": options.task,
        "images_per_patient": int(options.images),
        "held_out": float(options.heldOut),
        "device": options.device,
    }


def estimateParams(cohort, prior, options):
    """The parameters of a `distill-estimate` job about the same distillation."""
    config = _config(options)
    if isinstance(cohort, PathCohort):
        if prior.kind == "patient":
            config["prior"] = f"patient:{prior.patient}"
        stated = options.modality if options.modality in MODALITIES else None
        whom = {"cohort": cohort.path, "pattern": cohort.pattern.strip() or "*", "modality": stated}
    else:
        if prior.kind == "patient":
            config["prior"] = f"patient:{_numbersOf(cohort)[prior.patient]}"
        whom = {"patients": len(patientsOf(cohort)), "modality": modalityOf(cohort, options)}
    return {"config": config, **whom}


def _numbersOf(members):
    """What patients are called in a run, by name."""
    return {name: f"patient-{place:03d}" for place, name in enumerate(patientsOf(members))}


def _priorCopy(run):
    return os.path.join(run.folder, "prior", "prior.nrrd")


def _copies(run, members, numbers, prior):
    """(node, path) of each volume of the scene that the run needs; marks whose number is whose."""
    copies = []
    for place, member in enumerate(members):
        number = numbers[member.patient]
        member.node.SetAttribute(_NUMBER_ATTRIBUTE, f"{os.path.basename(run.folder)}/{number}")
        copies.append((member.node, os.path.join(run.folder, "data", number, f"{place:03d}.nrrd")))
    if prior.kind == "scene":
        copies.append((prior.node, _priorCopy(run)))
    return copies


def _send(_job, run, copies):
    """Copy the volumes into the run's folder, under numbers: no name of a patient gets there."""
    for place, (node, path) in enumerate(copies):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        source = os.path.splitext(os.path.basename(path))[0]
        for fraction in bridge.sendVolume(node, path, source=source):
            yield (place + fraction) / len(copies)
    run.record["state"] = "running"
    run.save()


def namesIn(run):
    """Names of patients by their number in a run, as far as the scene still knows."""
    names = {}
    for member in membersOfScene("distill"):
        name, _slash, number = (member.node.GetAttribute(_NUMBER_ATTRIBUTE) or "").partition("/")
        if name == os.path.basename(run.folder) and member.patient:
            names[number] = member.patient
    return names


def withNames(run, text):
    """A message of a run with the patients' names in place of their numbers."""
    names = namesIn(run) if _NUMBER.search(text) else {}
    return _NUMBER.sub(lambda found: names.get(found[0], found[0]), text)
