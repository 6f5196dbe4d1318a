"""Thin slices from thick ones: the task slices of an enhancement.

plan_slices → spline and data consistency → network on both sets of planes → mean → units, geometry
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from MedEnhanceLib.bundles.schema import SLICES
from MedEnhanceLib.bundles.store import Bundle, open_bundle
from MedEnhanceLib.bundles.suitability import ModelWarning, messages_of, model_warnings
from MedEnhanceLib.core.arrays import Floats, Voxels, parts_of
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume, restore_dtype
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.decide import frames_warning
from MedEnhanceLib.denoise.duration import expected_seconds_of_slices
from MedEnhanceLib.denoise.removal import removal_of
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.filters.regions import ConstantRegions
from MedEnhanceLib.io.describe import refuse_not_finite
from MedEnhanceLib.learning.intensity import Scaling, scaling_for
from MedEnhanceLib.learning.precision import move, on_device, without_tf32
from MedEnhanceLib.noise.estimate import noise_of
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.machine import cpu_threads
from MedEnhanceLib.runtime.ordered import ordered_map
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.text import duration_text
from MedEnhanceLib.slices.planes import Planes
from MedEnhanceLib.slices.profile import SliceStack
from MedEnhanceLib.slices.slice_network import SliceNet, StackMaps, open_network, restore_planes
from MedEnhanceLib.slices.slice_plan import SlicePlan, plan_slices
from MedEnhanceLib.slices.steps import TUNING_STEPS, Tuned, tuned

#: Pixels of thin slices that go through the network at once.
_AT_ONCE = 1 << 18
# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/slices.py.
#: Planes whose pixels are coarser than this many thin slices are left out: their detail is unlike
#: that of the training data.
_COARSEST = 2.5


@without_tf32
def enhance_slices(volume: Volume, config: EnhanceConfig, monitor: Monitor) -> Enhanced:
    """Restore thin slices from thick ones, after training the network on these themselves.

    The extent is kept from edge to edge: K slices of S mm become M of K·S/M mm, where M gives the
    spacing closest to the requested one, and the first center moves by (K·S/M − S)/2. Thickened
    again, the result is the input, as far as noise permits.

    Args:
        volume: CT or MR of 4 slices or more, thick along its axis of largest spacing; whether its
            values are intensities is not checked.
        config: model, device, strength and the options of slices; "auto" and "full" are 1.
        monitor: receives progress and warnings; may cancel.
    Returns the volume in the same type and units, its `original` interpolated to the same grid.
    Raises InputError as `plan_slices`, ModelError where no model fits.
    """
    began = time.monotonic()
    plan = plan_slices(volume, config)
    stack = plan.stack
    refuse_not_finite(volume)
    bundle = open_bundle(config.model, kind=SLICES, modality=volume.modality)
    whole = [n for n, frame in enumerate(volume.frames()) if np.ptp(frame.voxels)] or [0]
    constant = [n for n in range(len(volume.frames())) if n not in whole]
    warnings = (
        *model_warnings(bundle, volume),
        *frames_warning("no-tissue", constant),
        *_thickness_warning(plan),
    )
    for warning in warnings:
        monitor.warn(warning.text)
    choice = choose_device(config.device)
    monitor.log(f"running {bundle.name} ({bundle.origin}) on {choice.name}: {choice.reason}")
    monitor.log(
        f"slices of {stack.thickness_mm:.3g} mm ({stack.shape}), {stack.spacing_mm:.3g} mm apart"
    )
    millions = volume.voxels.size / stack.thick * stack.thin / 1e6
    threads = torch.get_num_threads()
    seconds = expected_seconds_of_slices(millions, TUNING_STEPS, threads=threads)
    text = (
        f"{stack.thin} thin slices take about {duration_text(seconds)} on a CPU without other work "
        f"({threads} thread{'s' if threads > 1 else ''})"
    )
    monitor.log(
        text + ("" if choice.name == "cpu" else f", and less on {choice.name}"), is_news=True
    )
    network = open_network(bundle)
    move(network, choice.name)
    seen = volume.canonical().compact()
    frames = [_ThickFrame.of(seen.frame(number), plan) for number in whole]
    network, tuning = frames[0].tuned(network, volume.modality, choice.name, monitor.part(0, 0.5))
    part = monitor.part(0.5, 1.0)
    pairs = [
        frame.restored(network, choice.name, part.part(n / len(frames), (n + 1) / len(frames)))
        for n, frame in enumerate(frames)
    ]
    for number in constant:
        values = np.full_like(pairs[0][0], volume.frame(number).voxels.flat[0])
        pairs.insert(number, (values, values))
    restored, interpolated = (
        np.ascontiguousarray(plan.turn.undo(np.stack(each) if volume.is_sequence else each[0]))
        for each in zip(*pairs, strict=True)
    )
    original = replace(
        volume,
        voxels=interpolated,
        geometry=_new_geometry(volume.geometry, plan),
        dicom_origin=volume.dicom_origin and replace(volume.dicom_origin, on_grid=False),
    )
    full = Enhanced(
        volume=original.with_voxels(restored, did=_note_of(bundle, stack, warnings)),
        model=bundle.identity(),
        device=choice.name,
        seconds=0.0,
        original=original,
        measured={"slices": {**_facts_of(stack), **tuning}},
        warnings=warnings,
    )
    return replace(full.at_strength(config.share), seconds=time.monotonic() - began)


def _note_of(bundle: Bundle, stack: SliceStack, warnings: Sequence[ModelWarning]) -> str:
    """State the restoration, for the history."""
    return derived_note(
        f"slices restored with {bundle.name} {bundle.sha256[:12]}: {stack.thick} of "
        f"{stack.spacing_mm:.3g} mm to {stack.thin} of {stack.thin_mm:.3g} mm"
        + (f" ({messages_of(warnings)})" if warnings else "")
    )


def _facts_of(stack: SliceStack) -> dict[str, Any]:
    """State numbers and spacings as manifests record them."""
    return {
        "before": stack.thick,
        "after": stack.thin,
        "spacing_before_mm": round(stack.spacing_mm, 4),
        "spacing_after_mm": round(stack.thin_mm, 4),
        "thickness_mm": round(stack.thickness_mm, 4),
        "profile": stack.shape,
    }


@dataclass(frozen=True, eq=False)
class _ThickFrame:
    """A frame with its thick axis first.

    Attributes:
        voxels: [K, A, B], without the constant regions.
        noise: σ on the network's scale.
    """

    plan: SlicePlan
    voxels: Voxels
    constant: ConstantRegions
    scaling: Scaling
    noise: float

    @classmethod
    def of(cls, frame: Volume, plan: SlicePlan) -> _ThickFrame:
        """Prepare a frame: move its thick axis first, and measure its noise."""
        scaling = scaling_for(frame)
        level = removal_of(noise_of(frame), frame.modality).noise.level
        constant = ConstantRegions(np.moveaxis(frame.voxels, plan.axis, 0), level)
        voxels = np.asarray(constant.neutral[:])
        return cls(plan, voxels, constant, scaling, level / scaling.scale)

    def tuned(self, network: SliceNet, modality: str, device: str, monitor: Monitor) -> Tuned:
        """Train a network further on the slices themselves; see `steps.tuned`."""
        stack, across_mm = self.plan.stack, self.plan.across_mm
        voxels = self.scaling.apply(self.voxels).astype(np.float16)
        return tuned(
            network,
            Planes(voxels, (stack.spacing_mm, *across_mm)),
            stack,
            self.noise,
            modality=profile_of(modality).like,
            device=device,
            monitor=monitor,
        )

    def restored(self, network: SliceNet, device: str, monitor: Monitor) -> tuple[Voxels, Voxels]:
        """Restore thin slices; returns them and interpolated ones, in canonical order."""
        stack, across_mm, thick = self.plan.stack, self.plan.across_mm, self.voxels
        thin = restore_array(
            thick, self.scaling, stack, across_mm, self.noise, network, device, monitor
        )
        # In units, and not below the lowest value. Constant regions of a thick slice stay in the
        # thin slices within it.
        low, rows = float(thick.min()), range(thick.shape[1])
        weights = stack.interpolate().astype(np.float32)
        values = (np.maximum(self.scaling.undo(thin[:, row]), low) for row in rows)
        spline = (weights @ thick[:, row].astype(np.float32) for row in rows)
        results = []
        for each in (values, spline):
            slices = _stack_rows(each, thick.dtype, self.plan.axis)
            self.constant.put_back(stack.sources(), np.moveaxis(slices, self.plan.axis, 0))
            results.append(slices)
        return results[0], results[1]


def _thickness_warning(plan: SlicePlan) -> Iterator[ModelWarning]:
    if plan.is_assumed:
        yield ModelWarning("slice-thickness", {"thickness_mm": plan.stack.thickness_mm})


def _new_geometry(geometry: Geometry, plan: SlicePlan) -> Geometry:
    """Return the geometry after restoring: the edges of the volume stay where they are."""
    ijk, thin_mm = 2 - plan.turn.axes[plan.axis], plan.stack.thin_mm
    spacing = np.array(geometry.spacing)
    along = np.asarray(geometry.direction)[:, ijk]
    i, j, k = (np.asarray(geometry.origin) + along * (thin_mm - spacing[ijk]) / 2).tolist()
    spacing[ijk] = thin_mm
    di, dj, dk = spacing.tolist()
    return Geometry((di, dj, dk), (i, j, k), geometry.direction)


def _stack_rows(rows: Iterable[Floats], dtype: np.dtype[Any], axis: int) -> Voxels:
    """Stack rows [M, B] along a new second axis, in a volume's type; M becomes `axis`."""
    volume = np.stack([restore_dtype(row, dtype) for row in rows], axis=1)
    return np.ascontiguousarray(np.moveaxis(volume, 0, axis))


