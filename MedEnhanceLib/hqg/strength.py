"""Strength: an enhancement blended with its input, without running the model again.

    x(s) = y + s · (x̂ − y)        y: the input, x̂: enhanced at full strength, in its type

A run at strength s ends with these lines, so that blending its full result later gives the same
voxels bit for bit. Whatever was done belongs to x̂, the correction of shading too: at 0 there is
the input, as the panel shows it. Needs numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.options import check_range
from MedEnhanceLib.core.volume import Volume, Voxels, restore_dtype
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.finite import refuse_not_finite

Floats = npt.NDArray[np.float32]
MOST_STRENGTH = 1.5
_BLENDED = "blended with its input at strength"
_ENHANCED = "DERIVED: enhanced with"


def blend(
    original: Volume,
    enhanced: Volume,
    strength: float,
    *,
    floors: Sequence[float] | None = None,
) -> Volume:
    """The input plus a share of its correction, as a run at that strength gives it.

    original: what was enhanced. enhanced: the result of a run at full strength (1).
    strength: 0 gives the input, 1 the enhanced volume, up to 1.5 exaggerates.
    floors: what no value of each frame falls below; None takes the lowest of `original`, which has
    to be whole for that (`lowest_value`).
    Grid, type and history are those of `enhanced`.
    Raises ConfigError for another strength, InputError where the two are no pair, are swapped,
    where `enhanced` was made at another strength, or for NaN or infinity in either.
    """
    check_strength(strength)
    _check_pair(original, enhanced)
    voxels = np.empty(enhanced.shape, enhanced.dtype)
    frames = original.frames()
    if strength <= 1:
        floors = [-math.inf] * len(frames)
    elif floors is None:
        floors = [lowest_value(frame) for frame in frames]
    pairs = zip(frames, enhanced.frames(), floors, _frames_of(voxels, enhanced), strict=True)
    for before, after, floor, target in pairs:
        for index in range(before.shape[0]):
            target[index] = blend_voxels(
                before.voxels[index], after.voxels[index], strength, floor=floor
            )
    did = derived_note(f"{_BLENDED} {strength:g}")
    return enhanced.with_voxels(voxels, did=did)


def blend_voxels(
    original: Voxels, enhanced: Voxels, strength: float, *, floor: float = -math.inf
) -> Voxels:
    """The same for arrays of one shape; returns the type of `enhanced`, rounded and clipped.

    floor: values below it are raised to it (see `lowest_value`).
    """
    # float32 unless a type is wide: it does not hold every int32.
    working = np.result_type(original.dtype, enhanced.dtype, np.float32)
    base = original.astype(working)
    blended = base + working.type(strength) * (enhanced.astype(working) - base)
    return restore_dtype(np.maximum(blended, floor, dtype=working), enhanced.dtype)


def blend_deviation(
    deviation: npt.NDArray[Any],
    original: Voxels,
    blended: Voxels,
    strength: float,
    *,
    made_at: float = 1.0,
    shading: Floats | None = None,
) -> Floats:
    """The standard deviation of what a blend of another strength is off by.

    deviation: of `blended`, a result at the strength `made_at` (not 0). strength: the new one.
    What is left of the input's own error counts: x(s) − t = (x̂ − t) + (1 − s)(y − x̂), the first
    part with the variance σ² and the second known, so that σ(s)² = σ² + (1 − s)² (y − x̂)²: the
    less of the correction is applied, the less sure is the value. [ours]

    shading: the field f that x̂ was divided by, at full strength (N4); None for none. What it took
    away is no noise: only y − f x̂ is, and the rest scales with what is left of the field,
    σ(s)² = (1 − s + s/f)² f² σ² + (1 − s)² (y − f x̂)².
    """
    if made_at == 0:
        raise ConfigError("a result at strength 0 tells of no correction", "Enhance again.")
    noise = blended.astype(np.float32)
    noise -= original.astype(np.float32)
    noise /= np.float32(made_at)
    variance = np.square(deviation, dtype=np.float32)
    if shading is not None:
        noise += original.astype(np.float32)
        noise *= shading
        noise -= original.astype(np.float32)
    np.square(noise, out=noise)
    variance -= np.float32((1 - made_at) ** 2) * noise
    if shading is not None:
        left, was = ((1 - part + part / shading) for part in (strength, made_at))
        variance *= np.square(left / was)
    variance += np.float32((1 - strength) ** 2) * noise
    spread: Floats = np.sqrt(np.maximum(variance, 0))
    return spread


def check_strength(strength: float) -> None:
    """Raise ConfigError for what is no strength."""
    check_range("strength", strength, 0.0, MOST_STRENGTH)


def lowest_value(volume: Volume) -> float:
    """Below it there is only undershoot: magnitudes go no lower than 0 or what came in."""
    return -math.inf if volume.modality == "CT" else min(0.0, float(volume.voxels.min()))


def refuse_swapped(original: Volume, enhanced: Volume, *, told: bool = False) -> None:
    """Raise InputError where the first is an enhanced volume and the second was never touched.

    told: whether something beside the first, its manifest, says that it is enhanced.
    """
    told = told or any(step.startswith(_ENHANCED) for step in original.history)
    if told and not enhanced.history:
        raise InputError(
            f"{_named(original, enhanced)} are swapped: the first is the enhanced one, and the "
            "second tells of no enhancement",
            "Give the input first, then what enhance made of it.",
        )


def _named(original: Volume, enhanced: Volume) -> str:
    return f"{original.source or 'the input'} and {enhanced.source or 'the enhanced volume'}"


def _check_pair(original: Volume, enhanced: Volume) -> None:
    refuse_swapped(original, enhanced)
    names = _named(original, enhanced)
    if original.shape != enhanced.shape:
        raise InputError(
            f"{names} are no pair: shapes {original.shape} and {enhanced.shape}",
            "Give the volume that was enhanced.",
        )
    if not original.geometry.is_close(enhanced.geometry, 1e-3, shape=original.shape):
        raise InputError(
            f"{names} are no pair: they lie elsewhere in space",
            "Give the volume that was enhanced.",
        )
    if original.modality != enhanced.modality:
        raise InputError(
            f"{names} are no pair: {original.modality} and {enhanced.modality}",
            "Give the volume that was enhanced, or state the modality.",
        )
    if enhanced.history and enhanced.history[-1].startswith(f"DERIVED: {_BLENDED}"):
        raise InputError(
            f"{names} are no pair: the second is blended with its input already",
            "Give the result at full strength (1), or enhance again.",
        )
    refuse_not_finite(original)
    refuse_not_finite(enhanced)


def _frames_of(voxels: Voxels, like: Volume) -> Voxels:
    return voxels if like.is_sequence else voxels[None]
