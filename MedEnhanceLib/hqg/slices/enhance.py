"""Thin slices as an enhancement: what `enhance` gives for the task slices."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from MedEnhanceLib.bundles.schema import SLICES
from MedEnhanceLib.bundles.store import open_bundle
from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.slices.config import RestoreSlicesConfig
from MedEnhanceLib.hqg.slices.restore import SlicePlan, new_geometry, plan_slices, restore_slices
from MedEnhanceLib.hqg.strength import Enhancement
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor


def enhance_slices(volume: Volume, config: EnhanceConfig, monitor: Monitor) -> Enhancement:
    """`restore_slices` as an enhancement, whose input is the volume interpolated to the new grid.

    Args:
        volume: as `restore_slices` takes it.
        config: model, slice_spacing, device and strength; "auto" and "full" are 1.
        monitor: progress and cancelling.

    Raises:
        InputError, ConfigError, ModelError, Cancelled: as `restore_slices`.
    """
    began = time.monotonic()
    chosen = RestoreSlicesConfig(
        target=config.slice_spacing, model=config.model, device=config.device
    )
    plan = plan_slices(volume, chosen)
    restored = restore_slices(volume, chosen, monitor=monitor)
    bundle = open_bundle(config.model, kind=SLICES, modality=volume.modality)
    full = Enhancement(
        volume=restored,
        uncertainty=None,
        model=bundle.identity(),
        device=choose_device(config.device).name,
        seconds=time.monotonic() - began,
        original=interpolated(volume, plan),
        measured={
            "slices": {
                "before": plan.stack.thick,
                "after": plan.stack.thin,
                "spacing_before_mm": round(plan.stack.spacing_mm, 4),
                "spacing_after_mm": round(plan.stack.thin_mm, 4),
            }
        },
    )
    return replace(full.at_strength(config.share), seconds=time.monotonic() - began)


def interpolated(volume: Volume, plan: SlicePlan) -> Volume:
    """The volume on the new grid by cubic B-splines through its slices, in its type."""
    weights = plan.stack.interpolate().astype(np.float32)
    frames = []
    for frame in volume.frames():
        thick = np.moveaxis(frame.voxels, plan.axis, 0)
        result = np.empty((plan.stack.thin, *thick.shape[1:]), frame.dtype)
        for row in range(thick.shape[1]):
            values = weights @ thick[:, row].astype(np.float32)
            result[:, row] = restore_dtype(values, frame.dtype)
        frames.append(np.ascontiguousarray(np.moveaxis(result, 0, plan.axis)))
    return replace(
        volume,
        voxels=np.stack(frames) if volume.is_sequence else frames[0],
        geometry=new_geometry(volume.geometry, plan),
        origin=volume.origin and replace(volume.origin, on_grid=False),
    )
