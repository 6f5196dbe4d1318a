"""The job that finds labels in a volume with a trained head."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.core.options import config_from_json, config_to_json
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.dicom import DicomParams, check_output, placed
from MedEnhanceLib.jobs.files import VolumeParams, finish, known_as
from MedEnhanceLib.jobs.objects import Found, Objects, write
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.jobs.worker.events import as_json
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom import Segmentation, SegmentConfig


@dataclass(frozen=True, kw_only=True)
class SegmentParams(DicomParams, VolumeParams):
    """config: fields of gradprom.SegmentConfig."""

    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.check_dicom()


def run_segment(params: SegmentParams, monitor: Monitor) -> Result:
    """Load → segment → save, or as DICOM → manifest with the volume of each label."""
    from MedEnhanceLib.gradprom import SegmentConfig, segment
    from MedEnhanceLib.io import save

    began = time.monotonic()
    config = config_from_json(SegmentConfig, params.config)
    source, output = Path(params.input), Path(params.output)
    check_output(params, source, monitor)
    volume = params.load(monitor.part(0.0, 0.1))
    if params.dicom:
        volume = placed(volume, params, monitor)
    found = segment(volume, config, monitor=monitor.part(0.1, 0.9))
    monitor.progress(0.9, "save")
    written = None
    if params.dicom:
        objects = Objects(volume, "segmented", found=found_of(found))
        written = write(objects, output, params, monitor.part(0.9, 1.0))
    else:
        save(found.volume, output, overwrite=params.overwrite, monitor=monitor)
    return finish(
        "segmented",
        {"output": output},
        began=began,
        config=config_to_json(config) | params.told(),
        inputs={"input": known_as(source, volume)},
        figures=segmentation_figures(found),
        written=written,
        anonymous=params.deidentify,
        source=volume,
        device=found.device,
        model=found.model,
        overwrite=params.overwrite,
    )


def head_config(head: str, device: str, *, wanted: bool) -> SegmentConfig | None:
    """The head for what comes after an enhancement, on the same device; None where none is wanted.

    head: a model's name or folder, or "auto". Raises ConfigError as `check_head`.
    """
    from MedEnhanceLib.gradprom import SegmentConfig

    check_head(head, wanted=wanted)
    return SegmentConfig(model=os.fspath(head), device=device) if wanted else None


def check_head(head: str, *, wanted: bool) -> None:
    """Raises ConfigError where a head is named, but no segmentation is wanted."""
    if not isinstance(head, str | os.PathLike) or not os.fspath(head):
        raise ConfigError(f"head is {head!r}", 'Give a model\'s name or folder, or "auto".')
    if head != "auto" and not wanted:
        raise ConfigError(
            f"the head {head} is named, but no segmentation is asked for",
            "Ask for one as well, with segment (--segment), or name no head.",
        )


def found_of(found: Segmentation) -> Found:
    """A segmentation as what is written as DICOM takes it."""
    return Found(
        found.volume, as_json(found.labels), as_json(found.table), found.model, found.doubt
    )


def segmentation_figures(found: Segmentation | None) -> dict[str, Any]:
    """What a manifest tells of a segmentation; nothing where there is none."""
    if found is None:
        return {}
    return {
        "labels": as_json(found.labels),
        "table": as_json(found.table),
        "head": dict(found.model),
        **({"doubt_of_labels": found.doubt} if found.doubt else {}),
    }
