"""What the benchmarks of the removal of noise share: scans, noise, arms, scores."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from _common import QUICK, SHARED_DATA, Gate, Row
from _enhancement_data import TEMPLATE, Box, Floats, Mask, Subject, cropped, run_kept, sample_volume
from _enhancement_peers import bm4d_ct, bm4d_mr
from _enhancement_statistics import Difference, difference, difference_gate

from MedEnhanceLib.bundles.store import open_bundle
from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.arrays import robust_max
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.acquisition import SCAN_KINDS, MRScanner
from MedEnhanceLib.denoise import denoise
from MedEnhanceLib.denoise.denoisers import (
    Denoiser,
    FramePart,
    Resources,
    denoiser_class,
    network_in,
)
from MedEnhanceLib.filters import block_matching
from MedEnhanceLib.filters.block_matching import engine_for
from MedEnhanceLib.filters.regions import ConstantRegions
from MedEnhanceLib.io import load
from MedEnhanceLib.learning.intensity import scaling_for
from MedEnhanceLib.noise.estimate import NoiseEstimate, measure_noise
from MedEnhanceLib.noise.rician import rician_noise
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.ssim import ssim

#: Voxels of a crop along k, j, i.
CROP = (12, 48, 48) if QUICK else (24, 80, 80)
#: Levels of noise in percent of the robust maximum.
PERCENTS = (10,) if QUICK else (5, 10, 15)
#: The filter before there was a network, whatever rounds the library has now.
FILTER_ROUNDS = {
    "MR": (
        block_matching.Round(step=4),
        block_matching.Round(step=4, damp=1.2),
        block_matching.Round(step=3, damp=1.2),
    ),
    "CT": (block_matching.Round(step=4, damp=2.0, apart=4), block_matching.Round(step=3, damp=1.4)),
}
#: Arms whose result a network makes, with a guide or without.
NETWORK, FILTER = "network", "filter"
#: Names of fields of a training that list what it did not see.
_LEFT_OUT = re.compile("leave|left|held")
#: Where the foreground begins; from which ratio to the pixels slices are thick.
_AIR, _THICK = 0.1, 1.6


@dataclass(frozen=True, eq=False)
class Scan(Subject):
    """A reference with intensities from 0 to about 1 (the robust maximum).

    path: in the folder of open volumes. reference: "plain", or "averaged" where 2 × 2 × 2 voxels
    (2 × 2 in thick slices) were averaged, which takes noise away. box: of the crop.
    """

    path: str = ""
    reference: str = "plain"
    box: Box = (slice(None), slice(None), slice(None))


@dataclass(frozen=True)
class Model:
    """An opened enhancer. denoiser: of its network. metadata: of its bundle."""

    denoiser: Denoiser
    metadata: Mapping[str, Any]


# --- goals ----------------------------------------------------------------------------------------


def is_there(path: str) -> bool:
    return path == TEMPLATE or (SHARED_DATA / path).is_file()


def gain(
    rows: list[Row], cases: Sequence[str], arms: tuple[str, str], figure: str = "psnr"
) -> Difference | None:
    """Arm over other arm: mean over cases, then seeds, then subjects."""
    return difference(rows, figure, [(case, *arms) for case in cases]) if cases else None


def over_goal(
    name: str, goals: Sequence[tuple[Difference | None, float, float]], bound: str, reason: str
) -> Gate:
    """The smallest margin of several gains over their goals, and whether all are met.

    goals: a gain, the goal of its mean, and that of its least subject.
    """
    known = [(gain.mean - mean, gain, least) for gain, mean, least in goals if gain is not None]
    margin, gain, _ = min(known, key=lambda entry: entry[0], default=(None, None, 0.0))
    is_met = margin is not None and len(known) == len(goals) and margin >= 0
    is_met = is_met and all(entry.least >= least for _, entry, least in known)
    gate = difference_gate(name, gain, bound, is_met, reason)
    return gate if gain is None else gate | {"value": margin, "mean": gain.mean}


# --- scans ----------------------------------------------------------------------------------------


@lru_cache(maxsize=6)
def whole_scan(path: str, data: Path, averaged: bool) -> tuple[Volume, Mask | None]:
    """All of a volume in float32, its robust maximum at 1, and the lesions marked in it, if any."""
    volume = sample_volume() if path == TEMPLATE else load(data / path, modality="MR")
    # Splines of the source undershoot.
    volume = volume.with_voxels(np.maximum(volume.voxels, 0).astype(np.float32))
    lesion = (data / path).with_name("lesion.nii.gz")
    marked = load(lesion, modality="SEG").voxels > 0 if lesion.is_file() else None
    if averaged:
        factors = averaging(volume)
        volume = shrunk(volume, factors)
        if marked is not None:
            marked = mean_of_blocks(marked.astype(np.float32), factors) > 0.5
    return volume.with_voxels(volume.voxels / np.float32(robust_max(volume.voxels))), marked


def averaging(volume: Volume) -> tuple[int, int, int]:
    di, _, dk = volume.geometry.spacing
    return (1 if dk > _THICK * di else 2), 2, 2


def mean_of_blocks(voxels: Floats, factors: tuple[int, int, int]) -> Floats:
    sizes = [side // by for side, by in zip(voxels.shape, factors, strict=True)]
    k, j, i = (slice(0, size * by) for size, by in zip(sizes, factors, strict=True))
    shape = [n for pair in zip(sizes, factors, strict=True) for n in pair]
    mean: Floats = voxels[k, j, i].reshape(shape).mean(axis=(1, 3, 5))
    return mean


def shrunk(volume: Volume, factors: tuple[int, int, int]) -> Volume:
    """Fewer voxels, each the mean of a block."""
    di, dj, dk = (mm * by for mm, by in zip(volume.geometry.spacing, factors[::-1], strict=True))
    geometry = replace(volume.geometry, spacing=(di, dj, dk))
    voxels = mean_of_blocks(volume.voxels.astype(np.float32), factors)
    return replace(volume, voxels=voxels, geometry=geometry, history=())


def short_name(path: str, averaged: bool = False) -> str:
    """As "C07 T1"."""
    name = " ".join(path.removesuffix(".nii.gz").split("/")[-2:])
    return name + (", averaged" if averaged else "")


def scan_of(
    path: str, data: Path, crop: Sequence[int], averaged: bool = False, around: Mask | None = None
) -> Scan:
    """A crop around the median of the foreground, or of another mask."""
    whole, marked = whole_scan(path, data, averaged)
    inside = whole.voxels > _AIR
    middle = np.median(np.argwhere(inside if around is None else around), axis=0)
    first = np.clip(middle.round().astype(int) - np.array(crop) // 2, 0, None)
    first = np.maximum(np.minimum(first, np.array(whole.shape) - crop), 0)
    k, j, i = (
        slice(int(start), int(start) + most) for start, most in zip(first, crop, strict=True)
    )
    name = short_name(path, averaged)
    return Scan(
        name,
        replace(cropped(whole, (k, j, i)), source=name),
        1.0,
        np.ascontiguousarray(inside[k, j, i]),
        None if marked is None else marked[k, j, i],
        path=path,
        reference="averaged" if averaged else "plain",
        box=(k, j, i),
    )


def noisy(scan: Scan, kind: str, percent: int, seed: int) -> Volume:
    """With Gaussian or Rician noise, σ in % of the robust maximum."""
    rng = np.random.default_rng((seed, percent, kind == "Rician"))
    clean, sigma = scan.volume.voxels.astype(np.float32), percent / 100
    if kind == "Rician":
        return scan.volume.with_voxels(rician_noise(clean, sigma, rng))
    noise = rng.normal(0, sigma, clean.shape).astype(np.float32)
    return scan.volume.with_voxels(clean + noise)


def scanned(scan: Scan, percent: int, seed: int) -> tuple[Scan, Volume, NoiseEstimate]:
    """As a simulated scanner acquires it (degradation/acquisition.py), of another kind each seed.

    Returns the reference with the scanner's resolution, the scan, and what is true of its noise.
    """
    rng = np.random.default_rng((seed, percent, 2))
    volume = scan.volume
    scanner = MRScanner.draw(rng, SCAN_KINDS[seed % len(SCAN_KINDS)])
    got = scanner.acquire(volume.voxels, percent / 100, volume.geometry.spacing, rng)
    truth = true_noise(volume, float(np.sqrt(np.mean(got.sigma**2))), rician=False)
    spectrum = got.spectrum.reshape(truth.spectrum.shape)
    clean = replace(scan, volume=volume.with_voxels(got.clean))
    return clean, volume.with_voxels(got.noisy), replace(truth, spectrum=spectrum)


def true_noise(volume: Volume, sigma: float, *, rician: bool) -> NoiseEstimate:
    """White noise whose level is given, as if it had been measured without an error."""
    k, j, i = volume.shape
    return NoiseEstimate(
        level=sigma,
        sigma=np.full((1, 1, 1), sigma, np.float32),
        spectrum=np.ones((4, 4, 4), np.float32),
        confidence=1.0,
        reason=None,
        rician=rician,
        air=sigma if rician else None,
        contrast=1.0,
        shape=(k, j, i),
        cell=(float(k), float(j), float(i)),
    )


def measured_noise(volume: Volume) -> NoiseEstimate:
    spacing = volume.geometry.spacing
    return measure_noise(volume.voxels, modality=volume.modality, spacing=spacing)


# --- arms -----------------------------------------------------------------------------------------


def open_model(modality: str) -> Model:
    """The network that the enhancer that ships uses by default."""
    bundle = open_bundle(modality.lower(), kind="enhancer", modality=modality)
    resources = Resources(bundle=bundle, device="cpu", engine=engine_for("cpu", Monitor()))
    denoiser = denoiser_class(network_in(bundle)).prepared(resources)
    return Model(denoiser, bundle.metadata)


def origin(model: Model, path: str) -> Row:
    """What a training had of a volume, and what it left out."""
    left_out = model.metadata["training"]["config"]["leave_out"]
    return {"in_card": origin_in_card(model, path), "left_out": ", ".join(left_out)}


def origin_in_card(model: Model, path: str) -> str:
    """What of a volume's origin the card lists among the training data.

    "volume" where a pattern of files fits and none that is left out does; "collection"; "none".
    """
    path = "sample/mni152_t1.nii.gz" if path == TEMPLATE else path
    apart = list(_texts(model.metadata.get("training"), only=_LEFT_OUT))

    def is_left_out(name: str) -> bool:
        return any(fnmatch.fnmatch(name, part) or name.startswith(f"{part}/") for part in apart)

    stated = {key: model.metadata.get(key) for key in ("training", "data")}
    used = [text for text in _texts(stated) if not is_left_out(text)]
    if any(fnmatch.fnmatch(path, text) for text in used) and not is_left_out(path):
        return "volume"
    collection = "mni152" if path.startswith("sample/") else path.split("/")[1]
    named = re.compile(rf"(?<![a-z])(?:{collection})(?![a-z])", re.IGNORECASE)
    return "collection" if any(map(named.search, used)) else "none"


def _texts(fields: Any, only: re.Pattern[str] | None = None) -> Iterator[str]:
    """All texts; those below fields of what is left out, or those of all others."""
    if isinstance(fields, str) and only is None:
        yield fields
    elif isinstance(fields, list | tuple):
        for value in fields:
            yield from _texts(value, only)
    elif isinstance(fields, Mapping):
        for key, value in fields.items():
            is_apart = bool(_LEFT_OUT.search(str(key)))
            if is_apart == bool(only):
                yield from _texts(value)
            elif only:
                yield from _texts(value, only)


def run_arm(
    arm: str,
    volume: Volume,
    noise: NoiseEstimate,
    *,
    share: float = 1.0,
    model: Model | None = None,
    guide: Floats | None = None,
    sigma: float | None = None,
) -> Floats:
    """One way to remove noise.

    Args:
        arm: "BM4D", FILTER or NETWORK.
        volume: with noise.
        noise: true or measured.
        share: of the correction.
        model: of NETWORK.
        guide: of the same, [K, J, I] on the volume's grid, 0 to 1, NaN where it shows nothing.
        sigma: the true level, for BM4D in MR.
    """
    if arm == "BM4D":
        if volume.modality == "CT":
            return run_kept(bm4d_ct, "BM4D CT", volume, keep=True)[0]
        run = partial(bm4d_mr, sigma=sigma, rician=noise.rician)
        return run_kept(run, f"BM4D {sigma} {noise.rician} 2", volume, keep=True)[0]
    if model is None or arm != NETWORK:
        return by_filter(volume, noise, share)
    removal = denoise.Removal(noise, share)
    tops = {0: scaling_for(volume).scale}
    guides = () if guide is None else (guide,)
    return denoise.denoise(volume, removal, model.denoiser, tops=tops, guides=guides).voxels


def by_filter(volume: Volume, noise: NoiseEstimate, share: float) -> Floats:
    """The block-matching filter with its last steps, and no network."""
    voxels = block_matching.BlockMatchingFilter(
        volume.voxels,
        noise,
        noise.spectrum.reshape(-1),
        rounds=FILTER_ROUNDS["CT" if volume.modality == "CT" else "MR"],
        spacing=volume.geometry.spacing,
    ).denoised()
    part = FramePart(0, slice(0, len(voxels)), voxels)
    return denoise.Removal(noise, share).correct(part, ConstantRegions(volume.voxels, noise.level))


def scores(scan: Subject, image: Floats) -> Row:
    """PSNR, whose range is the span, and SSIM, of the foreground."""
    reference, inside = scan.volume.voxels, scan.inside
    return {
        "psnr": min(99.0, metrics.psnr(reference, image, scan.span, mask=inside)),
        "ssim": ssim(reference, image, scan.span, mask=inside),
    }
