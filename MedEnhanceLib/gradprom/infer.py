"""Segments a volume by a head or a MONAI bundle.

scaling_for → over_slices → most likely label → table
"""

from __future__ import annotations

import colorsys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.bundles.store import Bundle, read_bundle
from MedEnhanceLib.bundles.suitability import compare_likeness
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.labels import Label, Segmentation
from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.surfaces import Labels, surface_areas
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.gradprom.config import SegmentConfig
from MedEnhanceLib.gradprom.head import HeadModel, open_head
from MedEnhanceLib.gradprom.likeness import describe
from MedEnhanceLib.gradprom.monai_bundle import MonaiBundle
from MedEnhanceLib.gradprom.slice_runner import over_slices, stoppable
from MedEnhanceLib.learning.intensity import scaling_for
from MedEnhanceLib.learning.precision import move, without_tf32
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor


def find_unlike(volume: Volume, bundle: Bundle) -> str:
    """State what makes a single volume unlike the training images of a bundle; "" for nothing.

    Raises InputError for a constant volume; ModelError if the bundle's description is damaged.
    """
    likeness = bundle.metadata["likeness"]
    numbers = describe(volume.canonical(), _warm_head(bundle.folder, bundle.sha256))
    try:
        distance, clause = compare_likeness(likeness, numbers)
        return clause if distance > likeness["limit"] else ""
    except (LookupError, ValueError) as cause:
        raise ModelError(
            f"model {bundle.name!r}: its description of the training images is damaged",
            "Import it again.",
        ) from cause


@without_tf32
def segment(
    volume: Volume,
    bundle: Bundle | MonaiBundle,
    config: SegmentConfig,
    *,
    warning: str,
    monitor: Monitor,
) -> Segmentation:
    """Segment as `gradprom.segment`, after models and images were checked.

    Args:
        volume: single.
        bundle: a verified head, or a MONAI bundle.
        config: only `device` is used.
        warning: from `open_head_for`, for the history of the labels; "" for none.
        monitor: receives progress and the device; may cancel.
    """
    began = time.monotonic()
    choice = choose_device(config.device)
    seen, turn = volume.canonical(), volume.geometry.turn  # the order of the training
    if isinstance(bundle, MonaiBundle):
        monitor.log(f"running {bundle.name} on {choice.name}: {choice.reason}")
        labels, structures = _labels_of_monai(seen, bundle, choice.name, monitor)
        limits = ["Trained elsewhere: see its documentation. Do not measure patients with it."]
    else:
        limits = bundle.metadata.get("limits", [])
        monitor.log(f"running {bundle.name} ({bundle.origin}) on {choice.name}: {choice.reason}")
        model = _warm_head(bundle.folder, bundle.sha256)
        structures = model.labels
        labels = _labels_of_head(seen, model, choice.name, monitor)
    identity = bundle.identity()
    note = f"segmented with {identity['name']} {identity['sha256'][:12]}"
    did = derived_note(f"{note} ({warning})" if warning else note)
    result = volume.with_voxels(np.ascontiguousarray(turn.undo(labels)), did=did)
    return Segmentation(
        volume=replace(result, modality="SEG", units=""),
        labels=structures,
        table=_table(labels, structures, seen.geometry),
        model=identity,
        device=choice.name,
        seconds=time.monotonic() - began,
        warning=warning,
        limits=tuple(limits),
    )


def _table(labels: Labels, structures: Sequence[Label], geometry: Geometry) -> list[dict[str, Any]]:
    """Measure each structure; equal for all storages only of labels in canonical order."""
    # Slice by slice, as bincount needs 8 bytes for each voxel.
    counts = np.zeros(256, np.int64)
    for plane in labels:
        counts += np.bincount(plane.ravel(), minlength=256)
    areas = surface_areas(labels, [structure.value for structure in structures], geometry)
    voxel_ml = geometry.voxel_volume_mm3 / 1000
    return [
        {
            "label": structure.name,
            "value": structure.value,
            "voxels": int(counts[structure.value]),
            "volume_ml": round(float(counts[structure.value]) * voxel_ml, 3),
            "surface_mm2": round(areas[structure.value], 1),
        }
        for structure in structures
    ]


def _labels_of_head(volume: Volume, model: HeadModel, device: str, monitor: Monitor) -> Labels:
    def network(batch: Tensor, device: str) -> Tensor:
        logits: Tensor = move(model.network, device)(batch)
        return logits.softmax(dim=1)

    scaling, context = scaling_for(volume), model.config.context
    labels = np.zeros(volume.shape, np.uint8)
    values = np.array([0, *(label.value for label in model.labels)], np.uint8)
    with torch.inference_mode(), stoppable(model.network, monitor):
        for where, likelihood in over_slices(
            network, volume.voxels, scaling, context, device, monitor
        ):
            labels[where] = values[likelihood.argmax(axis=1)]
    return labels


def _labels_of_monai(
    volume: Volume, bundle: MonaiBundle, device: str, monitor: Monitor
) -> tuple[Labels, tuple[Label, ...]]:
    monitor.warn(
        f"{bundle.name} is not a MedEnhance model: its accuracy is not known, "
        "and it was not checked whether the volume is like its training images"
    )
    for note in bundle.notes:  # warnings, as nobody would see the license in a log
        monitor.warn(f"{bundle.name}: {note}")
    bundle.network.to(device)
    return bundle.segment(volume, monitor), tuple(
        Label(value=value, name=name, color=_color_of(value))
        for value, name in enumerate(bundle.labels, 1)
    )


def _color_of(value: int) -> str:
    """Choose a color for a label that states none, unlike those of the next labels."""
    hue = value * 0.618034 % 1.0  # steps of the golden angle
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, 0.95)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


@lru_cache(maxsize=4)
def _warm_head(folder: Path, sha256: str) -> HeadModel:
    """Open a head, which stays loaded between jobs; other weights have another hash."""
    return open_head(read_bundle(folder, expected_sha256=sha256))
