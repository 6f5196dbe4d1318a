"""Real CT: what denoising does to phantoms on scanners of several vendors, beside a known truth.

    OMP_NUM_THREADS=1 python Testing/Benchmarks/real_ct.py [--data FOLDER]

Reads ../shared/data/repeated and a folder of the scans of real_ct_scans.json, which says where they
are from. Slices repeat each other: those that no method saw are the truth. Errors are shares of the
input's, in one material. Faint discs are planted in the real noise and looked for by an observer
with a matched template; edges of planted cylinders give the resolution.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import _real_ct_data as data
import numpy as np
from _common import QUICK, Gate, Part, Row, at_least, at_most, listed, over_goals, run
from _enhancement_data import run_kept
from _enhancement_lesions import Lesion, contrast_kept
from _enhancement_peers import bm4d_ct, nlm_ct
from _observers import auc, template_score
from _real_ct_data import EDGES, Floats, Scan

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg import EnhanceConfig, VolumeCache, enhance
from MedEnhanceLib.noise.estimate import measure_noise

DEFAULT, SMOOTH = "default", "smooth"
#: Options of each of our arms.
OURS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    SMOOTH: {"smooth": True},
}
#: Slow to import: a quick run does without it.
HAS_BM4D = not QUICK and find_spec("bm4d") is not None
#: Many times slower: they get the slab without what is planted, and their results are kept.
PEERS = {"NLM": nlm_ct, **({"BM4D": bm4d_ct} if HAS_BM4D else {})}
ARMS = ("input", *OURS, *PEERS)
#: Pixels on either side of an edge.
_REACH = 6.0
#: Discs from which the observer says something.
_FEWEST = 6 if QUICK else 20


def parts(options: Namespace) -> Iterator[Part]:
    if not (HAS_BM4D or QUICK):
        print("real_ct: no BM4D, which is not installed", flush=True)
    for about in listed("real_ct_scans.json")[: 1 if QUICK else None]:
        scan = data.opened(about, options.data)
        if scan is None:
            print(f"real_ct: no {about['name']}, which needs --data FOLDER", flush=True)
        else:
            yield about["name"], partial(judged, scan)


# --- arms -----------------------------------------------------------------------------------------


def run_arm(name: str, volume: Volume, cache: VolumeCache | None = None) -> Floats:
    """Denoise a slab. cache: of this volume, for what all of our arms share."""
    voxels = volume.voxels.astype(np.float32)
    if name in OURS:
        config = EnhanceConfig(device="cpu", **OURS[name])
        voxels = enhance(volume, config, cache=cache).volume.voxels
    elif name in PEERS:
        voxels, _ = run_kept(PEERS[name], name, volume, keep=not QUICK)
    return voxels.astype(np.float32)


def judged(scan: Scan) -> Iterator[Row]:
    """Every arm on one scan."""
    added, lesions = data.discs(scan, template_score)
    edges, distances = data.cylinders(scan)
    voxels = scan.seen.voxels.astype(np.float32)
    slabs = [scan.seen.with_voxels(voxels + planted) for planted in (np.float32(0), added, edges)]
    caches = [VolumeCache() for _ in slabs]
    for name in ARMS:
        row: Row = {**scan.about, "arm": name}
        if name in PEERS:
            yield row | errors(scan, run_arm(name, slabs[0]))
            continue
        began = time.process_time()
        without, present, edged = map(partial(run_arm, name), slabs, caches)
        row["cpu_s_per_mvoxel"] = (time.process_time() - began) / (3 * voxels.size) * 1e6
        row |= errors(scan, without) | (of_noise(scan) if name == DEFAULT else {})
        if len(lesions) >= _FEWEST:
            row |= observed(lesions, (voxels, voxels + added), (without, present))
        for contrast, distance in zip(EDGES, distances, strict=True):
            through = (edged - without).mean(axis=0)
            row[f"mtf_{contrast:g}"] = mtf50(through, distance) / mtf50(edges, distance)
        yield row


# --- measures -------------------------------------------------------------------------------------


def of_noise(scan: Scan) -> Row:
    """The measured noise beside the true one, and its interval, in HU."""
    noise = measure_noise(scan.seen.voxels, modality="CT", spacing=scan.spacing)
    tissue = scan.tissue
    mapped = np.asarray(noise[slice(0, len(scan.truth))]).mean(axis=0)[tissue]
    return {
        "sigma": float(np.median(scan.sigma[tissue])),
        # Where the truth is known: the level is that of all the slab shows.
        "sigma_ratio": float(np.median(mapped / scan.sigma[tissue])),
        "low": noise.low,
        "high": noise.high,
    }


def errors(scan: Scan, result: Floats) -> Row:
    """Root mean square of the noise that is left, as a share of the input's."""
    left = result - scan.truth
    mean_square = [float(np.square(part[:, scan.tissue]).mean()) for part in (left, scan.noise)]
    return {"left": scan.share_left(*mean_square) ** 0.5}


