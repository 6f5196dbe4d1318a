"""Thin slices from thick ones, of a whole volume.

plan_slices → spline and data consistency → network on both sets of planes → mean → units, geometry
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
from MedEnhanceLib.errors import ConfigError, GeometryError, InputError
from MedEnhanceLib.hqg.slices.config import RestoreSlicesConfig, SliceNetConfig
from MedEnhanceLib.hqg.slices.network import SliceNet, StackMaps, restore_planes
from MedEnhanceLib.hqg.slices.planes import Planes
from MedEnhanceLib.hqg.slices.profile import Shape, SliceStack, check_ratio
from MedEnhanceLib.hqg.slices.train import tuned
from MedEnhanceLib.io.describe import refuse_not_finite
from MedEnhanceLib.io.dicom.headers import read_header
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.nets.intensity import TISSUE, Scaling, scaling_for
from MedEnhanceLib.nets.precision import inference_precision, move, without_tf32
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]
LabelMethod = Literal["nearest", "shape"]
#: Thin pixels that go through the network at once.
_AT_ONCE = 1 << 18
#: Planes whose pixels are coarser than this many thin slices are left out: they show other detail
#: than the network has learned from.
_COARSEST = 2.5
#: Slices that the noise is measured on.
_NOISE_SLICES = 24
#: Learning from the slices themselves: steps for each million voxels of the result; least and most.
_STEPS_PER_MVOXEL, _TUNING_STEPS = 45, (60, 400)
_OUT_OF_PLACE = 1e-3
#: The median of |x| over σ of a normal distribution, and the gain of the mask 1 −2 1 ⊗ 1 −2 1.
_MAD_TO_SIGMA, _MASK_GAIN = 1.4826, 6.0
#: Slices are learned from where neither side of a pixel is longer than the other by this factor.
_ALIKE = 1.25


@dataclass(frozen=True)
class SlicePlan:
    """What is restored.

    axis: of the voxels, [K, J, I], along which the slices are thick. stack: the slices before and
    after.
    """

    axis: int
    stack: SliceStack


def plan_slices(volume: Volume, config: RestoreSlicesConfig) -> SlicePlan:
    """Which axis is thick, and how many slices there will be.

    Raises:
        InputError: nothing can be restored: the volume is isotropic, has fewer than 4 slices, or
            more than 8 slices would be made of each.
        ConfigError: the slice thickness is impossible.
    """
    name = volume.source or "volume"
    spacing = volume.geometry.spacing[::-1]  # of the axes [K, J, I]
    axis = int(np.argmax(spacing))
    thick, step = volume.shape[-3:][axis], spacing[axis]
    others = [value for index, value in enumerate(spacing) if index != axis]
    fine = float(np.sqrt(others[0] * others[1]))
    named = {"isotropic": fine, "half": step / 2}
    target = named[config.target] if isinstance(config.target, str) else config.target
    if config.target == "isotropic" and step / fine < 1.2:
        raise InputError(
            f"{name}: its voxels are already nearly cubes ({step:.3g} mm by {fine:.3g} mm)",
            "Leave it as it is, or name the spacing to restore (--slice-spacing 0.5).",
        )
    thickness = config.thickness_mm or step
    if config.thickness_mm is None and axis == 0:
        thickness = stated_thickness(volume) or step
    if not step / 4 <= thickness <= 3 * step:
        raise ConfigError(
            f"{name}: slices of {thickness:g} mm (thickness_mm), {step:.3g} mm apart",
            "Give the full width of the slice profile, within a quarter and three times of it.",
        )
    check_ratio(step / target, thick, step, name)
    shape: Shape = config.profile if config.profile != "auto" else _usual_profile(volume)
    return SlicePlan(axis, SliceStack.towards(thick, step, thickness, target, shape))


def stated_thickness(volume: Volume) -> float | None:
    """SliceThickness of the first DICOM image that a volume was read from, mm; None where unknown.

    A file that is not there any more, or states none, is no error.
    """
    origin = volume.origin
    if origin is None or not origin.on_grid or not origin.instances or not origin.instances[0]:
        return None
    first = origin.instances[0][0]
    header = read_header(FileRef.parse(first.file))
    slices = header.slices if header is not None else ()
    number = (first.frame or 1) - 1
    thickness = slices[number].thickness if number < len(slices) else None
    return abs(thickness) if thickness else None


def _usual_profile(volume: Volume) -> Shape:
    """CT is averaged over the slice; slices of 2-D MR are excited with a bell."""
    return "box" if volume.modality == "CT" else "gaussian"


@without_tf32()
def restore_slices(
    volume: Volume, config: RestoreSlicesConfig | None = None, *, monitor: Monitor | None = None
) -> Volume:
    """Restore thin slices from thick ones.

    The extent is kept from edge to edge: K slices of S mm become M of K·S/M mm, M the number that
    comes nearest to the requested spacing, and the first center moves by (K·S/M − S)/2. Thickened
    again, the result is the input, as far as noise permits.

    Args:
        volume: CT or MR of 4 slices or more, thick along its axis of largest spacing.
        config: target, slice thickness, model and more; None takes the defaults.
        monitor: receives progress and warnings, and can cancel.
    Returns:
        The volume with new slices: same type, units and frames, new spacing and origin.
    Raises:
        InputError: nothing can be restored (see `plan_slices`), or voxels are not intensities.
        ConfigError: an option is impossible.
        ModelError: no model fits.
        Cancelled: the monitor asked to stop.
    """
    config, monitor = config or RestoreSlicesConfig(), monitor or Monitor()
    if volume.modality == "SEG" or looks_like_labels(volume.voxels):
        raise InputError(
            f"{volume.source or 'volume'}: these are labels, not intensities",
            "Resample labels to the grid of the restored image (resample_labels).",
        )
    plan = plan_slices(volume, config)
    refuse_not_finite(volume)
    bundle = open_bundle(config.model, kind=SLICES, modality=volume.modality)
    choice = choose_device(config.device)
    monitor.log(f"running {bundle.name} ({bundle.origin}) on {choice.name}: {choice.reason}")
    monitor.log(
        f"slices of {plan.stack.thickness_mm:.3g} mm ({plan.stack.shape}), "
        f"{plan.stack.spacing_mm:.3g} mm apart"
    )
    network = open_network(bundle)
    move(network, choice.name)
    frames = volume.frames()
    known = [_measured(frame, plan, config) for frame in frames]
    if config.tune:
        part = monitor.part(0.0, 0.5)
        network = _tuned(network, frames[0], plan, *known[0], choice.name, part)
    part = monitor.part(0.5 if config.tune else 0.0, 1.0)
    restored = []
    for n, (frame, (scaling, noise)) in enumerate(zip(frames, known, strict=True)):
        thick = np.moveaxis(frame.voxels, plan.axis, 0)
        across = _across(frame, plan)
        share = part.part(n / len(frames), (n + 1) / len(frames))
        thin = restore_array(thick, scaling, plan.stack, across, noise, network, choice.name, share)
        restored.append(_in_units(thin, frame, scaling, plan))
    stack = plan.stack
    note = derived_note(
        f"slices restored with {bundle.name} {bundle.sha256[:12]}: {stack.thick} of "
        f"{stack.spacing_mm:.3g} mm to {stack.thin} of {stack.thin_mm:.3g} mm"
    )
    return replace(
        volume,
        voxels=np.stack(restored) if volume.is_sequence else restored[0],
        geometry=new_geometry(volume.geometry, plan),
        history=(*volume.history, note),
        origin=volume.origin and replace(volume.origin, on_grid=False),
    )


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


def _measured(frame: Volume, plan: SlicePlan, config: RestoreSlicesConfig) -> tuple[Scaling, float]:
    """Scaling of a frame, and the noise of its slices on that scale."""
    scaling = scaling_for(frame)
    if config.noise is not None:
        return scaling, config.noise / scaling.scale
    thick = np.moveaxis(frame.voxels, plan.axis, 0)
    some = thick[:: max(1, len(thick) // _NOISE_SLICES)]
    return scaling, measure_noise(scaling.apply(some), frame.modality)


def _across(frame: Volume, plan: SlicePlan) -> list[float]:
    """Pixel sizes within the slices, mm, in the order of the axes."""
    return [mm for axis, mm in enumerate(frame.geometry.spacing[::-1]) if axis != plan.axis]


def _tuned(
    network: SliceNet,
    frame: Volume,
    plan: SlicePlan,
    scaling: Scaling,
    noise: float,
    device: str,
    monitor: Monitor,
) -> SliceNet:
    """The network after learning from the slices of a frame."""
    a_mm, b_mm = _across(frame, plan)
    if not teaches([a_mm, b_mm]):
        monitor.log(f"pixels of {a_mm:.3g} × {b_mm:.3g} mm are not alike: nothing is learned there")
        return network
    thick = scaling.apply(np.moveaxis(frame.voxels, plan.axis, 0)).astype(np.float16)
    planes = Planes(thick, (plan.stack.spacing_mm, a_mm, b_mm))
    return tuned(
        network,
        planes,
        plan.stack,
        noise,
        modality="CT" if frame.modality == "CT" else "MR",
        steps=tuning_steps(thick.size * plan.stack.ratio),
        device=device,
        monitor=monitor,
    )


def teaches(across_mm: Sequence[float]) -> bool:
    """Whether pixels are so nearly square that slices show the detail which is to be restored."""
    return max(across_mm) <= _ALIKE * min(across_mm)


def tuning_steps(voxels: float) -> int:
    """Steps of learning from the slices themselves for a result of that number of voxels.

    A step takes 0.15 CPU s: 7 CPU s for each million voxels, to which restoring adds 2 to 3.
    """
    return int(np.clip(_STEPS_PER_MVOXEL * voxels / 1e6, *_TUNING_STEPS))


def _in_units(thin: Floats, frame: Volume, scaling: Scaling, plan: SlicePlan) -> Voxels:
    """In units and type of the frame, not below its lowest value."""
    low = float(frame.voxels.min())
    result = np.empty(thin.shape, frame.dtype)
    for index, plane in enumerate(thin):
        result[index] = restore_dtype(np.maximum(scaling.undo(plane), low), frame.dtype)
    return np.ascontiguousarray(np.moveaxis(result, 0, plan.axis))


def measure_noise(slices: Floats, modality: str) -> float:
    """Standard deviation of the noise of slices [K, A, B], on the network's scale as they are."""
    tissue = slices > TISSUE.get(modality, TISSUE["MR"])
    return _noise_level(slices, tissue) if tissue.any() else 0.0


