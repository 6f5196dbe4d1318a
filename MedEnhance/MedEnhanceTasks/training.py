"""Runs of the page Train: parameters, checks, texts to read before, start."""

import os
from itertools import islice
from pathlib import Path

from slicer.i18n import tr as _

from MedEnhanceLib.bundles.store import is_taken
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.runtime.text import duration_text
from MedEnhanceLib.training.jobs.durations import expected_duration
from MedEnhanceLib.training.jobs.segmenter import find_images, teachers
from MedEnhanceLib.training.jobs.train import training_config, volumes_in
from MedEnhanceLib.training.spg.cohort import count_patients, require_patients
from MedEnhanceLib.training.spg.config import FEWEST_PATIENTS, MANY_PATIENTS, DistillConfig
from MedEnhanceLib.training.spg.dataset import find_set
from MedEnhanceLib.training.spg.prepare import plan_text
from MedEnhanceLib.training.spg.statistics import count_of_numbers
from MedEnhancePanels.errors import PanelError
from MedEnhanceTasks import long_run

#: Patients, and files, from which on they are not counted while a user waits.
_MANY, _MANY_FILES = 100, 2000
#: Most scans of held-out patients that are named.
_NAMED = 3


def kindOf(state):
    """Return "distill" for a set in place of the cohort, "scanner", or "train" for a model."""
    kind = state.trainTask[:-2]
    return kind if kind in ("distill", "scanner") else "train"


def learnsFromLabels(state):
    """Return whether a segmentation model is to be trained on label maps alone."""
    return state.trainTask.startswith("labels")


def paramsOf(state):
    """Return the parameters of that job but for the folder of its results, as docs/jobs.md says."""
    segmenter, folder = segmentersOf(state)[1], state.trainData.strip()
    if kindOf(state) == "scanner":
        folders = {"low_quality": folder, "high_quality": state.trainHighQuality.strip()}
        return folders | {"modality": state.trainTask[-2:]}
    params = _choicesOf(state, segmenter)
    if kindOf(state) == "distill":
        return params | {"cohort": folder}
    if not learnsFromLabels(state) and not find_set(Path(folder)):
        folder, fields = volumes_in(folder, params["method"])
        params["config"] |= fields
    return params | {"data": folder}


def _choicesOf(state, segmenter):
    """Return the parameters that do not depend on the files in the folder."""
    config, modality = {"preset": state.trainPreset}, state.trainTask[-2:]
    config |= {"device": state.trainDevice}
    if kindOf(state) == "distill":
        config |= {"method": state.distillMethod, "volumes": state.distillVolumes}
        config |= {"license": state.distillLicense.strip()}
        return {"modality": modality, "config": config}
    config |= {"modality": modality, "name": state.trainName.strip()}
    if learnsFromLabels(state):
        return {"method": "head", "config": config}
    if segmenter is not None:
        config["task"] = {"segmenter": segmenter.name, "gate": state.trainGate}
    method = "slices" if state.trainTask.startswith("slices") else "hqg"
    return {"method": method, "config": config}


def segmentersOf(state):
    """List the segmentation models that can teach an enhancer.

    Returns also the one that is to teach, None for none, and why there is nothing to choose from.
    """
    if not state.trainTask.startswith("train"):
        return [], None, ""
    able, faults = teachers(state.trainTask[-2:])
    segmenter = next((each for each in able if each.name == state.trainSegmenter), None)
    problem = _("No installed segmentation model can teach an enhancer of this modality.")
    reasons = [PanelError.fromException(fault).text for fault in faults]
    return able, segmenter, "" if able else "\n".join([problem, *reasons])


def aboutOf(state, segmenter, problem, earlier):
    """Describe the next run for a Notice: (level, what it makes and how long that takes, details).

    earlier: the runs on this computer, from which the time is estimated.
    """
    if kindOf(state) == "scanner":
        return "info", *_aboutScanner()
    if kindOf(state) == "distill":
        level, text, details = _aboutSet(state, problem)
    else:
        about = _aboutLabels() if learnsFromLabels(state) else _aboutTraining(state)
        if segmenter is not None:
            about = _aboutTaught(state, segmenter, problem)
        level, (text, details) = "info", about
    duration = expected_duration(kindOf(state), _choicesOf(state, segmenter), earlier)
    return level, f"{text} {_durationText(duration)}", details


def _durationText(duration):
    time = duration_text(duration.seconds)
    if duration.is_of_patient:
        time = _("{time} a patient").format(time=time)
    text = _("It takes about {time} on two cores.")
    if duration.is_known:
        text = _("It takes about {time}, as before on this computer.")
    return text.format(time=time)


def _aboutTraining(state):
    """Say what a training learns from, and what its model has of that."""
    details = _(
        "All volumes of the folder are taken, or those in its subfolder hq, as free of noise; or a "
        "distilled set. The model can carry traces of patients whose images it learned from: treat "
        "it as carefully as these. It is then listed on Models; nothing uses it by itself."
    )
    if state.trainPreset == "quick":
        details = _("The shipped model is trained further. {details}").format(details=details)
    return _("Trains a model on the volumes of the folder."), details


def _aboutLabels():
    """Say which files a training from label maps takes."""
    return _("Trains a segmentation model on ten or more label maps, without images."), _(
        "Scans are painted from the maps (whole numbers up to 255), in random contrasts. Each "
        "value becomes a label; a configuration with names, sides and skull is for the command "
        "line (medenhance train head --from-labels). Tiny and Quick only show that it works."
    )


