"""The jobs that distill a cohort, report how far that is, and estimate how long it takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from MedEnhanceLib.core.options import About, Params, option
from MedEnhanceLib.errors import ConfigError, OutputError
from MedEnhanceLib.io.cohort import Cohort, Patient
from MedEnhanceLib.jobs.files import Result
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.device import choose_device, devices_for
from MedEnhanceLib.runtime.locks import hold_gpu
from MedEnhanceLib.runtime.machine import low_priority
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.spg.config import DistillConfig, Modality
from MedEnhanceLib.spg.dataset import is_distilled
from MedEnhanceLib.spg.folder import MANIFEST, RunFolder, confidential_folder, read_run
from MedEnhanceLib.spg.prepare import held_out

_COHORT = "the patients: a folder of them, of DICOM, or a table (.csv: patient,path)"


@dataclass(frozen=True, kw_only=True)
class CohortParams(Params):
    """What every job on a cohort takes; see `Cohort.open`."""

    cohort: Annotated[str, About(help=_COHORT, flag="COHORT")]
    config: DistillConfig = option(factory=DistillConfig, help="how it is distilled")
    pattern: str = option("*", help="of the names of files that are images", metavar="G")
    modality: Modality | None = option(None, help="where the files state none; of DICOM, which")


@dataclass(frozen=True, kw_only=True)
class DistillParams(CohortParams):
    """Distill a cohort; a distillation that was stopped goes on."""

    out: Annotated[str, About(help="a folder for the result", flag="OUT", place="here")]
    overwrite: bool = option(
        False, help="replace existing outputs: what was distilled there before", flag="--force"
    )
    wait: bool = option(
        True,
        help="end with an error where another long job has the GPU (default: wait for it)",
        flag="--no-wait",
    )


@dataclass(frozen=True, kw_only=True)
class DistillStatusParams(Params):
    """State how far a distillation is."""

    out: Annotated[str, About(help="the folder of a distillation", flag="OUT", place="here")]


def run_distill(params: DistillParams, monitor: Monitor) -> Result:
    """Distill, or go on; the folder of the result with what its manifest records."""
    with low_priority():
        return _run_distill(params, monitor)


def _run_distill(params: DistillParams, monitor: Monitor) -> Result:
    began = time.monotonic()
    config = params.config
    cohort = Cohort.open(
        params.cohort,
        pattern=params.pattern,
        modality=params.modality,
        monitor=monitor.part(0.0, 0.01),
    )
    out = Path(params.out)
    refuse_among_patients(out, Path(params.cohort))
    monitor = monitor.part(0.01, 1.0)
    distill_into(
        cohort,
        out,
        config,
        monitor,
        overwrite=params.overwrite,
        wait=params.wait,
    )
    manifest = read_run(out / MANIFEST)
    reported = (
        "images",
        "patients",
        "held_out",
        "modality",
        "task",
        "method",
        "room",
        "measured",
        "prior",
        "audit",
        "privacy",
        "licence",
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
            **{name: manifest.get(name) for name in reported},
            "method": manifest["config"]["method"],
        }
    )


@dataclass(frozen=True, kw_only=True)
class DistillRoomParams(CohortParams):
    """Estimate what a distillation can gain; a minute or two, and nothing is written."""


def run_distill_room(params: DistillRoomParams, monitor: Monitor) -> Result:
    """PSNR by what networks learned from, a sentence about it, and the method that is advised."""
    cohort = Cohort.open(
        params.cohort, pattern=params.pattern, modality=params.modality, monitor=monitor
    )
    _require_torch(monitor)
    from MedEnhanceLib.spg.prepare import prepare
    from MedEnhanceLib.spg.worth import room_of

    prepared = prepare(cohort, params.config, monitor.part(0.0, 0.2))
    with hold_gpu(devices_for(params.config.device), monitor) as device:
        room = room_of(prepared, params.config, device=device, monitor=monitor.part(0.2, 1.0))
    of_cohort = {"modality": prepared.modality, "held_out": len(prepared.held_out)}
    return Result(room.record() | of_cohort)


def run_distill_status(params: DistillStatusParams, monitor: Monitor) -> Result:
    """How far the distillation in a folder is, running or not; nothing is changed."""
    monitor.check()
    return Result(RunFolder(Path(params.out)).status())


def distill_into(
    cohort: Cohort,
    out: Path,
    config: DistillConfig,
    monitor: Monitor,
    *,
    overwrite: bool = False,
    wait: bool = True,
) -> Path:
    """See spg.distill.distill_cohort; wait: for the GPU.

    Raises DeviceBusyError besides, where another long job has the GPU and nobody wants to wait.
    """
    require("matplotlib", purpose="Drawing the audit of a distillation")  # at its end
    _require_torch(monitor)
    from MedEnhanceLib.spg.distill import distill_cohort

    with hold_gpu(devices_for(config.device), monitor, wait=wait) as device:
        config = replace(config, device=device)
        return distill_cohort(cohort, out, config, monitor, overwrite=overwrite)


def _require_torch(monitor: Monitor) -> None:
    """The imports take seconds, in which a cancel is noticed."""
    for package in ("torch", "monai.losses"):
        attend(lambda package=package: require(package, purpose="Distilling"), monitor)  # type: ignore[misc]


def distill_config(
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
    """Raise OutputError where the result would lie among what the next run reads, or is shared."""
    if cohort.is_dir() and out.resolve().is_relative_to(cohort.resolve()):
        raise OutputError(
            f"{out} lies in {cohort}, among the patients", "Name a folder outside of it."
        )
    for parent in out.resolve().parents:
        if is_distilled(parent):  # names of patients, which go beside the result, would get into it
            raise OutputError(
                f"{out} lies in {parent.name}, a distilled set", "Name a folder outside of it."
            )


@dataclass(frozen=True, kw_only=True)
class DistillEstimateParams(CohortParams):
    """Estimate how long a distillation takes; images are timed as MR unless CT is stated."""

    cohort: str | None = option(None, help=_COHORT)  # type: ignore[assignment]
    patients: int | None = option(None, help="how many, where there is no cohort yet")


def run_distill_estimate(params: DistillEstimateParams, monitor: Monitor) -> Result:
    """Seconds of a whole distillation, without the audit; nothing is written."""
    config = params.config
    cohort = _cohort(params, monitor.part(0.0, 0.3))
    held = held_out(cohort, config)
    _require_torch(monitor)
    from MedEnhanceLib.spg.patient import seconds_of_a_patient

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
