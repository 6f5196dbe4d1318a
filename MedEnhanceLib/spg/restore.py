"""Restores a volume with a bundle of `train denoiser`: slice by slice, on the volume's grid.

open_restorer → axial_view → window_of → over_slices → values inside the window replaced
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from MedEnhanceLib.bundles.export import load_tensors, must_fit
from MedEnhanceLib.bundles.schema import RESTORER
from MedEnhanceLib.bundles.store import Bundle, open_bundle_for, read_bundle
from MedEnhanceLib.bundles.suitability import (
    ModelWarning,
    messages_of,
    pixel_size_warning,
    training_length_warning,
)
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.options import config_to_json
from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.describe import refuse_not_finite
from MedEnhanceLib.nets.intensity import Scaling
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.nets.slices import Plan, SliceStacks, over_slices, stoppable
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig, ImageConfig
from MedEnhanceLib.spg.images import window_of
from MedEnhanceLib.spg.networks import make_network

Voxels = npt.NDArray[Any]
#: Voxels of which a percentile is computed: every n-th slice of a larger volume.
_ENOUGH = 20_000_000
#: Number of the axis k in the geometry.
_K = 2
#: Options of an enhancement that a small restorer does not have, and their values when unused.
_LACKING = {
    "uncertainty": (False,),
    "bias_correction": ("auto", "none"),
    "task": ("auto", "noise"),
}


@dataclass(frozen=True)
class RestorerModel:
    """A network ready for use; damaging: images and degradation that it learned from."""

    bundle: Bundle
    network: nn.Module
    damaging: DistillConfig


@dataclass(frozen=True)
class Restored:
    """A restored volume and its `original`, on one grid; warnings: against using the model."""

    volume: Volume
    original: Volume
    bundle: Bundle
    device: str
    warnings: tuple[ModelWarning, ...]


@without_tf32()
def restore(
    volume: Volume,
    options: Mapping[str, Any],
    *,
    besides: Sequence[str] = (),
    slices: tuple[int, int] | None = None,
    monitor: Monitor,
) -> Restored:
    """Restore each axial slice of a volume with a small restorer, at full strength.

    Args:
        volume: [K, J, I] or [T, K, J, I].
        options: the fields of an enhancement (EnhanceConfig) as JSON.
        besides: "guide" and "look" where they are given: refused, as no small restorer takes one.
        slices: (first, stop) along K: only these are returned, equal to those of a whole run.
        monitor: gets progress and warnings, and may cancel.
    Returns:
        The volume with its own dtype.
    Raises:
        ConfigError: an option that small restorers do not have, or slices out of range.
        InputError: voxels are not finite, or the volume has no intensity window.
        ModelError: there is no such model, or it is for another modality.
        DeviceMemoryError: memory ran out.
        Cancelled: the monitor asked for it.
    """
    bundle, volume = open_bundle_for(volume, options["model"], kind=RESTORER, monitor=monitor)
    asked = [*besides] + [name for name, unused in _LACKING.items() if options[name] not in unused]
    if asked:
        raise ConfigError(
            f"model {bundle.name!r} is a small restorer, which has no {' and no '.join(asked)}",
            f"Leave out {', '.join(asked)}, or choose an enhancer.",
        )
    model = open_restorer(bundle)
    choice = choose_device(options["device"])
    monitor.log(f"running {bundle.name} ({bundle.origin}) on {choice.name}: {choice.reason}")
    warnings = _warnings(model, volume)
    for warning in warnings:
        monitor.warn(warning.text)
    settings = {name: options[name] for name in ("batch", "tile", "overlap")}
    plan = Plan.make(choice.name, **settings)
    voxels = _restored_voxels(volume, model, plan, monitor, slices or (0, volume.shape[-3]))
    note = derived_note(
        f"enhanced with {bundle.name} {bundle.sha256[:12]}"
        + (f" ({messages_of(warnings)})" if warnings else "")
    )
    grid = volume if slices is None else volume.crop(k=slice(*slices))
    return Restored(grid.with_voxels(voxels, did=note), grid, bundle, choice.name, warnings)


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
    tensors = load_tensors(bundle)
    with must_fit(bundle, tensors):
        network = make_network(bundle.metadata["network"]["name"], np.random.default_rng(0))
        network.load_state_dict(tensors)
        damaging = damaging_of(bundle.metadata)
    return RestorerModel(bundle, network.eval().requires_grad_(False), damaging)


def _restored_voxels(
    volume: Volume, model: RestorerModel, plan: Plan, monitor: Monitor, slices: tuple[int, int]
) -> Voxels:
    """The chosen slices of every frame, restored.

    Nothing is resampled: the network gets the volume's own pixels, oriented as in the training.
    Intensities outside the window of the training are kept.
    """
    first, stop = slices
    count = volume.shape[-3]
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


def _warnings(model: RestorerModel, volume: Volume) -> tuple[ModelWarning, ...]:
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