def observed(
    lesions: list[Lesion], before: tuple[Floats, Floats], after: tuple[Floats, Floats]
) -> Row:
    """AUC, how much more than the input's it is with its standard error, and contrast kept.

    before, after: without the lesions and with them.
    """
    inputs, reads = (
        [np.array([template_score(voxels, lesion) for lesion in lesions]) for voxels in pair]
        for pair in (before, after)
    )
    rng, number = np.random.default_rng(0), len(lesions)

    def gain(chosen: Any) -> float:
        (absent, present), (ours_absent, ours) = inputs, reads
        return auc(ours[chosen], ours_absent[chosen]) - auc(present[chosen], absent[chosen])

    return {
        "discs": number,
        "auc": auc(reads[1], reads[0]),
        "auc_gain": gain(slice(None)),
        "auc_error": float(np.std([gain(rng.integers(number, size=number)) for _ in range(200)])),
        "kept": float(np.mean(contrast_kept(*after, lesions))),
    }


def mtf50(image: Floats, distance: Floats) -> float:
    """The frequency, per pixel, at which an edge keeps half of its contrast."""
    step = 0.25
    ends = np.arange(-_REACH, _REACH + step / 2, step)
    near = np.abs(distance) < _REACH
    place = np.digitize(distance[near], ends) - 1
    counts = np.bincount(place, minlength=len(ends) - 1)
    sums = np.bincount(place, image[near], minlength=len(ends) - 1)
    there = counts > 0
    profile = np.interp(np.arange(len(counts)), np.flatnonzero(there), sums[there] / counts[there])
    line = np.diff(profile)
    # What is farther than half the reach fades.
    line *= np.clip(2 - 2 * np.abs(np.linspace(-1, 1, len(line))), 0, 1)
    transfer = np.abs(np.fft.rfft(line, 1024))
    transfer /= transfer[0]
    below = int(np.argmax(transfer < 0.5))
    # Between the two frequencies beside it, as a change of 2 % counts.
    over = (transfer[below - 1] - 0.5) / (transfer[below - 1] - transfer[below])
    return float((below - 1 + over) * np.fft.rfftfreq(1024, step)[1])


# --- goals ----------------------------------------------------------------------------------------

#: Why goals are missed, by name.
_WHY_MISSED: dict[str, str] = {
    "σ over the true one: farthest from 1": "too small where iterative reconstruction smoothed the "
    "noise and streaks of bones differ from slice to slice",
    "edges of 200 HU: MTF50 over the input's, farthest from 1": "a cylinder of a few millimeters "
    "in the noise of a sharp kernel",
}


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """The worst scan where no scan may be harmed, otherwise means over scans."""
    ours, smooth = ([row for row in rows if row["arm"] == arm] for arm in (DEFAULT, SMOOTH))

    def goal(
        compare: Callable[..., Gate],
        name: str,
        bound: float,
        chosen: list[Row],
        field: str,
        reduced: Callable[[list[float]], Any] = np.mean,
    ) -> Gate:
        values = [row[field] for row in chosen if field in row]
        why = _WHY_MISSED.get(name, "") if values else "there is no such scan or option"
        return compare(name, float(reduced(values)) if values else None, bound, why)

    def farthest(values: list[float]) -> float:
        return max(abs(value - 1) for value in values)

    name = "σ over the true one: farthest from 1"
    yield goal(at_most, name, 0.07, ours, "sigma_ratio", farthest)
    name = "edges of 200 HU: MTF50 over the input's, farthest from 1"
    yield goal(at_most, name, 0.02, ours, "mtf_200", farthest)
    gains = {-0.01: ours, -0.05: smooth}
    margin = over_goals({bound: [_mean(rows, "auc_gain")] for bound, rows in gains.items()})
    yield at_least(
        "faint discs: AUC over the input's, mean, least above its goal (default −0.01, smooth "
        "−0.05)", margin, 0, "without the band that is given back, faint discs fade",
    )  # fmt: skip


def _mean(rows: list[Row], field: str) -> float | None:
    values = [row[field] for row in rows if field in row]
    return float(np.mean(values)) if values else None


if __name__ == "__main__":
    run("real_ct", __doc__, parts, gates_of, seeds=[3])
