"""Distillations of cohorts: members, prior, checks before the start, and the start of a run.

Volumes of the scene are copied into the run's folder, a folder for each patient, under numbers.
Only attributes of the nodes, which have the patients' names anyway, say which number is whose.
"""

import os
import re
from dataclasses import MISSING, dataclass

import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.spg.config import MODALITIES, DistillConfig
from MedEnhanceLib.spg.statistics import NUMBERS
from MedEnhancePanels import arguments
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge
from MedEnhancePanels.tasks import long_run
from MedEnhancePanels.tasks.long_run import Run

#: Attribute of volume nodes that says what they are used as, and its values: the first is the
#: default for originals of a patient, the last leaves a volume out.
ROLES = {
    "train": ("MedEnhance.trainAs", ("high", "low", "none")),
    "distill": ("MedEnhance.distillAs", ("use", "none")),
}
#: The kind of the job that measures what can be gained.
ROOM = "distill-room"
#: Priors that are a patient of the cohort, whom every image then shows.
EXPOSING = ("patient", "representative")
#: Of a volume node: the run that it was copied for, and the number of its patient there.
_NUMBER_ATTRIBUTE = "MedEnhance.distilledAs"
_NUMBER = re.compile(r"\bpatient-\d{3}\b")
#: The library distills no patient with fewer slices, however few images are requested.
_LEAST_SLICES = 4
#: With fewer patients none can be held out for comparison.
_FEW_PATIENTS = 4


class _DistillOptions:
    """What is distilled, and how long; without patient names.

    name: of the run. budget: a preset. modality: "auto" is what the volumes state.
    """

    def fields(self):
        """What is chosen of the configuration, as the job takes it."""
        return {"preset": self.budget} | arguments.fieldsOf(self, DistillConfig)


DistillOptions = arguments.optionsClass(
    "DistillOptions",
    DistillConfig,
    _DistillOptions,
    first=[("name", MISSING)],
    only=("task", "method", "images_per_patient", "held_out", "device", "licence"),
    budget="cpu",
    modality="auto",
)


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
        """Whether a patient of the cohort is recognizable in every image by construction."""
        return self.kind in EXPOSING


@dataclass(frozen=True)
class PathCohort:
    """The cohort at a path: a folder per patient, DICOM, or a table. pattern: of file names."""

    path: str
    pattern: str = "*"


@dataclass(frozen=True)
class Member:
    """A volume of the cohort. role: one of ROLES; "none" leaves it out."""

    patient: str
    node: object
    role: str


def membersOfScene(purpose="train"):
    """Every single scalar volume of the scene with its patient, as the subject hierarchy has it.

    purpose: a key of ROLES.
    """
    attribute, roles = ROLES[purpose]
    hierarchy = bridge.subjectHierarchy()
    members = []
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        isPicture = node.GetImageData() is not None and not node.GetHideFromEditors()
        if not isPicture or node.IsA("vtkMRMLLabelMapVolumeNode"):
            continue
        patient = _patientOf(hierarchy, node)
        preset = roles[0] if patient and _isOriginal(node) else "none"
        chosen = node.GetAttribute(attribute)
        members.append(Member(patient, node, chosen if chosen in roles else preset))
    return sorted(members, key=lambda member: (member.patient, member.node.GetName()))


def _isOriginal(node):
    """Whether a volume is neither a result, nor in part, nor without loss."""
    marks = ("MedEnhance.derived", "MedEnhance.history")
    return not any(node.GetAttribute(mark) for mark in marks)


def _patientOf(hierarchy, node):
    """The name of a volume's patient in the subject hierarchy, else of its outermost folder."""
    item = hierarchy.GetItemByDataNode(node)
    patient = hierarchy.GetItemAncestorAtLevel(item, "Patient") if item else 0
    if not patient and item:
        patient, parent = 0, hierarchy.GetItemParent(item)
        while parent and parent != hierarchy.GetSceneItemID():
            patient, parent = parent, hierarchy.GetItemParent(parent)
    return hierarchy.GetItemName(patient) if patient else ""


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
        return _("Choose at least one volume of a patient.")
    homeless = [member.node.GetName() for member in chosen if not member.patient]
    if homeless:
        return _(
            "{names}: the patient is not known. Assign them to patients in the subject hierarchy, "
            "or leave them out."
        ).format(names=", ".join(homeless))
    if not modalityOf(members, options):
        return _(
            "The volumes are neither all MR nor all CT: leave the others out, or choose the "
            "modality below."
        )
    return _slicesProblem(chosen, max(options.imagesPerPatient, _LEAST_SLICES))


def _slicesProblem(chosen, least):
    slices = {}
    for member in chosen:
        count = member.node.GetImageData().GetDimensions()[2]
        slices[member.patient] = slices.get(member.patient, 0) + count
    few = [name for name, count in slices.items() if count < least]
    if few:
        return _(
            "{name} has {count} slices; at least {least} are needed. Leave the patient out, or "
            "choose fewer images per patient."
        ).format(name=few[0], count=slices[few[0]], least=least)
    return ""


def _taskProblem(prior, options, modality):
    if modality == "CT" and options.task == "undersample":
        return _("Undersampling applies to MR only: choose another purpose.")
    if modality == "CT" and prior.kind == "template":
        return _(
            "There is no public template for CT: choose a volume that may be shared, or a patient "
            "who consented to being recognizable."
        )
    return "" if options.name.strip() else _("Give the run a name.")


