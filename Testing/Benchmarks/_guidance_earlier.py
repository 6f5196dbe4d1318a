"""The patient's earlier scan as guide: what it gains, and what of it can be seen in the result.

There is one pair of visits with one contrast in the open volumes (open_ms L01, FLAIR). Noise is
added to the second visit; the first one is registered. Blobs stand for lesions: planted in the
earlier scan alone, they must leave no trace; planted in the new one alone, they must stay.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from MedEnhanceLib.degrade.image import rician_noise
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.earlier_scan import pilot_from, register
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.nets.shrinkage import BlockShrinkage, gather

Floats = npt.NDArray[np.float32]
Row = dict[str, Any]

VOLUME, EARLIER = "L01/study2_FLAIR", "L01/study1_FLAIR"
OTHERS = ("L03/study2_FLAIR", "L04/study1_FLAIR", "L09/study2_FLAIR", "L20/study2_FLAIR")
OTHER_CONTRAST = "L01/study2_T1W"
#: A block of the brain, and the distance of lesions in it.
PART = (slice(16, 28), slice(70, 230), slice(70, 230))
LESIONS_EVERY = 26
NOISE = (0.05, 0.1)
#: σ of the lesions in pixels; their height is the noise's σ.
LESIONS = (1.5, 3.0)


def earlier_rows(data: Path) -> list[Row]:
    """One row for each registration, noise level and planted lesion."""
    folder = data / "mr/open_ms"
    volume = load(folder / f"{VOLUME}.nii.gz", modality="MR")
    rows: list[Row] = []
    aligned = {}
    for name in (EARLIER, *OTHERS, OTHER_CONTRAST):
        began = time.process_time()
        try:
            found = register(load(folder / f"{name}.nii.gz", modality="MR"), volume)
        except InputError as error:
            rows.append(
                {
                    "earlier": name,
                    "kind": "registration",
                    "refused": error.message.replace(f"{folder}/", ""),
                }
            )
            continue
        seconds = time.process_time() - began
        aligned[name] = found.aligned[PART]
        rows.append(
            {"earlier": name, "kind": "registration", "overlap": found.overlap,
             "similarity": found.similarity, "cpu_s": seconds}
        )  # fmt: skip
    truth = np.ascontiguousarray(scaling_for(volume).apply(volume.voxels)[PART])
    old = aligned[EARLIER]
    # A wrong patient is refused; mirrored, the right one is a wrong one that fits roughly.
    wrong = np.ascontiguousarray(old[:, :, ::-1])
    stage = BlockShrinkage().eval()
    inside = truth > 0.15
    for sigma in NOISE:
        noisy = rician_noise(truth, sigma, np.random.default_rng(7))
        start = first(stage, noisy, sigma)
        without = last(stage, noisy, start, sigma)
        right = last(stage, noisy, pilot_from(start, old, sigma), sigma)
        mirrored = last(stage, noisy, pilot_from(start, wrong, sigma), sigma)
        row = {"kind": "noise", "sigma": sigma, "input": psnr(truth, noisy, inside),
               "without": psnr(truth, without, inside), "right": psnr(truth, right, inside),
               "wrong": psnr(truth, mirrored, inside)}  # fmt: skip
        rows.append(row)
        for size in LESIONS:
            blobs = lesions(inside, size, volume.geometry.spacing)
            height = sigma * np.sum(blobs, axis=0, dtype=np.float32)
            planted = last(stage, noisy, pilot_from(start, old + height, sigma), sigma)
            with_lesions = rician_noise(truth + height, sigma, np.random.default_rng(7))
            new_start = first(stage, with_lesions, sigma)
            kept = last(stage, with_lesions, new_start, sigma) - without
            pilot = pilot_from(new_start, old, sigma)
            guided = last(stage, with_lesions, pilot, sigma) - right
            trace = contrast(planted - right, blobs, sigma)
            rows.append(
                {"kind": "lesions", "sigma": sigma, "size_px": size, "count": len(blobs),
                 "trace": float(np.mean(trace)), "trace_largest": float(np.abs(trace).max()),
                 "kept_without": float(np.mean(contrast(kept, blobs, sigma))),
                 "kept_with": float(np.mean(contrast(guided, blobs, sigma)))}
            )  # fmt: skip
        print(rows[-3:], flush=True)
    return rows


def lesions(inside: npt.NDArray[np.bool_], size: float, spacing: Sequence[float]) -> list[Floats]:
    """Gaussian blobs on a grid within the tissue."""
    k, j, i = np.mgrid[tuple(slice(0, side) for side in inside.shape)]
    blobs = []
    for z in (3, 7):
        for y in range(25, 140, LESIONS_EVERY):
            for x in range(25, 140, LESIONS_EVERY):
                if inside[z, y - 5 : y + 6, x - 5 : x + 6].mean() > 0.9:
                    depth = (k - z) * spacing[2] / spacing[0]
                    distance = depth**2 + (j - y) ** 2 + (i - x) ** 2
                    blobs.append(np.exp(-distance / (2 * size**2)).astype(np.float32))
    return blobs


def contrast(change: Floats, blobs: Sequence[Floats], height: float) -> npt.NDArray[np.float64]:
    """Each blob's share in a change: 1 where all of it is there."""
    return np.array([(change * b).sum() / (height * (b * b).sum()) for b in blobs], float)


def first(stage: BlockShrinkage, noisy: Floats, sigma: float) -> Floats:
    """The thresholded first estimate."""
    with torch.inference_mode():
        layers = stage.first_layers(torch.from_numpy(noisy)[None], level_of(noisy, sigma))
        result: Floats = gather([layers], 0, len(noisy))[0].numpy()
    return result


def last(stage: BlockShrinkage, noisy: Floats, pilot: Floats, sigma: float) -> Floats:
    """The Wiener estimate with a pilot."""
    with torch.inference_mode():
        slabs = (torch.from_numpy(part)[None] for part in (noisy, pilot))
        layers = stage.second_layers(*slabs, level_of(noisy, sigma))
        result: Floats = gather([layers], 0, len(noisy))[0].numpy()
    return result


def level_of(noisy: Floats, sigma: float) -> torch.Tensor:
    depth, rows, columns = noisy.shape
    return torch.full((1, depth, rows // 2, columns // 2), sigma)


def psnr(truth: Floats, image: Floats, inside: npt.NDArray[np.bool_]) -> float:
    return float(10 * np.log10(1 / ((image - truth)[inside] ** 2).mean()))
