"""The job that finds labels in a volume with a trained head."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.core.options import option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.gradprom.config import SegmentConfig
from MedEnhanceLib.jobs.dicom import DicomParams, LabelMap, Objects, place_volume
from MedEnhanceLib.jobs.files import Result, VolumeParams
from MedEnhanceLib.jobs.work import Work
from MedEnhanceLib.jobs.worker.events import as_json
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom import Segmentation


@dataclass(frozen=True, kw_only=True)
class SegmentParams(DicomParams, VolumeParams):
    """Find labels in a volume."""

    config: SegmentConfig = option(factory=SegmentConfig, help="how it is segmented")


def run_segment(params: SegmentParams, monitor: Monitor) -> Result:
    """Load → segment → save, or as DICOM → manifest with the volume of each label."""
    from MedEnhanceLib.gradprom import segment

    work = Work("segmented", params, monitor)
    volume = params.load(monitor.part(0.0, 0.1))
    if params.dicom:
        volume = place_volume(volume, params, monitor)
    labels = segment(volume, params.config, monitor=monitor.part(0.1, 0.9))
    part = monitor.part(0.9, 1.0)
    if params.dicom:
        work.write(Objects(volume, "segmented", segmentation=label_map(labels)), part)
    else:
        work.save({"output": labels.volume}, part)
    return work.finish(
        config=params.config.to_json() | params.stated(),
        figures=segmentation_figures(labels),
        source=volume,
        device=labels.device,
        model=labels.model,
    )


def segmenter_config(segmenter: str, device: str, *, wanted: bool) -> SegmentConfig | None:
    """How an enhanced volume is segmented, on the same device; None where it is not.

    segmenter: a model's name or folder, or "auto". Raises ConfigError for anything else, and where
    a model is named without a segmentation.
    """
    if not isinstance(segmenter, str | os.PathLike) or not os.fspath(segmenter):
        raise ConfigError(
            f"segmenter is {segmenter!r}", 'Give a model\'s name or folder, or "auto".'
        )
    if segmenter != "auto" and not wanted:
        raise ConfigError(
            f"the segmenter {segmenter} is named, but no segmentation is requested",
            "Add segment (--segment), or leave out the segmenter.",
        )
    return SegmentConfig(model=os.fspath(segmenter), device=device) if wanted else None


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
