"""The job that distills a cohort."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from MedEnhanceLib.core.modality import Like
from MedEnhanceLib.core.options import About, Params, option
from MedEnhanceLib.errors import ConfigError, OutputError
from MedEnhanceLib.jobs.files import Result
from MedEnhanceLib.runtime.dependencies import load_packages
from MedEnhanceLib.runtime.machine import lower_priority
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.spg.cohort import Cohort
from MedEnhanceLib.training.spg.config import DistillConfig
from MedEnhanceLib.training.spg.dataset import is_distilled
from MedEnhanceLib.training.spg.folder import MANIFEST, confidential_folder, read_run

_PACKAGES = ("torch", "monai.losses")
#: Fields of a distillation's manifest that its result states.
_REPORTED = (
    "volumes", "patients", "held_out", "modality", "measured", "prior", "audit", "license",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DistillParams(Params):
    """Distill a cohort; a distillation that was stopped goes on."""

    cohort: Annotated[
        str,
        About(
            help="the patients: a folder for each in one folder, or a table (.csv: patient,path)",
            flag="COHORT",
            place="input",
        ),
    ]
    config: DistillConfig = option(factory=DistillConfig, help="how it is distilled")
    pattern: str = option("*", help="pattern of the names of image files", metavar="G")
    modality: Like | None = option(None, help="modality, if the files state none")
    out: Annotated[str, About(help="a folder for the result", flag="OUT", place="folder")]
    overwrite: bool = option(
        False, help="replace existing outputs: an earlier distillation in OUT", flag="--force"
    )


def run_distill(params: DistillParams, monitor: Monitor) -> Result:
    """Distill, or continue; returns the folder of the result and fields of its manifest."""
    began, out = time.monotonic(), Path(params.out)
    lower_priority()
    cohort = Cohort.open(params.cohort, pattern=params.pattern, modality=params.modality)
    refuse_among_patients(out, Path(params.cohort))
    part, path = monitor.part(0.01, 1.0), out / MANIFEST
    before = read_run(path) if path.is_file() and not params.overwrite else None
    distill_into(cohort, out, params.config, part, overwrite=params.overwrite)
    manifest, outputs = read_run(path), {"output": str(out)}
    if confidential_folder(out).is_dir():
        outputs["confidential"] = str(confidential_folder(out))
    return Result(
        {
            "outputs": outputs,
            "manifest": str(path),
            "change": "" if manifest == before else "license" if before else "distilled",
            "seconds": round(time.monotonic() - began, 3),
            "method": manifest["config"]["method"],
            **{name: manifest.get(name) for name in _REPORTED},
        }
    )


def distill_into(
    cohort: Cohort, out: Path, config: DistillConfig, monitor: Monitor, *, overwrite: bool
) -> Path:
    """Distill by `spg.distillation.distill_cohort`, with the networks of `matched_networks`.

    Args:
        cohort: the patients; InputError for too few.
        out: folder of the result; a distillation that was stopped there continues.
        config: of the distillation.
        monitor: receives progress, warnings and metrics; may cancel.
        overwrite: whether an earlier distillation there is removed.
    """
    cohort.require("a distillation")
    load_packages(*_PACKAGES, purpose="Distilling", monitor=monitor)
    from MedEnhanceLib.training.jobs.matched_networks import make_networks
    from MedEnhanceLib.training.spg.distillation import distill_cohort

    return distill_cohort(
        cohort, out, config, monitor, make_networks=make_networks, overwrite=overwrite
    )


def distill_config(
    config: str | Mapping[str, Any] | DistillConfig, changes: Mapping[str, Any]
) -> DistillConfig:
    """Make a configuration from a preset's name, an object or another one, with changed fields."""
    if isinstance(config, DistillConfig):
        return replace(config, **changes)
    fields = {"preset": config} if isinstance(config, str) else config
    if not isinstance(fields, Mapping):
        raise ConfigError(
            f"config is {config!r}", "Give a preset's name, an object, or a DistillConfig."
        )
    return DistillConfig.from_json({**fields, **changes})


def refuse_among_patients(out: Path, cohort: Path) -> None:
    """Raise OutputError if `out` lies in the cohort's folder, or in a distilled set."""
    if cohort.is_dir() and out.resolve().is_relative_to(cohort.resolve()):
        raise OutputError(
            f"{out} lies in {cohort}, among the patients",
            "Give a cohort whose folder does not contain that of the result.",
        )
    for parent in out.resolve().parents:
        if is_distilled(parent):  # a set is shared, and files beside the result name patients
            raise OutputError(
                f"{out} lies in {parent.name}, a distilled set",
                "Keep the set in another folder than that of the result.",
            )
