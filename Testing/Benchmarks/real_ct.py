"""Real CT: how much of the filter's correction phantoms on scanners of several vendors bear.

    OMP_NUM_THREADS=1 python Testing/Benchmarks/real_ct.py [--data FOLDER]

Reads ../shared/data/repeated and a folder of the scans of real_ct_scans.json, which says where they
are from. Slices repeat each other: those that no method saw are the truth. Errors are shares of the
input's, in one material. Arms are shares of what the block-matching filter and BM4D change; BM4D
gets the spectrum of the noise that was measured in the scan. Faint discs are planted in the real
noise, and four observers look for them; edges of planted cylinders give the resolution. The default
is the largest share at which no observer finds less than in the input, beyond the error.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import _real_ct_data as data
import numpy as np
from _common import QUICK, Gate, Part, Row, at_least, at_most, least, listed, most, run
from _enhancement_data import run_kept
from _enhancement_lesions import Lesion, contrast_kept
from _enhancement_peers import bm4d_measured, spectrum_between_slices
from _observers import OBSERVERS, Hotelling, channel_outputs
from _real_ct_data import EDGES, HEIGHTS_MM, Floats, Scan

from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.denoise.removal import CT_SHARE
from MedEnhanceLib.noise.estimate import measure_noise

#: Shares of the correction of each method; 0 is the input. BM4D is slow to import and to run: a
#: quick run does without it, and its results are kept.
SHARES: dict[str, tuple[float, ...]] = {
    "input": (0,),
    "filter": (0.25, 0.35, 0.4, 0.5, 0.65, 0.8, 1),
    **({"BM4D": (0.5, 1)} if not QUICK and find_spec("bm4d") else {}),
    "Gaussian": (1,),
}
#: σ of the plain arm, in plane.
_GAUSSIAN_MM = 0.9
#: Pixels on either side of an edge.
_REACH = 6.0
#: Discs from which observers say something.
_FEWEST = 6 if QUICK else 20
#: Seeds of the discs.
_DRAWS = (3,) if QUICK else (3, 4)
#: mm from an edge where HU are read.
_INNER_MM = 3.0
_REDRAWN = 20 if QUICK else 40


def parts(options: Namespace) -> Iterator[Part]:
    if not ("BM4D" in SHARES or QUICK):
        print("real_ct: no BM4D, which is not installed", flush=True)
    for about in listed("real_ct_scans.json")[: 1 if QUICK else None]:
        scan = data.opened(about, options.data)
        if scan is None:
            print(f"real_ct: no {about['name']}, which needs --data FOLDER", flush=True)
        else:
            yield about["name"], partial(judged, scan)


# --- arms -----------------------------------------------------------------------------------------


def corrected(method: str, scan: Scan, volume: Volume) -> Floats:
    """Apply all of the correction of a method to a slab of a scan."""
    if method == "filter":
        config = EnhanceConfig(device="cpu", denoiser="block-matching", for_viewing=True)
        voxels = enhance(volume, config).volume.voxels
    elif method == "BM4D":
        run_it = partial(bm4d_measured, where=scan.tissue)
        voxels, _ = run_kept(run_it, "BM4D, measured spectrum", volume, keep=True)
    elif method == "Gaussian":
        spacing = volume.geometry.spacing
        sigmas = _GAUSSIAN_MM / spacing[1], _GAUSSIAN_MM / spacing[0]
        voxels = gaussian_blur(volume.voxels, sigmas)
    else:
        voxels = volume.voxels
    return voxels.astype(np.float32)


def judged(scan: Scan) -> Iterator[Row]:
    """Every share of every method on one scan."""
    kinds = {height: [data.discs(scan, height, seed) for seed in _DRAWS] for height in HEIGHTS_MM}
    has_room = all(sum(map(places, drawn)) >= _FEWEST for drawn in kinds.values())
    edges, distances = data.cylinders(scan)
    voxels = scan.seen.voxels.astype(np.float32)
    drawn = [each for some in kinds.values() for each in some] if has_room else []
    inputs = [voxels + each for each in (0 * voxels, *(added for added, _ in drawn), edges)]
    looked = {
        height: Looked(scan.spacing, voxels, [(voxels + added, each) for added, each in some])
        for height, some in kinds.items()
        if has_room
    }
    for method, shares in SHARES.items():
        began = time.process_time()
        full = [corrected(method, scan, scan.seen.with_voxels(each)) for each in inputs]
        seconds = time.process_time() - began
        for share in shares:
            results = [v + np.float32(share) * (f - v) for v, f in zip(inputs, full, strict=True)]
            without, *present, edged = results
            row: Row = {**scan.about, "arm": method, "share": share}
            row |= errors(scan, without) | (of_noise(scan) if method == "input" else {})
            if method == "filter" and share == 1:
                row["cpu_s_per_mvoxel"] = seconds / (len(inputs) * voxels.size) * 1e6
            row["texture"] = mean_frequency(without, scan) / mean_frequency(voxels, scan)
            for n, (height, observed) in enumerate(looked.items()):
                figures = observed.row(without, present[n * len(_DRAWS) : (n + 1) * len(_DRAWS)])
                row |= {f"{name}_{height:g}": value for name, value in figures.items()}
            through = (edged - without).mean(axis=0)
            for contrast, distance in zip(EDGES, distances, strict=True):
                row[f"mtf_{contrast:g}"] = mtf50(through, distance) / mtf50(edges, distance)
            inner = distances[0] > _INNER_MM / scan.spacing[0]
            row["hu_off"] = float((through - edges)[inner].mean())
            yield row


def places(drawn: tuple[Floats, list[Lesion]]) -> int:
    """Count the discs of a draw, however many slices each is in."""
    return len({(lesion.where[1].start, lesion.where[2].start) for lesion in drawn[1]})


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
    """Mean frequency in a slice of the noise in the tissue, per mm."""
    power = spectrum_between_slices(voxels, scan.tissue)
    down, across = map(np.fft.fftfreq, power.shape, (scan.spacing[1], scan.spacing[0]))
    return float((np.hypot(down[:, None], across) * power).sum() / power.sum())


class Looked:
    """What observers see of planted discs of a kind.

    before: without the discs. planted: of each draw, the input with its discs, and these.
    """

    def __init__(
        self,
        spacing: tuple[float, ...],
        before: Floats,
        planted: list[tuple[Floats, list[Lesion]]],
    ) -> None:
        self._lesions = [lesions for _, lesions in planted]
        slices = np.array([each.where[0].start for part in self._lesions for each in part])
        rng, self._discs = np.random.default_rng(0), len(slices)
        self._draws = [slice(None), *rng.integers(self._discs, size=(_REDRAWN, self._discs))]
        self._images = {name: images(spacing) for name, (images, _) in OBSERVERS.items()}
        self._observers, self._before = dict[str, Hotelling](), dict[str, list[float]]()
        for name, (_, is_proportional) in OBSERVERS.items():
            outputs = self._seen(name, before, [each for each, _ in planted])
            observer = Hotelling.on(slices, outputs, is_proportional=is_proportional)
            self._observers[name] = observer
            self._before[name] = [observer.auc(outputs, some) for some in self._draws]

    def row(self, without: Floats, present: list[Floats]) -> Row:
        """AUC of each observer, less the input's with its standard error, and contrast kept.

        without, present: results without the discs and, for each draw, with them.
        """
        row: Row = {"discs": self._discs}
        for name, observer in self._observers.items():
            outputs = self._seen(name, without, present)
            after = [observer.auc(outputs, some) for some in self._draws]
            gains = np.subtract(after, self._before[name])
            row |= {name: after[0], f"{name}_gain": float(gains[0])}
            row[f"{name}_error"] = float(np.std(gains[1:]))
        kept = map(partial(contrast_kept, without), present, self._lesions)
        return row | {"kept": float(np.mean(np.concatenate(list(kept))))}

    def _seen(self, name: str, without: Floats, present: list[Floats]) -> tuple[Any, Any]:
        """Outputs of an observer's channels for every disc, with it and without."""
        pairs = [
            [channel_outputs(voxels, lesion, self._images[name]) for voxels in (planted, without)]
            for planted, lesions in zip(present, self._lesions, strict=True)
            for lesion in lesions
        ]
        return tuple(np.array(pairs).swapaxes(0, 1))


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

