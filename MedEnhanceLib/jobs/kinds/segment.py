"""The job that finds labels in a volume with a trained head."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.core.options import option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.gradprom.config import SegmentConfig
from MedEnhanceLib.jobs.dicom import (
    DicomParams,
    LabelMap,
    Objects,
    check_output,
    placed,
    write,
)
from MedEnhanceLib.jobs.files import Result, VolumeParams, Work, known_as
from MedEnhanceLib.jobs.worker.events import as_json
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom import Segmentation


@dataclass(frozen=True, kw_only=True)
class SegmentParams(DicomParams, VolumeParams):
    """Find labels in a volume."""

    config: SegmentConfig = option(factory=SegmentConfig, help="how it is segmented")

    @property
    def has_objects(self) -> bool:
        """A segmentation is one."""
        return True


def run_segment(params: SegmentParams, monitor: Monitor) -> Result:
    """Load → segment → save, or as DICOM → manifest with the volume of each label."""
    from MedEnhanceLib.gradprom import segment
    from MedEnhanceLib.io import save

    work = Work("segmented", params)
    source, output = Path(params.input), Path(params.output)
    check_output(params, [source])
    volume = params.load(monitor.part(0.0, 0.1))
    if params.dicom:
        volume = placed(volume, params, monitor)
    labels = segment(volume, params.config, monitor=monitor.part(0.1, 0.9))
    monitor.progress(0.9, "save")
    written = None
    if params.dicom:
        objects = Objects(volume, "segmented", segmentation=label_map(labels))
        written = write(objects, params, monitor.part(0.9, 1.0))
    else:
        save(labels.volume, output, overwrite=params.overwrite, monitor=monitor)
    return work.finish(
        {"output": output},
        config=params.config.to_json() | params.stated(),
        inputs={"input": known_as(source, volume)},
        figures=segmentation_figures(labels),
        written=written,
        source=volume,
        device=labels.device,
        model=labels.model,
    )


def head_config(head: str, device: str, *, wanted: bool) -> SegmentConfig | None:
    """The head for what comes after an enhancement, on the same device; None where none is wanted.

    head: a model's name or folder, or "auto". Raises ConfigError for what is none of them, and
    where a head is named, but no segmentation is wanted.
    """
    if not isinstance(head, str | os.PathLike) or not os.fspath(head):
        raise ConfigError(f"head is {head!r}", 'Give a model\'s name or folder, or "auto".')
    if head != "auto" and not wanted:
        raise ConfigError(
            f"the head {head} is named, but no segmentation is asked for",
            "Ask for one as well, with segment (--segment), or name no head.",
        )
    return SegmentConfig(model=os.fspath(head), device=device) if wanted else None


def label_map(segmentation: Segmentation) -> LabelMap:
    """A segmentation as what is written as DICOM takes it."""
    labels = as_json(segmentation.labels)
    return LabelMap(segmentation.volume, labels, segmentation.model, segmentation.warning)


def segmentation_figures(segmentation: Segmentation | None) -> dict[str, Any]:
    """What a manifest records of a segmentation; nothing where there is none."""
    if segmentation is None:
        return {}
    return {
        "labels": as_json(segmentation.labels),
        "table": as_json(segmentation.table),
        "head": dict(segmentation.model),
        **({"doubt_of_labels": segmentation.warning} if segmentation.warning else {}),
    }
