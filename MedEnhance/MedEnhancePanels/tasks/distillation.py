"""Runs of the page Distill on cohorts: parameters, checks, texts to read before, start."""

import os
from pathlib import Path

from MedEnhanceLib.bundles.store import is_taken
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.jobs.kinds.train import volumes_in
from MedEnhanceLib.jobs.teaching.segmenter import teachers
from MedEnhanceLib.spg.cohort import count_patients, require_patients
from MedEnhanceLib.spg.config import FEWEST_PATIENTS, SYNTHETIC, TEMPLATE, DistillConfig
from MedEnhanceLib.spg.dataset import find_set
from MedEnhanceLib.spg.prepare import plan_text
from MedEnhanceLib.spg.statistics import count_of_numbers
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.tasks import long_run
from MedEnhancePanels.texts import tr as _

#: Priors that are no files.
TEMPLATES = (SYNTHETIC, TEMPLATE)
#: Patients from which on they are not counted while a user waits.
_MANY = 100


def kindOf(state):
    """Return "distill" for a set in place of the cohort, "train" for a model."""
    return "distill" if state.distillTask.startswith("distill") else "train"


def paramsOf(state):
    """Return the parameters of that job but for the folder of its results, as docs/jobs.md says."""
    folder, modality = state.distillCohort.strip(), state.distillTask[-2:]
    config = {"preset": state.distillPreset, "device": state.distillDevice}
    if kindOf(state) == "train":
        method = "slices" if state.distillTask.startswith("slices") else "hqg"
        if segmenter := segmenterOf(state):  # whose training says which images
            fields = {"task": {"segmenter": segmenter, "gate": state.distillGate}}
        else:
            folder, fields = (folder, {}) if _isSet(folder) else volumes_in(folder, method)
        config |= {"modality": modality, "name": state.distillName.strip(), **fields}
        return {"method": method, "config": config, "data": folder}
    config |= {"method": state.distillMethod, "prior": state.distillTemplate}
    config |= {"volumes": state.distillVolumes}
    return {"cohort": folder, "modality": modality, "config": config}


def segmentersOf(state):
    """List the segmentation models that can teach an enhancer, or say why there is none."""
    if not state.distillTask.startswith("train"):
        return [], ""
    able, faults = teachers(state.distillTask[-2:])
    problem = _("No installed segmentation model can teach an enhancer of this modality.")
    reasons = [PanelError.fromException(fault).text for fault in faults]
    return able, "" if able else "\n".join([problem, *reasons])


def segmenterOf(state):
    """Return the name of the segmentation model that teaches; "" for none."""
    name = state.distillSegmenter
    return name if name and name in [each.name for each in segmentersOf(state)[0]] else ""


def _isSet(folder):
    """Return whether a folder is a finished distilled set, or that of the run that made it."""
    try:
        return find_set(Path(folder)) is not None
    except MedEnhanceError:
        return False


def problemOf(state):
    """Say what is missing before a run can start, or nothing."""
    folder = state.distillCohort.strip()
    isTable = folder.lower().endswith(".csv") and os.path.isfile(folder)
    isTraining = kindOf(state) == "train"
    if isTraining and not os.path.isdir(folder):
        return _("Choose the folder of the volumes, or that of a distilled set.")
    if not isTable and not os.path.isdir(folder):
        return _("Choose a folder with a folder for each patient, or a table (CSV: patient, path).")
    if not isTraining and (problem := _countProblem(folder)):
        return problem
    if not state.distillName.strip():
        return _("Give the run a name.")
    if isTraining and is_taken(state.distillName.strip()):
        return _("A model of this name is installed already: give the run another name.")
    if isTraining:
        labels = _("A distilled set has no labels: choose the folder of the model's training.")
        return labels if segmenterOf(state) and _isSet(folder) else ""
    if state.distillTask == "distillCT" and state.distillTemplate == TEMPLATE:
        return _("There is no public template for CT: choose synthetic volumes under Advanced.")
    if state.distillTemplate not in TEMPLATES and not os.path.isfile(state.distillTemplate):
        return _("The file of the template is missing: choose another.")
    return ""


def _countProblem(folder):
    """Say that a cohort has too few patients, and how many it takes; empty where it has enough."""
    try:
        require_patients(count_patients(folder, FEWEST_PATIENTS), _("A distillation"))
    except (MedEnhanceError, OSError) as error:
        return PanelError.fromException(error).text
    return ""


def sharedText(state):
    """Say what the recipient of a distilled set gets of the patients."""
    count = count_of_numbers("CT" if state.distillTask == "distillCT" else "MR")
    shared = _(
        "With these choices, a new set contains {count} averages over all patients, rounded voxel "
        "spacings, and no patient image. Starting sends nothing."
    ).format(count=count)
    if state.distillMethod == "matching":
        shared = _(
            "With these choices, a new set contains volumes for each patient, changed to teach "
            "what that patient's scans teach. Starting sends nothing."
        )
    folder = state.distillCohort.strip()
    if not problemOf(state) and (count := count_patients(folder, _MANY)) < _MANY:
        shared = f"{shared}\n{plan_text(count, DistillConfig(method=state.distillMethod))}"
    if state.distillTemplate in TEMPLATES:
        return shared
    anatomy = _(
        "Every volume will show the anatomy of the file: use a public volume, or one whose patient "
        "consented."
    )
    return f"{shared}\n{anatomy}"


def start(runner, state):
    """Begin the run that the page describes, in a new folder; returns a Run."""
    long_run.checkIdle(runner)
    if why := problemOf(state):
        raise PanelError(_("The cohort cannot be used"), why, "input")
    params = paramsOf(state)  # it raises for a folder without volumes
    if kindOf(state) == "distill":  # no part of what an estimate is about
        params["config"]["license"] = state.distillLicense.strip()
    run = long_run.Run.create(long_run.root(), kindOf(state), state.distillName)
    run.record["params"] = params
    run.begin(runner)
    return run


def startEstimate(runner, params):
    """Begin to estimate what a distillation can gain, and how long it takes; returns a Job.

    params: see `paramsOf`. Its result has a `sentence` about it; nothing is kept.
    """
    title = _("Estimate what a distillation can gain")
    return runner.submit("distill-estimate", params, title=title, dedicated=True)
