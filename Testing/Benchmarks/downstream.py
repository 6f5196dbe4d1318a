"""What compression does to the work that follows: radiomic features and labels of segmentation.

    python Testing/Benchmarks/downstream.py

Sixteen slices of each scan around its tumor; of a head all. Features are taken in tumors that
readers outlined; the segmentation model is asked on a patient that it did not learn from.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

# Before PyTorch comes in: figures do not depend on it, and a shared machine is kinder so.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _common import QUICK, SHARED_DATA, Part, Row, run
from _compression_rows import coded
from _downstream_features import all_features, bins_by_number, bins_of_width

from MedEnhanceLib.core import metrics
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom import SegmentConfig, segment
from MedEnhanceLib.io import load

#: Volumes, and the segmentation model that each is given to.
SCANS = {
    "mr/open_ms/C19/T1.nii.gz": "brain",
    "ct/sts/STS_013/CT.nii.gz": "",
    "ct/sts/STS_002/CT.nii.gz": "",
    "mr/sts/STS_008/MR_T1.nii.gz": "",
}
SETTINGS: tuple[tuple[str, dict[str, float]], ...] = (
    *((f"error {bound}", {"max_error": bound}) for bound in (1, 2, 8)),
    *((f"ratio {ratio}", {"ratio": ratio}) for ratio in (8, 32)),
)
SLICES = 4 if QUICK else 16
#: A feature is kept where it changes by no more than this share of what it was.
_NEAR = 0.05
_BIN_HU, _LOWEST_HU, _BINS = 25.0, -1000.0, 32


@dataclass(frozen=True)
class Scan:
    """tumor: bool [K, J, I], where features are taken; model: that segments it, or ""."""

    name: str
    volume: Volume
    tumor: Any
    model: str


def parts() -> Iterator[Part]:
    for file, model in list(SCANS.items())[: 2 if QUICK else None]:
        yield file, partial(_rows, file, model)


def _scan(file: str, model: str) -> Scan:
    path = SHARED_DATA / file
    volume = load(path, modality=file[:2].upper())
    outline = path.with_name(path.name.replace(".nii.gz", "_gtv.nii.gz"))
    tumor = load(outline, modality="SEG").voxels > 0 if outline.is_file() else None
    if tumor is None:
        return Scan(file, volume.crop(k=slice(SLICES if QUICK else None)), None, model)
    center = int(np.median(np.flatnonzero(tumor.any(axis=(1, 2)))))
    start = min(max(center - SLICES // 2, 0), max(len(volume.voxels) - SLICES, 0))
    part = slice(start, start + SLICES)
    return Scan(file, volume.crop(k=part), tumor[part], model)


def _rows(file: str, model: str) -> Iterator[Row]:
    """One for each setting: the ratio, the share of features that stayed, the Dice of labels."""
    scan = _scan(file, model)
    features = _features(scan, scan.volume) if scan.tumor is not None else {}
    labels, names = _labels(scan, scan.volume)
    for setting, config in SETTINGS[-1:] if QUICK else SETTINGS:
        sizes, voxels = coded(scan.volume, dict(config))
        volume = replace(scan.volume, voxels=voxels)
        row: Row = {"scan": scan.name, "modality": scan.volume.modality, "setting": setting}
        row |= {"ratio": sizes["ratio"], "psnr_db": sizes["psnr_db"]}
        if features:
            row["within"] = share_within(features, _features(scan, volume))
        if scan.model:
            after, _ = _labels(scan, volume)
            row["dice_original"] = {
                name: metrics.dice(labels, after, value) for name, value in names.items()
            }
        yield row


def _features(scan: Scan, volume: Volume) -> dict[str, float]:
    """In CT levels of 25 HU from −1000, in MR 32 from the least to the largest in the tumor."""
    if volume.modality == "CT":
        levels = bins_of_width(volume.voxels, scan.tumor, _BIN_HU, _LOWEST_HU)
    else:
        levels = bins_by_number(volume.voxels, scan.tumor, _BINS)
    return all_features(volume.voxels, scan.tumor, levels)


def share_within(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Share of the features that changed by at most 5 % of what they were."""
    kept = [abs(after[name] - value) <= _NEAR * abs(value) for name, value in before.items()]
    return sum(kept) / len(kept)


def _labels(scan: Scan, volume: Volume) -> tuple[Any, dict[str, int]]:
    if not scan.model:
        return None, {}
    segmentation = segment(
        volume, SegmentConfig(model=scan.model, device="cpu", force_segmenter=True)
    )
    return segmentation.volume.voxels, {label.name: label.value for label in segmentation.labels}


if __name__ == "__main__":
    run("downstream", __doc__, parts, seeds=[0])
