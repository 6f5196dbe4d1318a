"""The jobs that distil a cohort, and that tell how far a distillation is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import ConfigError, OutputError
from MedEnhanceLib.io.cohort import Cohort, Patient
from MedEnhanceLib.jobs.cluster import distilling_on
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.device import choose_device, devices_for
from MedEnhanceLib.runtime.gpu_lock import hold_gpu
from MedEnhanceLib.runtime.priority import low_priority
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.folder import MANIFEST, RunFolder, confidential_folder, read_run
from MedEnhanceLib.spg.prepared import held_out


@dataclass(frozen=True, kw_only=True)
class DistillParams:
    """cohort: a folder of patients or a table (.csv: patient,path); see `Cohort.open`.

    out: a folder; a distillation that was stopped there goes on. pattern: of the names of files
    that are images. modality: where the files do not state it; of DICOM, which is taken. config:
    fields of spg.DistillConfig; `preset` (smoke, cpu, full) names the rest. scheduler: address of
    a Dask cluster whose workers take the patients; they must see `out` under the same path.
    overwrite: remove what was distilled there before. nice: let other processes go first. wait:
    for the GPU, where another long job has it; else that is an error.
    """

    cohort: str
    out: str
    config: dict[str, Any] = field(default_factory=dict)
    pattern: str = "*"
    modality: str | None = None
    scheduler: str | None = None
    overwrite: bool = False
    nice: bool = True
    wait: bool = True


@dataclass(frozen=True, kw_only=True)
class DistillStatusParams:
    """out: the folder of a distillation."""

    out: str


def run_distill(params: DistillParams, monitor: Monitor) -> Result:
    """Distil, or go on; the folder of the result with what its manifest tells."""
    with low_priority(wanted=params.nice):
        return _run_distill(params, monitor)


def _run_distill(params: DistillParams, monitor: Monitor) -> Result:
    began = time.monotonic()
    config = DistillConfig.from_json(params.config)
    cohort = Cohort.open(
        params.cohort,
        pattern=params.pattern,
        modality=params.modality,
        monitor=monitor.part(0.0, 0.01),
    )
    out = Path(params.out)
    refuse_among_patients(out, Path(params.cohort))
    monitor = monitor.part(0.01, 1.0)
    distil(
        cohort,
        out,
        config,
        monitor,
        scheduler=params.scheduler,
        overwrite=params.overwrite,
        wait=params.wait,
    )
    manifest = read_run(out / MANIFEST)
    told = (
        "images",
        "patients",
        "held_out",
        "modality",
        "task",
        "measured",
        "prior",
        "audit",
        "privacy",
    )
    outputs = {"output": str(out)}
    confidential = confidential_folder(out)
    if confidential.is_dir():
        outputs["confidential"] = str(confidential)
    return Result(
        {
            "outputs": outputs,
            "manifest": str(out / MANIFEST),
            "seconds": round(time.monotonic() - began, 3),
            **{name: manifest.get(name) for name in told},
        }
    )


def run_distill_status(params: DistillStatusParams, monitor: Monitor) -> Result:
    """How far the distillation in a folder is, running or not; nothing is changed."""
    monitor.check()
    return Result(RunFolder(Path(params.out)).status())


def distil(
    cohort: Cohort,
    out: Path,
    config: DistillConfig,
    monitor: Monitor,
    *,
    scheduler: str | None = None,
    overwrite: bool = False,
    wait: bool = True,
) -> Path:
    """See spg.run.distil_cohort; scheduler: of a Dask cluster; wait: for the GPU.

    Raises DeviceBusyError besides, where another long job has the GPU and nobody wants to wait.
    """
    # The imports take seconds, in which a cancel is heard.
    for package in ("torch", "monai.losses"):
        attend(lambda package=package: require(package, purpose="Distilling"), monitor)  # type: ignore[misc]
    from MedEnhanceLib.spg.run import distil_cohort

    if scheduler:  # its workers take the devices of theirs, which may be ours
        runner = distilling_on(scheduler)
        return distil_cohort(cohort, out, config, monitor, overwrite=overwrite, runner=runner)
    with hold_gpu(devices_for(config.device), "distill", monitor, wait=wait) as device:
        config = replace(config, device=device)
        return distil_cohort(cohort, out, config, monitor, overwrite=overwrite)


def distil_config(
    config: str | Mapping[str, Any] | DistillConfig, given: Mapping[str, Any]
) -> DistillConfig:
    """The configuration of a preset's name, an object or itself, with what was given besides."""
    if isinstance(config, DistillConfig):
        return replace(config, **given)
    fields = {"preset": config} if isinstance(config, str) else config
    if not isinstance(fields, Mapping):
        raise ConfigError(
            f"config is {config!r}", "Give a preset's name, an object, or a DistillConfig."
        )
    return DistillConfig.from_json({**fields, **given})


def refuse_among_patients(out: Path, cohort: Path) -> None:
    """Raise OutputError where the result would lie among what the next run reads."""
    if cohort.is_dir() and out.resolve().is_relative_to(cohort.resolve()):
        raise OutputError(
            f"{out} lies in {cohort}, among the patients", "Name a folder outside of it."
        )


# ---- The job that tells about how long a distillation will take on this machine.


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
