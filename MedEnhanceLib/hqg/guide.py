"""The guide: another series of the same examination, on the grid of the volume to enhance.

suggest → align → the network (network.py), whose gate decides anew in every block
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.registration import Fit, Image, Registration, Rigid, resample
from MedEnhanceLib.nets.noise import measure_noise, noise_to_contrast
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]

#: Least fit, and least share of the volume's tissue, with which a guide is used. Measured: the same
#: patient .12 and more, mirrored guides and other patients .07 at most, at 10 % noise.
#: The network's own gate closes for a bad guide, so refusing a good one costs more.
_LEAST_FIT, _LEAST_OVERLAP = 0.08, 0.1
#: Share of the tissue that the headers must bring together; below it the centers are used instead.
_BY_HEADERS = 0.3
#: Displacement in voxels of the volume that a guide on the volume's grid is not resampled for.
_STAYS_BELOW = 0.25
#: Percentiles of a guide that become 0 and 1.
_DARK, _BRIGHT = 0.5, 99.8
#: Voxels that percentiles are taken from, at most.
_SAMPLED = 4_000_000
#: Share of the volume's box that a candidate must cover, and the most that its voxels are larger.
_LEAST_COVERED, _MOST_COARSE = 0.5, 6.0


@dataclass(frozen=True, eq=False)
class AlignedGuide:
    """A guide on the grid of the volume.

    voxels: float32 [K, J, I], about 0 to 1, not clipped; NaN where the guide shows nothing, and
        everywhere if it is not usable.
    is_usable: whether it fits the volume.
    reason: why it is not usable, "" if it is.
    facts: for the manifest: source; rotation_deg, angles (rad, about x, y, z), shift_mm and
        center_mm, LPS, from the volume to the guide; overlap (share of the volume's tissue);
        fit_before and fit_after (0 to 1); start ("headers" or "centers"); moved (whether the
        headers' geometry was corrected); resampled; used; reason.
    """

    voxels: Floats
    is_usable: bool
    reason: str
    facts: dict[str, Any]


def align(guide: Volume, volume: Volume, monitor: Monitor) -> AlignedGuide:
    """Register a guide rigidly to the volume and resample it onto the volume's grid.

    Deterministic. Starts from the geometry in the headers, which for series of one examination is
    off by the patient's motion alone. A guide on the volume's grid that is in place to a quarter of
    a voxel keeps its voxels.

    Args:
        guide: any contrast, any grid.
        volume: what is to be enhanced.
        monitor: progress and cancelling; warned of a guide that does not fit, and of headers whose
            geometry does not bring both together.
    Raises:
        InputError: a sequence, or a guide with values that are not finite or all the same.
        Cancelled: the monitor says so.
    """
    name = guide.source or "guide"
    _require_one_image(guide, name)
    _require_one_image(volume, volume.source or "volume")
    fixed = Image(volume.voxels, volume.geometry)
    moving = Image(guide.voxels, guide.geometry)
    scale = _scale(guide, name)
    place, fit, facts = _register(fixed, moving, monitor.part(0, 0.8))
    reason = _reason(fit)
    if reason:
        reason = f"{name} is not used as guide: {reason}"
        monitor.warn(reason)
        voxels = np.full(volume.shape, np.nan, np.float32)
    else:
        stays = _is_on_grid(moving, fixed) and not facts["moved"]
        voxels = (
            guide.voxels.astype(np.float32)
            if stays
            else resample(moving, fixed, place, monitor.part(0.8, 1))
        )
        voxels -= np.float32(scale[0])
        voxels /= np.float32(scale[1] - scale[0])
        facts["resampled"] = not stays
        if facts["start"] == "centers":
            monitor.warn(
                f"{name}: the guide was registered by the centers of both, as the positions in the "
                "headers do not bring them together"
            )
    facts = {"source": name, **facts, "used": not reason, "reason": reason}
    return AlignedGuide(voxels, not reason, reason, facts)


def _require_one_image(volume: Volume, name: str) -> None:
    if volume.is_sequence:
        raise InputError(f"{name}: a sequence cannot be registered", "Choose one of its frames.")
    if volume.dtype.kind == "f" and not np.isfinite(volume.voxels).all():
        raise InputError(f"{name}: values that are not finite", "Replace NaN and infinity first.")


def _scale(guide: Volume, name: str) -> tuple[float, float]:
    """The values that become 0 and 1."""
    if guide.dtype.kind == "b":
        raise InputError(f"{name}: voxels are true or false", "Choose an image as guide.")
    flat = guide.voxels.ravel()
    sample = flat[:: max(1, flat.size // _SAMPLED)]
    dark, bright = (float(value) for value in np.percentile(sample, [_DARK, _BRIGHT]))
    if not bright > dark:
        raise InputError(f"{name}: intensities are constant", "Choose a guide that shows anatomy.")
    return dark, bright


def _register(volume: Image, guide: Image, monitor: Monitor) -> tuple[Rigid, Fit, dict[str, Any]]:
    """The guide's place, how well it fits there, and the facts."""
    registration = Registration(volume)
    by_headers = registration.by_headers()
    places, start = [by_headers], "headers"
    if registration.is_empty:
        raise InputError("the volume shows nothing to register a guide to", "Leave the guide out.")
    if registration.overlap(guide, by_headers) >= _BY_HEADERS:
        places.append(registration.best(guide, by_headers, monitor.part(0, 0.4)))
    fits = registration.fits(guide, places)
    if len(places) == 1 or _reason(fits[1]):
        by_centers = registration.by_centers(guide)
        place = registration.best(guide, by_centers, monitor.part(0.5, 0.9))
        fit = registration.fits(guide, [place])[0]
        if len(places) == 1 or (not _reason(fit) and fit.value > fits[1].value):
            places, fits, start = [by_headers, place], [fits[0], fit], "centers"
    (before, after), found = fits, places[1]
    distance = registration.displacement(found, by_headers)
    moved = after.value > before.value and distance >= (
        _STAYS_BELOW if _is_on_grid(guide, volume) else 0
    )
    if not moved:
        found, after = by_headers, before
    facts = {
        "rotation_deg": round(found.degrees, 3),
        "angles": [round(value, 6) for value in found.angles],
        "shift_mm": [round(value, 4) for value in found.shift],
        "center_mm": [round(value, 2) for value in found.center],
        "overlap": round(after.overlap, 3),
        "fit_before": round(before.value, 3),
        "fit_after": round(after.value, 3),
        "start": start,
        "moved": bool(moved),
        "resampled": False,
    }
    return found, after, facts


def _is_on_grid(guide: Image, volume: Image) -> bool:
    shape = volume.voxels.shape
    is_close = guide.geometry.is_close(volume.geometry, 1e-3, shape=shape)
    return guide.voxels.shape == shape and is_close


def _reason(fit: Fit) -> str:
    """Why a guide with this fit is not used, or ""."""
    if fit.overlap < _LEAST_OVERLAP:
        return f"it shows {fit.overlap:.0%} of the volume's tissue"
    if fit.value < _LEAST_FIT:
        return (
            "its anatomy does not match the volume's after registration, as that of another "
            "patient or a mirrored series"
        )
    return ""


# --- suggestion -----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A series that may guide, or the volume itself; "" and None for what is not known.

    key: what the caller knows it by, a path or a series UID.
    description: the series description, or the file's name.
    modality: "MR", "CT" …
    frame_of_reference, study: UIDs. patient: PatientID. date: of the series, YYYY-MM-DD.
    folder: of a file without DICOM headers.
    geometry, shape: of the voxels, shape (K, J, I).
    noise: σ over the contrast of the tissue.
    """

    key: str
    description: str = ""
    modality: str = ""
    frame_of_reference: str = ""
    study: str = ""
    patient: str = ""
    date: str = ""
    folder: str = ""
    geometry: Geometry | None = None
    shape: tuple[int, int, int] | None = None
    noise: float | None = None


@dataclass(frozen=True)
class Suggestion:
    """The candidate to take, and a sentence with the reasons."""

    candidate: Candidate
    reason: str


def noise_of(volume: Volume) -> float:
    """σ of the noise over the contrast of the tissue, of a volume or a sequence's first frame."""
    frame = volume.frames()[0]
    spacing = frame.geometry.spacing
    return noise_to_contrast(measure_noise(frame.voxels, modality=frame.modality, spacing=spacing))


def suggest(volume: Candidate, candidates: Sequence[Candidate]) -> Suggestion | None:
    """The series of the same examination that guides best: that of the least noise.

    Args:
        volume: the one to enhance.
        candidates: what is at hand; the volume itself may be among them.
    Returns:
        None where no other series belongs to the examination, covers half of the volume, has
        voxels of a useful size, and less noise.
    """
    fitting = [
        (candidate, link)
        for candidate in candidates
        if (link := _link(volume, candidate)) and _is_useful(volume, candidate)
    ]
    if not fitting:
        return None
    best, link = min(fitting, key=lambda pair: _order(*pair))
    name = best.description or best.key
    has_least = best.noise is not None and len(fitting) > 1
    noise = f", least noise of {len(fitting)} series" if has_least else ""
    if best.noise is not None and volume.noise:
        noise += f" ({best.noise / volume.noise:.0%} of the volume's)"
    return Suggestion(best, f"{name}: {link}{noise}.")


def _link(volume: Candidate, other: Candidate) -> str:
    """What shows that both are of one examination, in words; "" for nothing."""
    if other.key == volume.key or other.modality != volume.modality:
        return ""
    if volume.patient and other.patient and volume.patient != other.patient:
        return ""
    if volume.frame_of_reference and volume.frame_of_reference == other.frame_of_reference:
        return "same frame of reference"
    if volume.study and volume.study == other.study:
        return "same study"
    same_patient = volume.patient and volume.patient == other.patient
    if same_patient and volume.date and volume.date == other.date:
        return "same patient and date"
    without_headers = not (volume.study or other.study)
    same_folder = volume.folder and volume.folder == other.folder
    if without_headers and same_folder and volume.geometry and other.geometry:
        return "same folder, same region"
    return ""


def _is_useful(volume: Candidate, other: Candidate) -> bool:
    """Whether it shows enough of the volume, finely enough, with less noise, as far as known."""
    if volume.noise is not None and other.noise is not None and other.noise >= volume.noise:
        return False
    if volume.geometry is None or other.geometry is None:
        return True
    if other.geometry.voxel_volume_mm3 > _MOST_COARSE * volume.geometry.voxel_volume_mm3:
        return False
    if volume.shape is None or other.shape is None:
        return True
    return _covered(volume.geometry, volume.shape, other.geometry, other.shape) >= _LEAST_COVERED


def _covered(
    geometry: Geometry,
    shape: tuple[int, int, int],
    other: Geometry,
    other_shape: tuple[int, int, int],
) -> float:
    """Share of a volume's box that another's covers, on a lattice of 9³ points."""
    shares = np.array(list(product(np.linspace(0, 1, 9), repeat=3)))
    indices = np.c_[shares * (np.array(shape[::-1]) - 1), np.ones(len(shares))]
    theirs = indices @ (np.linalg.inv(other.affine_lps) @ geometry.affine_lps).T
    last = np.array(other_shape[::-1]) - 0.5
    return float(((theirs[:, :3] >= -0.5) & (theirs[:, :3] <= last)).all(1).mean())


def _order(candidate: Candidate, link: str) -> tuple[float, bool, float, str]:
    """Least noise first; then what shares the frame of reference; then the smallest voxels."""
    noise = math.inf if candidate.noise is None else candidate.noise
    voxel = candidate.geometry.voxel_volume_mm3 if candidate.geometry else math.inf
    return noise, link != "same frame of reference", voxel, candidate.key
