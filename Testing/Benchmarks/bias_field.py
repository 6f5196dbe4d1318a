"""The bias field on crops of other sources: ours against BM4D followed by N4.

    nice python Testing/Benchmarks/bias_field.py [--jobs 2]

Composite damage (bias field ±30 %, blur, Rician noise), where the correction is asked for with
reason; undamaged crops, and noise and blur without a field, where it is not. Blur is undone in all
arms of ours. Every arm is blind to σ. Results of BM4D are kept in runs. What is damaged is unknown
to the network.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _common import RESULTS, SHARED_DATA, gate, write
from _enhancement_cache import run_kept
from _enhancement_peers import bm4d_mr, without_shading
from harm import volumes

from MedEnhanceLib.core.imaging import robust_max
from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import Blur, Composite, Rician, standard_composite
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.io import load

Row = dict[str, Any]
SEEDS = (0, 1, 2)
CROP = (8, 112, 112)
#: What the network did not learn from.
HELD_OUT = ("open_ms/C07/T1.", "open_ms/C07/FLAIR.", "studyforrest/T1.")
DAMAGE: dict[str, Callable[[int], Any]] = {
    "composite": standard_composite,
    "noise and blur": lambda seed: Composite((Blur(0.8, seed + 1), Rician(0.07, seed + 2))),
}
LEFT, CORRECTED, PEER = "ours, field left", "ours, field corrected", "BM4D → N4"
_MOST_DB = 99.0


@dataclass(frozen=True)
class Task:
    """A crop of one volume and one kind of damage; damage "" is none."""

    name: str
    damage: str = ""
    seed: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    todo = list(tasks())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context) as pool:
        rows = [row for part in pool.map(measured, todo) for row in part]
    gates = gates_of(rows)
    write("bias_field", gates=gates, rows=rows, seeds=SEEDS, folder=options.out)


def tasks() -> Iterator[Task]:
    names = [name for name in volumes() if name.startswith("mr/")]
    names.append("sample/mni152_t1.nii.gz")
    other = [name for name in names if any(part in name for part in HELD_OUT)]
    yield from map(Task, names)
    for name in other:
        yield Task(name, "noise and blur")
    for seed in SEEDS:
        for name in other:
            yield Task(name, "composite", seed)


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
    import torch

    torch.set_num_threads(1)
    reference = opened(task.name)
    volume = DAMAGE[task.damage](task.seed).apply(reference) if task.damage else reference
    volume = replace(volume, history=())
    arms: dict[str, tuple[npt.NDArray[Any], float]] = {}
    if task.damage == "composite":
        arms["input"] = volume.voxels, 0.0
        smooth, seconds = run_kept(bm4d_mr, "BM4D MR 1", volume, keep=True)
        flat, more = run_kept(without_shading, "", volume.with_voxels(smooth), keep=False)
        arms["BM4D"] = smooth, seconds
        arms[PEER] = flat, seconds + more
    config = EnhanceConfig(device="cpu", model="mr", task="sharpness")
    for arm, is_corrected in ((LEFT, False), (CORRECTED, True)):
        began = time.process_time()
        done = enhance(volume, replace(config, correct_bias_field=is_corrected))
        arms[arm] = done.volume.voxels.astype(np.float32), time.process_time() - began
    top = robust_max(reference.voxels)
    inside = reference.voxels > 0.1 * top
    rows = [
        {
            "volume": task.name,
            "damage": task.damage or "none",
            "seed": task.seed,
            "arm": arm,
            "psnr": min(psnr(reference.voxels, voxels, top, mask=inside), _MOST_DB),
            "cpu_s": round(seconds, 2),
        }
        for arm, (voxels, seconds) in arms.items()
    ]
    line = " ".join(f"{row['arm']} {row['psnr']:.2f}" for row in rows)
    print(task.name, task.damage, task.seed, line, flush=True)
    return rows


def mean(rows: list[Row], arm: str, damage: str) -> float:
    return float(np.mean([r["psnr"] for r in rows if (r["arm"], r["damage"]) == (arm, damage)]))


def gates_of(rows: list[Row]) -> list[dict[str, Any]]:
    gain = mean(rows, CORRECTED, "composite") - mean(rows, PEER, "composite")
    name = "composite: field corrected, above BM4D → N4, dB"
    gates = [gate(name, gain, "≥ 0", gain >= 0)]
    damage = "noise and blur"
    loss = mean(rows, LEFT, damage) - mean(rows, CORRECTED, damage)
    name = "noise and blur without a field: lost by correction, dB"
    gates.append(gate(name, loss, "≤ 0.3", loss <= 0.3))
    return gates


if __name__ == "__main__":
    main()
