"""The guide: another series of the same examination, on the grid of the volume to enhance.

suggest → align → the network (network.py), whose gate decides for each block
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Doubles, Floats
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.registration import GuideFit, Registration, resample
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.noise.estimate import noise_of, noise_to_contrast
from MedEnhanceLib.runtime.progress import Monitor

# Fits measured as stated, the rest chosen by hand. Measured as a whole by Benchmarks/guidance.py.
#: Least fit, and least share of the volume's tissue, with which a guide is used. Fits measured at
#: 10 % noise: the same patient .12 and more, mirrored guides and other patients .07 at most.
#: The network's gate closes for a bad guide, so refusing a good one is the worse error.
_LEAST_FIT, _LEAST_OVERLAP = 0.08, 0.1
#: Displacement, in voxels, below which a guide on the volume's grid is not resampled.
_STAYS_BELOW = 0.25
#: Percentiles of a guide that become 0 and 1.
_DARK, _BRIGHT = 0.5, 99.8
#: Most voxels that the percentiles are taken from.
_SAMPLED = 4_000_000
#: Least share of the volume's box that a candidate covers, and its largest voxel volume over the
#: volume's.
_LEAST_COVERED, _MOST_COARSE = 0.5, 6.0


@dataclass(frozen=True, eq=False)
class AlignedGuide:
    """A guide on the grid of the volume.

    Attributes:
        voxels: float32 [K, J, I], about 0 to 1, not clipped; NaN where the guide shows nothing, and
            everywhere if it is not usable.
        place: 4×4, from positions in the volume to those in the guide, in mm (LPS).
        reason: why it is not usable, "" if it is.
        facts: for the manifest: overlap (share of the volume's tissue); fit_before and
            fit_after (0 to 1); moved (whether the headers' geometry was corrected); resampled;
            used; reason.
    """

    voxels: Floats
    place: Doubles
    reason: str
    facts: dict[str, Any]

    @property
    def is_usable(self) -> bool:
        """Whether it fits the volume."""
        return not self.reason


def align(guide: Volume, volume: Volume, monitor: Monitor) -> AlignedGuide:
    """Register a guide rigidly to the volume and resample it onto the volume's grid.

    Deterministic. Starts from the geometry in the headers, which in one examination is wrong only
    by the patient's motion. A guide on the volume's grid, displaced by less than a quarter of a
    voxel, is not resampled.

    Args:
        guide: any contrast, any grid; finite.
        volume: to be enhanced; finite.
        monitor: receives progress, and a warning if the guide does not fit; may cancel.
    Raises InputError: a sequence, a constant or boolean guide, or a volume without tissue.
    """
    name = guide.source or "guide"
    guide, volume = guide.single(), volume.single()
    dark, bright = _scale(guide, name)
    registration = Registration(volume)
    if not len(registration.points):
        raise InputError("the volume shows nothing to register a guide to", "Leave the guide out.")
    by_headers = np.eye(4)
    places = [by_headers]
    if registration.overlap(guide, by_headers) >= _LEAST_OVERLAP:
        places.append(registration.best(guide, monitor.part(0, 0.8)))
    fits = registration.fits(guide, places)
    before, after = fits[0], fits[-1]
    shape = volume.shape
    is_on_grid = guide.shape == shape and guide.geometry.is_close(
        volume.geometry, 1e-3, shape=shape
    )
    distance = registration.displacement(places[-1], by_headers).mean()
    moved = after.value > before.value and distance >= (_STAYS_BELOW if is_on_grid else 0)
    place, fit = (places[-1], after) if moved else (by_headers, before)
    stays = is_on_grid and not moved
    reason = _misfit(fit)
    if reason:
        monitor.warn(f"{name} is not used as guide: {reason}")
        voxels = np.full(shape, np.nan, np.float32)
    elif stays:
        voxels = guide.voxels.astype(np.float32)
    else:
        voxels = resample(guide, volume, place, monitor.part(0.8, 1))
    voxels -= np.float32(dark)
    voxels /= np.float32(bright - dark)
    facts = {
        "overlap": round(fit.overlap, 3),
        "fit_before": round(before.value, 3),
        "fit_after": round(fit.value, 3),
        "moved": bool(moved),
        "resampled": not (stays or reason),
        "used": not reason,
        "reason": reason,
    }
    return AlignedGuide(voxels, place, reason, facts)


def _misfit(fit: GuideFit) -> str:
    """State why a registered guide does not fit; "" if it fits."""
    if fit.overlap < _LEAST_OVERLAP:
        return f"it shows {fit.overlap:.0%} of the volume's tissue"
    if fit.value < _LEAST_FIT:
        return (
            "its anatomy does not match the volume's after registration, as in another patient "
            "or a mirrored series"
        )
    return ""


def _scale(guide: Volume, name: str) -> tuple[float, float]:
    """Return the values of a guide that become 0 and 1."""
    if guide.dtype.kind == "b":
        raise InputError(f"{name}: voxels are true or false", "Choose an image as guide.")
    flat = guide.voxels.ravel()
    sample = flat[:: max(1, flat.size // _SAMPLED)]
    dark, bright = (float(value) for value in np.percentile(sample, [_DARK, _BRIGHT]))
    if not bright > dark:
        raise InputError(f"{name}: intensities are constant", "Choose a guide that shows anatomy.")
    return dark, bright


# --- suggestion -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A series that may guide, or the volume itself.

    Attributes:
        key: what the caller knows it by, a path or a node.
        description: the series description, or the file's name.
        modality: "MR", "CT" …
        geometry, shape: of the voxels, shape (K, J, I).
        noise: σ over the contrast of the tissue; infinite where it is not known.
    """

    key: str
    description: str
    modality: str
    geometry: Geometry
    shape: tuple[int, int, int]
    noise: float


def relative_noise(volume: Volume) -> float:
    """Measure σ of the noise over the contrast of the tissue; of a sequence in its first frame."""
    return noise_to_contrast(noise_of(volume.frame(0)))


def suggest(volume: Candidate, candidates: Sequence[Candidate]) -> tuple[Candidate, str] | None:
    """Suggest the best guide: the series with the least noise.

    Returns the series and a sentence with the reasons. None if no series of the same modality has
    less noise than the volume, covers half of it, and has voxels that are not much larger.
    """
    largest = _MOST_COARSE * volume.geometry.voxel_volume_mm3
    useful = [
        candidate
        for candidate in candidates
        if candidate.modality == volume.modality
        and candidate.noise < volume.noise
        and candidate.geometry.voxel_volume_mm3 <= largest
        and _covered(volume, candidate) >= _LEAST_COVERED
    ]
    if not useful:
        return None
    best = min(useful, key=lambda candidate: (candidate.noise, candidate.key))
    least = f", least noise of {len(useful)} series" if len(useful) > 1 else ""
    share = f"{best.noise / volume.noise:.0%} of the volume's noise"
    return best, f"{best.description}: same examination{least}, {share}."


def _covered(volume: Candidate, other: Candidate) -> float:
    """Estimate the share of a volume's box that another covers, at 9³ points."""
    shares = np.array(list(product(np.linspace(0, 1, 9), repeat=3)))
    indices = np.c_[shares * (np.array(volume.shape[::-1]) - 1), np.ones(len(shares))]
    moved = indices @ (np.linalg.inv(other.geometry.affine_lps) @ volume.geometry.affine_lps).T
    last = np.array(other.shape[::-1]) - 0.5
    return float(((moved[:, :3] >= -0.5) & (moved[:, :3] <= last)).all(1).mean())
