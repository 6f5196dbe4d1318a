"""The Python API of what learns from many volumes: trainings, distillations, and their measure.

See `api`, of which this is a part.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from MedEnhanceLib.api import PathLike, Progress
from MedEnhanceLib.jobs.bar import watched
from MedEnhanceLib.jobs.failures import memory_errors
from MedEnhanceLib.jobs.kinds.compare import CompareParams, rows_of, run_compare
from MedEnhanceLib.jobs.kinds.evaluate import evaluate_bundle
from MedEnhanceLib.jobs.kinds.train import train_method, training_config
from MedEnhanceLib.runtime.progress import Cancel

if TYPE_CHECKING:
    from MedEnhanceLib.bundles import Bundle
    from MedEnhanceLib.gradprom import TrainHeadConfig
    from MedEnhanceLib.hqg import TrainConfig
    from MedEnhanceLib.io.cohort import Cohort
    from MedEnhanceLib.spg.config import DistillConfig
    from MedEnhanceLib.spg.denoiser_config import TrainDenoiserConfig


def train(
    method: str,
    config: str | Mapping[str, Any] | TrainConfig | TrainHeadConfig | TrainDenoiserConfig,
    data: PathLike,
    out: PathLike,
    *,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> Path:
    """Train a model, or go on with a training; returns the folder of its bundle.

    method: "hqg" (an enhancer), "denoiser" (a small restorer), "head" (a segmentation head), or
    "gradprom" (both, learning from each other: its folder is the enhancer's, the head's lies beside
    it), or "unicompress" (a part of the codec, by the field `part`: implicit, predictor or
    restoration). config: a preset ("smoke", "cpu", "full"), the method's fields as an object, or
    its TrainConfig, TrainDenoiserConfig or TrainHeadConfig.
    data: a folder with the volumes; of hqg and denoiser also a distilled set, of denoiser a cohort
    (then with the field `task`). out: for checkpoint and bundle.
    Raises Cancelled after writing a checkpoint from which the same call goes on.

        folder = me.train("hqg", "cpu", "data/", out="runs/a", progress=True)
        me.enhance(volume, model=str(folder))
    """
    fields = {"preset": config} if isinstance(config, str) else config
    chosen = training_config(method, fields, Path(data))
    with memory_errors(), watched(progress, cancel) as monitor:
        return train_method(method, chosen, Path(data), Path(out), monitor)


def distill(
    cohort: Cohort | PathLike,
    out: PathLike,
    task: str | None = None,
    *,
    config: str | Mapping[str, Any] | DistillConfig = "cpu",
    images_per_patient: int | None = None,
    prior: str | None = None,
    device: str | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> Path:
    """Distil a cohort into a few images to train small networks on; returns their folder, `out`.

    cohort: patients, or what `Cohort.open` takes. task: "denoise", "sr2", "sr4" or "undersample".
    config: a preset ("smoke", "cpu", "full"), fields as an object, or a DistillConfig; task,
    images_per_patient, prior and device count more than what it says. prior: "template" (a public
    average, MR alone), a volume's file, or "patient:ID" or "representative", which expose a
    patient. scheduler: of a Dask cluster. overwrite: remove what was distilled there before.
    Where another long job has the GPU this waits, and warns of it.
    Raises Cancelled after writing a checkpoint from which the same call goes on; ConfigError for
    other options than it was begun with, InputError for other data or unfit patients, by name.

        me.distill(me.Cohort.from_folder("patients/"), "distilled/", task="denoise")
    """
    from MedEnhanceLib.io.cohort import Cohort
    from MedEnhanceLib.jobs.kinds.distill import distil, distil_config, refuse_among_patients

    given = {
        "task": task,
        "images_per_patient": images_per_patient,
        "prior": prior,
        "device": device,
    }
    chosen = distil_config(config, {n: value for n, value in given.items() if value is not None})
    with memory_errors(), watched(progress, cancel) as monitor:
        if not isinstance(cohort, Cohort):
            refuse_among_patients(Path(out), Path(cohort))
            cohort = Cohort.open(cohort, monitor=monitor.part(0.0, 0.01))
        return distil(cohort, Path(out), chosen, monitor, scheduler=scheduler, overwrite=overwrite)


def compare(
    cohort: Cohort | PathLike,
    out: PathLike,
    task: str | None = None,
    *,
    config: str | Mapping[str, Any] = "cpu",
    budget: Literal["small", "ordinary"] = "small",
    seeds: int = 3,
    draws: int = 10,
    steps: int = 600,
    pattern: str = "*",
    modality: str | None = None,
    overwrite: bool = False,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> list[dict[str, Any]]:
    """What a distillation is worth on a cohort, against simpler ways: a row for each training.

    cohort: patients, or what `Cohort.open` takes with pattern and modality. out: a folder for
    tables, curve and page; the same call goes on there. task, config: as `distill` takes them; the
    loop is that of the small budgets. budget: with "ordinary" images of each patient besides.
    seeds, draws: trainings of each arm, and of raw images by lot; steps: of each training. Nothing
    is distilled that could be shared.
    Raises Cancelled; what was measured is kept. OutputError where another comparison lies there.

        rows = me.compare("patients/", "comparison/", task="denoise")
    """
    from MedEnhanceLib.io.cohort import Cohort

    fields = {"preset": config} if isinstance(config, str) else dict(config)
    patients = cohort if isinstance(cohort, Cohort) else None
    params = CompareParams(
        cohort="" if isinstance(cohort, Cohort) else os.fspath(cohort),
        out=os.fspath(out),
        config=fields | ({"task": task} if task else {}),
        budget=budget,
        seeds=seeds,
        draws=draws,
        steps=steps,
        pattern=pattern,
        modality=modality,
        overwrite=overwrite,
    )
    with memory_errors(), watched(progress, cancel) as monitor:
        return rows_of(run_compare(params, monitor, patients))


def evaluate(
    bundle: str | os.PathLike[str] | Bundle,
    data: PathLike,
    *,
    device: str = "auto",
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """Measure a model on good volumes: damaged and enhanced, or against labels.

    bundle: a model's name, its folder, or a Bundle. data: a volume or a folder of them; a head
    needs `<name>-labels<ending>` beside each. Returns a manifest with the rows in "results".

        me.evaluate("mr-brain", "data/")["results"]["means"]
    """
    from MedEnhanceLib.bundles import Bundle

    name_or_path = str(bundle.folder) if isinstance(bundle, Bundle) else os.fspath(bundle)
    with memory_errors(), watched(progress, cancel) as monitor:
        return evaluate_bundle(name_or_path, Path(data), device, monitor)
