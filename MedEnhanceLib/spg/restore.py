"""Restores a volume with a bundle of `train denoiser`: slice by slice, on the volume's grid.

open_bundle → axial_view → window_of → over_slices → values inside the window replaced
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib.bundles.export import load_tensors
from MedEnhanceLib.bundles.store import Bundle, read_bundle
from MedEnhanceLib.bundles.suitability import (
    ModelWarning,
    pixel_size_warning,
    training_length_warning,
)
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.options import config_to_json
from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.errors import ConfigError, InputError, ModelError
from MedEnhanceLib.io.describe import refuse_not_finite
from MedEnhanceLib.nets.intensity import Scaling
from MedEnhanceLib.nets.slices import Plan, SliceStacks, over_slices, stoppable
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig, ImageConfig
from MedEnhanceLib.spg.images import window_of
from MedEnhanceLib.spg.networks import make_network

Voxels = npt.NDArray[Any]
#: Voxels of which a percentile is computed: every n-th slice of a larger volume.
_ENOUGH = 20_000_000
#: Number of the axis k in the geometry.
_K = 2


@dataclass(frozen=True)
class RestorerModel:
    """A network ready for use; damaging: images and degradation that it learned from."""

    bundle: Bundle
    network: nn.Module
    damaging: DistillConfig


def open_restorer(bundle: Bundle) -> RestorerModel:
    """Load the network of a verified bundle; raises ModelError if the weights do not fit."""
    described = json.dumps(bundle.metadata, sort_keys=True, default=str)
    return _opened(bundle.folder, bundle.sha256, described)


def damaging_of(metadata: Mapping[str, Any]) -> DistillConfig:
    """Task, images and damage of a bundle's metadata; raises ConfigError for invalid ones."""
    base = DistillConfig.preset("smoke")  # the rest is not used
    damaging = {name: metadata[name] for name in ("task", "images", "damage")}
    return DistillConfig.from_json(config_to_json(base) | damaging)


@lru_cache(maxsize=4)
def _opened(folder: Path, sha256: str, described: str) -> RestorerModel:  # noqa: ARG001
    """Cached: models stay loaded between jobs of a process; other weights have another hash."""
    bundle = read_bundle(folder, expected_sha256=sha256)
    try:
        name = bundle.metadata["network"]["name"]
        network = make_network(name, np.random.default_rng(0))
        network.load_state_dict(load_tensors(bundle))
        damaging = damaging_of(bundle.metadata)
    except (RuntimeError, KeyError, TypeError, ConfigError) as cause:
        raise ModelError(
            f"model {bundle.name!r}: its weights do not fit its description", "Import it again."
        ) from cause
    return RestorerModel(bundle, network.eval().requires_grad_(False), damaging)


def restore_volume(
    volume: Volume,
    model: RestorerModel,
    plan: Plan,
    monitor: Monitor,
    *,
    slices: tuple[int, int] | None = None,
) -> Voxels:
    """Restore each axial slice of a volume, and of every frame of a sequence.

    Nothing is resampled: the network gets the volume's own pixels, oriented as in the training.
    Intensities outside the window of the training are kept.

    Args:
        volume: [K, J, I] or [T, K, J, I].
        model: from `open_restorer`.
        plan: device and batches.
        monitor: gets progress and may cancel.
        slices: (first, stop) along K: only these are returned, equal to those of a whole run.
    Returns:
        Voxels, with the volume's dtype.
    Raises:
        ConfigError: slices are out of range.
        InputError: voxels are not finite, or the volume has no intensity window.
        DeviceMemoryError: memory ran out.
        Cancelled: the monitor asked for it.
    """
    count = volume.shape[-3]
    first, stop = slices or (0, count)
    if not 0 <= first < stop <= count:
        raise ConfigError(
            f"slices {first} to before {stop} of a volume that has {count}",
            f"Choose a first one and one to stop before, within 0 to {count}.",
        )
    refuse_not_finite(volume)
    frames = volume.frames()
    output = np.empty((len(frames), stop - first, *volume.shape[-2:]), volume.dtype)
    windows = [_window(frame, number, model.damaging.images) for number, frame in enumerate(frames)]
    for number, (frame, window) in enumerate(zip(frames, windows, strict=True)):
        part = monitor.part(number / len(frames), (number + 1) / len(frames))
        _restore_frame(frame, window, model, plan, part, slice(first, stop), output[number])
    return output if volume.is_sequence else output[0]


