"""Jobs that need no model: convert, inspect, degrade; series and export of DICOM."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from MedEnhanceLib import io, unicompress
from MedEnhanceLib.core.manifest import as_json
from MedEnhanceLib.core.options import About, Params, option
from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.describe import card
from MedEnhanceLib.io.formats import CONTAINER
from MedEnhanceLib.jobs.dicom import DicomParams, LabelMap, Objects, place_objects
from MedEnhanceLib.jobs.files import OutputParams, Result, VolumeParams
from MedEnhanceLib.jobs.work import Work
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.runtime.texts import text

if TYPE_CHECKING:
    from MedEnhanceLib.degradation.pipeline import Degradation


@dataclass(frozen=True, kw_only=True)
class ConvertParams(DicomParams, VolumeParams):
    """Read a volume and write it as the output's ending says."""


@dataclass(frozen=True, kw_only=True)
class InspectParams(VolumeParams):
    """Show what a volume, a DICOM folder or a container holds."""

    verify: bool = option(
        False, help="of a .ucv: read every chunk with its checksum and the file with its SHA-256"
    )


@dataclass(frozen=True, kw_only=True)
class DegradeParams(OutputParams, VolumeParams):
    """Degrade a volume by simulation."""

    steps: list[dict[str, Any]] = option(
        factory=list, help="degradations as their `to_json` gives them, in order", flag=None
    )


def run_convert(params: ConvertParams, monitor: Monitor) -> Result:
    """Load → save with the ending of `output`, or as DICOM → manifest."""
    work = Work("converted", params, monitor)
    volume = params.load(monitor.part(0.01, 0.7))
    work.save_volume(volume, monitor.part(0.7, 1.0))
    return work.finish(figures={"shape": volume.shape, "dtype": str(volume.dtype)}, source=volume)


def run_inspect(params: InspectParams, monitor: Monitor) -> Result:
    """Return the card of a volume, or of a container without decoding it."""
    return Result({"card": inspect_volume(params, monitor)})


def inspect_volume(params: InspectParams, monitor: Monitor) -> dict[str, Any]:
    """Return the card of the file or folder `input`, as a JSON object."""
    path = Path(params.input)
    if path.suffix.lower() == CONTAINER:
        return unicompress.inspect_container(path, verify=params.verify, monitor=monitor)
    if params.verify:
        raise ConfigError(f"{path.name} carries no checksums", f"Verify a {CONTAINER}.")
    facts = described(params.load(monitor), path)
    guess = str(text("modality_guessed"))  # of which the monitor was warned in more words
    own = [warning for warning in facts["warnings"] if warning != guess]
    return facts | {"warnings": [*own, *monitor.warnings]}


def described(volume: Volume, path: Path | None = None) -> dict[str, Any]:
    """Return the card of a volume, see `io.describe.card`, with its measured noise."""
    from MedEnhanceLib.denoise.noise_verdict import noise_verdict

    verdict = None
    with contextlib.suppress(InputError):  # what cannot be enhanced can be described
        verdict = noise_verdict(volume)
    return card(volume, path) | {"noise": verdict.to_json() if verdict else None}


def run_degrade(params: DegradeParams, monitor: Monitor) -> Result:
    """Load → each step → save → manifest with the steps, so that they can be replayed."""
    from MedEnhanceLib.degradation.pipeline import degradation_from_json

    work = Work("degraded", params, monitor)
    if not params.steps:
        raise ConfigError("degrade: no steps", "Name at least one degradation.")
    steps = [degradation_from_json(step) for step in params.steps]
    volume = degraded(params.load(monitor.part(0.0, 0.1)), steps, monitor.part(0.1, 0.9))
    work.save_volume(volume, monitor.part(0.9, 1.0))
    replay = [step.to_json() for step in steps]
    return work.finish(config={"steps": replay}, figures={"steps": replay}, source=volume)


