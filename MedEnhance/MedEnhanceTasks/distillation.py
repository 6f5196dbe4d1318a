"""Runs of the page Distill on cohorts: parameters, checks, texts to read before, start."""

import os
from pathlib import Path

from slicer.i18n import tr as _

from MedEnhanceLib.bundles.store import is_taken
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.gradprom.labeled import config_of, find_split
from MedEnhanceLib.jobs.kinds.train import volumes_in
from MedEnhanceLib.jobs.teaching.segmenter import teachers
from MedEnhanceLib.spg.cohort import count_patients, require_patients
from MedEnhanceLib.spg.config import FEWEST_PATIENTS, SYNTHETIC, TEMPLATE, DistillConfig
from MedEnhanceLib.spg.dataset import find_set
from MedEnhanceLib.spg.prepare import plan_text
from MedEnhanceLib.spg.statistics import count_of_numbers
from MedEnhanceNodes import model_choice
from MedEnhancePanels.errors import PanelError
from MedEnhanceTasks import long_run

#: Priors that are no files.
TEMPLATES = (SYNTHETIC, TEMPLATE)
#: Patients from which on they are not counted while a user waits.
_MANY = 100


def kindOf(state):
    """Return "distill" for a set in place of the cohort, "train" for a model."""
    return "distill" if state.distillTask.startswith("distill") else "train"


def learnsFromLabels(state):
    """Return whether a segmentation model is to be trained on label maps alone."""
    return state.distillTask.startswith("labels")


def paramsOf(state):
    """Return the parameters of that job but for the folder of its results, as docs/jobs.md says."""
    folder, modality = state.distillCohort.strip(), state.distillTask[-2:]
    config = {"preset": state.distillPreset, "device": state.distillDevice}
    if learnsFromLabels(state):
        config |= {"modality": modality, "name": state.distillName.strip()}
        return {"method": "head", "from_labels": True, "config": config, "data": folder}
    if kindOf(state) == "train":
        method = "slices" if state.distillTask.startswith("slices") else "hqg"
        if segmenter := segmentersOf(state)[1]:  # whose training says which images
            fields = {"task": {"segmenter": segmenter.name, "gate": state.distillGate}}
        else:
            folder, fields = (folder, {}) if find_set(Path(folder)) else volumes_in(folder, method)
        config |= {"modality": modality, "name": state.distillName.strip(), **fields}
        return {"method": method, "config": config, "data": folder}
    config |= {"method": state.distillMethod, "prior": state.distillTemplate}
    config |= {"volumes": state.distillVolumes}
    return {"cohort": folder, "modality": modality, "config": config}


def segmentersOf(state):
    """List the segmentation models that can teach an enhancer.

    Returns also the one that is to teach, None for none, and why there is nothing to choose from.
    """
    if not state.distillTask.startswith("train"):
        return [], None, ""
    able, faults = teachers(state.distillTask[-2:])
    segmenter = next((each for each in able if each.name == state.distillSegmenter), None)
    problem = _("No installed segmentation model can teach an enhancer of this modality.")
    reasons = [PanelError.fromException(fault).text for fault in faults]
    return able, segmenter, "" if able else "\n".join([problem, *reasons])


def labelsText(state):
    """Say which files a training from label maps takes, and how long it lasts."""
    durations = {
        "smoke": _("It takes about a minute, and is good for nothing else."),
        "cpu": _("It takes up to 8 hours on two cores."),
        "full": _("It takes two to three days on two cores."),
    }
    text = _(
        "Trains a segmentation model on scans that are painted from label maps, in random "
        "contrasts: it needs a folder of label maps (whole numbers up to 255), ten or more, and no "
        "images. Each value becomes a label; a configuration with names, sides and skull is for "
        "the command line (medenhance train head --from-labels)."
    )
    return f"{text} {durations[state.distillPreset]}"


def imagesText(segmenter):
    """Say which images a training takes that a segmentation model teaches, and how they lie."""
    images = config_of(segmenter)
    text = _(
        "Trains the enhancer further that {name} was trained with, taught by it. The folder needs "
        "its training's files, named as there (* is any text): images {images}; labels "
        "{labels}; of patients held out, who decide what is kept: {held_out}."
    )
    lists = {"images": images.images, "labels": images.labels, "held_out": images.held_out}
    lists = {name: _(" and ").join(patterns) for name, patterns in lists.items()}
    warnings = model_choice.warningOf(segmenter)
    return " ".join(filter(None, [text.format(name=segmenter.name, **lists), *warnings]))


def problemOf(state, segmenter):
    """Say what is missing before a run can start, taught by a segmentation model or not."""
    folder, isTraining = state.distillCohort.strip(), kindOf(state) == "train"
    if folder and not os.path.exists(folder):
        return _("{folder} does not exist: choose another.").format(folder=folder)
    isTable = not isTraining and folder.lower().endswith(".csv") and os.path.isfile(folder)
    if not isTable and not os.path.isdir(folder):
        rows = _("Choose a folder with a folder for each patient, or a table (CSV: patient, path).")
        return _("Choose the folder that is described above.") if isTraining else rows
    if problem := _dataProblem(state, folder, segmenter):
        return problem
    if not state.distillName.strip():
        return _("Give the run a name.")
    if isTraining:
        taken = _("A model of this name is installed already: give the run another name.")
        return taken if is_taken(state.distillName.strip()) else ""
    if state.distillTask == "distillCT" and state.distillTemplate == TEMPLATE:
        return _("There is no public template for CT: choose synthetic volumes under Advanced.")
    if state.distillTemplate not in TEMPLATES and not os.path.isfile(state.distillTemplate):
        return _("The file of the template is missing: choose another.")
    return ""


def _dataProblem(state, folder, segmenter):
    """Say that a cohort has too few patients, or labeled images are missing; empty for neither."""
    try:
        if segmenter is not None and find_set(Path(folder)):
            return _("A distilled set has no labels: choose the folder of the model's training.")
        if segmenter is not None:
            find_split(config_of(segmenter), Path(folder))
        elif kindOf(state) == "distill":
            require_patients(count_patients(folder, FEWEST_PATIENTS), _("A distillation"))
            DistillConfig(license=state.distillLicense.strip())  # refuses what is no name
    except (MedEnhanceError, OSError) as error:
        return PanelError.fromException(error).text
    return ""


def dataText(state, segmenter, problem):
    """Say what a set has of its patients, counted without a problem; or what a head teaches on."""
    if learnsFromLabels(state):
        return labelsText(state)
    if kindOf(state) == "train":
        return imagesText(segmenter) if segmenter is not None else ""
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
    if not problem and (count := count_patients(state.distillCohort.strip(), _MANY)) < _MANY:
        config = DistillConfig(method=state.distillMethod, license=state.distillLicense.strip())
        shared = f"{shared}\n{plan_text(count, config)}"
    anatomy = _(
        "Every volume will show the anatomy of the file: use a public volume, or one whose patient "
        "consented."
    )
    return shared if state.distillTemplate in TEMPLATES else f"{shared}\n{anatomy}"


def start(runner, state):
    """Begin the run that the page describes, in a new folder; returns a Run."""
    long_run.checkIdle(runner)
    if why := problemOf(state, segmentersOf(state)[1]):
        raise PanelError(_("The cohort cannot be used"), why, "input")
    params = paramsOf(state)  # it raises for a folder without volumes
    if kindOf(state) == "distill":  # no part of what an estimate is about
        params["config"]["license"] = state.distillLicense.strip()
    run = long_run.Run.create(long_run.root(), kindOf(state), state.distillName)
    run.record["params"] = params
    run.begin(runner)
    return run
