"""The job that trains a model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedEnhanceLib.dependencies import require
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.progress import Monitor

METHODS = ("hqg",)


@dataclass(frozen=True, kw_only=True)
class TrainParams:
    """method: one of METHODS. config: fields of its TrainConfig; `preset` names the rest.

    data: a folder. out: a folder for checkpoint and model; a training goes on from what is there.
    """

    method: str
    data: str
    out: str
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"unknown method {self.method!r}", f"Use {' or '.join(METHODS)}.")


def run_train(params: TrainParams, monitor: Monitor) -> Result:
    """Train, or go on with a training; the model's folder."""
    from MedEnhanceLib.hqg import TrainConfig

    began = time.monotonic()
    config = TrainConfig.from_json(params.config)
    folder = train_method(params.method, config, Path(params.data), Path(params.out), monitor)
    return Result(
        {"outputs": {"model": str(folder)}, "seconds": round(time.monotonic() - began, 3)}
    )


def train_method(method: str, config: Any, data: Path, out: Path, monitor: Monitor) -> Path:
    """Train by the method's name with its configuration; the bundle's folder."""
    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r}", f"Use {' or '.join(METHODS)}.")
    require("torch", purpose="Training")
    from MedEnhanceLib.hqg.train import train

    return train(config, data, out, monitor)
