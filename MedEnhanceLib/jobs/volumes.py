"""Jobs that need no method: convert, inspect, degrade."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.files import (
    CONTAINER,
    check_volume_outputs,
    finish,
    load_volume,
)
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.progress import Monitor


@dataclass(frozen=True, kw_only=True)
class ConvertParams:
    """series: the series instance UID to take from a DICOM folder that holds several."""

    input: str
    output: str
    series: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class InspectParams:
    """input: a volume's file, a DICOM folder, or a container."""

    input: str


@dataclass(frozen=True, kw_only=True)
class DegradeParams:
    """steps: degradations as their `to_json` gives them, applied in order."""

    input: str
    output: str
    steps: list[dict[str, Any]] = field(default_factory=list)
    overwrite: bool = False


def run_convert(params: ConvertParams, monitor: Monitor) -> Result:
    """Load → save with the ending of `output` → manifest."""
    from MedEnhanceLib.io import save

    began = time.monotonic()
    source, output = Path(params.input), Path(params.output)
    check_volume_outputs({"output": output}, inputs=[source], overwrite=params.overwrite)
    volume = load_volume(source, series=params.series, monitor=monitor.part(0.0, 0.7))
    monitor.progress(0.7, "save")
    save(volume, output, overwrite=params.overwrite)
    return finish(
        "converted",
        {"output": output},
        began=began,
        config={"series": params.series},
        inputs={"input": source},
        figures={"shape": volume.shape, "dtype": str(volume.dtype)},
        overwrite=params.overwrite,
    )


def run_inspect(params: InspectParams, monitor: Monitor) -> Result:
    """The card of a volume, or of a container without decoding it."""
    return Result({"card": inspect_path(Path(params.input), monitor)})


def inspect_path(path: Path, monitor: Monitor) -> dict[str, Any]:
    """The card of whatever lies at `path`, as a JSON object."""
    if path.suffix.lower() == CONTAINER:
        from MedEnhanceLib.unicompress import inspect_container

        return inspect_container(path)
    from MedEnhanceLib.io import load
    from MedEnhanceLib.io.card import card

    return card(load(path, monitor=monitor), path)


def run_degrade(params: DegradeParams, monitor: Monitor) -> Result:
    """Load → each step → save → manifest with the steps, so that they can be replayed."""
    from MedEnhanceLib.degrade import degradation_from_json
    from MedEnhanceLib.io import save

    began = time.monotonic()
    if not params.steps:
        raise ConfigError("degrade: no steps", "Name at least one degradation.")
    steps = [degradation_from_json(step) for step in params.steps]
    source, output = Path(params.input), Path(params.output)
    check_volume_outputs({"output": output}, inputs=[source], overwrite=params.overwrite)
    volume = load_volume(source, monitor=monitor.part(0.0, 0.1))
    for index, step in enumerate(steps):
        monitor.progress(0.1 + 0.8 * index / len(steps), step.name)
        volume = step.apply(volume)
    monitor.progress(0.9, "save")
    save(volume, output, overwrite=params.overwrite)
    replay = [step.to_json() for step in steps]
    return finish(
        "degraded",
        {"output": output},
        began=began,
        config={"steps": replay},
        inputs={"input": source},
        figures={"steps": replay},
        overwrite=params.overwrite,
    )
