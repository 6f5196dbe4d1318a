"""Repeated real scans: a still frame after denoising, against the mean of the other still frames.

    python Testing/Benchmarks/real.py [--data FOLDER]

Reads ../shared/data/repeated, and a folder of further sequences (NIfTI), without which there are
fewer rows. Frames of a file that repeat each other are named in FOLDER/frames.json:
{"scan.nii": [first, stop]}.

Truth is the difference of neighboring frames where nothing moves: heads turn between frames of
several of these scans, and a plain σ of differences is movement there.
"""

from __future__ import annotations

import contextlib
import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import SHARED_DATA, Gate, Part, Row, at_most, run
from _enhancement_peers import bm4d_mr, nlm_mr

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import enhance
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.denoise.decide import VolumeCache
from MedEnhanceLib.io import load

Floats = npt.NDArray[np.float32]
#: Tissue is above this share of the bright end of the mean.
_TISSUE = 0.35
#: Level of a pair over that of the stillest one up to which it is still.
_STILL = 1.2
_FEWEST = 3
_LOW_SNR = 10
#: Frames from which the principal components of a sequence are worth a look, and up to which they
#: take minutes.
_FEWEST_OF_MP_PCA, _MOST_OF_MP_PCA = 10, 50


def parts(options: Namespace) -> Iterator[Part]:
    for name, sequence in sequences(options.data):
        yield name, partial(judge, name, sequence)


def sequences(more: Sequence[Path] = ()) -> Iterator[tuple[str, Volume]]:
    """Every sequence of at least three frames, by name; directions of diffusion are no repeats."""
    for folder in (SHARED_DATA / "repeated", *more):
        listed = folder / "frames.json"
        frames = json.loads(listed.read_text()) if listed.is_file() else {}
        for path in sorted(folder.glob("*.nii*")):
            volume = load(path, modality="MR")
            if not volume.is_sequence or volume.gradients:
                continue
            first, stop = frames.get(path.name, (0, volume.shape[0]))
            voxels = np.ascontiguousarray(volume.voxels[first:stop])
            if len(voxels) >= _FEWEST:
                yield path.name.split(".")[0], volume.with_voxels(voxels)


def spread(values: Floats) -> float:
    """Standard deviation of what is within 3 of it: rounded values have no fine median."""
    sigma = max(1.4826 * float(np.median(np.abs(values))), 0.3 * float(values.std()), 1e-9)
    for _ in range(6):
        sigma = float(np.sqrt(np.square(values[np.abs(values) < 3 * sigma]).mean())) / 0.9867
    return sigma


def still_frames(frames: Floats, tissue: npt.NDArray[np.bool_]) -> tuple[float, list[int], int]:
    """σ of the pairs that differ least, the frames in such pairs, and one of the stillest pair.

    The middle one of the still frames where half of all pairs are still.
    """
    levels = []
    for before, after in pairwise(frames):
        difference = (after - before)[tissue] / np.float32(np.sqrt(2))
        levels.append(spread(difference - np.median(difference)))
    low = min(levels)
    pairs = [n for n, level in enumerate(levels) if level <= _STILL * low]
    still = sorted({n for pair in pairs for n in (pair, pair + 1)})
    is_calm = len(pairs) >= len(levels) / 2
    frame_number = still[len(still) // 2] if is_calm else int(np.argmin(levels))
    return float(np.mean([levels[n] for n in pairs])), still, frame_number


def group_of(snr: float, still: int) -> str:
    """What a scan is counted with: where fewer than three frames are still, there is no truth."""
    if still < _FEWEST:
        return "frames differ"
    bands = {_LOW_SNR: "SNR to 10", 50: "SNR 10 to 50", np.inf: "SNR above 50"}
    return next(name for most, name in bands.items() if snr <= most)


def judge(name: str, sequence: Volume) -> list[Row]:
    """RMSE of each arm over that of the input, in tissue."""
    frames = sequence.voxels.astype(np.float32)
    mean = frames.mean(axis=0)
    tissue = mean > _TISSUE * np.percentile(mean, 99)
    if tissue.sum() < 100:
        return []
    sigma, still, number = still_frames(frames, tissue)
    others = [n for n in (still if len(still) >= _FEWEST else range(len(frames))) if n != number]
    reference = frames[others].mean(axis=0)[tissue]
    single = sequence.frame(number)

    def error(voxels: npt.NDArray[Any]) -> float:
        return float(np.sqrt(np.square(voxels.astype(np.float32)[tissue] - reference).mean()))

    before = error(single.voxels)
    snr = float(mean[tissue].mean()) / sigma
    row: Row = {
        "scan": name, "frames": len(frames), "still": len(still), "sigma": sigma, "snr": snr,
        "group": group_of(snr, len(still)),
    }  # fmt: skip
    if before == 0:
        return []
    arms = {
        "sequence": (sequence, {}, number), "single": (single, {}, None),
        "true": (single, {"noise": sigma}, None),
    }  # fmt: skip
    cache = VolumeCache()
    for arm, (volume, options, frame) in arms.items():
        config = EnhanceConfig(**options)
        kept = None if volume is sequence else cache
        result = enhance(volume, config, frame=frame, cache=kept)
        row[arm] = error(result.volume.voxels) / before
    row["nlm"] = error(nlm_mr(single, rician=False).voxels) / before
    with contextlib.suppress(ImportError):  # the package is not free for all uses
        row["bm4d"] = error(bm4d_mr(single, rician=False).voxels) / before
        row["bm4d_true"] = error(bm4d_mr(single, sigma, rician=False).voxels) / before
    if _FEWEST_OF_MP_PCA <= len(frames) <= _MOST_OF_MP_PCA:
        with contextlib.suppress(ImportError):
            from dipy.denoise.localpca import mppca

            row["mp_pca"] = error(mppca(np.moveaxis(frames, 0, -1))[..., number]) / before
    return [row]


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Errors over those of the input, which is harm above 1."""
    worst = max(rows, key=lambda row: max(row["single"], row["sequence"]))
    name = "single and sequence: RMSE over the input's, most"
    yield at_most(name, max(worst["single"], worst["sequence"]), 1.01) | {"volume": worst["scan"]}
    calm = [row for row in rows if row["still"] >= _FEWEST]
    ratios = [row["single"] / row["true"] for row in calm if row["snr"] <= _LOW_SNR]
    name = "SNR to 10, single: RMSE over that with the true σ, most"
    why = "" if ratios else "no scan has an SNR to 10"
    yield at_most(name, max(ratios, default=None), 1.15, why)


if __name__ == "__main__":
    run("real", __doc__, parts, gates_of, seeds=[0])
