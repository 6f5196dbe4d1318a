"""The grouped filter against BM4D and the block filter, at known noise: PSNR, SSIM, CPU time.

    python -m pip install --target /tmp/bm4d --no-deps bm4d      # its license: non-commercial use
    OMP_NUM_THREADS=1 PYTHONPATH=/tmp/bm4d python Testing/Benchmarks/grouped.py --kept rows.json

References with little noise of their own: the template of 152 brains, and open volumes whose
resolution was halved by averaging 2 × 2 × 2 voxels. Without bm4d its columns stay empty.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import REPOSITORY, RESULTS, SHARED_DATA, write

from MedEnhanceLib import io
from MedEnhanceLib.core import metrics
from MedEnhanceLib.degrade.lowdose import low_dose_noise
from MedEnhanceLib.nets import grouped
from MedEnhanceLib.nets.grouped import CT_ROUNDS, MR_ROUNDS, Round
from MedEnhanceLib.nets.shrinkage import BlockShrinkage, amplitude

SEED = 20261122
TEMPLATE = REPOSITORY / "Resources/samples/mni152_t1.nii.gz"
MR = {
    "template": (TEMPLATE, 1),
    "open_ms C19": (SHARED_DATA / "mr/open_ms/C19/T1.nii.gz", 2),
    "open_ms C07": (SHARED_DATA / "mr/open_ms/C07/T1.nii.gz", 2),
    "STS_012": (SHARED_DATA / "mr/sts/STS_012/MR_T1.nii.gz", 2),
}
CT = ("ct/sts/STS_003/CT.nii.gz", "ct/sts/STS_024/CT.nii.gz")
NOISES = (("Gaussian", 5), ("Gaussian", 10), ("Gaussian", 15), ("Rician", 10))
PHOTONS, ELECTRONIC, VIEWS = 5e3, 10.0, 360
CROP = (12, 48, 48)
#: Range of CT's PSNR, HU.
CT_RANGE = 2000.0

Floats = np.ndarray[Any, np.dtype[np.float32]]


def central(values: Floats) -> Floats:
    """A crop around the middle, nearer to the first row so that it holds some air."""
    free = [max(0, side - most) for side, most in zip(values.shape, CROP, strict=True)]
    starts = [free[0] // 2, free[1] // 8, free[2] // 2]
    parts = tuple(slice(s, s + most) for s, most in zip(starts, CROP, strict=True))
    even = [side // 2 * 2 for side in values[parts].shape[1:]]  # the start wants even sides
    return np.ascontiguousarray(values[parts][:, : even[0], : even[1]], np.float32)


def reference(path: Path, shrink: int) -> Floats:
    """A crop of a volume in [0, 1], its resolution reduced by averaging."""
    voxels = np.asarray(io.load(path).voxels, np.float32)
    if shrink > 1:
        deep, rows, columns = (side // shrink * shrink for side in voxels.shape)
        voxels = voxels[:deep, :rows, :columns].reshape(
            deep // shrink, shrink, rows // shrink, shrink, columns // shrink, shrink
        ).mean(axis=(1, 3, 5))  # fmt: skip
    crop = central(voxels)
    return np.clip(crop / np.quantile(crop, 0.999), 0, 1.5).astype(np.float32)


def start(noisy: Floats, sigma: float, spectrum: Floats | None = None) -> Floats:
    """What enhancement began with before: threshold, mean of similar voxels, Wiener filter."""
    shrinkage = BlockShrinkage().requires_grad_(False)
    if spectrum is not None:
        shrinkage.begin_with(torch.from_numpy(np.sqrt(spectrum)))
    slabs = torch.from_numpy(noisy)[None]
    level = torch.full((1, len(noisy), noisy.shape[1] // 2, noisy.shape[2] // 2), sigma)
    return shrinkage(slabs, level)[0].numpy()


def bm4d_of(noisy: Floats, sigma: Any) -> Floats | None:
    """BM4D with its default profile; None where it is not installed."""
    try:
        from bm4d import bm4d
    except ImportError:
        return None
    vars(np).setdefault("trapz", np.trapezoid)  # bm4d 4.2.5 calls it by its old name
    return np.asarray(bm4d(noisy.astype(np.float64), sigma), np.float32)


def without_bias(image: Floats, sigma: float) -> Floats:
    return amplitude(torch.from_numpy(image), torch.tensor(sigma)).numpy()


def chain(noisy: Floats, sigma: float, rounds: tuple[Round, ...], **options: Any) -> Floats:
    level = np.broadcast_to(np.float32(sigma), noisy.shape)
    return grouped.denoised(noisy, level, rounds=rounds, threads=1, **options)


def measured(
    work: Callable[[], Floats | None], clean: Floats, peak: float, mask: Any, after: Any = None
) -> dict[str, float] | None:
    """Scores and CPU seconds per million voxels of a filter."""
    began = time.process_time()
    image = work()
    seconds = time.process_time() - began
    if image is None:
        return None
    image = after(image) if after else image
    return {
        "psnr": metrics.psnr(clean, image, peak, mask=mask),
        "whole": metrics.psnr(clean, image, peak),
        "ssim": metrics.ssim(clean, image, peak),
        "cpu_s_per_mvoxel": seconds / clean.size * 1e6,
    }


def mr_rows(cases: list[str]) -> Iterator[dict[str, Any]]:
    for name in cases:
        path, shrink = MR[name]
        clean = reference(path, shrink)
        mask = clean > 0.1
        for kind, percent in NOISES:
            rng = np.random.default_rng(SEED)
            sigma = percent / 100
            noise = rng.normal(0, sigma, (2, *clean.shape)).astype(np.float32)
            noisy = clean + noise[0]
            after = None
            if kind == "Rician":
                noisy = np.hypot(noisy, noise[1])
                after = partial(without_bias, sigma=sigma)
            arms: dict[str, Callable[[], Floats | None]] = {
                "input": lambda n=noisy: n,
                "block filter": lambda n=noisy, s=sigma: start(n, s),
                "N4": lambda n=noisy, s=sigma: chain(n, s, MR_ROUNDS[:1]),
                "N4 N3": lambda n=noisy, s=sigma: chain(n, s, (MR_ROUNDS[0], MR_ROUNDS[2])),
                "N4 N4 N3": lambda n=noisy, s=sigma: chain(n, s, MR_ROUNDS),
                "BM4D": lambda n=noisy, s=sigma: bm4d_of(n, s),
            }
            for arm, work in arms.items():
                scores = measured(work, clean, 1.0, mask, after)
                if scores:
                    yield {"case": name, "noise": f"{kind} {percent} %", "arm": arm, **scores}


def ct_rows(places: list[str]) -> Iterator[dict[str, Any]]:
    for place in places:
        volume = io.load(SHARED_DATA / place)
        whole = np.asarray(volume.voxels, np.float32)
        first = max(0, (len(whole) - CROP[0]) // 2)
        whole = whole[first : first + CROP[0]]

        def noise_of(seed: int, whole: Floats = whole, mm: Any = volume.geometry.spacing) -> Floats:
            rng = np.random.default_rng(seed)
            return low_dose_noise(whole, mm, PHOTONS, ELECTRONIC, rng, views=VIEWS)

        clean, noise, other = central(whole), central(noise_of(SEED)), central(noise_of(SEED + 1))
        noisy, sigma = clean + noise, float(other.std())
        spectrum = _variances(other, sigma)
        # Of 2-D noise that is white across slices: the mean over slices is the true spectrum.
        plane = (np.abs(np.fft.fft2(other.astype(np.float64))) ** 2).mean(axis=0)
        psd = np.broadcast_to(plane * len(clean), clean.shape).copy()
        mask = clean > -500
        arms: dict[str, Callable[[], Floats | None]] = {
            "input": lambda n=noisy: n,
            "block filter": lambda n=noisy, s=sigma, p=spectrum: start(n, s, p),
            "N4 × 2 apart, N3 × 1.4": lambda n=noisy, s=sigma, p=spectrum: chain(
                n, s, CT_ROUNDS, spectrum=p
            ),
            "block filter, N3 × 1.4": lambda n=noisy, s=sigma, p=spectrum: chain(
                n, s, (Round(step=3, damp=1.4),), spectrum=p, pilot=start(n, s, p)
            ),
            "BM4D": lambda n=noisy, p=psd: bm4d_of(n, p),
        }
        for arm, work in arms.items():
            scores = measured(work, clean, CT_RANGE, mask)
            if scores:
                yield {"case": place, "noise": "5000 photons", "arm": arm, **scores}


def _variances(noise: Floats, sigma: float) -> Floats:
    """Variance of noise in each of the 64 frequencies, in units of σ²."""
    from scipy.fft import dctn

    blocks = np.lib.stride_tricks.sliding_window_view(noise, (4, 4, 4))[:, ::2, ::2]
    coefficients = dctn(blocks, axes=(3, 4, 5), norm="ortho").reshape(-1, 64)
    return ((coefficients**2).mean(axis=0) / sigma**2).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kept", type=Path, required=True, help="rows so far; the rest is added")
    parser.add_argument("--folder", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(given.kept.read_text()) if given.kept.is_file() else []
    done = [row["case"] for row in rows]
    for case in [case for case in (*MR, *CT) if case not in done]:
        rows += mr_rows([case]) if case in MR else ct_rows([case])
        given.kept.write_text(json.dumps(rows))
    write("grouped", gates=[], rows=rows, seeds=[SEED], folder=given.folder)


if __name__ == "__main__":
    main()
