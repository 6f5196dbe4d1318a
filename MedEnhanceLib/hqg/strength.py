"""The result of an enhancement, and its strength: blending with the input, without the model.

    x(s) = y + s · (x̂ − y)        y: the input, x̂: enhanced at full strength, in its type

A run at strength s ends with these lines, so blending its full result later gives the same voxels
bit for bit. Everything done belongs to x̂, the correction of shading too: strength 0 is the input.
Needs numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.bundles.suitability import ModelWarning
from MedEnhanceLib.core.manifest import NOISE_MAP, derived_note
from MedEnhanceLib.core.options import check_range
from MedEnhanceLib.core.volume import Volume, Voxels, restore_dtype
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.describe import refuse_not_finite

if TYPE_CHECKING:
    from MedEnhanceLib.hqg.range import Verdict
    from MedEnhanceLib.nets.noise import NoiseEstimate

Floats = npt.NDArray[np.float32]
MOST_STRENGTH = 1.5
_BLENDED = "blended with its input at strength"
_ENHANCED = "DERIVED: enhanced with"


@dataclass(frozen=True)
class Enhancement:
    """The result of an enhancement.

    Attributes:
        volume: on the grid, in the type and the units of the input.
        uncertainty: standard deviation of the error of `volume` by noise, and by blur where it
            was undone, float32 in the input's units; None where it was not requested.
        model: name and sha256.
        device: where it ran.
        seconds: of wall time.
        original: the input, on the same grid.
        floors: lowest value of each (whole) frame.
        strength: share of the correction in `volume`, 0 to 1.5.
        uncertainty_facts: how the uncertainty was made, as manifests record it; "calibration" is
            None where it is not calibrated: then it ranks voxels but does not measure errors.
        warnings: that the model may not suit the input.
        verdict: how the input compares with the training data; None where the model has no bank.
        shading: the field that N4 divided `volume` by; kept where there is an uncertainty.
        measured: what was measured in the first frame and what was done about it, as manifests
            record it: noise, blur, shading, artifacts, guide; empty for models that do not measure.
        noises: the noise of each frame; empty as well.
        first_slice: of `volume`, in the whole input.
    """

    volume: Volume
    uncertainty: Volume | None
    model: dict[str, str]
    device: str
    seconds: float
    original: Volume
    floors: tuple[float, ...]
    strength: float = 1.0
    uncertainty_facts: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[ModelWarning, ...] = ()
    verdict: Verdict | None = None
    shading: Floats | None = None
    measured: dict[str, Any] = field(default_factory=dict)
    noises: tuple[NoiseEstimate, ...] = ()
    first_slice: int = 0

    def noise_map(self) -> Volume | None:
        """The measured σ at each voxel, float32 in the input's units; None where there is none."""
        if not self.noises:
            return None
        where = slice(self.first_slice, self.first_slice + self.volume.shape[-3])
        maps = [noise.at(noise.shape, where) for noise in self.noises]
        voxels = np.stack(maps) if self.volume.is_sequence else maps[0]
        return self.original.with_voxels(voxels, did=derived_note(NOISE_MAP))

    def at_strength(self, strength: float) -> Enhancement:
        """The same result at another strength, as a run at that strength gives it.

        Only of a result at full strength (1): what was rounded away does not come back.
        Raises ConfigError for a strength outside 0 to 1.5.
        """
        check_strength(strength)
        if self.strength != 1:
            raise ConfigError(
                f"this is a result at strength {self.strength:g}", "Blend the one at strength 1."
            )
        if strength == 1:
            return self
        uncertainty = self.uncertainty
        if uncertainty is not None:
            voxels = blend_deviation(
                uncertainty.voxels,
                self.original.voxels,
                self.volume.voxels,
                strength,
                shading=self.shading,
            )
            uncertainty = uncertainty.with_voxels(voxels)
        return replace(
            self,
            volume=blend(self.original, self.volume, strength, floors=self.floors),
            uncertainty=uncertainty,
            strength=strength,
        )


def check_strength(strength: float) -> None:
    """Raise ConfigError for what is no strength."""
    check_range("strength", strength, 0.0, MOST_STRENGTH)


def lowest_value(volume: Volume) -> float:
    """Lower values are undershoot: magnitudes are not below 0 or the lowest value of the input."""
    return -math.inf if volume.modality == "CT" else min(0.0, float(volume.voxels.min()))


def blend(
    original: Volume,
    enhanced: Volume,
    strength: float,
    *,
    floors: Sequence[float] | None = None,
) -> Volume:
    """The input plus a share of its correction, equal to a run at that strength.

    Args:
        original: the input of the enhancement.
        enhanced: its result at full strength (1).
        strength: 0 gives the input, 1 the enhanced volume, up to 1.5 exaggerates.
        floors: lowest value of each frame; None takes those of `original`, which has to be whole.
    Returns:
        A volume with grid, type and history of `enhanced`.
    Raises:
        ConfigError: the strength is not within 0 to 1.5.
        InputError: the two are no pair, are swapped or hold NaN or infinity, or `enhanced` was
            made at another strength.
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
    """As `blend`, for arrays of one shape; the type is that of `enhanced`, rounded and clipped.

    floor: lower values are raised to it (see `lowest_value`).
    """
    # float32 unless a type is wider: it does not hold every int32.
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
    """The standard deviation of the error of a blend at another strength. [ours]

    The error is x(s) − t = (x̂ − t) + (1 − s)(y − x̂), where t is the truth. The first part has the
    variance σ², the second is known, so σ(s)² = σ² + (1 − s)² (y − x̂)²: the less of the correction
    is applied, the less certain is the value. A field of shading f is no noise: only y − f x̂ is,
    and σ(s)² = (1 − s + s/f)² f² σ² + (1 − s)² (y − f x̂)².

    Args:
        deviation: of `blended`, in its units.
        original: the input.
        blended: a result at the strength `made_at`.
        strength: the new one, 0 to 1.5.
        made_at: not 0.
        shading: the field f that x̂ was divided by at full strength (N4); None for none.
    Returns:
        float32, in the units and shape of `deviation`.
    Raises:
        ConfigError: `made_at` is 0.
    """
    if made_at == 0:
        raise ConfigError("a result at strength 0 contains no correction", "Enhance again.")
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


def refuse_swapped(
    original: Volume, enhanced: Volume, *, original_is_enhanced: bool = False
) -> None:
    """Raise InputError where the first volume is enhanced and the second has no history.

    original_is_enhanced: whether the manifest beside the first says so.
    """
    history = original.history
    is_enhanced = original_is_enhanced or any(step.startswith(_ENHANCED) for step in history)
    if is_enhanced and not enhanced.history:
        raise InputError(
            f"{_named(original, enhanced)} are swapped: the first is the enhanced one, and the "
            "second has no record of an enhancement",
            "Give the input first, then the enhanced volume.",
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
