"""The part of the Python API for training, distillation and evaluation.

See `api`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from MedEnhanceLib.api import Progress, watched
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.options import PathLike, local_path
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.progress import Cancel
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.jobs.distill import distill_config, distill_into, refuse_among_patients
from MedEnhanceLib.training.jobs.evaluate import evaluate_bundle
from MedEnhanceLib.training.jobs.train import (
    check_training,
    cohort,
    set_of,
    train_method,
    training_config,
)
from MedEnhanceLib.training.slices.config import TrainSlicesConfig
from MedEnhanceLib.training.spg.cohort import Cohort
from MedEnhanceLib.training.spg.config import DistillConfig


def train(
    method: str,
    config: str | Mapping[str, Any] | TrainConfig | TrainHeadConfig | TrainSlicesConfig = "cpu",
    data: PathLike | None = None,
    out: PathLike | None = None,
    *,
    from_labels: PathLike | None = None,
    distilled: PathLike | None = None,
    high_quality: PathLike | Sequence[str] | None = None,
    progress: Progress = None,
    cancel: Cancel | None = None,
    **fields: Any,
) -> Path:
    """Train a model, or resume a training.

    Args:
        method: "hqg": a network that makes scans of one scanner like those of another, without
            pairs; "head": segmentation; "slices": a network that restores thin slices; "codec": a
            network of the compression, chosen by the field part.
        config: a preset ("smoke", "quick", "cpu", "full"), the method's fields as an object, or its
            TrainConfig, TrainHeadConfig or TrainSlicesConfig.
        data: the folder that patterns in config are relative to, for head of label maps; for hqg
            and slices also a distilled set. Without patterns: hq/* (hqg), * (head), **/*.nii.gz
            (slices, codec).
        out: the folder for checkpoint and bundle.
        from_labels: the folder of label maps for head, in place of data.
        distilled: a distilled set, besides the volumes of data.
        high_quality: a folder of volumes, in place of data, or patterns below data.
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.
        **fields: of the configuration, in place of those in config: images, low_quality, steps …

    Returns:
        The folder of the bundle.

    Raises:
        ConfigError: an unknown method or preset, an invalid field, or no folder of data or out.
        Cancelled: after writing a checkpoint from which the same call resumes.

        folder = me.train("hqg", low_quality="old/", high_quality="good/", out="runs/old")
        me.enhance(volume, model=str(folder))
        config = {"preset": "quick", "modality": "MR", "files": ["*.nii.gz"]}
        me.train("slices", config, "data/", out="runs/slices", progress=True)
        me.train("head", from_labels="label-maps/", images="labeled/", out="runs/head")
    """
    given = {"preset": config} if isinstance(config, str) else config
    if isinstance(high_quality, str | os.PathLike):
        data, found = cohort(local_path(high_quality), method)
        fields = found | fields
    elif high_quality is not None:
        fields["high_quality"] = high_quality
    if fields:
        paths = {name: str(value) for name, value in fields.items() if isinstance(value, Path)}
        given = {**(given if isinstance(given, Mapping) else given.to_json()), **fields, **paths}
    if isinstance(given, Mapping):
        check_training(method, given)
    data = data or from_labels
    if data is None or out is None:
        raise ConfigError("no folder of data, or none for the result", "Give data and out.")
    data, folder = local_path(data), local_path(out)
    source = set_of(data, None if distilled is None else str(local_path(distilled)))
    settings = training_config(method, given, source)
    with watched(progress, cancel) as monitor:
        return train_method(method, settings, data, folder, monitor, source)


def distill(
    cohort: Cohort | PathLike,
    out: PathLike,
    *,
    config: str | Mapping[str, Any] | DistillConfig = "cpu",
    overwrite: bool = False,
    progress: Progress = None,
    cancel: Cancel | None = None,
    **fields: Any,
) -> Path:
    """Distill a cohort into a set of volumes to train on.

    Args:
        cohort: patients, or the path of a folder or table for `Cohort.open`.
        out: a folder for the result.
        config: a preset ("smoke", "quick", "cpu", "full"), fields as an object, or a DistillConfig.
        overwrite: replace an earlier distillation there.
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.
        **fields: of DistillConfig, in place of those in config: method, volumes, prior, device,
            license …; the options of `medenhance distill` have the same names.

    Returns:
        The folder `out`.

    Raises:
        Cancelled: after writing a checkpoint from which the same call resumes.
        ConfigError: an unknown field, or other options than the run was started with.
        InputError: the data have changed, or patients, who are named, are unsuitable.

        me.distill(me.Cohort.from_folder("patients/"), "distilled/")
    """
    settings, folder = distill_config(config, fields), local_path(out)
    with watched(progress, cancel) as monitor:
        if not isinstance(cohort, Cohort):
            refuse_among_patients(folder, local_path(cohort))
            cohort = Cohort.open(cohort)
        return distill_into(cohort, folder, settings, monitor, overwrite=overwrite)


def evaluate(
    bundle: PathLike | Bundle,
    data: PathLike,
    *,
    device: str = "auto",
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """Measure a model of a scanner on volumes behind it, or a head against labels.

    Args:
        bundle: a model's name, its folder, or a Bundle.
        data: a volume, or a folder of volumes; a head needs labels beside each,
            NAME-labels.nii.gz.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.

    Returns:
        A manifest: "results" has "rows", for each volume and degradation or label, and "means".

    Raises:
        ModelError: there is no such model, or it is damaged.
        InputError: a volume cannot be read, or lacks the labels that a head needs.

        me.evaluate("runs/old/old", "data/")["results"]["means"]
    """
    model = bundle.folder if isinstance(bundle, Bundle) else bundle
    with watched(progress, cancel) as monitor:
        return evaluate_bundle(os.fspath(model), local_path(data), device, monitor)
