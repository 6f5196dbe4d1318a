"""The bias field on crops of other sources: ours against BM4D followed by N4.

    python Testing/Benchmarks/bias_field.py

Composite damage (bias field ±30 %, blur, Rician noise), where the correction is asked for with
reason, and undamaged crops, where it is not. No arm undoes the blur. Every arm is blind to σ.
Results of BM4D are kept in runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import QUICK, SHARED_DATA, Part, Row, run
from _enhancement_data import run_kept
from _enhancement_peers import bm4d_mr, without_shading
from harm import volumes

from MedEnhanceLib.core.arrays import robust_max
from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import standard_composite
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.io import load

SEEDS = (0,) if QUICK else (0, 1, 2)
CROP = (8, 112, 112)
#: Volumes that are damaged.
DAMAGED = ("open_ms/C07/T1.", "open_ms/C07/FLAIR.", "studyforrest/T1.")

LEFT, CORRECTED, PEER = "ours, field left", "ours, field corrected", "BM4D → N4"
_MOST_DB = 99.0


@dataclass(frozen=True)
class Task:
    """A crop of one volume, damaged or as it is."""

    name: str
    is_damaged: bool = False
    seed: int = 0


def parts() -> Iterator[Part]:
    for task in tasks():
        yield f"{task.name} {task.is_damaged} {task.seed}", partial(measured, task)


def tasks() -> Iterator[Task]:
    names = [name for name in volumes() if name.startswith("mr/")]
    names.append("sample/mni152_t1.nii.gz")
    other = [name for name in names if any(part in name for part in DAMAGED)]
    yield from map(Task, names[:1] if QUICK else names)
    for name in other[:1] if QUICK else other:
        yield from (Task(name, True, seed) for seed in SEEDS)


def opened(name: str) -> Volume:
    """A crop of 8 slices in the middle of the body."""
    volume = load(SHARED_DATA / name, modality="MR").frame(0)
    volume = volume.with_voxels(volume.voxels.astype(np.float32))
    inside = volume.voxels > 0.1 * robust_max(volume.voxels)
    parts = []
    for axis, (size, count) in enumerate(zip(CROP, volume.shape, strict=True)):
        shown = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        middle, length = (shown[0] + shown[-1]) / 2, min(size, count)
        first = int(np.clip(round(middle - length / 2), 0, count - length))
        parts.append(slice(first, first + length))
    return volume.crop(k=parts[0], j=parts[1], i=parts[2])


def measured(task: Task) -> list[Row]:
    """A row for each arm, on one thread."""
    reference = opened(task.name)
    volume = standard_composite(task.seed).apply(reference) if task.is_damaged else reference
    volume = replace(volume, history=())
    arms: dict[str, tuple[npt.NDArray[Any], float]] = {}
    if task.is_damaged:
        arms["input"] = volume.voxels, 0.0
        if find_spec("bm4d"):
            smooth, seconds = run_kept(bm4d_mr, "BM4D MR 1", volume, keep=True)
            flat, more = run_kept(without_shading, "", volume.with_voxels(smooth), keep=False)
            arms[PEER] = flat, seconds + more
    for arm in (CORRECTED,) if task.is_damaged else (LEFT, CORRECTED):
        began = time.process_time()
        result = enhance(volume, EnhanceConfig(correct_bias_field=arm == CORRECTED))
        arms[arm] = result.volume.voxels.astype(np.float32), time.process_time() - began
    top = robust_max(reference.voxels)
    inside = reference.voxels > 0.1 * top
    return [
        {
            "volume": task.name,
            "damage": "composite" if task.is_damaged else "none",
            "seed": task.seed,
            "arm": arm,
            "psnr": min(psnr(reference.voxels, voxels, top, mask=inside), _MOST_DB),
            "cpu_s": round(seconds, 2),
        }
        for arm, (voxels, seconds) in arms.items()
    ]


if __name__ == "__main__":
    run("bias_field", __doc__, parts, seeds=SEEDS)
