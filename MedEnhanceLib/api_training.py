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
    from MedEnhanceLib.spg.config import DistillConfig, TrainDenoiserConfig


def train(
    method: str,
    config: str | Mapping[str, Any] | TrainConfig | TrainHeadConfig | TrainDenoiserConfig,
    data: PathLike,
    out: PathLike,
    *,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> Path:
    """Train a model, or resume a training.

    Args:
        method: "hqg" (an enhancer), "denoiser" (a small restorer), "head" (a segmentation head),
            "gradprom" (both, learning from each other: its folder is the enhancer's, the head's is
            beside it), or "unicompress" (a part of the codec, by the field `part`: implicit,
            predictor or restoration).
        config: a preset ("smoke", "cpu", "full"), the method's fields as an object, or its
            TrainConfig, TrainDenoiserConfig or TrainHeadConfig.
        data: a folder with the volumes; for hqg and denoiser also a distilled set, for denoiser a
            cohort (then with the field `task`).
        out: the folder for checkpoint and bundle.
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.

    Returns:
        The folder of the bundle.

    Raises:
        Cancelled: after writing a checkpoint from which the same call resumes.

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
    """Distill a cohort into a few images to train small networks on.

    Where another long job uses the GPU, this waits and warns of it.

    Args:
        cohort: patients, or what `Cohort.open` takes.
        out: the folder of the result.
        task: "denoise", "sr2", "sr4" or "undersample".
        config: a preset ("smoke", "cpu", "full"), fields as an object, or a DistillConfig. The
            next four arguments count more than what it holds.
        images_per_patient: how many images are made of each patient.
        prior: "template" (a public average, MR alone), a volume's file, or "patient:ID" or
            "representative", which expose a patient.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        scheduler: address of a Dask cluster.
        overwrite: remove what was distilled into `out` before.
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.

    Returns:
        The folder `out`.

    Raises:
        Cancelled: after writing a checkpoint from which the same call resumes.
        ConfigError: other options than the run was started with.
        InputError: other data, or unfit patients, by name.

        me.distill(me.Cohort.from_folder("patients/"), "distilled/", task="denoise")
    """
    from MedEnhanceLib.io.cohort import Cohort
    from MedEnhanceLib.jobs.kinds.distill import distill_config, distill_into, refuse_among_patients

    given = {
        "task": task,
        "images_per_patient": images_per_patient,
        "prior": prior,
        "device": device,
    }
    chosen = distill_config(config, {n: value for n, value in given.items() if value is not None})
    with memory_errors(), watched(progress, cancel) as monitor:
        if not isinstance(cohort, Cohort):
            refuse_among_patients(Path(out), Path(cohort))
            cohort = Cohort.open(cohort, monitor=monitor.part(0.0, 0.01))
        return distill_into(
            cohort, Path(out), chosen, monitor, scheduler=scheduler, overwrite=overwrite
        )


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
    modality: Literal["CT", "MR"] | None = None,
    overwrite: bool = False,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> list[dict[str, Any]]:
    """Compare a distillation of a cohort with simpler ways to choose training images.

    Nothing is distilled that could be shared.

    Args:
        cohort: patients, or what `Cohort.open` takes with pattern and modality.
        out: a folder for tables, curve and page; the same call resumes there.
        task: as `distill` takes it.
        config: as `distill` takes it; the loop is that of the small budgets.
        budget: "ordinary" measures images of each patient as well.
        seeds: trainings of each arm.
        draws: trainings on randomly chosen raw images.
        steps: of each training.
        pattern: of the files of a patient.
        modality: "CT" or "MR", where files do not state it.
        overwrite: measure everything again.
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.

    Returns:
        A row for each training.

    Raises:
        Cancelled: what was measured is kept.
        OutputError: the folder holds another comparison.

        rows = me.compare("patients/", "comparison/", task="denoise")
    """
    from MedEnhanceLib.io.cohort import Cohort
    from MedEnhanceLib.spg.config import DistillConfig

    fields = {"preset": config} if isinstance(config, str) else dict(config)
    patients = cohort if isinstance(cohort, Cohort) else None
    params = CompareParams(
        cohort="Cohort" if isinstance(cohort, Cohort) else os.fspath(cohort),
        out=os.fspath(out),
        config=DistillConfig.from_json(fields | ({"task": task} if task else {})),
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
    """Measure a model on good volumes: degraded and enhanced, or against labels.

    Args:
        bundle: a model's name, its folder, or a Bundle.
        data: a volume or a folder of them; a head needs `<name>-labels<ending>` beside each.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.

    Returns:
        A manifest with the rows in "results".

        me.evaluate("mr-brain", "data/")["results"]["means"]
    """
    from MedEnhanceLib.bundles import Bundle

    name_or_path = str(bundle.folder) if isinstance(bundle, Bundle) else os.fspath(bundle)
    with memory_errors(), watched(progress, cancel) as monitor:
        return evaluate_bundle(name_or_path, Path(data), device, monitor)
