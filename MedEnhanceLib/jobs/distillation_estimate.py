"""The job that tells about how long a distillation will take on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedEnhanceLib.cohort import Cohort, Patient
from MedEnhanceLib.dependencies import require
from MedEnhanceLib.device import choose_device
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.progress import Monitor, attend
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.prepared import held_out


@dataclass(frozen=True, kw_only=True)
class DistillEstimateParams:
    """config, cohort, pattern, modality: as of a distillation; images are timed as MR unless CT.

    patients: how many there are, where there is no cohort to look at yet.
    """

    config: dict[str, Any] = field(default_factory=dict)
    cohort: str | None = None
    patients: int | None = None
    pattern: str = "*"
    modality: str | None = None


def run_distill_estimate(params: DistillEstimateParams, monitor: Monitor) -> Result:
    """Seconds of a whole distillation, without the audit; nothing is written."""
    config = DistillConfig.from_json(params.config)
    cohort = _cohort(params, monitor.part(0.0, 0.3))
    held = held_out(cohort, config)
    for package in (
        "torch",
        "monai.losses",
    ):  # the imports take seconds, in which a cancel is heard
        attend(lambda package=package: require(package, purpose="Distilling"), monitor)  # type: ignore[misc]
    from MedEnhanceLib.spg.estimate import seconds_of_a_patient

    choice = choose_device(config.device)
    monitor.progress(0.5, "timing a few steps")
    seconds = seconds_of_a_patient(config, params.modality or "MR", choice.name, monitor)
    distilled = len(cohort) - len(held)
    return Result(
        {
            "seconds": round(distilled * seconds, 3),
            "seconds_per_patient": round(seconds, 3),
            "patients": distilled,
            "held_out": len(held),
            "names": [patient.id for patient in cohort],
            "device": choice.name,
            "reason": choice.reason,
        }
    )


def _cohort(params: DistillEstimateParams, monitor: Monitor) -> Cohort:
    """The cohort that there is, or one of nobody in its size."""
    if params.cohort is not None:
        return Cohort.open(
            params.cohort, pattern=params.pattern, modality=params.modality, monitor=monitor
        )
    if params.patients is None or params.patients < 1:
        raise ConfigError(
            f"patients is {params.patients}, and no cohort is named", "Name one, or a number."
        )
    return Cohort(
        tuple(Patient(f"patient-{n:03d}", (Path(f"{n}"),)) for n in range(params.patients))
    )