_SIGMA = "σ over the true one: farthest from 1"
_EDGES = "edges of 300 HU: MTF50 over the input's, farthest from 1"
_MEAN = "faint discs, 10 mm high: AUC over the input's and its error, least mean over scans"
_WORST = "faint discs, 6 mm high: AUC over the input's and its error, least scan and observer"
#: Why goals are missed.
_WHY_MISSED = {
    _SIGMA: "too small where iterative reconstruction smoothed the noise and streaks of bones "
    "differ from slice to slice",
    _EDGES: "a cylinder of a few millimeters in the noise of a sharp kernel",
    _WORST: "what is in one or two slices of 5 mm does not repeat: no share reaches it",
}


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    inputs = [row for row in rows if row["arm"] == "input"]
    ours = [row for row in rows if row["arm"] == "filter" and row["share"] == CT_SHARE]
    for name, bound, field, chosen in (
        (_SIGMA, 0.07, "sigma_ratio", inputs), (_EDGES, 0.02, "mtf_300", ours)
    ):  # fmt: skip
        yield at_most(name, most(abs(row[field] - 1) for row in chosen), bound, _WHY_MISSED[name])
    with_discs = [row for row in ours if "discs_6" in row]
    means, worst = list[float](), list[float]()
    for observer in OBSERVERS if with_discs else ():
        gains, errors = (
            np.array([[row[f"{observer}_{field}_{height}"] for row in with_discs]
                      for height in (10, 6)])
            for field in ("gain", "error")
        )  # fmt: skip
        means.append(float(gains[0].mean() + np.sqrt(np.square(errors[0]).sum()) / len(with_discs)))
        worst.append(float((gains[1] + errors[1]).min()))
    yield at_least(_MEAN, least(means), 0)
    yield at_least(_WORST, least(worst), 0, _WHY_MISSED[_WORST])


if __name__ == "__main__":
    run("real_ct", __doc__, parts, gates_of, seeds=_DRAWS)
