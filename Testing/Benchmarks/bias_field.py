"""The bias field on crops and volumes of other sources: ours against BM4D followed by N4.

    nice python Testing/Benchmarks/bias_field.py --other FOLDER [--jobs 2]

Composite damage (bias field ±30 %, blur, Rician noise), where the correction is asked for with
reason; undamaged crops, and noise and blur without a field, where it is not. Blur is undone in all
arms of ours. Every arm is blind to σ. Results of BM4D are kept in runs.

What is damaged has to be unknown to the network. The one that ships learned from C19 and the
sarcomas, so that `--other` names a second one, which learned from C07 and other brains alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import RESULTS, SHARED_DATA, gate, write
from _enhancement_cache import run_kept
from _enhancement_peers import bm4d_mr, without_shading
from harm import volumes

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.image import robust_max
from MedEnhanceLib.degradation.pipeline import Blur, Composite, Rician, standard_composite
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.io import load

Row = dict[str, Any]
SEEDS = (0, 1, 2)
CROP = (8, 112, 112)
#: Two sequences of a brain, and six sarcomas.
HELD_OUT = (
    *("open_ms/C19/T1.", "open_ms/C19/FLAIR.", "STS_002", "STS_006", "STS_014", "STS_018"),
    *("STS_024", "STS_029"),
)
#: Of these, volumes small enough for BM4D as a whole, and the brain at half its resolution.
WHOLE = {"STS_002": SEEDS, "STS_024": SEEDS, "open_ms/C19/T1.": (0,)}
DAMAGE: dict[str, Callable[[int], Any]] = {
    "composite": standard_composite,
    "noise and blur": lambda seed: Composite((Blur(0.8, seed + 1), Rician(0.07, seed + 2))),
}
LEFT, CORRECTED, PEER = "ours, field left", "ours, field corrected", "BM4D → N4"
_MOST_DB = 99.0


@dataclass(frozen=True)
class Task:
    """One volume, one view of it and one kind of damage; damage "" is none."""

    name: str
    view: str
    damage: str = ""
    seed: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--other", type=Path, required=True, help="an enhancer without C19, STS")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    todo = list(tasks())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        rows = [
            row for part in pool.map(partial(measured, other=options.other), todo) for row in part
        ]
    gates = gates_of(rows)
    write("bias_field", gates=gates, rows=rows, seeds=SEEDS, folder=options.out)


def tasks() -> Iterator[Task]:
    names = [name for name in volumes() if name.startswith("mr/")]
    names.append("sample/mni152_t1.nii.gz")
    other = [name for name in names if any(part in name for part in HELD_OUT)]
    for name in names:
        yield Task(name, "crop")
    for name in other:
        yield Task(name, "crop", "noise and blur")
    for seed in SEEDS:
        for name in other:
            yield Task(name, "crop", "composite", seed)
    for part, seeds in WHOLE.items():
        name = next((name for name in other if part in name), None)
        if name is not None:
            yield from (Task(name, "whole", "composite", seed) for seed in seeds)


def opened(name: str, view: str) -> Volume:
    """A crop of 8 slices in the middle of the body, or the whole volume."""
    volume = load(SHARED_DATA / name, modality="MR").frame(0)
    volume = volume.with_voxels(volume.voxels.astype(np.float32))
    if view == "whole":
        return volume if "/sts/" in name else halved(volume)
    inside = volume.voxels > 0.1 * robust_max(volume.voxels)
    parts = []
    for axis, (size, count) in enumerate(zip(CROP, volume.shape, strict=True)):
        shown = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        middle, length = (shown[0] + shown[-1]) / 2, min(size, count)
        first = int(np.clip(round(middle - length / 2), 0, count - length))
        parts.append(slice(first, first + length))
    return volume.crop(k=parts[0], j=parts[1], i=parts[2])


def halved(volume: Volume) -> Volume:
    """Means of 2 × 2 pixels, and of two slices where they are thin."""
    di, dj, dk = volume.geometry.spacing
    steps = (2 if dk < 2 else 1, 2, 2)
    voxels = volume.voxels
    for axis, step in enumerate(steps):
        voxels = voxels.take(range(voxels.shape[axis] // step * step), axis)
        shape = (*voxels.shape[:axis], -1, step, *voxels.shape[axis + 1 :])
        voxels = voxels.reshape(shape).mean(axis=axis + 1)
    geometry = Geometry((2 * di, 2 * dj, steps[0] * dk))
    return Volume(voxels.astype(np.float32), geometry, modality="MR")


def measured(task: Task, other: Path) -> list[Row]:
    """A row for each arm, on one thread; damaged volumes by the network that did not see them."""
    import torch

    torch.set_num_threads(1)
    reference = opened(task.name, task.view)
    volume = DAMAGE[task.damage](task.seed).apply(reference) if task.damage else reference
    volume = replace(volume, history=())
    model = str(other) if task.damage else "mr"
    arms: dict[str, tuple[npt.NDArray[Any], float]] = {}
    if task.damage == "composite":
        arms["input"] = volume.voxels, 0.0
        smooth, seconds = run_kept(bm4d_mr, "BM4D MR 1", volume, keep=True)
        flat, more = run_kept(without_shading, "", volume.with_voxels(smooth), keep=False)
        arms["BM4D"] = smooth, seconds
        arms[PEER] = flat, seconds + more
    config = EnhanceConfig(device="cpu", model=model, task="sharpness")
    for arm, is_corrected in ((LEFT, False), (CORRECTED, True)):
        began = time.process_time()
        done = enhance(volume, replace(config, correct_bias_field=is_corrected))
        arms[arm] = done.volume.voxels.astype(np.float32), time.process_time() - began
    top = robust_max(reference.voxels)
    inside = reference.voxels > 0.1 * top
    rows = [
        {
            "volume": task.name,
            "view": task.view,
            "damage": task.damage or "none",
            "seed": task.seed,
            "arm": arm,
            "psnr": min(psnr(reference.voxels, voxels, top, mask=inside), _MOST_DB),
            "cpu_s": round(seconds, 2),
        }
        for arm, (voxels, seconds) in arms.items()
    ]
    line = " ".join(f"{row['arm']} {row['psnr']:.2f}" for row in rows)
    print(task.name, task.view, task.damage, task.seed, line, flush=True)
    return rows


def mean(rows: list[Row], arm: str, view: str, damage: str) -> float:
    chosen = [r["psnr"] for r in rows if (r["arm"], r["view"], r["damage"]) == (arm, view, damage)]
    return float(np.mean(chosen))


def gates_of(rows: list[Row]) -> list[dict[str, Any]]:
    gates = []
    for view in ("crop", "whole"):
        gain = mean(rows, CORRECTED, view, "composite") - mean(rows, PEER, view, "composite")
        name = f"composite, {view}: field corrected, above BM4D → N4, dB"
        gates.append(gate(name, gain, "≥ 0", gain >= 0))
    damage = "noise and blur"
    loss = mean(rows, LEFT, "crop", damage) - mean(rows, CORRECTED, "crop", damage)
    name = "noise and blur without a field, crop: lost by correction, dB"
    gates.append(gate(name, loss, "≤ 0.3", loss <= 0.3))
    return gates


if __name__ == "__main__":
    main()
