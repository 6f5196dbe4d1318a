"""Thin slices from thick ones: the task slices of an enhancement.

plan_slices → spline and data consistency → network on both sets of planes → mean → units, geometry
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from MedEnhanceLib.bundles.export import load_tensors, must_fit
from MedEnhanceLib.bundles.schema import SLICES
from MedEnhanceLib.bundles.store import Bundle, open_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.core.slabs import looks_like_labels
from MedEnhanceLib.core.volume import Volume, Voxels, restore_dtype
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.groups import on_device
from MedEnhanceLib.hqg.slices.config import SliceNetConfig
from MedEnhanceLib.hqg.slices.network import SliceNet, StackMaps, restore_planes
from MedEnhanceLib.hqg.slices.planes import Planes
from MedEnhanceLib.hqg.slices.profile import SliceStack, check_ratio
from MedEnhanceLib.hqg.slices.train import tuned
from MedEnhanceLib.hqg.strength import Enhancement
from MedEnhanceLib.io.describe import refuse_not_finite
from MedEnhanceLib.io.dicom.headers import read_header
from MedEnhanceLib.nets.grouped_run import parts_of
from MedEnhanceLib.nets.intensity import TISSUE, Scaling, scaling_for
from MedEnhanceLib.nets.precision import mixed_precision, move, without_tf32
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]
#: Thin pixels that go through the network at once.
_AT_ONCE = 1 << 18
#: Planes whose pixels are coarser than this many thin slices are left out: they show other detail
#: than the network has learned from.
_COARSEST = 2.5
#: Slices that the noise is measured on.
_NOISE_SLICES = 24
#: The median of |x| over σ of a normal distribution, and the gain of the mask 1 −2 1 ⊗ 1 −2 1.
_MAD_TO_SIGMA, _MASK_GAIN = 1.4826, 6.0


@dataclass(frozen=True)
class SlicePlan:
    """What is restored.

    axis: of the voxels, [K, J, I], along which the slices are thick. stack: the slices before and
    after. across_mm: pixel sizes within the slices, in the order of the axes.
    """

    axis: int
    stack: SliceStack
    across_mm: tuple[float, float]


@without_tf32()
def enhance_slices(
    volume: Volume, config: EnhanceConfig, monitor: Monitor, *, tune: bool = True
) -> Enhancement:
    """Restore thin slices from thick ones.

    The extent is kept from edge to edge: K slices of S mm become M of K·S/M mm, M the number that
    comes nearest to the requested spacing, and the first center moves by (K·S/M − S)/2. Thickened
    again, the result is the input, as far as noise permits.

    Args:
        volume: CT or MR of 4 slices or more, thick along its axis of largest spacing.
        config: model, slice_spacing, device and strength; "auto" and "full" are 1.
        monitor: progress and cancelling.
        tune: learn from the slices themselves first: better, in about four times the time.
    Returns:
        The volume with new slices: same type, units and frames, new spacing and origin. Its
        `original` is the volume interpolated to them.
    Raises:
        InputError: nothing can be restored (see `plan_slices`), or voxels are not intensities.
        ModelError: no model fits.
        Cancelled: the monitor asked to stop.
    """
    began = time.monotonic()
    if volume.modality == "SEG" or looks_like_labels(volume.voxels):
        raise InputError(
            f"{volume.source or 'volume'}: these are labels, not intensities",
            "Restore the image, and resample its labels to the new grid with nearest neighbors.",
        )
    plan = plan_slices(volume, config.slice_spacing)
    stack = plan.stack
    refuse_not_finite(volume)
    bundle = open_bundle(config.model, kind=SLICES, modality=volume.modality)
    choice = choose_device(config.device)
    monitor.log(f"running {bundle.name} ({bundle.origin}) on {choice.name}: {choice.reason}")
    monitor.log(
        f"slices of {stack.thickness_mm:.3g} mm ({stack.shape}), {stack.spacing_mm:.3g} mm apart"
    )
    network = open_network(bundle)
    move(network, choice.name)
    frames = volume.frames()
    measured = [_measured(frame, plan) for frame in frames]
    if tune:
        scaling, noise = measured[0]
        thick = scaling.apply(np.moveaxis(frames[0].voxels, plan.axis, 0)).astype(np.float16)
        planes = Planes(thick, (stack.spacing_mm, *plan.across_mm))
        network = tuned(
            network,
            planes,
            stack,
            noise,
            modality="CT" if volume.modality == "CT" else "MR",
            device=choice.name,
            monitor=monitor.part(0.0, 0.5),
        )
    part = monitor.part(0.5 if tune else 0.0, 1.0)
    restored = []
    for n, (frame, (scaling, noise)) in enumerate(zip(frames, measured, strict=True)):
        thick = np.moveaxis(frame.voxels, plan.axis, 0)
        share = part.part(n / len(frames), (n + 1) / len(frames))
        thin = restore_array(
            thick, scaling, stack, plan.across_mm, noise, network, choice.name, share
        )
        restored.append(_in_units(thin, frame, scaling, plan))
    note = derived_note(
        f"slices restored with {bundle.name} {bundle.sha256[:12]}: {stack.thick} of "
        f"{stack.spacing_mm:.3g} mm to {stack.thin} of {stack.thin_mm:.3g} mm"
    )
    interpolated = [_interpolated(frame, plan) for frame in frames]
    new_grid = replace(
        volume,
        voxels=np.stack(interpolated) if volume.is_sequence else interpolated[0],
        geometry=new_geometry(volume.geometry, plan),
        origin=volume.origin and replace(volume.origin, on_grid=False),
    )
    full = Enhancement(
        volume=new_grid.with_voxels(
            np.stack(restored) if volume.is_sequence else restored[0], did=note
        ),
        uncertainty=None,
        model=bundle.identity(),
        device=choice.name,
        seconds=time.monotonic() - began,
        original=new_grid,
        measured={
            "slices": {
                "before": stack.thick,
                "after": stack.thin,
                "spacing_before_mm": round(stack.spacing_mm, 4),
                "spacing_after_mm": round(stack.thin_mm, 4),
            }
        },
    )
    return replace(full.at_strength(config.share), seconds=time.monotonic() - began)


def plan_slices(volume: Volume, spacing: float | Literal["isotropic", "half"]) -> SlicePlan:
    """Which axis is thick, and how many slices there will be.

    The profile of a slice is as wide as DICOM states or as slices are apart: a box in CT, which
    averages over the slice; a Gaussian in MR, whose slices are excited with a bell.

    Args:
        volume: with thick slices along one axis.
        spacing: of the thin slices: that of the pixels, half of the present one, or mm.
    Raises:
        InputError: nothing can be restored: the volume is isotropic, has fewer than 4 slices, or
            more than 8 slices would be made of each.
    """
    name = volume.source or "volume"
    sides = volume.geometry.spacing[::-1]  # of the axes [K, J, I]
    axis = int(np.argmax(sides))
    thick, step = volume.shape[-3:][axis], sides[axis]
    a_mm, b_mm = (side for index, side in enumerate(sides) if index != axis)
    fine = float(np.sqrt(a_mm * b_mm))
    named = {"isotropic": fine, "half": step / 2}
    target = named[spacing] if isinstance(spacing, str) else spacing
    if spacing == "isotropic" and step / fine < 1.2:
        raise InputError(
            f"{name}: its voxels are already nearly cubes ({step:.3g} mm by {fine:.3g} mm)",
            "Leave it as it is, or name the spacing to restore (--slice-spacing 0.5).",
        )
    stated = stated_thickness(volume) if axis == 0 else None
    thickness = stated if stated and step / 4 <= stated <= 3 * step else step
    check_ratio(step / target, thick, step, name)
    shape: Literal["box", "gaussian"] = "box" if volume.modality == "CT" else "gaussian"
    # The number of thin slices that comes nearest to the target and keeps the extent exactly.
    thin = max(1, round(thick * step / target))
    return SlicePlan(axis, SliceStack(thick, step, thickness, thin, shape), (a_mm, b_mm))


def stated_thickness(volume: Volume) -> float | None:
    """SliceThickness of the first DICOM image that a volume was read from, mm; None where unknown.

    A file that is not there any more, or states none, is no error.
    """
    origin = volume.origin
    if origin is None or not origin.on_grid or not origin.instances or not origin.instances[0]:
        return None
    first = origin.instances[0][0]
    header = read_header(Path(first.file))
    slices = header.slices if header is not None else ()
    number = (first.frame or 1) - 1
    thickness = slices[number].thickness if number < len(slices) else None
    return abs(thickness) if thickness else None


def new_geometry(geometry: Geometry, plan: SlicePlan) -> Geometry:
    """The geometry after restoring: the edges of the volume stay where they are."""
    ijk = 2 - plan.axis
    spacing = list(geometry.spacing)
    shift = (plan.stack.thin_mm - spacing[ijk]) / 2
    spacing[ijk] = plan.stack.thin_mm
    along = np.asarray(geometry.direction)[:, ijk]
    origin = np.asarray(geometry.origin) + along * shift
    return Geometry(
        (spacing[0], spacing[1], spacing[2]),
        (float(origin[0]), float(origin[1]), float(origin[2])),
        geometry.direction,
    )


def open_network(bundle: Bundle) -> SliceNet:
    """Build the network of a verified bundle; raises ModelError where weights do not fit."""
    tensors = load_tensors(bundle)
    with must_fit(bundle, tensors), torch.random.fork_rng(devices=[]):
        network = SliceNet(config_from_json(SliceNetConfig, bundle.metadata.get("network", {})))
        network.load_state_dict(tensors)
    return network.eval().requires_grad_(False)


def _measured(frame: Volume, plan: SlicePlan) -> tuple[Scaling, float]:
    """Scaling of a frame, and the noise of its slices on that scale."""
    scaling = scaling_for(frame)
    thick = np.moveaxis(frame.voxels, plan.axis, 0)
    some = thick[:: max(1, len(thick) // _NOISE_SLICES)]
    return scaling, measure_noise(scaling.apply(some), frame.modality)


def _interpolated(frame: Volume, plan: SlicePlan) -> Voxels:
    """A frame on the new grid by cubic B-splines through its slices, in its type."""
    weights = plan.stack.interpolate().astype(np.float32)
    thick = np.moveaxis(frame.voxels, plan.axis, 0)
    result = np.empty((plan.stack.thin, *thick.shape[1:]), frame.dtype)
    for row in range(thick.shape[1]):
        values = weights @ thick[:, row].astype(np.float32)
        result[:, row] = restore_dtype(values, frame.dtype)
    return np.ascontiguousarray(np.moveaxis(result, 0, plan.axis))


def _in_units(thin: Floats, frame: Volume, scaling: Scaling, plan: SlicePlan) -> Voxels:
    """In units and type of the frame, not below its lowest value."""
    low = float(frame.voxels.min())
    result = np.empty(thin.shape, frame.dtype)
    for index, plane in enumerate(thin):
        result[index] = restore_dtype(np.maximum(scaling.undo(plane), low), frame.dtype)
    return np.ascontiguousarray(np.moveaxis(result, 0, plan.axis))


def measure_noise(slices: Floats, modality: str) -> float:
    """σ of white noise in the tissue of slices [K, A, B], on the network's scale as they are.

    The median of a mask that no plane or slope passes, where all nine pixels are tissue.
    Source: Immerkær, Computer Vision and Image Understanding 64 (1996) 300, made robust.
    """
    tissue = slices > TISSUE.get(modality, TISSUE["MR"])
    if not tissue.any() or min(slices.shape[1:]) < 3:
        return 0.0
    rows = slices[:, :-2] - 2 * slices[:, 1:-1] + slices[:, 2:]
    mask = rows[:, :, :-2] - 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = tissue[:, 1:-1, 1:-1].copy()
    for j in (0, 2):
        for i in (0, 2):
            inner &= tissue[:, j : j + inner.shape[1], i : i + inner.shape[2]]
    values = np.abs(mask[inner] if inner.any() else mask)
    return float(np.median(values)) * _MAD_TO_SIGMA / _MASK_GAIN


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

    The mean of both sets of planes that contain the thick axis; a set whose pixels are much
    coarser than the thin slices is left out. Holds the result once, and no other copy of its size.

    Args:
        thick: in their own units.
        scaling: to the network's scale.
        stack: the slices before and after.
        across_mm: pixel sizes along A and B.
        noise: standard deviation, on the network's scale.
        network: on `device`.
        device: as torch names it.
        monitor: receives progress and can cancel.
    """
    total = np.zeros((stack.thin, *thick.shape[1:]), np.float32)
    sets = _sets_of_planes(across_mm, stack.thin_mm)
    autocast = mixed_precision(device)
    done, todo = 0, sum(thick.shape[3 - axis] for axis in sets)
    for axis in sets:
        # Planes along `axis` hold its pixels; the other axis counts the planes.
        beside = 3 - axis
        apart_mm = across_mm[beside - 1]
        maps = on_device(StackMaps.of(stack, noise, across_mm[axis - 1], apart_mm), device)
        counted = np.moveaxis(thick, beside, 0)  # [N, K, W]
        filled = np.moveaxis(total, beside, 0)  # [N, M, W]
        at_once = max(1, _AT_ONCE // (stack.thin * counted.shape[2]))
        for part in parts_of(0, len(counted), at_once):
            around = np.clip(np.arange(part.start - 1, part.stop + 1), 0, len(counted) - 1)
            slices = torch.from_numpy(scaling.apply(counted[around]))
            with torch.inference_mode():
                planes = restore_planes(network, slices.to(device), maps, autocast)
            filled[part] += planes.cpu().numpy() / np.float32(len(sets))
            done += len(around) - 2
            monitor.progress(done / todo, "restoring slices")
    return total


def _sets_of_planes(across_mm: Sequence[float], thin_mm: float) -> list[int]:
    """The axes (1, 2) whose pixels are fine enough; always the finer one."""
    finest = int(np.argmin(across_mm)) + 1
    limit = _COARSEST * max(thin_mm, min(across_mm))
    return [axis for axis in (1, 2) if axis == finest or across_mm[axis - 1] <= limit]
