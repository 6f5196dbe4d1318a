"""Jobs that need no method: convert, inspect, degrade."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.options import option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.dicom import DicomParams, check_output, save_output
from MedEnhanceLib.jobs.files import (
    CONTAINER,
    OutputParams,
    Result,
    VolumeParams,
    Work,
    check_volume_outputs,
    known_as,
)
from MedEnhanceLib.runtime.progress import Monitor, attend


@dataclass(frozen=True, kw_only=True)
class ConvertParams(DicomParams, VolumeParams):
    """Read a volume and write it as the output's ending says."""


@dataclass(frozen=True, kw_only=True)
class InspectParams(VolumeParams):
    """Show what a volume, a DICOM folder or a container holds."""

    verify: bool = option(
        False,
        help="of a .ucv: read every chunk with its checksum and the file with its SHA-256",
    )


@dataclass(frozen=True, kw_only=True)
class DegradeParams(OutputParams, VolumeParams):
    """Degrade a volume by simulation."""

    steps: list[dict[str, Any]] = option(
        factory=list,
        help="degradations as their `to_json` gives them, applied in order",
        flag=None,
    )


def run_convert(params: ConvertParams, monitor: Monitor) -> Result:
    """Load → save with the ending of `output`, or as DICOM → manifest."""
    work = Work("converted", params)
    source, output = Path(params.input), Path(params.output)
    check_output(params, [source])
    volume = params.load(monitor.part(0.0, 0.7))
    written = save_output(volume, "converted", params, monitor.part(0.7, 1.0))
    return work.finish(
        {"output": output},
        inputs={"input": known_as(source, volume)},
        figures={"shape": volume.shape, "dtype": str(volume.dtype)},
        written=written,
        source=volume,
    )


def run_inspect(params: InspectParams, monitor: Monitor) -> Result:
    """The card of a volume, or of a container without decoding it."""
    return Result({"card": inspect_volume(params, monitor)})


def inspect_volume(params: InspectParams, monitor: Monitor) -> dict[str, Any]:
    """The card of whatever lies at `input`, as a JSON object."""
    path = Path(params.input)
    if path.suffix.lower() == CONTAINER:
        from MedEnhanceLib.unicompress import inspect_container

        return inspect_container(path, verify=params.verify, monitor=monitor)
    if params.verify:
        raise ConfigError(f"{path.name} carries no checksums", f"Verify a {CONTAINER}.")
    return described(params.load(monitor), path)


def described(volume: Volume, path: Path | None = None) -> dict[str, Any]:
    """The card of a volume with its measured noise; as `io.describe.card`."""
    from MedEnhanceLib.io.describe import card
    from MedEnhanceLib.nets.noise import noise_facts

    return card(volume, path) | {"noise": noise_facts(volume)}


def run_degrade(params: DegradeParams, monitor: Monitor) -> Result:
    """Load → each step → save → manifest with the steps, so that they can be replayed."""
    from MedEnhanceLib.degrade import degradation_from_json
    from MedEnhanceLib.io import save

    work = Work("degraded", params)
    if not params.steps:
        raise ConfigError("degrade: no steps", "Name at least one degradation.")
    steps = [degradation_from_json(step) for step in params.steps]
    source, output = Path(params.input), Path(params.output)
    check_volume_outputs({"output": output}, inputs=[source], overwrite=params.overwrite)
    volume = params.load(monitor.part(0.0, 0.1))
    for index, step in enumerate(steps):
        monitor.progress(0.1 + 0.8 * index / len(steps), step.name)
        volume = attend(partial(step.apply, volume), monitor)
    monitor.progress(0.9, "save")
    save(volume, output, overwrite=params.overwrite, monitor=monitor)
    replay = [step.to_json() for step in steps]
    return work.finish(
        {"output": output},
        config={"steps": replay} | params.stated(),
        inputs={"input": source},
        figures={"steps": replay},
        source=volume,
    )
