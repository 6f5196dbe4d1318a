"""Runs on cohorts: what the page Distill can make of patients, and what to know beforehand."""

import glob
import os

from slicer.i18n import tr as _

from MedEnhanceLib.spg.statistics import NUMBERS
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.tasks import long_run

#: The prior that ships; any other is the path of a file.
TEMPLATE = "template"


def kindOf(state):
    """Return "distill" for images in place of the cohort, "train" for an enhancer."""
    return state.distillTask[:-2]


def paramsOf(state):
    """Return the parameters of that job but for the folder of its results, as docs/jobs.md says."""
    cohort, modality = state.distillCohort.strip(), state.distillTask[-2:]
    config = {"preset": state.distillPreset, "device": state.device}
    if kindOf(state) == "train":
        config |= {"modality": modality, "name": state.distillName, **_pools(cohort)}
        return {"method": "hqg", "config": config, "data": cohort}
    config |= {"task": state.distillGoal, "method": state.distillMethod}
    config |= {"prior": state.distillPrior, "images_per_patient": state.distillImages}
    return {"cohort": cohort, "modality": modality, "config": config}


def _pools(folder):
    """Find volumes in hq and lq, or in a folder without them; describes them for the card."""
    low = ["lq/*"] if glob.glob(os.path.join(glob.escape(folder), "lq", "*")) else []
    high = ["hq/*"] if os.path.isdir(os.path.join(folder, "hq")) else ["*"]
    data = {"name": _("local cohort"), "subjects": _("a folder"), "source": ""}
    data["license"] = _("not stated")
    return {"high_quality": high, "low_quality": low, "data": [data]}


def whyNot(state):
    """Say what is missing before a run can start, or nothing."""
    cohort = state.distillCohort.strip()
    isTable = cohort.lower().endswith(".csv") and os.path.isfile(cohort)
    isTraining = kindOf(state) == "train"
    if isTraining and not os.path.isdir(cohort):
        return _("Choose the folder with the volumes.")
    if not isTable and not os.path.isdir(cohort):
        return _("Choose a folder with a folder for each patient, or a table (CSV: patient, path).")
    if not state.distillName.strip():
        return _("Give the run a name.")
    if isTraining:
        return ""
    if state.distillTask == "distillCT" and state.distillPrior == TEMPLATE:
        return _(
            "There is no public template for CT: choose the file of a volume that may be shared."
        )
    if state.distillPrior != TEMPLATE and not os.path.isfile(state.distillPrior):
        return _("The file of the template is missing: choose another.")
    return ""


def sharedText(state):
    """Say what of the patients a distillation gives to whoever gets it."""
    shared = _(
        "Will be shared: {count} numbers, which are means over all patients, and no image of any "
        "of them."
    ).format(count=NUMBERS)
    if state.distillMethod == "matching":
        shared = _(
            "Will be shared: {count} images for each patient, made from that patient's images."
        ).format(count=state.distillImages)
    if state.distillPrior == TEMPLATE:
        return shared
    anatomy = _(
        "Every image will show the template's anatomy: use a public volume, or one whose patient "
        "consented."
    )
    return f"{shared}\n{anatomy}"


def start(runner, state):
    """Begin the run that the page describes, in a new folder; returns a Run."""
    long_run.checkIdle(runner)
    if why := whyNot(state):
        raise PanelError(_("The cohort cannot be used"), why, "input")
    run = long_run.Run.create(kindOf(state), state.distillName)
    run.record["params"] = {**paramsOf(state), "out": run.out}
    run.begin(runner)
    return run


def startEstimate(runner, params):
    """Begin to estimate what a distillation can gain, and how long it takes; returns a Job.

    params: see `paramsOf`. Its result has a `sentence` about it; nothing is kept.
    """
    title = _("Estimate what a distillation can gain")
    return runner.submit("distill-estimate", params, title=title, own=True)
