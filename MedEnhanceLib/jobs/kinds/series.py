"""Jobs on DICOM alone: what series there are, and files handed to an archive."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.dicom import DicomParams, check_folder
from MedEnhanceLib.jobs.files import VolumeParams, finish, known_as, load_volume
from MedEnhanceLib.jobs.objects import Found, Objects, place_all, write
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.jobs.worker.events import as_json
from MedEnhanceLib.runtime.progress import Monitor

ROLES = ("volume", "segmentation", "uncertainty")


@dataclass(frozen=True, kw_only=True)
class SeriesParams:
    """input: a folder, zip, DICOMDIR, list or file."""

    input: str


@dataclass(frozen=True, kw_only=True)
class ExportParams(DicomParams, VolumeParams):
    """input: a volume's file; role: what it is, one of ROLES.

    segmentation, uncertainty: files of what else goes into the folder, where role is "volume".
    labels, table: of the segmentation, as the jobs that made it tell them. model, head: what made
    volume and segmentation, as manifests name it. action: what was done ("enhanced", …).
    """

    role: str = "volume"
    segmentation: str | None = None
    uncertainty: str | None = None
    labels: list[dict[str, Any]] = field(default_factory=list)
    table: list[dict[str, Any]] = field(default_factory=list)
    model: dict[str, Any] | None = None
    head: dict[str, Any] | None = None
    action: str = "exported"
    dicom: bool = True

    def __post_init__(self) -> None:
        self.check_dicom()
        if not self.dicom:
            raise ConfigError("export writes DICOM", "Leave out dicom, or use convert.")
        if self.role not in ROLES:
            raise ConfigError(f"role is {self.role!r}", f"Use one of {', '.join(ROLES)}.")
        if self.role != "volume" and (self.segmentation or self.uncertainty):
            raise ConfigError(
                f"segmentation and uncertainty lie beside a volume, not beside a {self.role}",
                'Give the volume as input with the role "volume", or leave them out.',
            )


def run_series(params: SeriesParams, monitor: Monitor) -> Result:
    """Read headers → a row for each series, those that cannot be loaded with the reason."""
    from MedEnhanceLib.io.dicom import list_series

    return Result({"series": as_json(list_series(Path(params.input), monitor))})


def run_export(params: ExportParams, monitor: Monitor) -> Result:
    """Load → lay beside the series → write into the folder → manifest."""
    began = time.monotonic()
    source, output = Path(params.input), Path(params.output)
    named = {"segmentation": params.segmentation, "uncertainty": params.uncertainty}
    inputs = {"input": source} | {name: Path(path) for name, path in named.items() if path}
    check_folder(output, inputs=list(inputs.values()), overwrite=params.overwrite, monitor=monitor)
    objects = _objects(params, monitor.part(0.0, 0.4))
    objects = place_all(objects, params, monitor.part(0.4, 0.5))
    written = write(objects, output, params, monitor.part(0.5, 1.0))
    inputs["input"] = known_as(source, objects.source)
    return finish(
        "exported",
        {"output": output},
        began=began,
        config=params.told() | {"role": params.role, "action": params.action},
        inputs=inputs,
        figures={},
        written=written,
        anonymous=params.deidentify,
        model=params.model,
        source=objects.result,
        overwrite=params.overwrite,
    )


def _objects(params: ExportParams, monitor: Monitor) -> Objects:
    volume = params.load(monitor)
    found = volume if params.role == "segmentation" else None
    uncertainty = volume if params.role == "uncertainty" else None
    if params.segmentation:
        found = load_volume(Path(params.segmentation), modality="SEG", monitor=monitor)
    if params.uncertainty:
        uncertainty = load_volume(
            Path(params.uncertainty), modality=volume.modality, monitor=monitor
        )
    model = params.head or params.model
    labels = Found(found, params.labels, params.table, model) if found is not None else None
    return Objects(
        replace(volume, history=_before(volume.history, params.action)),
        params.action,
        volume=volume if params.role == "volume" else None,
        found=labels,
        uncertainty=uncertainty,
        model=params.model,
    )


def _before(history: tuple[str, ...], action: str) -> tuple[str, ...]:
    """What was done before the step that the objects tell of themselves."""
    tells_it = bool(history) and history[-1].startswith(f"DERIVED: {action} ")
    return history[:-1] if tells_it else history
