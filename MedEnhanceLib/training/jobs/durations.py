"""Estimates how long a training or a distillation takes, before it starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from MedEnhanceLib.training.jobs.runs import LongRun
from MedEnhanceLib.training.jobs.train import config_class
from MedEnhanceLib.training.spg.config import DistillConfig

#: Options that decide about the duration; data and size of the cohort matter less.
_DECISIVE = ("preset", "device", "modality", "method", "part")


@dataclass(frozen=True)
class Duration:
    """Estimate of a duration.

    Attributes:
        seconds: of the run, or of each patient.
        is_known: whether an earlier run on this computer took as long; else it is for two cores.
        is_of_patient: whether it is the time of each patient.
    """

    seconds: float
    is_known: bool
    is_of_patient: bool


def expected_duration(kind: str, params: Mapping[str, Any], earlier: Iterable[LongRun]) -> Duration:
    """Estimate how long a run takes.

    Args:
        kind: of the job, "train" or "distill".
        params: of the job.
        earlier: runs on this computer; the newest one with the same options is taken.
    """
    config = params["config"]
    is_matching = kind == "distill" and config.get("method") == "matching"
    alike = [run for run in earlier if _is_alike(run, kind, params)]
    if alike:
        run = max(alike, key=lambda run: run.record["created"])
        patients = int(run.manifest().get("patients", 1)) if is_matching else 1
        return Duration(run.record["seconds"] / max(1, patients), True, is_matching)
    minutes = 1.0  # of a set by statistics
    if kind == "train":
        minutes = config_class(params["method"]).MINUTES[config.get("preset", "cpu")]
    elif is_matching:
        minutes = DistillConfig.MINUTES[config.get("preset", "cpu")]
    return Duration(60 * minutes, False, is_matching)


def _is_alike(run: LongRun, kind: str, params: Mapping[str, Any]) -> bool:
    """Return whether a run is done that had the same options."""
    return (run.state, run.kind) == ("done", kind) and _decisive(
        run.record.get("params") or {}
    ) == _decisive(params)


def _decisive(params: Mapping[str, Any]) -> tuple[Any, ...]:
    config = params.get("config") or {}
    return params.get("method"), *(config.get(name) for name in _DECISIVE)
