"""Description of a volume as JSON, checks of its voxels, and warnings about its header."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Array, Mask, Voxels, extremes, slabs
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.modality import (
    MICROSCOPY_MM,
    SET_MODALITY,
    guess_modality,
    likely_modalities,
    profile_of,
)
from MedEnhanceLib.core.quantity import UNFIT, quantity_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.texts import text

#: Above this ratio of largest to smallest spacing a volume is called anisotropic.
_ANISOTROPIC = 3.0
#: CT numbers have at most 16 bits with a sign.
_HIGHEST_HU = 32767
#: mm; no scanner has a larger spacing, but µm read as mm give one.
_FARTHEST_MM = 100.0
#: How to use a volume whatever its quantity.
REQUEST = "--as-intensity (as_intensity=True in Python)"
#: Largest value whose square, summed over some voxels, single precision holds.
LARGEST = 1e18


def card(volume: Volume, path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Describe a volume by plain JSON values, as `inspect` shows them.

    volume: the volume.
    path: the file or folder it came from; if given, the size on disk is added.
    Returns among others: spacing in mm, range in the volume's units, shape as [K, J, I] or
    [T, K, J, I], and warnings.
    """
    voxels, spacing, quantity = volume.voxels, volume.geometry.spacing, quantity_of(volume)[0]
    low, high = voxels.min(), voxels.max()
    described: dict[str, Any] = {
        "source": volume.source,
        "modality": volume.modality,
        "quantity": quantity,
        "units": volume.units,
        "shape": list(volume.shape),
        "frames": volume.shape[0] if volume.is_sequence else 1,
        "frame_interval_s": volume.frame_interval_s,
        "sequence_kind": volume.sequence_kind,
        "gradients": [vars(gradient) for gradient in volume.gradients],
        "spacing": list(spacing),
        "orientation": orientation_code(volume.geometry),
        "geometry": volume.geometry.to_json(),
        "dtype": str(volume.dtype),
        "range": [low.item(), high.item()],
        "bytes": volume.nbytes,
        "history": list(volume.history),
        "derived": bool(volume.history),
        "warnings": _warnings(volume, quantity, constant=bool(low == high)),
    }
    if path is not None:
        described["path"] = str(path)
        files = Path(path).rglob("*") if Path(path).is_dir() else [Path(path)]
        described["file_bytes"] = sum(file.stat().st_size for file in files if file.is_file())
    return described


def orientation_code(geometry: Geometry) -> str:
    """Return the directions of i, j and k: "LPS" (left, posterior, superior) is usual in DICOM."""
    nib = require("nibabel", purpose="Naming the axes")
    return "".join(nib.aff2axcodes(geometry.affine_ras))


def _warnings(volume: Volume, quantity: str, *, constant: bool) -> list[str]:
    """Describe what is unusual about a volume."""
    spacing, direction = volume.geometry.spacing, np.abs(np.asarray(volume.geometry.direction))
    angle = float(np.degrees(np.arccos(min(1.0, direction.max(axis=0).min()))))
    ratio, widest = max(spacing) / min(spacing), max(spacing)
    facts = {
        "constant": constant,
        "one_slice": volume.shape[-3] == 1,
        "anisotropic": ratio > _ANISOTROPIC,
        "microscopy": min(spacing) < MICROSCOPY_MM,
        "oblique": angle > 0.1,
        "left_handed": not volume.geometry.is_right_handed,
        "no_image": bool(quantity),
        "modality_guessed": volume.modality_is_guess and volume.profile.is_known,
        "far_apart": widest > _FARTHEST_MM,
    }
    numbers = {"ratio": ratio, "angle": angle, "quantity": quantity, "widest": widest}
    return [str(text(key, **numbers)) for key, holds in facts.items() if holds]


def refuse_not_finite(volume: Volume) -> None:
    """Raise InputError with the number of NaN and infinite voxels and the first slice of them."""
    if volume.dtype.kind != "f":
        return
    _refuse(volume, np.isfinite, "NaN or infinite")


def refuse_too_large(volume: Volume) -> None:
    """Raise InputError as `refuse_not_finite` does, or for values beyond ±LARGEST."""
    refuse_not_finite(volume)
    low, high = (float(end) for end in extremes(volume.voxels))
    if max(-low, high) > LARGEST:
        what = f"too large for single precision (values from {low:.3g} to {high:.3g})"
        _refuse(volume, lambda plane: (plane >= -LARGEST) & (plane <= LARGEST), what)