def _noise_level(planes: Floats, tissue: npt.NDArray[np.bool_]) -> float:
    """σ of white noise in the tissue, on the scale of `planes` [N, H, W].

    The median of a mask that no plane or slope passes, where all nine pixels are tissue.
    Source: Immerkær, Computer Vision and Image Understanding 64 (1996) 300, made robust.
    """
    if min(planes.shape[1:]) < 3:
        return 0.0
    rows = planes[:, :-2] - 2 * planes[:, 1:-1] + planes[:, 2:]
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
    across_mm: list[float],
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
    autocast = inference_precision(device)
    done, todo = 0, sum(thick.shape[3 - axis] for axis in sets)
    for axis in sets:
        # Planes along `axis` hold its pixels; the other axis counts the planes.
        beside = 3 - axis
        apart_mm = across_mm[beside - 1]
        maps = StackMaps.of(stack, noise, across_mm[axis - 1], apart_mm).to(device)
        counted = np.moveaxis(thick, beside, 0)  # [N, K, W]
        filled = np.moveaxis(total, beside, 0)  # [N, M, W]
        for part in _batches(len(counted), stack.thin * counted.shape[2]):
            around = np.clip(np.arange(part.start - 1, part.stop + 1), 0, len(counted) - 1)
            slices = torch.from_numpy(scaling.apply(counted[around]))
            with torch.inference_mode():
                planes = restore_planes(network, slices.to(device), maps, autocast)
            filled[part] += planes.cpu().numpy() / np.float32(len(sets))
            done += len(around) - 2
            monitor.progress(done / todo, "restoring slices")
    return total


