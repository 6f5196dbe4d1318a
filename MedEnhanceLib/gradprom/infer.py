"""Segments a volume by a segmenter, and measures its labels."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.labels import INTRACRANIAL, Label, Segmentation
from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.segmenters import OpenHead, VoxelLabels
from MedEnhanceLib.learning.precision import without_tf32
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor


@without_tf32
def segment(volume: Volume, seen: Volume, head: OpenHead, monitor: Monitor) -> Segmentation:
    """Segment as `gradprom.segment`, after models and images were checked.

    Args:
        volume: single.
        seen: the same in canonical order, that of the training.
        head: from `open_head_for`; its warning goes into the history of the labels.
        monitor: receives progress, the device and warnings; may cancel.
    """
    began = time.monotonic()
    segmenter, choice = head.segmenter, choose_device(head.config.device)
    turn = volume.geometry.turn
    monitor.log(f"running {segmenter.name} ({segmenter.origin}) on {choice.name}: {choice.reason}")
    made = segmenter.segment(seen, choice.name, monitor, head.placement)
    for text in made.warnings:
        monitor.warn(text)
    warning = "; ".join(filter(None, [head.warning, *made.warnings]))
    identity = segmenter.identity()
    note = f"segmented with {identity['name']} {identity['sha256'][:12]}"
    did = derived_note(f"{note} ({warning})" if warning else note)
    result = volume.with_voxels(np.ascontiguousarray(turn.undo(made.labels)), did=did)
    uncertainty = None
    if made.uncertainty is not None:
        spread = np.ascontiguousarray(turn.undo(made.uncertainty))
        uncertainty = replace(volume.with_voxels(spread, did=f"uncertainty, {did}"), units="1")
    ends = made.intervals.get(INTRACRANIAL)
    table = _table(made, segmenter.labels, seen.geometry)
    return Segmentation(
        volume=replace(result, modality="SEG", units=""),
        labels=segmenter.labels,
        table=table,
        model=identity,
        device=choice.name,
        seconds=time.monotonic() - began,
        warning=warning,
        limits=segmenter.limits,
        uncertainty=uncertainty,
        intracranial=_volume(sum(row["volume_ml"] for row in table), ends) if ends else None,
    )


def _table(
    made: VoxelLabels, structures: Sequence[Label], geometry: Geometry
) -> list[dict[str, Any]]:
    """Measure each structure."""
    # Slice by slice, as bincount needs 8 bytes for each voxel.
    counts = np.zeros(256, np.int64)
    for plane in made.labels:
        counts += np.bincount(plane.ravel(), minlength=256)
    voxel_ml = geometry.voxel_volume_mm3 / 1000
    return [
        {
            "label": structure.name,
            "value": structure.value,
            "voxels": int(counts[structure.value]),
            **_volume(
                float(counts[structure.value]) * voxel_ml, made.intervals.get(structure.name)
            ),
            # Unknown of a structure that the volume does not show.
            **({"quality": round(dice, 3)} if math.isfinite(dice) else {}),
        }
        for structure in structures
        for dice in [made.quality.get(structure.name, math.nan)]
    ]


def _volume(ml: float, ends: tuple[float, float] | None) -> dict[str, float]:
    """Return a volume and, if its factors are known, the ends of its interval."""
    interval = {"low_ml": round(ml * ends[0], 3), "high_ml": round(ml * ends[1], 3)} if ends else {}
    return {"volume_ml": round(ml, 3), **interval}
