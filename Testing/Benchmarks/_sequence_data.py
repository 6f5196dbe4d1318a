"""Series for sequences.py: real ones whose frames repeat each other, and simulated ones.

A result is compared with frames that were held out, or with a simulation without noise, never with
frames that a method saw: their mean rewards whoever borrows from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import QUICK, SHARED_DATA, listed, verified
from noise import g_factor
from real import group_of, spread
from scipy import ndimage, stats

from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Gradients = tuple[Gradient, ...]
#: Tissue is above this share of the bright end of the mean.
_TISSUE = 0.35
#: Voxels of all frames, above which only the middle slices are measured, and the fewest of these.
_MOST_VOXELS, _FEWEST_SLICES = 8_000_000, 8
#: Standard deviation in voxels of the filter that smooths tensors of a real scan.
_SMOOTH = 0.7
DWI = SHARED_DATA / "repeated" / "dwi_two_averages.nii.gz"
FMRI = DWI.with_name("fmri_156_frames.nii.gz")
#: Simulated series by their number of frames: b-values with how many frames each.
SHELLS = {22: ((0, 2), (1000, 20)), 66: ((0, 6), (1000, 30), (2500, 30))}
_SITES = 40
#: b-value, s/mm², below which tensors are fitted.
_TENSOR_B = 1500


@dataclass(frozen=True, eq=False)
class Series:
    """What methods get, and a truth that none of them saw.

    about: table, name, vendor and SNR, of each row. judged: numbers of the frames with a truth.
    truth: of these, [N, K, J, I]; variance: of its own noise.
    other: frames whose tensors are the truth, if there are any. is_pair: whether the truth is one
    frame each.
    """

    about: Mapping[str, Any]
    seen: Volume
    judged: list[int]
    truth: Floats
    variance: float
    tissue: Mask
    other: Floats | None
    is_pair: bool = False


# --- real series ----------------------------------------------------------------------------------


def real(more: Sequence[Path]) -> Iterator[tuple[str, Callable[[], Series]]]:
    """Names of the listed series that are in the shared folder or others, and what opens each."""
    for folder in (DWI.parent, *more):
        for about in listed("sequence_scans.json"):
            if QUICK or (folder / about["file"]).is_file():
                yield about["name"], partial(_listed, folder / about["file"], about)


def opened(path: Path) -> Volume:
    """A series; of a quick run small synthetic frames."""
    if not QUICK:
        return load(path, modality="MR")
    few = load(path.with_name("frames.nii.gz"), modality="MR")
    few = few.crop(j=slice(24, 48), i=slice(24, 48))
    frames = np.resize(few.voxels, (42, *few.shape[1:]))
    frames = np.maximum(frames + np.random.default_rng(0).normal(0, 30, frames.shape), 0)
    gradients = gradients_of(((0, 1), (1000, 20))) * 2
    return replace(few, voxels=frames.astype(np.int16), gradients=gradients)


def _listed(path: Path, about: Mapping[str, Any]) -> Series:
    """A series by its entry; of a large one the middle slices."""
    volume = opened(path if QUICK else verified(path, about))
    count = max(_FEWEST_SLICES, _MOST_VOXELS // volume.voxels[:, 0].size)
    first = max(0, (volume.shape[1] - count) // 2)
    volume = volume.crop(k=slice(first, min(volume.shape[1], first + count)))
    groups = about["alike_frames"]
    if groups:
        return held_out(volume, about, [(n, g[1::2]) for g in groups for n in g[::2]])
    return held_out(volume, about, [(n, [m]) for n, m in zip(*about["pairs"], strict=True)])


def held_out(
    volume: Volume, about: Mapping[str, Any], references: Sequence[tuple[int, list[int]]]
) -> Series:
    """Take frames out of a series, by which others are judged.

    references: (frame that is judged, frames whose mean is its truth). Frames that `about` names
    as unseen are taken out, too.
    """
    frames, judged = volume.voxels.astype(np.float32), [n for n, _ in references]
    hidden = {*about.get("unseen", ()), *(m for _, others in references for m in others)}
    kept = [n for n in range(len(frames)) if n not in hidden or n in judged]
    apart = [n for n in range(len(frames)) if n not in kept]
    mean, tissue = frames[apart].mean(axis=0), tissue_of(frames[apart])
    truth, variances, sigmas = [], [], []
    for number, others in references:
        truth.append(frames[others].mean(axis=0))
        nearest = min(others, key=lambda other: abs(other - number))
        difference = (frames[number] - frames[nearest])[tissue] / np.float32(2**0.5)
        sigmas.append(spread(difference - np.median(difference)))
        if len(others) > 1:
            variances.append(frames[others].var(axis=0, ddof=1)[tissue].mean() / len(others))
        else:
            variances.append(np.square(difference).mean())
    gradients, others = (tuple(volume.gradients[n] for n in numbers) if volume.gradients else ()
                         for numbers in (kept, apart))  # fmt: skip
    row = {"table": "repeats", "scan": about["name"], "kind": about["kind"]}
    row["snr"] = float(mean[tissue].mean()) / float(np.median(sigmas))
    row["group"] = group_of(row["snr"], len(references) + 1)
    return Series(
        about=row | {"vendor": about["vendor"]},
        seen=replace(volume, voxels=volume.voxels[kept], gradients=gradients),
        judged=[kept.index(n) for n in judged], truth=np.stack(truth),
        variance=float(np.mean(variances)), tissue=tissue,
        other=frames[apart] if gradients and gradients == others else None,
        is_pair=all(len(others) == 1 for _, others in references),
    )  # fmt: skip


#: What goes wrong in a series, and the numbers of the frames in which it does.
ODD: dict[str, tuple[int, ...]] = {
    "nothing": (),
    "one frame × 10": (5,),
    "one frame moved by 2 voxels": (7,),
    "three frames moved by 3 voxels": (4, 9, 14),
    "four slices of a frame at a fifth": (6,),
    "stripes in a frame": (8,),
}


def with_odd_frames(frames: Floats, damage: str) -> Floats:
    """Frames of which some are damaged as a value of ODD says; the input stays as it is."""
    frames, middle = frames.copy(), frames.shape[1] // 2
    for number in ODD[damage]:
        if "× 10" in damage:
            frames[number] *= 10
        elif "moved" in damage:
            frames[number] = np.roll(frames[number], 2 if "2 voxels" in damage else 3, axis=1)
        elif "slices" in damage:
            frames[number, middle - 2 : middle + 2] *= 0.2
        else:
            rows, columns = np.indices(frames.shape[2:])
            wave = np.cos(0.9 * rows + 1.3 * columns)
            bright = np.percentile(frames[number], 99)
            frames[number] = np.abs(frames[number] + 0.3 * bright * wave)
    return frames


def tissue_of(frames: Floats) -> Mask:
    mean = frames.mean(axis=0)
    return mean > _TISSUE * np.percentile(mean, 99)


# --- simulated diffusion --------------------------------------------------------------------------


def gradients_of(shells: Sequence[tuple[int, int]]) -> Gradients:
    """Directions on a spiral over half a sphere; the frames of all shells in a random order."""
    gradients = []
    for b, count in shells:
        up = (np.arange(count) + 0.5) / count
        turn = np.pi * (3 - 5**0.5) * np.arange(count) + b
        flat = np.sqrt(1 - up**2)
        ways = np.stack([flat * np.cos(turn), flat * np.sin(turn), up], axis=1) * (b > 0)
        gradients += [Gradient(float(b), tuple(map(float, way))) for way in ways]
    return tuple(gradients[n] for n in np.random.default_rng(0).permutation(len(gradients)))


def at_zero(gradients: Gradients) -> Mask:
    return np.array([gradient.b_value < 50 for gradient in gradients])


def angular(along: Sequence[Gradient]) -> tuple[Floats, Floats]:
    """Projections, [T, T], on what a mean and a tensor explain, and on what order 4 adds to it."""
    ways = np.array([gradient.direction for gradient in along])
    second, fourth = (
        np.stack([ways[:, list(axes)].prod(axis=1) for axes in
                  combinations_with_replacement(range(3), order)], axis=1)
        for order in (2, 4)
    )  # fmt: skip
    tensor = second @ np.linalg.pinv(second)  # the squares of a direction add up to the mean
    added = fourth - tensor @ fourth
    return tensor, added @ np.linalg.pinv(added, rcond=1e-6)


def nothing(volumes: Sequence[Volume]) -> Floats:
    """No share of any frame is taken from windows."""
    return np.zeros((len(volumes), len(volumes)), np.float32)


def mp_pca(volume: Volume) -> Floats:
    """MP-PCA of dipy, in blocks of more voxels than there are frames; flat ones in few slices."""
    from dipy.denoise.localpca import mppca

    frames, wide = volume.voxels.astype(np.float32), 2
    deep = (frames.shape[1] - 1) // 2
    while (2 * min(deep, wide) + 1) * (2 * wide + 1) ** 2 <= len(frames):
        wide += 1
    radius = np.array([min(deep, wide), wide, wide])
    return np.moveaxis(mppca(np.moveaxis(frames, 0, -1), patch_radius=radius), -1, 0)


def show_tensors(gradients: Gradients) -> bool:
    """Whether frames are weighted by a b-value at which tensors are fitted."""
    return any(50 < gradient.b_value < _TENSOR_B for gradient in gradients)


def tensors(signal: Floats, gradients: Gradients) -> Any:
    """Fit diffusion tensors to frames of low b, [T, ...]: dipy's fit, with fa, md."""
    from dipy.core.gradients import gradient_table
    from dipy.reconst.dti import TensorModel

    low = [n for n, gradient in enumerate(gradients) if gradient.b_value < _TENSOR_B]
    b_values = np.array([gradients[n].b_value for n in low])
    table = gradient_table(b_values, bvecs=np.array([gradients[n].direction for n in low]))
    return TensorModel(table).fit(np.maximum(np.moveaxis(signal[low], 0, -1), 1e-3))


