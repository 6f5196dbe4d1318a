"""Runs of the page Train: parameters, checks, texts to read before, start."""

import os
from pathlib import Path

from slicer.i18n import tr as _

from MedEnhanceLib.bundles.store import is_taken
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.runtime.text import duration_text
from MedEnhanceLib.training.jobs.durations import expected_duration
from MedEnhanceLib.training.jobs.train import volumes_in
from MedEnhanceLib.training.spg.cohort import count_patients, require_patients
from MedEnhanceLib.training.spg.config import FEWEST_PATIENTS, MANY_PATIENTS, DistillConfig
from MedEnhanceLib.training.spg.dataset import find_set
from MedEnhanceLib.training.spg.prepare import plan_text
from MedEnhanceLib.training.spg.statistics import count_of_numbers
from MedEnhancePanels.errors import PanelError
from MedEnhanceTasks import long_run

#: Patients from which on they are not counted while a user waits.
_MANY = 100


def kindOf(state):
    """Return "distill" for a set in place of the cohort, "scanner", or "train" for a model."""
    kind = state.trainTask[:-2]
    return kind if kind in ("distill", "scanner") else "train"


def learnsFromLabels(state):
    """Return whether a segmentation model is to be trained on label maps alone."""
    return state.trainTask.startswith("labels")


def takesScanner(state):
    """Return whether a model is to be trained that inverts a scanner: HQG-Net, without pairs."""
    return state.trainTask.startswith("train")


def fileOf(state):
    """Return the ending of the file that can stand in place of the first folder; "" for none."""
    if takesScanner(state):
        return ".json"
    return ".csv" if kindOf(state) == "distill" else ""


def takesTwoFolders(state):
    """Return whether volumes of low and of high quality are taken."""
    return takesScanner(state) or kindOf(state) == "scanner"


def paramsOf(state):
    """Return the parameters of that job but for the folder of its results, as docs/jobs.md says."""
    folder, good = state.trainData.strip(), state.trainHighQuality.strip()
    if kindOf(state) == "scanner":
        folders = {"low_quality": folder, "high_quality": good}
        return folders | {"modality": state.trainTask[-2:]}
    params = _choicesOf(state)
    if kindOf(state) == "distill":
        return params | {"cohort": folder}
    if takesScanner(state):
        params["config"]["low_quality" if os.path.isdir(folder) else "scanner"] = folder
        folder = good
    if not learnsFromLabels(state) and not find_set(Path(folder)):
        folder, fields = volumes_in(folder, params["method"])
        params["config"] |= fields
    return params | {"data": folder}


def _choicesOf(state):
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
    method = "slices" if state.trainTask.startswith("slices") else "hqg"
    return {"method": method, "config": config}


def aboutOf(state, problem, earlier):
    """Describe the next run for a Notice: (level, what it makes and how long that takes, details).

    earlier: the runs on this computer, from which the time is estimated.
    """
    if kindOf(state) == "scanner":
        return "info", *_aboutScanner()
    level = "info"
    if kindOf(state) == "distill":
        level, text, details = _aboutSet(state, problem)
    elif learnsFromLabels(state):
        text, details = _aboutLabels()
    else:
        text, details = _aboutHqg() if takesScanner(state) else _aboutSlices(state)
    duration = expected_duration(kindOf(state), _choicesOf(state), earlier)
    return level, f"{text} {_durationText(duration)}", details


def _durationText(duration):
    time = duration_text(duration.seconds)
    if duration.is_of_patient:
        time = _("{time} a patient").format(time=time)
    text = _("It takes about {time} on two cores.")
    if duration.is_known:
        text = _("It takes about {time}, as before on this computer.")
    return text.format(time=time)


def _aboutHqg():
    """Say what HQG-Net learns without pairs, from what, and what its model has of that."""
    return _("Trains a model that inverts a scanner, without pairs of volumes."), _(
        "The scanner is measured from both folders, or read from its file in place of that of low "
        "quality. Volumes of high quality are put behind it, and a network learns what the "
        "inversion leaves; if it gains nothing on volumes held out, the model inverts alone. Both "
        "folders need the same body part and contrast of ten or more patients, who may differ. The "
        "model can carry traces of patients: treat it as carefully as their images. Enhance then "
        "offers it as a scanner model; nothing uses it by itself."
    )


def _aboutSlices(state):
    """Say what a training of thin slices learns from, and what its model has of that."""
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


def problemOf(state):
    """Say what is missing before a run can start."""
    folder, isTraining = state.trainData.strip(), kindOf(state) == "train"
    good = state.trainHighQuality.strip()
    folders = [folder, good] if takesTwoFolders(state) else [folder]
    for each in folders:
        if each and not os.path.exists(each):
            return _("{folder} does not exist: choose another.").format(folder=each)
    ending = fileOf(state)
    hasFile = bool(ending) and folder.lower().endswith(ending) and os.path.isfile(folder)
    if not all(map(os.path.isdir, folders[hasFile:])):
        if takesTwoFolders(state):
            return _("Choose the folders of low and of high quality.")
        rows = _("Choose a folder with a folder for each patient, or a table (CSV: patient, path).")
        return _("Choose the folder that is described above.") if isTraining else rows
    if problem := _cohortProblem(state, folder):
        return problem
    if not state.trainName.strip():
        return _("Give the run a name.")
    if isTraining and is_taken(state.trainName.strip()):
        return _("A model of this name is installed already: give the run another name.")
    return ""


def _cohortProblem(state, folder):
    """Say that a cohort has too few patients; empty where it has not."""
    try:
        if kindOf(state) == "distill":
            require_patients(count_patients(folder, FEWEST_PATIENTS), _("A distillation"))
            DistillConfig(license=state.distillLicense.strip())  # refuses what is no name
    except (MedEnhanceError, OSError) as error:
        return PanelError.fromException(error).text
    return ""


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
    if why := problemOf(state):
        raise PanelError(_("The cohort cannot be used"), why, "input")
    params = paramsOf(state)  # it raises for a folder without volumes
    run = long_run.Run.create(long_run.root(), kindOf(state), state.trainName)
    run.record["params"] = params
    run.begin(runner)
    return run
