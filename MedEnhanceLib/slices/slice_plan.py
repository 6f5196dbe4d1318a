"""Plan of thin slices: which axis is thick, and what can be restored; needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedEnhanceLib.core.geometry import AxisTurn
from MedEnhanceLib.core.options import options_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.dicom.headers import read_header
from MedEnhanceLib.slices.profile import SliceStack

#: Options that the task slices takes, besides its own.
_OF_THIN_SLICES = ("model", "device", "strength", "task", "as_intensity")
#: Limits: number of thick slices, and thin slices for each.
_LEAST_SLICES, _LEAST_RATIO, _MOST_RATIO = 4, 1.2, 8.0


@dataclass(frozen=True)
class SlicePlan:
    """Geometry of a restoration of thin slices.

    Attributes:
        axis: along which the slices are thick, of voxels in canonical order.
        turn: to that order.
        stack: the slices before and after.
        across_mm: pixel sizes within the slices, in the order of the axes.
        is_assumed: whether their thickness is that of their spacing, as nothing states it.
    """

    axis: int
    turn: AxisTurn
    stack: SliceStack
    across_mm: tuple[float, float]
    is_assumed: bool


def refuse_other_options(config: EnhanceConfig, **besides: object) -> None:
    """Raise ConfigError for options that the task slices lacks: its result has another grid.

    besides: arguments that stand beside the configuration.
    """
    asked = {name: name for name, value in besides.items() if value is not None}
    for option in options_of(EnhanceConfig):
        value = getattr(config, option.name)
        is_known = option.name in _OF_THIN_SLICES or option.name.startswith("slice_")
        if not is_known and value != option.default:
            asked[option.name] = option.name if value is True else f"{option.name} {value}"
    if asked:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise ConfigError(
            f"thin slices (the task slices) take no {' and no '.join(asked.values())}",
            f"Leave out {flags} ({', '.join(asked)} in Python), or choose the task noise.",
        )


def plan_slices(volume: Volume, config: EnhanceConfig) -> SlicePlan:
    """Find the thick axis, the number of thin slices, and the profile of the thick ones.

    config: with the options of slices.
    Raises InputError: the volume is nearly isotropic or has fewer than 4 slices, or not 1.2 to 8
        slices would be made of each.
    """
    name, spacing = volume.source or "volume", config.slice_spacing
    turn = volume.geometry.turn
    sides = [volume.geometry.spacing[2 - axis] for axis in turn.axes]
    axis = int(np.argmax(sides))
    thick, step = volume.shape[-3:][turn.axes[axis]], sides[axis]
    a_mm, b_mm = (side for index, side in enumerate(sides) if index != axis)
    fine = float(np.sqrt(a_mm * b_mm))
    named = {"isotropic": fine, "half": step / 2}
    target = named[spacing] if isinstance(spacing, str) else spacing
    if spacing == "isotropic" and step / fine < 1.2:
        raise InputError(
            f"{name}: its voxels are already nearly isotropic ({step:.3g} mm by {fine:.3g} mm)",
            "Request a spacing to make thin slices all the same: --slice-spacing 0.5.",
        )
    ratio = step / target
    if thick < _LEAST_SLICES:
        raise InputError(
            f"{name}: {thick} slices are too few to restore others between them",
            f"Give a volume of {_LEAST_SLICES} slices or more.",
        )
    if not _LEAST_RATIO <= ratio <= _MOST_RATIO:
        raise InputError(
            f"{name}: {ratio:.2f} slices for each measured one are requested; "
            f"{_LEAST_RATIO:g} to {_MOST_RATIO:g} can be restored",
            f"Request {step / _MOST_RATIO:.3g} to {step / _LEAST_RATIO:.3g} mm (--slice-spacing).",
        )
    shape = config.slice_profile
    if shape == "auto":
        shape = "box" if volume.profile.is_projected else "gaussian"
    # The number that keeps the extent exactly, with the spacing closest to the target.
    thin = max(1, round(thick * step / target))
    thickness = _thickness_of(volume, turn.axes[axis], step, config)
    stack = SliceStack(thick, step, thickness or step, thin, shape)
    return SlicePlan(axis, turn, stack, (a_mm, b_mm), is_assumed=thickness is None)


def _thickness_of(volume: Volume, axis: int, step: float, config: EnhanceConfig) -> float | None:
    """Return the thickness of slices that are `step` apart, in mm, None if nothing states it.

    Raises InputError if it is unlikely.
    """
    low, high = step / 4, 3 * step
    if config.slice_thickness == "auto":
        stated = _stated_thickness(volume) if axis == 0 else None
        return stated if stated and low <= stated <= high else None
    if not low <= config.slice_thickness <= high:
        raise InputError(
            f"{volume.source or 'volume'}: slices of {config.slice_thickness:g} mm, "
            f"{step:.3g} mm apart",
            f"Give a thickness from {low:.3g} to {high:.3g} mm (--slice-thickness).",
        )
    return config.slice_thickness


def _stated_thickness(volume: Volume) -> float | None:
    """Read SliceThickness of a volume's first DICOM image, mm; None if unknown."""
    origin = volume.dicom_origin
    if origin is None or not origin.on_grid or not origin.instances or not origin.instances[0]:
        return None
    first = origin.instances[0][0]
    header = read_header(Path(first.file))
    slices = header.slices if header is not None else ()
    number = (first.frame or 1) - 1
    thickness = slices[number].thickness if number < len(slices) else None
    return abs(thickness) if thickness else None
