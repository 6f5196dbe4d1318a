"""Real CT: what denoising does to phantoms on scanners of several vendors, beside a known truth.

    OMP_NUM_THREADS=1 python Testing/Benchmarks/real_ct.py [--data FOLDER]

Reads ../shared/data/repeated and a folder of the scans of real_ct_scans.json, which says where they
are from. Slices repeat each other: those that no method saw are the truth. Errors are shares of the
input's, in one material. Faint discs are planted in the real noise and looked for by an observer
with a matched template, and by a channelized Hotelling observer that learned from other slices,
with and without noise of its own; edges of planted cylinders give the resolution. Other shares that
could be given back stand beside the default: the curve of what is found against noise left.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import _real_ct_data as data
import numpy as np
from _common import QUICK, Gate, Part, Row, at_least, at_most, listed, over_goals, run
from _enhancement_data import run_kept
from _enhancement_lesions import Lesion, contrast_kept
from _enhancement_peers import bm4d_ct, nlm_ct
from _observers import Doubles, Hotelling, auc, channel_outputs, channels, template_score
from _real_ct_data import EDGES, Floats, Scan
from scipy import ndimage

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, VolumeCache, enhance
from MedEnhanceLib.denoise.removal import LesionBand
from MedEnhanceLib.noise.estimate import measure_noise

DEFAULT, SMOOTH = "default", "smooth"
#: Options of each of our arms.
OURS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    SMOOTH: {"for_viewing": True},
}
#: Slow to import: a quick run does without it.
HAS_BM4D = not QUICK and find_spec("bm4d") is not None
#: Many times slower: they get the slab without what is planted, and their results are kept.
PEERS = {"NLM": nlm_ct, **({"BM4D": bm4d_ct} if HAS_BM4D else {})}
#: Shares given back above the Gaussian, other than the default.
FLOORS = {f"floor {share:g}": share for share in (0.0, 0.2, 0.6, 0.8)}
ARMS = ("input", *OURS, *FLOORS, *PEERS)
#: Pixels on either side of an edge.
_REACH = 6.0
#: Discs from which the observer says something.
_FEWEST = 6 if QUICK else 20
#: Seeds of the discs. Slices between which the noise is compared.
_DRAWS, _APART = (3,) if QUICK else (3, 4), 3
#: Pixels over which the window of a spectrum rises; mm from an edge where HU are read.
_RISE, _INNER_MM = 12.0, 3.0
_REDRAWN = 20 if QUICK else 100


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
    drawn = [data.discs(scan, template_score, seed) for seed in _DRAWS]
    drawn = drawn if sum(len(lesions) for _, lesions in drawn) >= _FEWEST * len(_DRAWS) else []
    edges, distances = data.cylinders(scan)
    voxels = scan.seen.voxels.astype(np.float32)
    planted = [np.zeros_like(voxels), *(added for added, _ in drawn), edges]
    slabs = [scan.seen.with_voxels(voxels + each) for each in planted]
    caches = [VolumeCache() for _ in slabs]
    inputs, smooth = [slab.voxels for slab in slabs], list[Floats]()
    looked = Looked(scan.spacing, [lesions for _, lesions in drawn])
    for name in ARMS:
        row: Row = {**scan.about, "arm": name}
        if name in PEERS:
            yield row | errors(scan, run_arm(name, slabs[0]))
            continue
        if name in FLOORS:
            band = replace(_band(scan), floor=FLOORS[name])
            results = [r + band.of(v - r) for v, r in zip(inputs, smooth, strict=True)]
        else:
            began = time.process_time()
            results = list(map(partial(run_arm, name), slabs, caches))
            seconds = time.process_time() - began
            row["cpu_s_per_mvoxel"] = seconds / (len(slabs) * voxels.size) * 1e6
        smooth = results if name == SMOOTH else smooth
        without, *present, edged = results
        row |= errors(scan, without) | (of_noise(scan) if name == DEFAULT else {})
        row["texture"] = mean_frequency(without, scan) / mean_frequency(voxels, scan)
        if drawn:
            row |= looked.row((inputs[0], inputs[1:-1]), (without, present))
        through = (edged - without).mean(axis=0)
        for contrast, distance in zip(EDGES, distances, strict=True):
            row[f"mtf_{contrast:g}"] = mtf50(through, distance) / mtf50(edges, distance)
        inner = distances[0] > _INNER_MM / scan.spacing[0]
        row["hu_off"] = float((through - edges)[inner].mean())
        yield row


def _band(scan: Scan) -> LesionBand:
    band = LesionBand.on(scan.spacing)
    assert band is not None, "pixels too fine for a CT"
    return band


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


def mean_frequency(voxels: Floats, scan: Scan) -> float:
    """Mean frequency in a slice of the noise in the tissue, per mm.

    Of differences between slices, in which the phantom itself cancels.
    """
    depth = ndimage.distance_transform_edt(np.pad(scan.tissue, 1))[1:-1, 1:-1]
    rise = np.clip(depth / _RISE, 0, 1)
    noise = voxels[_APART:] - voxels[:-_APART]
    noise = (noise - noise[:, scan.tissue].mean(1)[:, None, None]) * rise**2 * (3 - 2 * rise)
    power = np.square(np.abs(np.fft.fft2(noise))).mean(axis=0)
    down, across = map(np.fft.fftfreq, power.shape, (scan.spacing[1], scan.spacing[0]))
    return float((np.hypot(down[:, None], across) * power).sum() / power.sum())


class Looked:
    """What observers see of planted discs."""

    def __init__(self, spacing: tuple[float, ...], drawn: list[list[Lesion]]) -> None:
        self._images, self._drawn = channels(spacing), drawn
        self._slices = np.array([lesion.where[0].start for part in drawn for lesion in part])

    def row(self, before: tuple[Floats, list[Floats]], after: tuple[Floats, list[Floats]]) -> Row:
        """AUC of each observer, less the input's with its standard error, and contrast kept.

        before, after: without the discs and, for each draw, with them.
        """
        template = [self._seen(template_score, *each) for each in (before, after)]
        outputs = [
            self._seen(partial(channel_outputs, images=self._images), *each)
            for each in (before, after)
        ]
        alone, noisy = Hotelling.on(self._slices, outputs[0])
        row: Row = {"discs": len(self._slices)}
        rng = np.random.default_rng(0)
        draws = [rng.integers(row["discs"], size=row["discs"]) for _ in range(_REDRAWN)]
        for name, seen, judge in (
            ("auc", template, lambda pair, some: auc(pair[0][some], pair[1][some])),
            ("hotelling", outputs, alone.auc),
            ("own_noise", outputs, noisy.auc),
        ):
            every, *others = (
                [judge(pair, some) for pair in seen] for some in (slice(None), *draws)
            )
            gains = [ours - given for given, ours in others]
            row |= {name: every[1], f"{name}_gain": every[1] - every[0]}
            row[f"{name}_error"] = float(np.std(gains))
        kept = [
            contrast_kept(after[0], present, lesions)
            for present, lesions in zip(after[1], self._drawn, strict=True)
        ]
        return row | {"kept": float(np.mean(np.concatenate(kept)))}

    def _seen(
        self, read: Callable[..., Any], without: Floats, present: list[Floats]
    ) -> tuple[Doubles, Doubles]:
        """Read every disc, with it and without."""
        pairs = [
            (read(voxels, lesion), read(without, lesion))
            for voxels, lesions in zip(present, self._drawn, strict=True)
            for lesion in lesions
        ]
        return np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])


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
    "edges of 300 HU: MTF50 over the input's, farthest from 1": "a cylinder of a few millimeters "
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
    name = "edges of 300 HU: MTF50 over the input's, farthest from 1"
    yield goal(at_most, name, 0.02, ours, "mtf_300", farthest)
    sure = [_mean(ours, "auc_gain"), _mean(ours, "own_noise_gain")]
    margin = over_goals({-0.01: sure, -0.05: [_mean(smooth, "auc_gain")]})
    yield at_least(
        "faint discs: AUC over the input's, mean, least above its goal (default −0.01, by the "
        "template and with noise of the observer; smooth −0.05)", margin, 0,
        "without what is given back, faint discs fade",
    )  # fmt: skip


def _mean(rows: list[Row], field: str) -> float | None:
    values = [row[field] for row in rows if field in row]
    return float(np.mean(values)) if values else None


if __name__ == "__main__":
    run("real_ct", __doc__, parts, gates_of, seeds=_DRAWS)