def _aboutScanner():
    """Say what is measured of two folders, and what they need."""
    return _(
        "Measures, without training, how the scanner of the low-quality folder differs from that "
        "of the other. It takes about 5 s a volume on two cores."
    ), _(
        "Noise, resolution, contrast and bias field, as a page, and as a file by which Enhance "
        "inverts the scanner. Both folders need the same body part and contrast (T1 and T1) of ten "
        "or more patients: what differs between patients is taken for the scanner."
    )


def _aboutTaught(state, segmenter, problem):
    """Say which scans a training takes that a segmentation model teaches, and who is held out."""
    text = _("Trains an enhancer further on scans, taught by {name}.")
    details = _(
        "The folder, or its subfolder hq, needs scans with little noise, and no other volumes: a "
        "folder for each person, with all scans of that person, or a file for each. No labels are "
        "needed: those that {name} finds in the scans are the truth. A fifth of the people, drawn "
        "at random, are held out: nothing is learned from them, and they decide what is kept. "
        "{name} must get better on their scans with simulated noise, at nearly the same PSNR."
    )
    texts = [text.format(name=segmenter.name), "" if problem else _heldOutText(state)]
    return " ".join(filter(None, texts)), details.format(name=segmenter.name)


def _heldOutText(state):
    """Name the scans of the people who are held out; empty for a large folder."""
    training, heldOut = _imagesOf(state)
    names = [os.path.relpath(path, state.trainData.strip()) for path in heldOut]
    text = _("Held out: {names} ({count} of {all} scans).")
    shown = ", ".join(names[:_NAMED]) + ", …" * (len(names) > _NAMED)
    count, total = len(names), len(training) + len(names)
    return text.format(names=shown, count=count, all=total) if names else ""


def problemOf(state, segmenter):
    """Say what is missing before a run can start, taught by a segmentation model or not."""
    folder, isTraining = state.trainData.strip(), kindOf(state) == "train"
    isMeasuring = kindOf(state) == "scanner"
    folders = [folder, state.trainHighQuality.strip()] if isMeasuring else [folder]
    for each in folders:
        if each and not os.path.exists(each):
            return _("{folder} does not exist: choose another.").format(folder=each)
    if isMeasuring and not all(map(os.path.isdir, folders)):
        return _("Choose the folders of low and of high quality.")
    isTable = not isTraining and folder.lower().endswith(".csv") and os.path.isfile(folder)
    if not isTable and not os.path.isdir(folder):
        rows = _("Choose a folder with a folder for each patient, or a table (CSV: patient, path).")
        return _("Choose the folder that is described above.") if isTraining else rows
    if problem := _dataProblem(state, folder, segmenter):
        return problem
    if not state.trainName.strip():
        return _("Give the run a name.")
    if isTraining and is_taken(state.trainName.strip()):
        return _("A model of this name is installed already: give the run another name.")
    return ""


def _dataProblem(state, folder, segmenter):
    """Say that a cohort has too few patients, or scans are missing; empty for neither."""
    try:
        if segmenter is not None and find_set(Path(folder)):
            return _("A distilled set cannot be segmented: choose a folder of scans.")
        if segmenter is not None:
            _imagesOf(state)
        elif kindOf(state) == "distill":
            require_patients(count_patients(folder, FEWEST_PATIENTS), _("A distillation"))
            DistillConfig(license=state.distillLicense.strip())  # refuses what is no name
    except (MedEnhanceError, OSError) as error:
        return PanelError.fromException(error).text
    return ""


def _imagesOf(state):
    """Find the images that a segmentation model teaches on, and those of held-out patients.

    None in a large folder, as its name may still be typed. Raises a MedEnhanceError for other data.
    """
    files = Path(state.trainData.strip()).rglob("*")
    if next(islice(files, _MANY_FILES, None), None) is not None:
        return [], []
    params = paramsOf(state)
    config = params["config"] | {"name": "taught"}  # the page may have none yet
    return find_images(training_config(params["method"], config), Path(params["data"]))


def _aboutSet(state, problem):
    """Say what a set has of its patients, who are counted where there is no problem."""
    count = _MANY if problem else count_patients(state.trainData.strip(), _MANY)
    isFew = state.distillMethod == "statistics" and count < MANY_PATIENTS
    numbers = count_of_numbers("CT" if state.trainTask == "distillCT" else "MR")
    text = _("The set contains {numbers} averages over {patients} and no patient image.")
    if state.distillMethod == "matching":
        text = _("The set contains volumes for each patient, changed to teach what scans teach.")
    patients = _("only {count} patients").format(count=count) if isFew else _("all patients")
    sends = _("{sentence} Starting sends nothing.")
    text = sends.format(sentence=text.format(numbers=numbers, patients=patients))
    details = [
        _(
            "Synthetic volumes replace the cohort in training, with rounded voxel spacings. The "
            "privacy sheet of the result states what they contain of the patients; this does not "
            "prove that nobody can be recognized. The shipped models need no distilled set."
        ),
    ]
    if count < _MANY:
        options = {"method": state.distillMethod, "license": state.distillLicense.strip()}
        details.append(plan_text(count, DistillConfig(**options)))
    return "warning" if isFew else "info", text, "\n".join(details)


def start(runner, state):
    """Begin the run that the page describes, in a new folder; returns a Run."""
    long_run.checkIdle(runner)
    if why := problemOf(state, segmentersOf(state)[1]):
        raise PanelError(_("The cohort cannot be used"), why, "input")
    params = paramsOf(state)  # it raises for a folder without volumes
    run = long_run.Run.create(long_run.root(), kindOf(state), state.trainName)
    run.record["params"] = params
    run.begin(runner)
    return run
