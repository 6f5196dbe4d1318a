"""Blur: what undoing it gains.

    python Testing/Benchmarks/blur.py            writes results/blur.json

References have little noise of their own, and no training of the enhancer saw them. Arms see the
damaged volume alone; “ours” is what the extension does with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
from _common import QUICK, SHARED_DATA, Gate, Part, Row, at_least, measure, parser_of
from _enhancement_data import TEMPLATE, Subject, subject

from MedEnhanceLib.core.arrays import robust_max
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.io import load
from MedEnhanceLib.noise.rician import rician_noise

Floats = npt.NDArray[np.float32]
SUBJECTS = (TEMPLATE, "mr/open_ms/C07/T1.nii.gz", "mr/open_ms/C07/FLAIR.nii.gz")
FOREST = "studyforrest, 2 × 2 × 2 averaged"
SLICES = 8
#: σ in px and noise as a share of the robust maximum.
BLURS = ((0.6, 0.0), (0.8, 0.01), (1.0, 0.0), (1.0, 0.03), (1.5, 0.01))[: 1 if QUICK else None]


def main() -> None:
    measure("blur", parser_of(__doc__).parse_args(), parts, gates_of, seeds=[3])


def parts() -> Iterator[Part]:
    for name, truth, inside in subjects():
        yield name, partial(blurs, name, truth, inside)


def subjects() -> Iterator[tuple[str, Floats, npt.NDArray[np.bool_]]]:
    """Name, voxels with a robust maximum of 1, foreground."""
    for name in SUBJECTS[1:2] if QUICK else SUBJECTS:
        case: Subject = subject(name, SHARED_DATA, SLICES)
        yield name, np.maximum(case.volume.voxels / case.span, 0).astype(np.float32), case.inside
    voxels = load(SHARED_DATA / "mr/studyforrest/T1.nii.gz", modality="MR").voxels
    half = [side // 2 for side in voxels.shape]
    voxels = voxels[: 2 * half[0], : 2 * half[1], : 2 * half[2]].astype(np.float32)
    voxels = voxels.reshape(half[0], 2, half[1], 2, half[2], 2).mean(axis=(1, 3, 5))
    voxels = np.maximum(voxels / robust_max(voxels), 0)
    middle = half[0] // 2
    voxels = voxels[middle - SLICES // 2 : middle + SLICES // 2]
    yield FOREST, voxels, voxels > 0.1


def ours(voxels: Floats) -> Floats:
    """What the extension makes of a volume where sharpness is asked for."""
    config = EnhanceConfig(model="mr", task="sharpness", device="cpu")
    return np.asarray(enhance(Volume(voxels, modality="MR"), config).volume.voxels)


def blurs(name: str, truth: Floats, inside: npt.NDArray[np.bool_]) -> Iterator[Row]:
    for sigma, noise in BLURS:
        blurred = gaussian_blur(truth, sigma)
        if noise:
            blurred = rician_noise(blurred, noise, np.random.default_rng(3))
        images = {"input": blurred, "ours": ours(blurred)}
        yield {
            "part": "damaged",
            "subject": name,
            "case": f"σ {sigma:g} px, noise {noise:.0%}",
            "sigma": sigma,
            "psnr": {
                arm: round(psnr(truth, image, 1.0, mask=inside), 2) for arm, image in images.items()
            },
        }


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    damaged = [row["psnr"] for row in rows]
    above = float(np.mean([psnr["ours"] - psnr["input"] for psnr in damaged]))
    yield at_least("blur: ours above the input, dB", above, 2)


if __name__ == "__main__":
    main()