def restore_array(
    thick: Voxels,
    scaling: Scaling,
    stack: SliceStack,
    across_mm: Sequence[float],
    noise: float,
    network: SliceNet,
    device: str,
    monitor: Monitor,
) -> Floats:
    """Restore [K, A, B] to [M, A, B], on the network's scale.

    The result is the mean over both sets of planes that contain the thick axis, without a set whose
    pixels are much coarser than the thin slices. Needs no other memory of the result's size.

    Args:
        thick: [K, A, B], in their own units.
        scaling: to the network's scale.
        stack: of K thick and M thin slices.
        across_mm: pixel sizes along A and B.
        noise: standard deviation in `thick`, on the network's scale.
        network: on `device`.
        device: as PyTorch names it.
        monitor: receives progress; may cancel.
    """
    total = np.zeros((stack.thin, *thick.shape[1:]), np.float32)
    limit = _COARSEST * max(stack.thin_mm, min(across_mm))
    axes = [axis for axis in (1, 2) if across_mm[axis - 1] <= limit]
    finished, total_planes = 0, sum(thick.shape[3 - axis] for axis in axes)
    threads = cpu_threads() if device == "cpu" else 1
    for axis in axes:
        # Planes contain the thick axis and `axis`; the other axis numbers them.
        beside = 3 - axis
        sizes = [(across_mm[axis - 1], across_mm[beside - 1])]
        maps = on_device(StackMaps.of(stack, noise, sizes), device)
        thick_planes = np.moveaxis(thick, beside, 0)  # [N, K, W]
        thin_planes = np.moveaxis(total, beside, 0)  # [N, M, W]

        def restored(part: slice, planes: Voxels = thick_planes, maps: StackMaps = maps) -> Floats:
            around = np.clip(np.arange(part.start - 1, part.stop + 1), 0, len(planes) - 1)
            slices = torch.from_numpy(scaling.apply(planes[around])).to(device)
            with torch.inference_mode():
                near = slices.unfold(0, 3, 1).movedim(-1, 1)
                return restore_planes(network, near, maps).cpu().numpy()

        at_once = max(1, _AT_ONCE // (threads * stack.thin * thick_planes.shape[2]))
        parts = list(parts_of(0, len(thick_planes), at_once))
        results = ordered_map(restored, parts, threads=threads, monitor=monitor)
        for part, planes in zip(parts, results, strict=True):
            thin_planes[part] += planes / np.float32(len(axes))
            finished += len(planes)
            monitor.progress(finished / total_planes, "restoring slices")
    return total