def _refuse(volume: Volume, is_usable: Callable[[Array], Mask], what: str) -> None:
    """Raise InputError with the number of unusable voxels and the first slice of them."""
    planes = (plane for part in slabs(volume.voxels) for plane in part)
    counts = [plane.size - int(np.count_nonzero(is_usable(plane))) for plane in planes]
    if not any(counts):
        return
    first = next(index for index, count in enumerate(counts) if count)
    frame, index = divmod(first, volume.shape[-3])
    where = f"slice {index} of frame {frame}" if volume.is_sequence else f"slice {index}"
    count = f"{sum(counts)} voxels are" if sum(counts) > 1 else "1 voxel is"
    raise InputError(
        f"{volume.source or 'volume'}: {count} {what}, first in {where}",
        "Replace them by a number (the background, say) and save the volume again.",
    )


def refuse_unfit(
    volume: Volume,
    monitor: Monitor,
    *,
    on_request: bool,
    model: str = "auto",
    remedy: str = REQUEST,
) -> str:
    """Raise InputError for a volume that is no image of intensities, or of an undecided modality.

    Args:
        volume: the input of a filter or a model.
        monitor: warned of values that may be phase, and of what is used on request.
        on_request: whether derived maps are used, and what only looks like phase or labels.
        model: a name states the modality; "auto" does not.
        remedy: the option that requests this, for the hint.
    Returns the quantity that is used on request, "" for intensities.
    """
    name, (quantity, is_stated) = Path(volume.source).name or "volume", quantity_of(volume)
    is_final, verb = is_stated and quantity in UNFIT, "is" if is_stated else "looks like"
    if quantity and (is_final or not on_request):
        hint = UNFIT.get(quantity, "Give the images that it was computed from.")
        raise InputError(
            f"{name}: it {verb} {quantity}, not intensities",
            hint + ("" if is_final else f" To use it all the same: {remedy}."),
        )
    low, high = (float(end) for end in extremes(volume.voxels))
    if quantity:
        key = "is_quantity" if is_stated else "like_quantity"
        monitor.warn(text(key, name=name, quantity=quantity))
    elif volume.dtype.kind == "f" and low < -1 and 3 < max(-low, high) < np.pi + 1e-3:
        monitor.warn(text("like_phase", name=name))
    likely = likely_modalities(volume.voxels, volume.geometry.spacing)
    if volume.modality_is_guess and model == "auto" and len(likely) > 1:
        raise InputError(
            f"{name}: no known modality is stated, and its values fit {' and '.join(likely)}"
            + (" (OT: any other)" if "OT" in likely else ""),
            f"State it: {SET_MODALITY}.",
        )
    return quantity


def _without_padding(volume: Volume) -> Voxels:
    """Return the voxels, with 0 instead of what the DICOM header states as padding."""
    voxels, origin = volume.voxels, volume.dicom_origin
    if origin is None or origin.padding is None:
        return voxels
    is_padding = (voxels >= min(origin.padding)) & (voxels <= max(origin.padding))
    return np.where(is_padding, voxels.dtype.type(0), voxels)


def warn_of_content(volume: Volume, name: str, monitor: Monitor, *, stated: str = "") -> None:
    """Warn if the modality or the spacing of a volume may be wrong.

    Args:
        volume: with modality and spacing from its file, or from the caller.
        name: of the file, with which the warnings begin.
        monitor: gets each kind of warning once in a job, but each file whose values contradict its
            modality.
        stated: the modality of a header that the caller's is used instead of.
    """
    spacing, modality = volume.geometry.spacing, volume.modality
    if volume.modality_is_guess:
        likely = " and ".join(likely_modalities(volume.voxels, spacing))
        key = "modality_unknown" if likely == "OT" else "modality_likely"
        warning = text(key, name=name, likely=likely)
        monitor.warn(warning, about=f"taken as {modality}", is_general=True)
    elif key := _contradiction(volume, stated):
        low, high = (float(end) for end in extremes(volume.voxels))
        monitor.warn(text(key, name=name, modality=modality, stated=stated, low=low, high=high))
    if (widest := max(spacing)) > _FARTHEST_MM:
        monitor.warn(text("spacing_unit", name=name, widest=widest), about="spacing")


def _contradiction(volume: Volume, stated: str) -> str:
    """Return the key of the warning that header or values contradict the modality; "" for none."""
    profile, spacing = volume.profile, volume.geometry.spacing
    if stated not in ("", volume.modality):
        return "other_header"
    if profile.is_known and not (profile.is_labels or profile.is_absolute):
        guess = profile_of(guess_modality(_without_padding(volume), spacing))
        return "like_ct" if guess.is_absolute else ""
    if volume.history or not profile.is_absolute:
        return ""
    low, high = extremes(volume.voxels)
    if not profile_of(guess_modality(volume.voxels, spacing)).is_magnitude:
        return "no_air" if low >= 0 else ""
    return "beyond_metal" if high > _HIGHEST_HU else "like_mr"