def _sets_of_planes(across_mm: list[float], thin_mm: float) -> list[int]:
    """The axes (1, 2) whose pixels are fine enough; always the finer one."""
    finest = int(np.argmin(across_mm)) + 1
    limit = _COARSEST * max(thin_mm, min(across_mm))
    return [axis for axis in (1, 2) if axis == finest or across_mm[axis - 1] <= limit]


def _batches(count: int, voxels: int) -> Iterator[slice]:
    """Runs of planes of that number of voxels each."""
    step = max(1, _AT_ONCE // voxels)
    for first in range(0, count, step):
        yield slice(first, min(first + step, count))


def resample_labels(labels: Volume, like: Volume, method: LabelMethod = "shape") -> Volume:
    """Bring labels of the thick slices to the grid of the restored volume.

    Args:
        labels: on the grid of the thick volume.
        like: the restored volume.
        method: nearest takes each label from the nearest thick slice. shape interpolates the
            distance to the edge of each label between slices (Raya and Udupa, IEEE Transactions
            on Medical Imaging 9 (1990) 32), which makes outlines change gradually.
    Returns:
        Labels on the grid of `like`, of the same type.
    Raises:
        GeometryError: the grids do not share their extent, or differ along more than one axis.
        InputError: the labels are not integers, or a sequence.
    """
    name = labels.source or "labels"
    if labels.dtype.kind not in "iub" or labels.is_sequence:
        raise InputError(f"{name}: {labels.dtype}, {labels.shape}", "Give one volume of integers.")
    axis, stack = _shared_stack(labels, like)
    source = np.moveaxis(labels.voxels, axis, 0)
    if method == "nearest":
        nearest = np.clip(np.rint(stack.thin_centers), 0, stack.thick - 1).astype(int)
        moved = source[nearest]
    else:
        moved = _between(source, stack)
    voxels = np.ascontiguousarray(np.moveaxis(moved, 0, axis))
    note = derived_note(f"resampled to slices of {stack.thin_mm:.3g} mm ({method})")
    origin = labels.origin and replace(labels.origin, on_grid=False)
    return replace(
        labels,
        voxels=voxels,
        geometry=like.geometry,
        history=(*labels.history, note),
        origin=origin,
    )


def _shared_stack(labels: Volume, like: Volume) -> tuple[int, SliceStack]:
    """The axis along which two grids differ, and their slices."""
    before, after = labels.shape[-3:], like.shape[-3:]
    changed = [axis for axis in range(3) if before[axis] != after[axis]] or [0]
    axis = changed[0]
    spacing = labels.geometry.spacing[2 - axis]
    stack = SliceStack(before[axis], spacing, spacing, after[axis])
    expected = new_geometry(labels.geometry, SlicePlan(axis, stack))
    if len(changed) > 1 or not expected.is_close(like.geometry, _OUT_OF_PLACE, shape=after):
        raise GeometryError(
            f"{labels.source or 'labels'}: {before} voxels do not cover the same place as {after}",
            "Give the labels of the volume that was restored, and the restored volume.",
        )
    return axis, stack


def _between(source: Voxels, stack: SliceStack) -> Voxels:
    """At each thin slice the label whose interpolated signed distance reaches farthest inside."""
    values = np.unique(source)
    distances = {value: np.stack([_inside(part == value) for part in source]) for value in values}
    result = np.empty((stack.thin, *source.shape[1:]), source.dtype)
    places = np.clip(stack.thin_centers, 0, stack.thick - 1)
    for index, place in enumerate(places):
        first = min(int(place), stack.thick - 2)
        share = np.float32(place - first)
        best = np.full(source.shape[1:], -np.inf, np.float32)
        for value in values:
            pair = distances[value][first : first + 2]
            depth = (1 - share) * pair[0] + share * pair[1]
            result[index][depth > best] = value
            best = np.maximum(best, depth)
    return result


def _inside(mask: npt.NDArray[np.bool_]) -> Floats:
    """Distance in pixels to the edge of a label in a slice, positive inside."""
    sitk = require("SimpleITK", purpose="Resampling labels")
    far = float(sum(mask.shape))
    if mask.all() or not mask.any():
        return np.full(mask.shape, far if mask.any() else -far, np.float32)
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    distance = sitk.SignedMaurerDistanceMap(
        image, insideIsPositive=True, squaredDistance=False, useImageSpacing=False
    )
    return np.asarray(sitk.GetArrayFromImage(distance), dtype=np.float32)


__all__ = [
    "RestoreSlicesConfig",
    "SlicePlan",
    "measure_noise",
    "new_geometry",
    "open_network",
    "plan_slices",
    "resample_labels",
    "restore_array",
    "restore_slices",
    "teaches",
    "tuning_steps",
]
