"""Jobs on DICOM alone: what series there are, and files handed to an archive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from MedEnhanceLib.core.options import About, Params, option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.dicom import DicomParams, LabelMap, Objects, check_output, write
from MedEnhanceLib.jobs.files import (
    Result,
    VolumeParams,
    Work,
    known_as,
    load_volume,
)
from MedEnhanceLib.jobs.worker.events import as_json
from MedEnhanceLib.runtime.progress import Monitor


@dataclass(frozen=True, kw_only=True)
class SeriesParams(Params):
    """List the DICOM series at a place."""

    input: Annotated[str, About(help="a folder, DICOMDIR, list or file", place="input")]


@dataclass(frozen=True, kw_only=True)
class ExportParams(DicomParams, VolumeParams):
    """Write a volume's file, and what lies beside it, as DICOM."""

    segmentation: str | None = option(
        None, help="a file that goes into the folder as well", place="input"
    )
    uncertainty: str | None = option(
        None, help="a file that goes into the folder as well", place="input"
    )
    labels: list[dict[str, Any]] = option(
        factory=list, help="of the segmentation, as in the result of the job that made it"
    )
    model: dict[str, Any] | None = option(None, help="what made the volume, as in its manifest")
    head: dict[str, Any] | None = option(None, help="what made the segmentation, likewise")
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
    """Read headers → a row for each series, those that cannot be loaded with the reason."""
    from MedEnhanceLib.io.dicom import list_series

    return Result({"series": as_json(list_series(Path(params.input), monitor))})


def run_export(params: ExportParams, monitor: Monitor) -> Result:
    """Load → lay beside the series → write into the folder → manifest."""
    work = Work("exported", params)
    places = {
        "input": params.input,
        "segmentation": params.segmentation,
        "uncertainty": params.uncertainty,
    }
    inputs = {name: Path(place) for name, place in places.items() if place}
    check_output(params, [*inputs.values()])
    volume = params.load(monitor.part(0.0, 0.2))
    labels = uncertainty = None
    if "segmentation" in inputs:
        segmentation = load_volume(inputs["segmentation"], modality="SEG", monitor=monitor)
        labels = LabelMap(segmentation, params.labels, params.head or params.model)
    if "uncertainty" in inputs:
        uncertainty = load_volume(inputs["uncertainty"], modality=volume.modality, monitor=monitor)
    before, options = _last_step(volume.history, params)
    objects = Objects(
        replace(volume, history=before),
        params.action,
        options=options,
        volume=volume,
        segmentation=labels,
        uncertainty=uncertainty,
        model=params.model,
    ).placed(params, monitor.part(0.4, 0.5))
    written = write(objects, params, monitor.part(0.5, 1.0))
    return work.finish(
        {"output": Path(params.output)},
        config=params.stated() | {"action": params.action},
        inputs=inputs | {"input": known_as(inputs["input"], volume)},
        written=written,
        model=params.model,
        source=objects.volume,
    )


def _last_step(history: tuple[str, ...], params: ExportParams) -> tuple[tuple[str, ...], str]:
    """What was done before the step that the objects record themselves, and that one's options."""
    begin = f"DERIVED: {params.action} "
    if not history or not history[-1].startswith(begin):
        return history, ""
    options = history[-1].removeprefix(begin).partition("by MedEnhance ")[0]
    model = params.model or {}
    options = options.removeprefix(f"with {model.get('name')} {model.get('sha256', '')[:12]}")
    return history[:-1], options.strip(" ,")
