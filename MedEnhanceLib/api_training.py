"""The Python API of what learns from many volumes: trainings, distillations, and their measure.

See `api`, of which this is a part.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

from MedEnhanceLib.api import PathLike, Watched
from MedEnhanceLib.bundles import Bundle
from MedEnhanceLib.core.options import About, about, option, takes
from MedEnhanceLib.gradprom.config import TrainHeadConfig
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.slices.config import TrainSlicesConfig
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.jobs.addresses import results_here
from MedEnhanceLib.jobs.bar import watched
from MedEnhanceLib.jobs.kinds.distill import (
    DistillParams,
    distill_config,
    distill_into,
    refuse_among_patients,
)
from MedEnhanceLib.jobs.kinds.evaluate import EvaluateParams, evaluate_bundle
from MedEnhanceLib.jobs.kinds.train import TrainParams, train_method, training_config
from MedEnhanceLib.spg.config import DistillConfig

_PRESET = 'a preset ("smoke", "cpu", "full"), '


@dataclass(frozen=True)
class TrainCall(Watched):
    """The arguments of `train`."""

    method: Annotated[str, about(TrainParams, "method")]
    config: Annotated[
        str | Mapping[str, Any] | TrainConfig | TrainHeadConfig | TrainSlicesConfig,
        About(
            help=f"{_PRESET}the method's fields as an object, or its TrainConfig, "
            "TrainHeadConfig or TrainSlicesConfig"
        ),
    ]
    data: Annotated[
        PathLike,
        About(help="a folder with the volumes; for hqg also a distilled set"),
    ]
    out: Annotated[PathLike, About(help="the folder for checkpoint and bundle")]


@takes(TrainCall)
def train(call: TrainCall) -> Path:
    """Train a model, or resume a training.

    Args:
        call: the options.

    Returns:
        The folder of the bundle.

    Raises:
        Cancelled: after writing a checkpoint from which the same call resumes.

        folder = me.train("hqg", "cpu", "data/", out="runs/a", progress=True)
        me.enhance(volume, model=str(folder))
    """
    fields = {"preset": call.config} if isinstance(call.config, str) else call.config
    data, out = Path(call.data), Path(results_here("out", call.out))
    config = training_config(call.method, fields, data)
    with watched(call.progress, call.cancel) as monitor:
        return train_method(call.method, config, data, out, monitor)


@dataclass(frozen=True)
class DistillCall(Watched):
    """The arguments of `distill`."""

    cohort: Annotated[Cohort | PathLike, About(help="patients, or what `Cohort.open` takes")]
    out: Annotated[PathLike, about(DistillParams, "out")]
    task: Annotated[str | None, about(DistillConfig, "task")] = None
    _: KW_ONLY
    config: str | Mapping[str, Any] | DistillConfig = option(
        "cpu",
        help=f"{_PRESET}fields as an object, or a DistillConfig; what is given beside it counts "
        "more than what it holds",
    )
    images_per_patient: Annotated[int | None, about(DistillConfig, "images_per_patient")] = None
    prior: Annotated[str | None, about(DistillConfig, "prior")] = None
    device: Annotated[str | None, about(DistillConfig, "device")] = None
    license: Annotated[str | None, about(DistillConfig, "license")] = None
    overwrite: Annotated[bool, about(DistillParams, "overwrite")] = False


@takes(DistillCall)
def distill(call: DistillCall) -> Path:
    """Distill a cohort into a few images to train on.

    Args:
        call: the cohort and the options.

    Returns:
        The folder `out`.

    Raises:
        Cancelled: after writing a checkpoint from which the same call resumes.
        ConfigError: other options than the run was started with.
        InputError: other data, or unfit patients, by name.

        me.distill(me.Cohort.from_folder("patients/"), "distilled/", task="denoise")
    """
    names = ("task", "images_per_patient", "prior", "device", "license")
    given = {name: value for name in names if (value := getattr(call, name)) is not None}
    config, cohort = distill_config(call.config, given), call.cohort
    out = Path(results_here("out", call.out))
    with watched(call.progress, call.cancel) as monitor:
        if not isinstance(cohort, Cohort):
            refuse_among_patients(out, Path(cohort))
            cohort = Cohort.open(cohort, monitor=monitor.part(0.0, 0.01))
        return distill_into(cohort, out, config, monitor, overwrite=call.overwrite)


@dataclass(frozen=True)
class EvaluateCall(Watched):
    """The arguments of `evaluate`."""

    bundle: Annotated[PathLike | Bundle, About(help="a model's name, its folder, or a Bundle")]
    data: Annotated[PathLike, about(EvaluateParams, "data")]
    _: KW_ONLY
    device: Annotated[str, about(EvaluateParams, "device")] = "auto"


@takes(EvaluateCall)
def evaluate(call: EvaluateCall) -> dict[str, Any]:
    """Measure a model on good volumes: degraded and enhanced, or against labels.

    Args:
        call: the model, the volumes and the device.

    Returns:
        A manifest: "results" has "rows", one of each volume and degradation or label, and "means".
    Raises:
        ModelError: there is no such model, or it is damaged.
        InputError: a volume cannot be read, or has no labels where a head needs them.

        me.evaluate("mr", "data/")["results"]["means"]
    """
    model = call.bundle.folder if isinstance(call.bundle, Bundle) else call.bundle
    with watched(call.progress, call.cancel) as monitor:
        return evaluate_bundle(os.fspath(model), Path(call.data), call.device, monitor)
