"""Segments a volume by a segmenter, and measures its labels."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Bytes
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.labels import Label, Segmentation
from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.segmenters import OpenHead
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
    return Segmentation(
        volume=replace(result, modality="SEG", units=""),
        labels=segmenter.labels,
        table=_table(made.labels, segmenter.labels, made.quality, seen.geometry),
        model=identity,
        device=choice.name,
        seconds=time.monotonic() - began,
        warning=warning,
        limits=segmenter.limits,
        uncertainty=uncertainty,
    )


def _table(
    labels: Bytes, structures: Sequence[Label], quality: Mapping[str, float], geometry: Geometry
) -> list[dict[str, Any]]:
    """Measure each structure."""
    # Slice by slice, as bincount needs 8 bytes for each voxel.
    counts = np.zeros(256, np.int64)
    for plane in labels:
        counts += np.bincount(plane.ravel(), minlength=256)
    voxel_ml = geometry.voxel_volume_mm3 / 1000
    return [
        {
            "label": structure.name,
            "value": structure.value,
            "voxels": int(counts[structure.value]),
            "volume_ml": round(float(counts[structure.value]) * voxel_ml, 3),
            # Unknown of a structure that the volume does not show.
            **({"quality": round(dice, 3)} if math.isfinite(dice) else {}),
        }
        for structure in structures
        for dice in [quality.get(structure.name, math.nan)]
    ]