def measured_psnr(bundle: Bundle, volume: Volume, device: str, seed: int) -> tuple[float, float]:
    """PSNR in dB of a volume's axial images degraded by the model's task, and of them restored."""
    from MedEnhanceLib.runtime.device import choose_device
    from MedEnhanceLib.spg.images import axial_slices
    from MedEnhanceLib.spg.restorer import restored_psnr
    from MedEnhanceLib.spg.tasks import make_task

    model = open_restorer(bundle)
    name = choose_device(device).name
    return restored_psnr(
        model.network.to(name),
        axial_slices(volume, model.damaging.images),
        make_task(model.damaging, bundle.modality),
        bundle.modality,
        seed=seed,
        scaling=model.damaging.images,
        device=name,
    )


def warnings_about(model: RestorerModel, volume: Volume) -> tuple[ModelWarning, ...]:
    """Warnings against using the model on this volume."""
    length = training_length_warning(model.bundle)
    di, dj = (volume.geometry.spacing[axis] for axis in _axes(volume.geometry)[:2])
    pixels = pixel_size_warning(model.bundle.name, model.damaging.images.spacing_mm, (di, dj))
    return tuple(warning for warning in (length, pixels) if warning)


def axial_view(voxels: Voxels, geometry: Geometry) -> Voxels:
    """A view of [K, J, I] as [foot to head, front to back, right to left], by the nearest axes.

    Writing to the view writes to `voxels`.
    """
    axes = _axes(geometry)
    directions = np.asarray(geometry.direction)
    # Array axes run K, J, I: axis 2 - a is the one along geometry's axis a.
    view = voxels.transpose([2 - axis for axis in axes[::-1]])
    turned = [directions[place, axes[place]] < 0 for place in (2, 1, 0)]
    return view[tuple(slice(None, None, -1 if turn else 1) for turn in turned)]


def _axes(geometry: Geometry) -> tuple[int, int, int]:
    """The axes (0: i, 1: j, 2: k) that lie nearest to left, back and up."""
    sizes = np.abs(np.asarray(geometry.direction))
    i, j, k = max(
        itertools.permutations(range(3)),
        key=lambda order: sum(sizes[place, axis] for place, axis in enumerate(order)),
    )
    return i, j, k


def _window(frame: Volume, number: int, images: ImageConfig) -> tuple[float, float]:
    step = max(1, frame.voxels.size // _ENOUGH)
    try:
        return window_of(replace(frame, voxels=frame.voxels[::step]), images)
    except InputError as cause:
        raise InputError(f"{cause.message} (frame {number})", cause.hint) from cause


def _restore_frame(
    frame: Volume,
    window: tuple[float, float],
    model: RestorerModel,
    plan: Plan,
    monitor: Monitor,
    only: slice,
    output: Voxels,
) -> None:
    """Fill `output`, [n, J, I], with the slices `only` of a frame."""
    low, high = window
    seen = axial_view(frame.voxels, frame.geometry)
    stacks = SliceStacks(seen, Scaling(low, high - low), context=0)
    wanted, target = slice(0, len(seen)), output
    goes_up = _axes(frame.geometry)[2] == _K
    if goes_up:  # slices along K are the network's: no others are needed
        is_turned = frame.geometry.direction[2][_K] < 0
        count = len(seen)
        wanted = slice(count - only.stop, count - only.start) if is_turned else only
    elif len(output) < len(frame.voxels):
        target = np.empty_like(frame.voxels)
    restored_view = axial_view(target, frame.geometry)

    def run(batch: Tensor, plan: Plan) -> Tensor:
        network = model.network.to(plan.device)
        restored: Tensor = network(batch.clamp(0, 1))
        return restored.clamp(0, 1)

    with torch.inference_mode(), stoppable(model.network, monitor):
        for where, restored in over_slices(run, stacks, plan, monitor, "restore", only=wanted):
            before = seen[where]
            inside = (before >= low) & (before <= high)
            values = restored[:, 0] * np.float32(high - low) + np.float32(low)
            here = slice(where.start - wanted.start, where.stop - wanted.start)
            restored_view[here] = np.where(inside, restore_dtype(values, frame.dtype), before)
    if target is not output:
        output[:] = target[only]
