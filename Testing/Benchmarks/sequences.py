"""Denoisers of 4-D series: each frame alone, MP-PCA, all frames jointly, and the default.

    OMP_NUM_THREADS=1 python Testing/Benchmarks/sequences.py [--more FOLDER]

Reads ../shared/data/repeated and, where given, a folder of the series of sequence_scans.json, each
as NAME.nii.gz: the list says where they are from, and which of their frames repeat each other.

Errors are root mean squares in tissue, as shares of the input's. The truth of real frames is of
frames that no method saw, less the variance of its own noise; that of tensors is a simulation
without noise. Activation is planted in real frames, and looked for by a regression. Of times only
the ratios of CPU times in one run count.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from operator import sub, truediv
from pathlib import Path
from typing import Any

import _sequence_data as data
import numpy as np
import torch
from _common import QUICK, Gate, Part, Row, at_least, at_most, measure, parser_of
from _observers import auc
from _sequence_data import Floats

from MedEnhanceLib.core.sequence_kind import differs_in_contrast
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg import EnhanceConfig, enhance

HAS_DIPY = find_spec("dipy") is not None
#: The three of ours are values of the option; MP-PCA is left out where dipy is missing.
ARMS = ("input", "each", *(["MP-PCA"] if HAS_DIPY else []), "joint", "auto")
SEEDS = (0,) if QUICK else (0, 1, 2)
#: Simulated diffusion: frames and SNR of b = 0.
TENSORS = ((22, 15),) if QUICK else ((22, 15), (22, 30), (66, 15), (66, 30))
#: Standard deviations of the turn in degrees and of the shift in voxels.
MOVES = ((1.0, 0.5),) if QUICK else ((0.0, 0.0), (1.0, 0.5), (4.0, 2.0))
#: Size of an activation in %, and its design.
TASKS = ((3, "blocks"), (1, "blocks"), (6, "blocks"), (1, "events"), (3, "events"), (6, "events"))
#: Noise that activation is planted in: SNR, or as scanned.
NOISES = {"as scanned": None, "SNR 25": 25.0}
#: Frames, slices, rows and columns of the run whose memory is measured.
_LARGE = (6, 6, 24, 24) if QUICK else (64, 72, 104, 104)


def main() -> None:
    torch.set_num_threads(1)
    parser = parser_of(__doc__)
    parser.add_argument("--more", type=Path, help="folder of further listed series")
    options = parser.parse_args()
    if not HAS_DIPY:
        print("sequences: no MP-PCA, no tensors, no moved series: dipy is missing", flush=True)
    measure("sequences", options, partial(parts, options.more), gates_of, seeds=SEEDS)


def parts(more: Path | None) -> Iterator[Part]:
    real = list(data.real(more))
    for name, opened in real[:1] if QUICK else real:
        yield name, partial(judged, [opened])
    if not real:
        return
    if HAS_DIPY:
        for frames, snr in TENSORS:
            made = [partial(data.simulated, frames, snr, seed) for seed in SEEDS]
            yield f"{frames} frames, SNR {snr}", partial(judged, made)
            rough = partial(data.simulated, frames, snr, SEEDS[0], is_smooth=False)
            if not QUICK:
                yield f"{frames} frames, SNR {snr}, noise in the truth", partial(judged, [rough])
        for kind in ("DWI", "alike")[: 1 if QUICK else None]:
            made = [partial(data.moved, kind, *move, seed) for move in MOVES for seed in SEEDS]
            yield f"moved, {kind}", partial(judged, made)
    for noise in [*NOISES][: 1 if QUICK else None]:
        for arm in (arm for arm in ARMS if arm != "auto"):
            yield f"activation, {noise}, {arm}", partial(activation, noise, arm)
    yield "memory", memory


# --- arms and measures ----------------------------------------------------------------------------


def run_arm(arm: str, volume: Volume, sigma: float = 0.0) -> tuple[Floats, dict[str, float]]:
    """Denoise a series. Returns the frames, and the time of the run and its σ over a known one."""
    began, facts = time.process_time(), {}
    if arm == "input":
        voxels = volume.voxels
    elif arm == "MP-PCA":
        voxels = data.mp_pca(volume)
    else:
        result = enhance(volume, EnhanceConfig(model="mr", device="cpu", sequence=arm))
        voxels = result.volume.voxels
        if sigma:
            facts["sigma_ratio"] = result.measured["noise"]["sigma"] / sigma
    facts["cpu_s_per_mvoxel"] = (time.process_time() - began) / voxels.size * 1e6
    return voxels.astype(np.float32), facts


def chosen_by_auto(volume: Volume) -> str:
    """The arm that auto is, by what the files state; a test of the product compares both."""
    return "joint" if differs_in_contrast(volume.sequence_kind) else "each"


def rms(values: Any) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def regressed(frames: Floats, course: Floats) -> tuple[Floats, Floats]:
    """Slope and t of a time course beside slow cosines, [K, J, I] each."""
    total, shape = len(frames), frames.shape[1:]
    steps = (np.arange(total) + 0.5) / total
    waves = [np.cos(np.pi * n * steps) for n in range(min(8, total // 3))]
    design = np.stack([course, *waves], axis=1)
    flat = frames.reshape(total, -1).astype(np.float64)
    fitted = np.linalg.pinv(design) @ flat
    variance = np.square(flat - design @ fitted).sum(axis=0) / (total - design.shape[1])
    error = np.sqrt(variance * np.linalg.inv(design.T @ design)[0, 0])
    return fitted[0].reshape(shape), (fitted[0] / np.maximum(error, 1e-12)).reshape(shape)


def judged(series: Iterable[Callable[[], data.Series]]) -> Iterator[Row]:
    """Errors of each arm, and of the tensors where there is a truth of them.

    Noise raises the FA of a real second average everywhere: the spread of FA is without the mean.
    """
    for scan in (make() for make in series):
        before = scan.seen.voxels.astype(np.float32)[scan.judged]

        def left(frames: Floats, scan: data.Series = scan) -> float:
            square = rms((frames - scan.truth)[:, scan.tissue]) ** 2 - scan.variance
            return float(np.sqrt(max(square, 0.0)))

        has_tensors, gradients = HAS_DIPY and scan.other is not None, scan.seen.gradients
        true = data.tensors(scan.other[:, scan.tissue], gradients) if has_tensors else None
        results: dict[str, tuple[Floats, dict[str, float]]] = {}
        for arm in ARMS:
            same = results.get(chosen_by_auto(scan.seen)) if arm == "auto" else None
            frames, facts = results[arm] = same or run_arm(arm, scan.seen, scan.sigma)
            after = frames[scan.judged]
            row: Row = {**scan.about, "arm": arm, "frames": len(frames), **facts}
            if left(before):
                row["left"] = left(after) / left(before)
            change = after[:, scan.bright].mean() / before[:, scan.bright].mean() - 1
            row["bright_change"] = abs(float(change))
            if true:
                fit = data.tensors(frames[:, scan.tissue], gradients)
                error = fit.fa - true.fa
                row |= {"fa_error": rms(error), "fa_bias": error.mean(), "fa_spread": error.std()}
                row["md_error"] = rms(fit.md - true.md) / float(np.median(true.md))
            yield row


def activation(noise: str, arm: str) -> Iterator[Row]:
    """Planted activation: contrast that is kept, and how surely t separates it from the rest.

    Kept is the slope with it less the slope without it, as a share of what was planted.
    """
    volume = data.functional(NOISES[noise])
    resting, _ = run_arm(arm, volume)
    for size, design in TASKS[: 1 if QUICK else None]:
        active, course, height, rest = data.planted(volume, size / 100, design)
        slope, t = regressed(run_arm(arm, active)[0], course)
        gain, null = slope - regressed(resting, course)[0], float(t[rest].std())
        row = {
            "table": "activation", "case": f"{size} %, {design}, {noise}", "arm": arm,
            "kept": float((gain * height).sum() / np.square(height).sum()),
            "auc": auc(t[height > 0], t[rest]), "t": float(np.median(t[height > 0])),
            "null_sd": null, "null_off": abs(null - 1),
        }  # fmt: skip
        yield row
        if arm == chosen_by_auto(volume):
            yield row | {"arm": "auto"}


def memory() -> Iterator[Row]:
    """Peak of a process that runs over a long series."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        peak = peak_gib() if QUICK else pool.submit(peak_gib).result()
    yield {"table": "memory", "case": "×".join(map(str, _LARGE)), "arm": "joint", "peak_gib": peak}


