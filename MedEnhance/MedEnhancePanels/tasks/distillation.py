"""Runs on cohorts: what the page Distill can make of patients, and what to know beforehand."""

import glob
import os
from dataclasses import dataclass

from slicer.i18n import tr as _

from MedEnhanceLib.spg.statistics import NUMBERS
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.tasks import long_run

#: Priors that are words; any other is the path of a file.
TEMPLATE, REPRESENTATIVE = "template", "representative"


@dataclass(frozen=True)
class RunOptions:
    """What is made of a cohort."""

    cohort: str  # a folder; for a distillation also a table
    name: str  # of the run, and of the model that is trained
    kind: str = "distill"  # or "train", an enhancer
    modality: str = "MR"  # or "CT"
    preset: str = "cpu"  # or "smoke", "full"
    device: str = "auto"
    #: Of a distillation, as DistillConfig has them.
    goal: str = "denoise"
    method: str = "statistics"
    prior: str = TEMPLATE
    images: int = 10
    steps: int = 0  # of a training; 0: those of the preset

    def params(self):
        """The job's parameters but for the folder of the results, as docs/jobs.md says."""
        config = {"preset": self.preset, "device": self.device}
        if self.kind == "train":
            config |= {"modality": self.modality, "name": self.name, **_pools(self.cohort)}
            config |= {"steps": self.steps} if self.steps else {}
            return {"method": "hqg", "config": config, "data": self.cohort}
        config |= {"task": self.goal, "method": self.method, "prior": self.prior}
        config["images_per_patient"] = self.images
        return {"cohort": self.cohort, "modality": self.modality, "config": config}


def _pools(folder):
    """Volumes in hq and lq, or all of a folder without them, and a note on them for the card."""
    low = ["lq/*"] if glob.glob(os.path.join(glob.escape(folder), "lq", "*")) else []
    high = ["hq/*"] if os.path.isdir(os.path.join(folder, "hq")) else ["*"]
    source = {"name": _("local cohort"), "subjects": _("a folder"), "source": ""}
    data = [source | {"license": _("not stated")}]
    return {"high_quality": high, "low_quality": low, "data": data}


def whyNot(options):
    """What is missing before a run can start, in a sentence, or nothing."""
    isTable = options.cohort.lower().endswith(".csv") and os.path.isfile(options.cohort)
    if options.kind == "train" and not os.path.isdir(options.cohort):
        return _("Choose the folder with the volumes.")
    if not isTable and not os.path.isdir(options.cohort):
        return _("Choose a folder of patients, a folder of DICOM, or a table (CSV: patient, path).")
    if not options.name.strip():
        return _("Give the run a name.")
    if options.kind == "train":
        return ""
    if options.modality == "CT" and options.prior == TEMPLATE:
        return _(
            "There is no public template for CT: choose the file of a volume that may be shared, "
            "or the most typical patient, who consented to being recognizable."
        )
    if options.prior not in (TEMPLATE, REPRESENTATIVE) and not os.path.isfile(options.prior):
        return _("The file of the template is missing: choose another.")
    return ""


def sharedText(options):
    """What of the patients the result gives to whoever gets it, in a sentence or two."""
    if options.method == "matching":
        return _(
            "Will be shared: {count} images for each patient, made from that patient's images."
        ).format(count=options.images)
    whose = _("and no image of any of them")
    if options.prior == REPRESENTATIVE:
        whose = _("and images of the template, who is a patient of the cohort")
    return _("Will be shared: {count} numbers, which are means over all patients, {whose}.").format(
        count=NUMBERS, whose=whose
    )


def warningAbout(options):
    """What the user should know before a long run, in a sentence; or nothing."""
    if options.prior == TEMPLATE:
        return ""
    if options.prior == REPRESENTATIVE:
        return _("Every image will show a patient of the cohort, who can be recognized in it.")
    return _(
        "Every image will show the template's anatomy: use a public volume, or one whose patient "
        "consented."
    )


def start(runner, root, options):
    """Begin a run in a new folder below `root`; returns a LongRun."""
    long_run.checkIdle(runner)
    if why := whyNot(options):
        raise PanelError(_("The cohort cannot be used"), why, "input")
    run = long_run.Run.create(root, options)
    run.record["params"] = {**options.params(), "out": run.out}
    return long_run.begin(runner, run)


def startRoom(runner, options):
    """Begin to estimate what a distillation can gain, and how long it takes; returns a Job.

    Its result has a `sentence` about it; nothing is kept.
    """
    title = _("Estimate what a distillation can gain")
    return runner.submit("distill-estimate", options.params(), title=title, own=True)
