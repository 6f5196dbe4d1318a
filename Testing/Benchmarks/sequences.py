"""Denoisers of 4-D series: each frame alone, MP-PCA, principal images, all jointly, the default.

    OMP_NUM_THREADS=1 python Testing/Benchmarks/sequences.py [--data FOLDER]

Reads ../shared/data/repeated and, where given, a folder of the series of sequence_scans.json, each
as NAME.nii.gz: the list says where they are from, and which of their frames repeat each other.

Errors are root mean squares in tissue, as shares of the input's. The truth of real frames is of
frames that no method saw, less the variance of its own noise; that of tensors is a simulation
without noise. Of diffusion that was measured twice, the part that a tensor explains and the rest
are judged apart. Activation is planted in real frames, and looked for by a regression. Of times
only the ratios of CPU times in one run count.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from importlib.util import find_spec
from operator import sub, truediv
from typing import Any
from unittest import mock

import _sequence_data as data
import numpy as np
from _common import QUICK, Gate, Part, Row, at_least, at_most, run
from _observers import auc
from _sequence_data import Floats

from MedEnhanceLib.api import measure_noise
from MedEnhanceLib.core.sequence_kind import is_filtered_together
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance, principal_images

HAS_DIPY = find_spec("dipy") is not None
#: Three of ours are values of the option; "images" is joint without windows; MP-PCA is left out
#: where dipy is missing.
ARMS = ("input", "each", *(["MP-PCA"] if HAS_DIPY else []), "images", "joint", "auto")
SEEDS = (0,) if QUICK else (0, 1, 2)
#: Simulated diffusion: frames and SNR of b = 0.
TENSORS = ((22, 15),) if QUICK else ((22, 15), (22, 30), (66, 15), (66, 30))
#: Standard deviations of the turn in degrees and of the shift in voxels.
MOVES = ((1.0, 0.5),) if QUICK else ((0.0, 0.0), (1.0, 0.5), (4.0, 2.0))
#: Size of an activation in %, and its design.
TASKS = ((3, "blocks"), (1, "blocks"), (6, "blocks"), (1, "events"), (3, "events"), (6, "events"))
#: Noise that activation is planted in: SNR, or as scanned.
NOISES = {"as scanned": None, "SNR 25": 25.0}


def parts(options: Namespace) -> Iterator[Part]:
    if not HAS_DIPY:
        print("sequences: no MP-PCA, no tensors, no moved series: dipy is missing", flush=True)
    real = list(data.real(options.data))
    for name, opened in real[:1] if QUICK else real:
        yield name, partial(judged, [opened])
    for name, opened in [each for each in real if each[0].startswith("DWI, ")]:
        for damage in [*data.ODD][: 2 if QUICK else None]:
            yield f"odd frames, {name}, {damage}", partial(beside_odd, opened, damage)
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
        for arm in (arm for arm in ARMS if arm not in ("images", "auto")):
            yield f"activation, {noise}, {arm}", partial(activation, noise, arm)


# --- arms and measures ----------------------------------------------------------------------------


def run_arm(arm: str, volume: Volume) -> tuple[Floats, dict[str, float]]:
    """Denoise a series. Returns the frames, and the time of the run."""
    began = time.process_time()
    if arm == "input":
        voxels = volume.voxels
    elif arm == "MP-PCA":
        voxels = data.mp_pca(volume)
    else:
        way = "joint" if arm == "images" else arm
        patched: Any = mock.patch.object(principal_images, "_in_windows", data.nothing)
        with patched if arm == "images" else nullcontext():
            voxels = enhance(volume, EnhanceConfig(device="cpu", sequence=way)).volume.voxels
    seconds = time.process_time() - began
    return voxels.astype(np.float32), {"cpu_s_per_mvoxel": seconds / voxels.size * 1e6}


def chosen_by_auto(volume: Volume) -> str:
    """The arm that auto is, by what the files state; a test of the product compares both."""
    return "joint" if is_filtered_together(volume.sequence_kind) else "each"


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
    """Errors of each arm, and of the tensors where there is a truth of them."""
    for scan in (make() for make in series):
        before = scan.seen.voxels.astype(np.float32)[scan.judged]

        def left(frames: Floats, scan: data.Series = scan) -> float:
            square = rms((frames - scan.truth)[:, scan.tissue]) ** 2 - scan.variance
            return float(np.sqrt(max(square, 0.0)))

        gradients = scan.seen.gradients
        has_tensors = HAS_DIPY and scan.other is not None and data.show_tensors(gradients)
        true = data.tensors(scan.other[:, scan.tissue], gradients) if has_tensors else None
        results: dict[str, tuple[Floats, dict[str, float]]] = {}
        for arm in ARMS:
            same = results.get(chosen_by_auto(scan.seen)) if arm == "auto" else None
            frames, facts = results[arm] = same or run_arm(arm, scan.seen)
            after = frames[scan.judged]
            row: Row = {**scan.about, "arm": arm, "frames": len(frames), **facts}
            row["left"] = left(after) / left(before)
            if scan.is_pair and scan.seen.gradients:
                row |= beside_the_repeat(scan, before, after)
            if true:
                fit = data.tensors(frames[:, scan.tissue], gradients)
                row["fa_error"] = rms(fit.fa - true.fa)
                row["md_error"] = rms(fit.md - true.md) / float(np.median(true.md))
            yield row


def beside_the_repeat(scan: data.Series, before: Floats, after: Floats) -> dict[str, float]:
    """Judge directions by a second measurement: the tensor's part, the rest, and its fourth order.

    The rest that is kept is its covariance with the second measurement's, over that of the input.

    Args:
        scan: whose truth is the second measurement.
        before: frames that are judged, as scanned, [N, K, J, I].
        after: the same, as a method made them.
    """
    along = [scan.seen.gradients[number] for number in scan.judged]
    turned = np.flatnonzero(~data.at_zero(tuple(along)))
    tensor, fourth = data.angular([along[number] for number in turned])
    first, result, second = (
        each[turned][:, scan.tissue].astype(np.float64) for each in (before, after, scan.truth)
    )

    def rest(values: Floats) -> Floats:
        return values - tensor @ values

    def change(part: Callable[[Floats], Floats]) -> float:
        return (rms(part(result - second)) / rms(part(first - second))) ** 2 - 1

    def agreement(values: Floats) -> float:
        return float(np.corrcoef((fourth @ values).ravel(), (fourth @ second).ravel())[0, 1])

    return {
        "distance": change(lambda values: values),
        "tensor_distance": change(lambda values: tensor @ values),
        "rest_kept": float(
            (rest(result) * rest(second)).sum() / (rest(first) * rest(second)).sum()
        ),
        "fourth_order": agreement(result),
        "fourth_order_input": agreement(first),
    }


def beside_odd(make: Callable[[], data.Series], damage: str) -> Iterator[Row]:
    """Which frames are named where some are damaged, and the error that is left in the others."""
    scan, at = make(), data.ODD[damage]
    frames = data.with_odd_frames(scan.seen.voxels.astype(np.float32), damage)
    volume = scan.seen.with_voxels(frames)
    named = {int(each.numbers["frame"]) for each in measure_noise(volume).odd_frames}
    others = [place for place, number in enumerate(scan.judged) if number not in at]
    errors = []
    for each in (frames, run_arm("joint", volume)[0]):
        error = each[[scan.judged[place] for place in others]] - scan.truth[others]
        errors.append(max(0, rms(error[:, scan.tissue]) ** 2 - scan.variance))
    yield {
        "table": "odd", "scan": scan.about["scan"], "case": damage, "arm": "joint",
        "named": len(named & {*at}), "odd": len(at), "others_named": len(named - {*at}),
        "left_in_others": float(np.sqrt(errors[1] / errors[0])),
    }  # fmt: skip


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
            "auc": auc(t[height > 0], t[rest]),
            "null_sd": null, "null_off": abs(null - 1),
        }  # fmt: skip
        yield row
        if arm == chosen_by_auto(volume):
            yield row | {"arm": "auto"}


# --- goals ----------------------------------------------------------------------------------------

Join = Callable[[float, float], float]
Goal = Callable[..., Gate]
_WHY_NOT_MEASURED = "there is no such series, or dipy is missing"
#: Why goals are missed, by name.
_WHY_MISSED: dict[str, str] = {
    "DWI twice: rest beyond the tensor kept over .53 (b = 1,000; 2,000: .9)": "the size of windows "
    "trades it against noise: smaller ones keep more of both",
    "DWI of two averages: RMSE left": "the two averages differ by more than noise (movement, "
    "pulsation), which counts as an error of every method, and their noise is correlated",
    "real series: RMSE over MP-PCA's": "above an SNR of 50, and where frames have too little in "
    "common, next to nothing is removed; references of b = 0 hold pulsation, which no method knows",
    "SNR above 50, auto: RMSE left less the input's or each frame alone's": "two series "
    "whose frames are filtered each alone come out worse than the input by 5 %",
    "simulated DWI, noise in the truth too: FA error over MP-PCA's": "what MP-PCA left in the "
    "truth is taken for noise: with a smooth truth the goal is met",
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
    weak = of("rest_kept", scan="DWI, ") | of("rest_kept", scan="two_averages")
    strong = of("rest_kept", scan="b2000")
    over = {name: kept / 0.53 for name, kept in weak.items()}
    over |= {name: kept / 0.9 for name, kept in strong.items()}
    yield worst("DWI twice: rest beyond the tensor kept over .53 (b = 1,000; 2,000: .9)", over, 1,
                at_least)  # fmt: skip
    less = to(lambda auto, each: auto - min(each, 1), "left", "each", "auto", group="above 50")
    yield worst("SNR above 50, auto: RMSE left less the input's or each frame alone's", less, 0)
    over = to(truediv, "fa_error", "MP-PCA", table="tensors")
    over |= to(truediv, "fa_error", "MP-PCA", table="rough")
    yield worst("simulated DWI, noise in the truth too: FA error over MP-PCA's", over, 0.85)
    shares = to(truediv, "kept", "each", "auto")
    yield worst("activation, auto: kept over each frame alone's", shares, 0.95, at_least)
    less = to(sub, "auc", "input", "auto")
    yield worst("activation, auto: AUC less the input's", less, -0.002, at_least)
    over = to(truediv, "cpu_s_per_mvoxel", "MP-PCA", table="tensors")
    yield worst("CPU time over MP-PCA's in the same run", over, 0.35)


if __name__ == "__main__":
    run("sequences", __doc__, parts, gates_of, seeds=SEEDS)