def peak_gib() -> float:
    """Denoise a real series, repeated along each axis. Returns the peak memory of this process."""
    few = data.opened(data.DWI)
    places = [np.arange(side) % own for side, own in zip(_LARGE, few.shape, strict=True)]
    voxels, gradients = few.voxels[np.ix_(*places)], tuple(few.gradients[n] for n in places[0])
    config = EnhanceConfig(model="mr", device="cpu", sequence="joint")
    enhance(replace(few, voxels=voxels, gradients=gradients), config)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# --- goals ----------------------------------------------------------------------------------------

Join = Callable[[float, float], float]
Goal = Callable[..., Gate]
_WHY_NOT_MEASURED = "there is no such series, or dipy is missing"
#: Why goals are missed, by name.
_WHY_MISSED: dict[str, str] = {
    "DWI of two averages: RMSE left": "the two averages differ by more than noise (movement, "
    "pulsation), which counts as an error of every method, and their noise is correlated",
    "real series: RMSE over MP-PCA's": "above an SNR of 50, and where frames have too little in "
    "common, next to nothing is removed; references of b = 0 hold pulsation, which no method knows",
    "spinal DWI: change of the bright bin": "its weighted frames are as weak as their noise "
    "(SNR 1.4): there is no contrast that could stay; MP-PCA changes it by more than the goal, too",
    "SNR above 50, auto: RMSE left less the input's or each frame alone's": "each frame alone is "
    "as before; what it exceeds the input by is below a thousandth",
    "simulated DWI, noise in the truth too: FA error over MP-PCA's": "what MP-PCA left in the "
    "truth is taken for noise: with a smooth truth the goal is met",
    "activation, auto: SD of t elsewhere, from 1": "the scan itself has it: the input is as far "
    "from 1",
    "σ over the reference": "the reference of frames that move is what was added to them; σ of "
    "each frame alone is measured in a single one there",
}


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Goals of the joint filter, where none says otherwise; each names its worst scan or case."""

    def of(figure: str, arm: str = "joint", **where: str) -> dict[str, float]:
        """Mean of a figure over seeds, by scan or case; where: texts in fields of the rows."""
        values: dict[str, list[float]] = {}
        for row in (row for row in rows if row["arm"] == arm and figure in row):
            if all(text in row.get(key, "") for key, text in where.items()):
                values.setdefault(row.get("scan") or row["case"], []).append(row[figure])
        return {name: float(np.mean(each)) for name, each in values.items()}

    def to(join: Join, figure: str, other: str, arm: str = "joint", **where: str) -> dict[str, Any]:
        ours, others = of(figure, arm, **where), of(figure, other, **where)
        return {name: join(ours[name], others[name]) for name in ours if others.get(name)}

    def worst(name: str, values: dict[str, float], bound: float, at: Goal = at_most) -> Gate:
        if not values:
            return at(name, None, bound, _WHY_NOT_MEASURED)
        place = (max if at is at_most else min)(values, key=lambda place: values[place])
        return at(name, values[place], bound, _WHY_MISSED.get(name, "")) | {"worst": place}

    yield worst("DWI of two averages: RMSE left", of("left", scan="DWI, "), 0.42)
    over = to(truediv, "left", "MP-PCA", table="repeats")
    yield worst("real series: RMSE over MP-PCA's", over, 0.85)
    bright = of("bright_change", scan="spinal", kind="diffusion")
    yield worst("spinal DWI: change of the bright bin", bright, 0.01)
    over = to(truediv, "fa_spread", "MP-PCA", table="repeats")
    yield worst("real DWI: spread of FA to a second average over MP-PCA's", over, 1)
    less = to(lambda auto, each: auto - min(each, 1), "left", "each", "auto", group="above 50")
    yield worst("SNR above 50, auto: RMSE left less the input's or each frame alone's", less, 0)
    over = to(truediv, "md_error", "MP-PCA", table="tensors")
    yield worst("simulated DWI: MD error over MP-PCA's", over, 1)
    over = to(truediv, "fa_error", "MP-PCA", table="tensors")
    over |= to(truediv, "fa_error", "MP-PCA", table="rough")
    yield worst("simulated DWI, noise in the truth too: FA error over MP-PCA's", over, 0.85)
    less = to(sub, "left", "each", table="motion")
    yield worst("moved series: RMSE left less each frame alone's", less, 0.01)
    shares = to(truediv, "kept", "each", "auto")
    yield worst("activation, auto: kept over each frame alone's", shares, 0.95, at_least)
    less = to(sub, "auc", "input", "auto")
    yield worst("activation, auto: AUC less the input's", less, -0.002, at_least)
    yield worst("activation, auto: SD of t elsewhere, from 1", of("null_off", "auto"), 0.1)
    ratios = of("sigma_ratio")
    yield worst("σ over the reference", ratios, 1.3)
    middle = {"median": float(np.median([abs(r - 1) for r in ratios.values()]))} if ratios else {}
    yield worst("σ over the reference, from 1, median", middle, 0.1)
    cpu = of("cpu_s_per_mvoxel", table="tensors")
    yield worst("CPU s per million voxels of all frames", cpu, 1.2)
    over = to(truediv, "cpu_s_per_mvoxel", "MP-PCA", table="tensors")
    yield worst("CPU time over MP-PCA's in the same run", over, 0.35)
    yield worst("64 frames of 72×104×104: peak GiB", of("peak_gib"), 1.5)


if __name__ == "__main__":
    main()
