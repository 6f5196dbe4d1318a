"""Distillations of cohorts: prior, checks before the start, and the start of a run."""

import os
from dataclasses import MISSING, dataclass

from slicer.i18n import tr as _

from MedEnhanceLib.spg.config import MODALITIES, DistillConfig
from MedEnhanceLib.spg.statistics import NUMBERS
from MedEnhancePanels import arguments
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.tasks import long_run
from MedEnhancePanels.tasks.long_run import Run


class _DistillOptions:
    """What is distilled, and how long.

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

    kind: "template" (a public average, for MR), "file" (path) or "representative" (the most
    typical patient of the cohort).
    """

    kind: str = "template"
    path: str = ""

    @property
    def exposes(self):
        """Whether a patient of the cohort is recognizable in every image by construction."""
        return self.kind == "representative"


@dataclass(frozen=True)
class Cohort:
    """Where the patients are: a folder for each, DICOM, or a table. pattern: of file names."""

    path: str
    pattern: str = "*"


def whyNot(cohort, prior, options):
    """What is missing before a distillation can start, in a sentence, or nothing."""
    isTable = cohort.path.lower().endswith(".csv") and os.path.isfile(cohort.path)
    if not (isTable or os.path.isdir(cohort.path)):
        return _("Choose a folder of patients, a folder of DICOM, or a table (CSV: patient, path).")
    if options.modality == "CT" and options.task == "undersample":
        return _("Undersampling applies to MR only: choose another purpose.")
    if options.modality == "CT" and prior.kind == "template":
        return _(
            "There is no public template for CT: choose the file of a volume that may be shared, "
            "or the most typical patient, who consented to being recognizable."
        )
    if not options.name.strip():
        return _("Give the run a name.")
    if prior.kind == "file" and not os.path.isfile(prior.path):
        return _("Choose the prior's file.")
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


def warningsAbout(prior, options):
    """What the user should know before a long run, as sentences."""
    warnings = []
    if prior.kind == "file":
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
    return warnings


def start(runner, root, cohort, prior, options):
    """Begin a distillation in a new folder below `root`; returns a LongRun."""
    long_run.checkIdle(runner)
    if why := whyNot(cohort, prior, options):
        raise PanelError(_("The cohort cannot be distilled"), why, "input")
    run = Run.create(root, options, "distill")
    run.record["params"] = {**_question(cohort, prior, options), "out": run.out}
    return long_run.begin(runner, run)


def startRoom(runner, cohort, prior, options):
    """Begin to estimate what a distillation can gain, and how long it takes; returns a Job.

    Its result has a `sentence` about it; nothing is kept.
    """
    title = _("Estimate what a distillation can gain")
    params = _question(cohort, prior, options)
    return runner.submit("distill-estimate", params, title=title, own=True)


def _question(cohort, prior, options):
    """Which cohort, and how it is distilled, as docs/jobs.md says."""
    return {
        "cohort": cohort.path,
        "pattern": cohort.pattern.strip() or "*",
        "modality": options.modality if options.modality in MODALITIES else None,
        "config": options.fields() | {"prior": prior.path if prior.kind == "file" else prior.kind},
    }
