"""The job that trains a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from MedEnhanceLib.dependencies import require
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.volume import Volume

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom import TrainHeadConfig
    from MedEnhanceLib.hqg import TrainConfig

METHODS = ("hqg", "head")


@dataclass(frozen=True, kw_only=True)
class TrainParams:
    """method: "hqg" (an enhancer) or "head" (a segmentation head).

    config: fields of the method's configuration (hqg.TrainConfig, gradprom.TrainHeadConfig);
    `preset` (smoke, cpu, full) names the rest. data: a folder of volumes.
    out: a folder for checkpoint and model; a training goes on from what is there.
    """

    method: str
    data: str
    out: str
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_method(self.method)


def run_train(params: TrainParams, monitor: Monitor) -> Result:
    """Train, or go on with a training; the model's folder."""
    began = time.monotonic()
    config = training_config(params.method, params.config)
    folder = train_method(params.method, config, Path(params.data), Path(params.out), monitor)
    return Result(
        {"outputs": {"model": str(folder)}, "seconds": round(time.monotonic() - began, 3)}
    )


def check_method(method: str) -> None:
    """Raise ConfigError where nothing is trained under this name."""
    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r}", f"Use {' or '.join(METHODS)}.")


def training_config(
    method: str, fields: Mapping[str, Any] | TrainConfig | TrainHeadConfig
) -> TrainConfig | TrainHeadConfig:
    """The method's configuration from its JSON object, or as it is where it is one."""
    from MedEnhanceLib.gradprom import TrainHeadConfig
    from MedEnhanceLib.hqg import TrainConfig

    check_method(method)
    cls = TrainConfig if method == "hqg" else TrainHeadConfig
    if isinstance(fields, cls):
        return fields
    if not isinstance(fields, Mapping):
        raise ConfigError(
            f"config is {fields!r}", f"Give a preset's name, an object, or a {cls.__name__}."
        )
    return cls.from_json(dict(fields))


def train_method(
    method: str,
    config: TrainConfig | TrainHeadConfig,
    data: Path,
    out: Path,
    monitor: Monitor,
) -> Path:
    """Train with a configuration of `training_config`; the bundle's folder."""
    require("torch", purpose="Training")
    if method == "hqg":
        from MedEnhanceLib.hqg.train import train

        return train(cast("TrainConfig", config), data, out, monitor)
    from MedEnhanceLib.gradprom.train import train as train_head

    head = cast("TrainHeadConfig", config)
    return train_head(head, data, out, monitor, enhance=_enhancer_of(head))


def _enhancer_of(config: TrainHeadConfig) -> Callable[[Volume], Volume] | None:
    """What a head's training volumes are enhanced with; a method does not import another."""
    if not config.enhancer:
        return None
    from MedEnhanceLib.hqg import EnhanceConfig, enhance

    chosen = EnhanceConfig(model=config.enhancer, device=config.device)
    return lambda volume: enhance(volume, chosen).volume