@cache
def diffusion(frames: int, smooth: float = _SMOOTH) -> tuple[Floats, Gradients, Mask]:
    """Noiseless frames of tensors fitted to a denoised real scan, their gradients, and tissue.

    MP-PCA leaves noise in the scan, which would be truth: smoothing removes it.
    """
    volume = opened(DWI)
    k, j, i = (
        slice(max(0, side // 2 - half), side // 2 + half)
        for side, half in zip(volume.shape[1:], (6, 32, 32), strict=True)
    )
    denoised = mp_pca(volume.crop(k, j, i))
    fit = tensors(denoised, volume.gradients)
    zero = np.maximum(denoised[at_zero(volume.gradients)].mean(axis=0), 0)
    tissue = zero > 0.15 * np.percentile(zero, 99)
    if not QUICK:
        tissue &= (fit.md > 4e-4) & (fit.md < 1.3e-3)  # without fluid
    gradients = gradients_of(SHELLS[frames])
    form = np.clip(fit.quadratic_form, -1e-3, 4e-3)
    form = ndimage.gaussian_filter(form, (smooth,) * 3 + (0, 0))
    zero = ndimage.gaussian_filter(zero, smooth / 2)
    ways = np.array([gradient.direction for gradient in gradients])
    b_values = np.array([gradient.b_value for gradient in gradients])
    decay = np.einsum("t,ta,kjiab,tb->tkji", b_values, ways, form, ways).clip(0)
    signal = np.exp(-decay)
    if frames == 66:  # two pools of water, which high b-values distinguish
        signal = 0.7 * np.exp(-1.25 * decay) + 0.3 * np.exp(-0.42 * decay)
    return (zero * signal).astype(np.float32), gradients, tissue


def simulated(frames: int, snr: float, seed: int, *, is_smooth: bool = True) -> Series:
    """Diffusion without noise, noise added, and the tensors before it was.

    is_smooth: whether tensors are smoothed; otherwise they hold noise of the scan, which denoising
        takes for noise.
    """
    truth, gradients, tissue = diffusion(frames, _SMOOTH if is_smooth else 0.0)
    case = f"{frames} frames, SNR {snr:g}" + ("" if is_smooth else ", noise in the truth")
    about = {"table": "tensors" if is_smooth else "rough", "case": case, "seed": seed}
    return replace(noisy(about, truth, gradients, snr), tissue=tissue, other=truth)


def moved(kind: str, degrees: float, shift: float, seed: int) -> Series:
    """Frames that were turned in the plane and shifted, by normal deviates, then noise of SNR 15.

    kind: DWI, or ten alike frames; shift: voxels, a third of it across slices.
    """
    frames, gradients, _ = diffusion(22)
    if kind != "DWI":
        frames, gradients = np.repeat(frames[at_zero(gradients)][:1], 10, axis=0), ()
    rng, truth = np.random.default_rng(seed), np.empty_like(frames)
    for before, after in zip(frames, truth, strict=True):
        angle = degrees * rng.standard_normal()
        turned = ndimage.rotate(before, angle, (1, 2), reshape=False, order=3, mode="nearest")
        by = shift * rng.standard_normal(3) * (1 / 3, 1, 1)
        after[...] = np.maximum(ndimage.shift(turned, by, order=1, mode="nearest"), 0)
    case = f"{kind}, {degrees:g}°, {shift:g} voxels"
    about = {"table": "motion", "case": case, "degrees": degrees, "seed": seed}
    return noisy(about, truth, gradients, 15)


def noisy(about: Mapping[str, Any], truth: Floats, gradients: Gradients, snr: float) -> Series:
    """Rician noise, stronger in the middle of the slices, as by parallel imaging.

    about: with the seed. snr: mean of tissue over σ in frames of b = 0; without gradients in all.
    """
    bright, tissue = truth[at_zero(gradients)] if gradients else truth, tissue_of(truth)
    gain = 1 + 0.4 * (g_factor(tissue.shape) - 1)
    sigma = (bright[:, tissue].mean() / snr / gain[tissue].mean() * gain).astype(np.float32)
    rng = np.random.default_rng(about["seed"])
    first, second = rng.standard_normal((2, *truth.shape), np.float32)
    voxels = np.hypot(truth + sigma * first, sigma * second)
    return Series(
        about=about,
        seen=Volume(voxels, Geometry((2.0, 2.0, 2.0)), modality="MR", gradients=gradients),
        judged=list(range(len(truth))), truth=truth, variance=0.0,
        tissue=tissue, other=None,
    )  # fmt: skip


# --- planted activation ---------------------------------------------------------------------------


def functional(snr: float | None) -> Volume:
    """The middle of the real fMRI as scanned, or with noise added to an SNR."""
    volume = opened(FMRI)
    j, i = (slice(max(0, side // 2 - 24), side // 2 + 24) for side in volume.shape[2:])
    volume = replace(volume, gradients=()).crop(j=j, i=i)
    voxels = volume.voxels.astype(np.float32)
    if snr:
        voxels = noisy({"seed": 0}, voxels, (), snr).seen.voxels
    return volume.with_voxels(voxels)


def planted(volume: Volume, size: float, design: str) -> tuple[Volume, Floats, Floats, Mask]:
    """Raise small balls in tissue with the time course of a task, blocks or events.

    size: of the activation, a share of the mean.
    Returns the volume, the course [T], the height of what was planted [K, J, I], and tissue far
    from it.
    """
    frames, rng = volume.voxels, np.random.default_rng(0)
    tissue, spacing = tissue_of(frames), np.array(volume.geometry.spacing[::-1])
    radius = 1.5 * spacing[1:].max()
    grid = np.stack(np.indices(tissue.shape), axis=-1) * spacing
    site, taken = np.zeros(tissue.shape, bool), []
    for place in rng.permutation(grid[ndimage.binary_erosion(tissue)]):
        if len(taken) < _SITES and all(np.linalg.norm(place - p) >= 4 * radius for p in taken):
            taken.append(place)
            site |= tissue & (np.linalg.norm(grid - place, axis=-1) <= radius)
    course = _task(len(frames), volume.frame_interval_s or 2.0, design, rng)
    height = (size * frames.mean(axis=0) * site).astype(np.float32)
    active = volume.with_voxels(frames + height * course[:, None, None, None])
    return active, course, height, tissue & ~ndimage.binary_dilation(site, iterations=3)


def _task(count: int, interval_s: float, design: str, rng: np.random.Generator) -> Floats:
    """The response to blocks of twenty seconds, or to events: two gamma densities, peak 1."""
    on = (np.arange(count) * interval_s // 20) % 2
    if design == "events":
        on = np.isin(np.arange(count), rng.choice(count, max(2, count // 12), replace=False))
    seconds = np.arange(0, 32, interval_s)
    response = stats.gamma.pdf(seconds, 6) - stats.gamma.pdf(seconds, 16) / 6
    course = np.convolve(on, response)[:count]
    return (course / course.max()).astype(np.float32)
