"""Lesions in thin slices: what thickening and restoring leaves of them, and invents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import Gate, Row, gate
from _slices_references import Floats, Reference, thickened

DIAMETERS_MM = (3, 5, 8)
#: Contrast on the network's scale: a fifth of the robust maximum, 60 HU.
CONTRAST = {"MR": 0.2, "CT": 0.06}
_EACH = 24
#: A blob of error of this share of the contrast would be read as a lesion.
_INVENTED = 0.5
Restore = Callable[[Floats], Floats]


def lesion_rows(
    reference: Reference, times: int, arms: dict[str, Restore], seed: int
) -> list[dict[str, Any]]:
    """One row for each arm and diameter, bright and dark lesions together.

    invented: share of the places without a lesion where the error averaged over the lesion's sphere
    exceeds half of the contrast. volume: mean error of the lesions' volume against that in thin
    slices, as a share of it, and with its sign; voxels count that the lesion changes by more than
    half of its contrast.
    """
    rng = np.random.default_rng(seed)
    _stack, plain_slices, thin = thickened(reference, times, 0.0, seed)
    contrast = CONTRAST[reference.modality]
    rows = []
    plain = {arm: restore(plain_slices) for arm, restore in arms.items()}
    for diameter in DIAMETERS_MM:
        radius = diameter / 2 / reference.thin_mm
        centers = _places(reference, thin, rng)
        signs = rng.choice((-1.0, 1.0), size=len(centers))
        masks = [_sphere(thin.shape, center, radius, reference) for center in centers]
        planted = thin.copy()
        for (where, inside), sign in zip(masks, signs, strict=True):
            planted[where] += np.float32(sign * contrast) * inside
        changed = Reference(**{**vars(reference), "voxels": planted})
        _, slices, _ = thickened(changed, times, 0.0, seed)
        for arm, restore in arms.items():
            difference = restore(slices) - plain[arm]
            error = np.array(
                [_mean((plain[arm] - thin)[where], inside) / contrast for where, inside in masks]
            )
            wide = [_around(where, thin.shape, times) for where, _ in masks]
            volumes = np.array(
                [
                    [
                        np.count_nonzero(sign * image[place] > contrast / 2)
                        for image in (difference, planted - thin)
                    ]
                    for place, sign in zip(wide, signs, strict=True)
                ]
            )
            rows.append(
                {
                    "reference": reference.name,
                    "times": times,
                    "diameter_mm": diameter,
                    "arm": arm,
                    "lesions": len(masks),
                    "invented": round(float((np.abs(error) > _INVENTED).mean()), 3),
                    **_volume_errors(volumes),
                }
            )
    return rows


def volume_gate(rows: Sequence[Row]) -> Gate:
    """Whether volumes are nearer to the thin slices' than those of thick slices and the spline."""
    mean = {
        arm: float(np.mean([row["volume_error"] for row in rows if row["arm"] == arm]))
        for arm in ("thick", "spline", "ours")
    }
    other = min(("thick", "spline"), key=lambda arm: mean[arm])
    name, bound = "error of the volume of planted lesions", f"< {other}'s {mean[other]:.3f}"
    return gate(name, mean["ours"], bound, mean["ours"] < mean[other])


def _volume_errors(volumes: npt.NDArray[np.int64]) -> dict[str, float]:
    """Of volumes found and true, [n, 2]: mean error and mean difference as shares of the true."""
    change = (volumes[:, 0] - volumes[:, 1]) / volumes[:, 1]
    return {
        "volume_error": round(float(np.abs(change).mean()), 3),
        "volume_change": round(float(change.mean()), 3),
    }


def _around(where: tuple[slice, ...], shape: tuple[int, ...], times: int) -> tuple[slice, ...]:
    """The box around a lesion and the slices that it may spread to."""
    first, last = where[0].start - times, where[0].stop + times
    return slice(max(0, first), min(shape[0], last)), where[1], where[2]


def _places(reference: Reference, thin: Floats, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Centers in tissue, apart from each other and from the ends."""
    bright = 0.3 if reference.modality == "MR" else -0.1
    solid = thin > bright
    solid[:10] = solid[-10:] = False
    solid[:, :2] = solid[:, -2:] = False
    solid[:, :, :6] = solid[:, :, -6:] = False
    candidates = np.argwhere(solid)
    rng.shuffle(candidates)
    mm = np.array([reference.thin_mm, *reference.across_mm])
    centers: list[npt.NDArray[np.int64]] = []
    for place in candidates[:20_000]:
        if all(np.linalg.norm((place - other) * mm) > 18 for other in centers):
            centers.append(place)
        if len(centers) == _EACH:
            break
    return np.array(centers)


def _sphere(
    shape: tuple[int, ...], center: npt.NDArray[np.int64], radius: float, reference: Reference
) -> tuple[tuple[slice, ...], Floats]:
    """The box around a sphere and the share of each voxel that is inside."""
    mm = np.array([reference.thin_mm, *reference.across_mm]) / reference.thin_mm
    reach = [int(np.ceil((radius + 1) / step)) for step in mm]
    where = tuple(
        slice(max(0, c - r), min(n, c + r + 1))
        for c, r, n in zip(center, reach, shape, strict=True)
    )
    grids = np.meshgrid(*(np.arange(part.start, part.stop) for part in where), indexing="ij")
    squares = [((g - c) * step) ** 2 for g, c, step in zip(grids, center, mm, strict=True)]
    distance = np.sqrt(np.sum(squares, axis=0))
    return where, np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)


def _mean(values: Floats, weights: Floats) -> float:
    return float((values * weights).sum() / weights.sum())