def degraded(volume: Volume, steps: Sequence[Degradation], monitor: Monitor) -> Volume:
    """Apply all steps to a volume; it is rounded to its type once, at the end.

    Args:
        volume: of any type; integers are clipped to the range of the type.
        steps: in their order; they hold their seeds.
        monitor: warned of voxels that left the range of the type; may cancel, also within a step.
    """
    dtype = volume.dtype
    for index, step in enumerate(steps):
        monitor.progress(index / len(steps), f"simulating {step.name}")
        volume = attend(partial(step.apply, volume), monitor)
    rounded = restore_dtype(volume.voxels, dtype)
    if dtype.kind != "f" and (clipped := float(np.mean(np.abs(volume.voxels - rounded) > 0.5))):
        lost = f"{clipped:.2%} of the voxels left the range of {dtype.name} and were clipped"
        monitor.warn(f"{lost}; to keep them, save the input in a wider type, such as float32")
    return volume.with_voxels(rounded)


@dataclass(frozen=True, kw_only=True)
class SeriesParams(Params):
    """List the DICOM series at a place."""

    input: Annotated[str, About(help="a folder, DICOMDIR, list or file", place="input")]


@dataclass(frozen=True, kw_only=True)
class ExportParams(DicomParams, VolumeParams):
    """Write a volume's file, with its segmentation and uncertainty, as DICOM."""

    segmentation: str | None = option(
        None, help="file that is also written into the folder", place="input"
    )
    uncertainty: str | None = option(
        None, help="file that is also written into the folder", place="input"
    )
    labels: list[dict[str, Any]] = option(
        factory=list, help="of the segmentation, as in the result of the job that made it"
    )
    model: dict[str, Any] | None = option(None, help="model of the volume, as in its manifest")
    head: dict[str, Any] | None = option(None, help="model of the segmentation, likewise")
    limits: list[str] = option(
        factory=list, help="reasons not to rely on the segmentation, a sentence each"
    )
    action: str = option("exported", help='what was done, for example "enhanced"')
    dicom: bool = option(True, help="true")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.dicom:
            raise ConfigError("export writes DICOM", "Leave out dicom, or use convert.")

    @property
    def has_objects(self) -> bool:
        """Whether more than a series of images is written."""
        return bool(self.segmentation or self.uncertainty)


def run_series(params: SeriesParams, monitor: Monitor) -> Result:
    """Read headers → a row for each series, with the reason if it cannot be loaded."""
    from MedEnhanceLib.io.dicom.listing import list_series

    return Result({"series": as_json(list_series(Path(params.input), monitor))})


def run_export(params: ExportParams, monitor: Monitor) -> Result:
    """Load → assign the images of the series → write into the folder → manifest."""
    work = Work("exported", params, monitor)
    volume = params.load(monitor.part(0.01, 0.2))
    labels = uncertainty = None
    if params.segmentation:
        segments = io.load(params.segmentation, modality="SEG", monitor=monitor)
        model = params.head or params.model
        labels = LabelMap(segments, params.labels, model, limits=params.limits)
    if params.uncertainty:
        uncertainty = io.load(params.uncertainty, modality=volume.modality, monitor=monitor)
    before, options = _last_step(volume.history, params)
    objects = Objects(
        replace(volume, history=before),
        params.action,
        options=options,
        volume=volume,
        segmentation=labels,
        uncertainty=uncertainty,
        model=params.model,
    )
    objects = place_objects(objects, params, work.series, monitor.part(0.4, 0.5))
    work.write(objects, monitor.part(0.5, 1.0))
    return work.finish(config={"action": params.action}, model=params.model, source=objects.volume)


def _last_step(history: tuple[str, ...], params: ExportParams) -> tuple[tuple[str, ...], str]:
    """Return the history without the step that the objects record, and the options of that step."""
    begin = f"DERIVED: {params.action} "
    if not history or not history[-1].startswith(begin):
        return history, ""
    options = history[-1].removeprefix(begin).partition("by MedEnhance ")[0]
    model = params.model or {}
    options = options.removeprefix(f"with {model.get('name')} {model.get('sha256', '')[:12]}")
    return history[:-1], options.strip(" ,")