def _priorProblem(prior, cohort):
    if prior.kind == "file" and not os.path.isfile(prior.path):
        return _("Choose the prior's file.")
    if prior.kind == "scene":
        if not bridge.isInScene(prior.node):
            return _("Choose the prior's volume.")
        isOfCohort = not isinstance(cohort, PathCohort) and any(
            member.node is prior.node for member in used(cohort)
        )
        if isOfCohort:  # the audit has to know whom the images show
            return _(
                "The prior is a volume of the cohort: choose “A patient of the cohort” as the "
                "prior, or leave the volume out of the cohort."
            )
    if prior.kind == "patient":
        if not prior.patient.strip():
            return _("Choose the patient who is the prior.")
        if not isinstance(cohort, PathCohort) and prior.patient not in patientsOf(cohort):
            return _("There is no patient {name} in the cohort.").format(name=prior.patient)
    return ""


def sharedText(prior, options):
    """What of the patients the result gives to whoever gets it, in a sentence or two."""
    matching = _("{count} images for each patient, made from that patient's images").format(
        count=options.imagesPerPatient
    )
    statistics = _("{count} numbers, which are means over all patients").format(count=NUMBERS)
    if prior.exposes:
        whose = _("and images of the prior, who is a patient of the cohort")
    else:
        whose = _("and no image of any of them")
    texts = {
        "matching": _("Will be shared: {matching}."),
        "statistics": _("Will be shared: {statistics}, {whose}."),
    }
    either = _("Will be shared, as the method turns out: {matching}; or {statistics}, {whose}.")
    return texts.get(options.method, either).format(
        matching=matching, statistics=statistics, whose=whose
    )


def warningsAbout(cohort, prior, options):
    """What the user should know before a long run, as sentences."""
    warnings = []
    if prior.kind == "scene" or prior.kind == "file":
        warnings.append(
            _(
                "Every image will show the prior's anatomy: use a public volume, or one whose "
                "patient consented."
            )
        )
    if prior.exposes:
        warnings.append(
            _("Every image will show a patient of the cohort, who can be recognized in it.")
        )
    if options.heldOut == 0:
        warnings.append(_("No patient is held out: the audit cannot compare with anyone."))
    elif not isinstance(cohort, PathCohort) and 0 < len(patientsOf(cohort)) < _FEW_PATIENTS:
        warnings.append(_("With so few patients, the audit can hardly find anything."))
    return warnings


def start(runner, root, cohort, prior, options):
    """Begin a distillation in a new folder below `root`; returns a LongRun.

    cohort: a PathCohort, or a list of Member whose volumes are copied into the run's folder.
    """
    long_run.checkIdle(runner)
    if why := whyNot(cohort, prior, options):
        raise PanelError(_("The cohort cannot be distilled"), why, "input")
    members = [] if isinstance(cohort, PathCohort) else used(cohort)
    run = Run.create(root, options, "distill")
    numbers = _numbersOf(members)
    run.record["params"] = _params(run, options, prior, cohort, numbers)
    _keepNumbers(run, members, numbers)
    copies = _copies(run.folder, members, numbers, prior)
    if not copies:
        run.record["state"] = "running"
    run.save()
    return long_run.begin(runner, run, copies)


def _params(run, options, prior, cohort, numbers):
    """The job's parameters, as docs/jobs.md says."""
    return {**_question(run.folder, options, prior, cohort, numbers), "out": run.out}


def _question(folder, options, prior, cohort, numbers):
    """Which cohort, and how it is distilled; folder: of the copies of volumes of the scene."""
    isPath = isinstance(cohort, PathCohort)
    named = {
        "file": prior.path,
        "scene": _priorCopy(folder),
        "patient": f"patient:{numbers.get(prior.patient, prior.patient)}",
    }
    return {
        "cohort": cohort.path if isPath else os.path.join(folder, "data"),
        "pattern": (cohort.pattern.strip() or "*") if isPath else "*",
        "modality": options.modality if options.modality in MODALITIES else None,
        "config": options.fields() | {"prior": named.get(prior.kind, prior.kind)},
    }


def startRoom(runner, cohort, prior, options):
    """Begin to measure what can be gained by a distillation; returns a Job.

    Its result has a `sentence` about it; nothing is kept.
    """
    members = [] if isinstance(cohort, PathCohort) else used(cohort)
    numbers = _numbersOf(members)

    def send(job):
        job.params = _question(job.folder, options, prior, cohort, numbers)
        yield from long_run.writeCopies(_copies(job.folder, members, numbers, prior))

    title = _("Estimate what a distillation can gain")
    return runner.submit(ROOM, {}, title=title, before=send, own=True)


def estimateParams(cohort, prior, options):
    """The parameters of a `distill-estimate` job about the same distillation."""
    config = options.fields()
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


def _priorCopy(folder):
    return os.path.join(folder, "prior", "prior.nrrd")


def _copies(folder, members, numbers, prior):
    """(node, path) of each volume to copy into a folder."""
    copies = [
        (member.node, os.path.join(folder, "data", numbers[member.patient], f"{place:03d}.nrrd"))
        for place, member in enumerate(members)
    ]
    if prior.kind == "scene":
        copies.append((prior.node, _priorCopy(folder)))
    return copies


def _keepNumbers(run, members, numbers):
    """Record in the scene which number a patient has in a run."""
    for member in members:
        kept = f"{os.path.basename(run.folder)}/{numbers[member.patient]}"
        member.node.SetAttribute(_NUMBER_ATTRIBUTE, kept)


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
