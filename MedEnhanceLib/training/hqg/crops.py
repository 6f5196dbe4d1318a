"""Crops of volumes for training steps, filtered, with groups of similar blocks.

Clean volumes get simulated noise. A crop depends on the seed, the kind and its number alone: it is
the same in another process, and in a resumed training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.core.arrays import Floats, Longs, Mask, Where
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.degradation.acquisition import SCAN_KINDS, MRScanner
from MedEnhanceLib.degradation.lowdose import ELECTRONIC, low_dose_noise
from MedEnhanceLib.denoise.config import STEP
from MedEnhanceLib.denoise.groups import Places
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.filters import block_matching
from MedEnhanceLib.filters.block_matching_run import Stage
from MedEnhanceLib.learning.intensity import TISSUE
from MedEnhanceLib.native import CELLS
from MedEnhanceLib.noise.estimate import measure_noise
from MedEnhanceLib.noise.tissue_blocks import AIR_MEAN
from MedEnhanceLib.runtime.machine import Pool, cpu_threads
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.hqg.guide_crops import Guiding, draw_guide
from MedEnhanceLib.training.hqg.targets import Target, synthetic_target

Made = TypeVar("Made")
#: Without and with guides, with pairs for planted lesions, and of a task.
Kind = Literal["plain", "guided", "lesions", "labeled"]
#: Part of the seed that differs between kinds.
_KEYS: dict[Kind, int] = {"plain": 0, "guided": 1, "lesions": 2, "labeled": 3}
#: Voxels of a crop along slices, rows and columns.
SHAPE = (28, 72, 72)
# Chosen in trials (decision 0047); no table isolates them. Measured by Benchmarks/denoising.py.
#: Least share of tissue in a crop, and the number of places that are tried for it.
_LEAST_TISSUE, _TRIES = 0.5, 6
#: Share of labeled crops that are placed around a labeled voxel.
_LABELED_SHARE = 0.8
#: σ of added noise as a share of the range.
_SIGMA = (0.02, 0.18)
_RICIAN_SHARE, _MAPPED_SHARE, _GAMMA_SHARE = 0.4, 0.3, 0.5
#: Share of the crops of MR that a simulated scanner acquires; the others get white noise. Shares of
#: the acquired ones with low SNR (mean of tissue over σ), and with a spectrum that the filter
#: knows: in use it often assumes white noise. Range of the low SNR. Tuned on white and simulated
#: noise: a share of .6 halved the gain on white noise, 0 lost on scanners (decision 0047).
SCANNED_SHARE, _LOW_SNR_SHARE, _KNOWN_SPECTRUM_SHARE, _LOW_SNR = 0.35, 0.2, 0.5, (2.0, 5.0)
#: Simulated CT: photons per ray (uniform in the logarithm; in averaged volumes, whose rays are
#: wide, a share of them), cutoffs of kernels, and modulation of half the scans.
_PHOTONS, _WIDE_RAYS_SHARE = (3e3, 5e4), 1 / 6
_CUTOFFS, _MODULATION = (2.0, 2.0, 1.2), 0.5
#: σ of the noise of CT in tissue, in units of 1000 HU, uniform in the logarithm.
_CT_SIGMA = (0.012, 0.2)
#: Largest mean of the noise of CT in tissue, over σ: where hardly a photon arrives, the logarithm
#: has a bias, by which the network would learn to shift whole volumes.
_MOST_BIAS = 0.08
#: Relative variance of white noise in each frequency.
_WHITE = np.ones(CELLS, np.float32)
#: Least ratio of the added noise to that of the clean volume: with less, noise would be a target.
_OVER_TARGET_NOISE = 3.0
#: Crops of one simulated slab of CT.
_CROPS_OF_A_SLAB = 6
#: Number of the first crop, or slab, of a validation, which no training reaches.
FIRST_VALIDATED = 500_000_000
#: Most threads that make crops beside a training; crops that are made ahead.
_MOST_THREADS, _AHEAD = 8, 2


class _Acquired(NamedTuple):
    """A noisy image, [K, J, I], its mean over the noise, map of σ, spectrum, and bias of the mean.

    The bias of magnitudes is None where there is none.
    """

    noisy: Floats
    mean: Floats
    sigma: Floats
    spectrum: Floats
    bias: Floats | None = None


#: Clean image → noisy image; the same noise each time.
_Add = Callable[[Floats], _Acquired]


@dataclass(frozen=True, eq=False)
class Noisy:
    """A crop, simulated as noisy and filtered.

    Attributes:
        noisy, pilot, estimate: [K, J, I] on the network's scale.
        target: the same without noise; of magnitudes the mean that noise leaves of them.
        places: of its groups.
    """

    noisy: Tensor
    pilot: Tensor
    estimate: Tensor
    target: Tensor
    places: Places


@dataclass(frozen=True, eq=False)
class Crop:
    """One crop.

    Attributes:
        plain: what the filter made of it.
        tissue: [K, J, I], whether there is tissue.
        where: its place in the volume.
        guide: of the examination, with what is known about it; None without.
        planted: the same crop with the guide's lesion in the input; None without.
        labels: [K, J, I], as the task gave them; None without.
        bias: [K, J, I], what noise adds to the mean of magnitudes; None where it adds nothing.
    """

    plain: Noisy
    tissue: Tensor
    where: Where
    guide: Guiding | None = None
    planted: Noisy | None = None
    labels: Tensor | None = None
    bias: Tensor | None = None


@dataclass(frozen=True)
class CropMaker:
    """Makes crops by number.

    Attributes:
        targets: volumes; examinations for crops with guides.
        modality: MR or CT.
        blocks: in a group.
        seed: of all.
        kind: of the crops.
        synthetic: share of the numbers whose crops show synthetic volumes, 0 to 1.
    """

    targets: Sequence[Target]
    modality: str
    blocks: int
    seed: int
    kind: Kind = "plain"
    synthetic: float = 0.0

    def make(self, number: int) -> list[Crop]:
        """Make the crops of this number: several of one slab of simulated CT, or one."""
        rng = np.random.default_rng([self.seed, _KEYS[self.kind], number])
        # Half of the crops have the resolution of the files, if there are other ones.
        raw = rng.random() < 0.5
        targets = [target for target in self.targets if target.is_raw == raw] or self.targets
        target = targets[int(rng.integers(len(targets)))]
        if rng.random() < self.synthetic:
            target = synthetic_target(self.modality, int(rng.integers(2**31)))
        return (
            self._ct_crops(target, rng)
            if profile_of(self.modality).is_projected
            else [self._mr_crop(target, rng)]
        )

    def _mr_crop(self, target: Target, rng: np.random.Generator) -> Crop:
        where = self._place(target, rng)
        clean = np.maximum(target.series[0][where], 0)
        # A frozen segmentation model knows only the gray values of its training.
        if target.labels is None and rng.random() < _GAMMA_SHARE:
            clean = clean ** np.float32(np.exp(rng.uniform(-0.4, 0.4)))
        guide, planted = None, clean
        if len(target.series) > 1:
            guide, planted = draw_guide(
                self.targets, target, where, clean, rng, in_pairs=self.kind == "lesions"
            )
        least = _OVER_TARGET_NOISE * target.least_sigma
        if rng.random() < SCANNED_SHARE:
            add = _drawn_scan(clean, target.spacing, rng, least=least)
        else:
            add = _drawn_noise(clean.shape, rng, least=least)
        # A pair has the crop without and with the lesion.
        is_pair = guide is not None and guide.lesion is not None
        crop = self._crop(target, add(clean if is_pair else planted), where)
        second = None
        if is_pair and planted is not clean:
            second = self._filtered(add(planted), target.spacing)
        return replace(crop, guide=guide, planted=second)

    def _ct_crops(self, target: Target, rng: np.random.Generator) -> list[Crop]:
        """Cut crops of a slab of CT at a simulated dose, with noise measured as in use.

        Raises InputError if no noise can be measured.
        """
        slab = self._place(target, rng)[0]
        clean = target.series[0][slab]
        photons = float(np.exp(rng.uniform(*np.log(_PHOTONS))))
        photons *= 1 if target.is_raw else _WIDE_RAYS_SHARE
        cutoff = float(rng.choice(_CUTOFFS))
        added = low_dose_noise(
            clean * 1000,
            target.spacing,
            photons,
            ELECTRONIC,
            rng,
            cutoff=cutoff,
            modulation=_MODULATION if rng.random() < 0.5 else 0.0,
        )
        tissue = clean > TISSUE[self.modality]
        # σ is drawn independently of the photons, as if the body were wider or narrower.
        sigma = float(np.exp(rng.uniform(*np.log(_CT_SIGMA))))
        sigma = max(_OVER_TARGET_NOISE * target.least_sigma, sigma)
        added *= np.float32(sigma / max(float(added[tissue].std()), 1e-6) if tissue.any() else 1e-3)
        noise = measure_noise(clean + added, modality="CT", spacing=target.spacing)
        if not noise.level > 0:
            raise InputError(
                f"{target.name}: no noise can be measured, even at a low simulated dose",
                "Leave it out (leave_out): it shows air, or too few slices.",
            )
        labels = None if target.labels is None else target.labels[slab]
        part = replace(target, series=(clean,), labels=labels)
        noisy, sigmas = clean + added, noise[:]
        places = [self._place(part, rng) for _ in range(_CROPS_OF_A_SLAB)]
        bias = [_bias(added[at], tissue[at]) for at in places]
        fair = [at for at, share in zip(places, bias, strict=True) if share <= _MOST_BIAS]
        crops = []
        for at in fair or [places[int(np.argmin(bias))]]:
            scan = _Acquired(noisy[at], clean[at], sigmas[at], noise.spectrum)
            crops.append(replace(self._crop(part, scan, at), where=(slab, *at[1:])))
        return crops

    def _place(self, target: Target, rng: np.random.Generator) -> Where:
        """Draw the place of a crop: with much tissue, or around a labeled voxel, if any."""
        voxels, labels = target.series[0], target.labels
        ends = [max(1, side - size + 1) for side, size in zip(voxels.shape, SHAPE, strict=True)]
        if labels is not None and rng.random() < _LABELED_SHARE and labels.any():
            labeled = np.unravel_index(rng.choice(np.flatnonzero(labels)), labels.shape)
            starts = np.clip(np.subtract(labeled, rng.integers(SHAPE)), 0, np.subtract(ends, 1))
            return _at(starts)
        places = [_at(rng.integers(ends)) for _ in range(_TRIES)]
        shares = [float((voxels[where] > TISSUE[self.modality]).mean()) for where in places]
        enough = (at for at, share in enumerate(shares) if share > _LEAST_TISSUE)
        return places[next(enough, int(np.argmax(shares)))]

    def _crop(self, target: Target, scan: _Acquired, where: Where) -> Crop:
        """Make a crop, with the labels of the target at its place."""
        filtered = self._filtered(scan, target.spacing)
        labels = bias = None
        if target.labels is not None:
            labels = torch.from_numpy(target.labels[where].astype(np.int64))
            bias = None if scan.bias is None else torch.from_numpy(scan.bias)
        tissue = torch.from_numpy(scan.mean > TISSUE[self.modality])
        return Crop(filtered, tissue, where, labels=labels, bias=bias)

    def _filtered(self, scan: _Acquired, spacing: Sequence[float]) -> Noisy:
        """Filter a noisy crop and search its groups, as in use."""
        noisy, target, sigma = map(np.ascontiguousarray, scan[:3])
        spectrum = np.maximum(scan.spectrum.reshape(-1), block_matching.LEAST_SHARE)
        filtered = partial(
            block_matching.BlockMatchingFilter,
            noisy,
            sigma,
            spectrum,
            spacing=spacing,
            engine=block_matching.engine_for("cpu", Monitor()),
            threads=1,
        )
        # The rounds before the network, as in `denoise.denoisers`.
        profile = profile_of(self.modality)
        rounds = block_matching.ROUNDS[profile.like]
        pilot = filtered(rounds=rounds if profile.has_network_round else rounds[:-1]).denoised()
        estimate = filtered(rounds=rounds[-1:], pilot=pilot).denoised()
        places = self._places(estimate, sigma, spectrum, spacing)
        images = [torch.tensor(image) for image in (noisy, pilot, estimate, target)]
        return Noisy(images[0], images[1], images[2], images[3], places)

    def _places(
        self, estimate: Floats, sigma: Floats, spectrum: Floats, spacing: Sequence[float]
    ) -> Places:
        """Search the groups of a whole crop."""
        shape = estimate.shape
        each = block_matching.Round(step=STEP, keep=self.blocks)
        stage = Stage(shape, block_matching.window_for(spacing), each)
        layers = []
        for number, first in enumerate(stage.firsts):
            layer = stage.layer(number)
            slab = slice(first, first + stage.tall)
            groups = block_matching.engine_for("cpu", Monitor()).match(
                layer, range(layer.rows(shape[1])), pilot=estimate[slab], level=sigma[slab]
            )
            places = Places.of(groups, spectrum, shape)
            layers.append(replace(places, index=places.index.long() + first * shape[1] * shape[2]))
        return replace(
            layers[0],
            index=torch.cat([places.index for places in layers]),
            distance=torch.cat([places.distance for places in layers]),
            sigma=torch.cat([places.sigma for places in layers]),
        )


class CropPool(Generic[Made]):
    """Crops that a step draws from: a window of numbers that moves with the steps.

    Threads make them ahead, and they are replaced one after another. The window depends on the step
    alone, so that a resumed training draws the same.

    Args:
        make: number → crops, in any thread.
        size: numbers in the window.
        every: steps from one replacement to the next.
    """

    def __init__(self, make: Callable[[int], list[Made]], size: int, every: int) -> None:
        self._make, self._size, self._every = make, size, every
        threads = min(_MOST_THREADS, max(1, cpu_threads() - 1))
        self._executor = Pool(threads, "crops")
        self._crops: dict[int, Future[list[Made]]] = {}

    def draw(self, step: int, rng: np.random.Generator, monitor: Monitor) -> Made:
        """Draw one of the crops of a step; waits until all of them are made.

        Args:
            step: of the training.
            rng: draws the crop.
            monitor: may cancel the wait; of the step's place in the progress.
        """
        first = step // self._every
        for number in [number for number in self._crops if number < first]:
            self._crops.pop(number).cancel()
        for number in range(first, first + self._size + _AHEAD):
            if number not in self._crops:
                self._crops[number] = self._executor.submit(self._make, number)
        window = range(first, first + self._size)
        is_new = not any(self._crops[number].done() for number in window)
        for number in window:
            if is_new:  # a training's first steps wait for minutes
                monitor.progress(0.0, f"preparing crop {number - first + 1} of {self._size}")
            elif not self._crops[number].done():
                monitor.check()
            self._crops[number].result()
        crops = self._crops[first + int(rng.integers(self._size))].result()
        return crops[int(rng.integers(len(crops)))]

    def close(self) -> None:
        """End the threads."""
        self._executor.shutdown(wait=True, cancel_futures=True)


def _drawn_noise(shape: tuple[int, ...], rng: np.random.Generator, *, least: float) -> _Add:
    """Draw white noise, Gaussian or Rician; σ is at least `least`."""
    sigma = np.full(shape, max(least, rng.uniform(*_SIGMA)), np.float32)
    if rng.random() < _MAPPED_SHARE:
        sigma *= _smooth_field(shape, rng)
    real = sigma * rng.standard_normal(shape, np.float32)
    if rng.random() >= _RICIAN_SHARE:
        return lambda clean: _Acquired(clean + real, clean, sigma, _WHITE)
    imaginary = sigma * rng.standard_normal(shape, np.float32)

    def add(clean: Floats) -> _Acquired:
        mean = _mean_magnitude(torch.from_numpy(clean), torch.from_numpy(sigma)).numpy()
        noisy = np.hypot(clean + real, imaginary)
        return _Acquired(noisy, mean, sigma, _WHITE, mean - clean)

    return add


def _mean_magnitude(amplitude: Tensor, sigma: Tensor) -> Tensor:
    """Return the Rician mean of magnitudes, the inverse of `noise.rician.amplitude`."""
    quarter = (amplitude / sigma).square() / 4
    mean: Tensor = AIR_MEAN * (
        (1 + 2 * quarter) * torch.special.i0e(quarter) + 2 * quarter * torch.special.i1e(quarter)
    )
    return sigma * mean


def _drawn_scan(
    clean: Floats, spacing: Sequence[float], rng: np.random.Generator, *, least: float
) -> _Add:
    """Draw a scanner and its noise; σ as for white noise, or by a low SNR of the tissue."""
    scanner = MRScanner.draw(rng, SCAN_KINDS[int(rng.integers(len(SCAN_KINDS)))])
    sigma = rng.uniform(*_SIGMA)
    tissue = clean[clean > TISSUE["MR"]]
    if rng.random() < _LOW_SNR_SHARE and tissue.size:
        sigma = float(tissue.mean()) / rng.uniform(*_LOW_SNR)
    sigma = max(least, sigma)
    is_known, seed = rng.random() < _KNOWN_SPECTRUM_SHARE, int(rng.integers(2**31))

    def add(clean: Floats) -> _Acquired:
        scan = scanner.acquire(clean, sigma, spacing, np.random.default_rng(seed))
        spectrum = scan.spectrum if is_known else _WHITE
        return _Acquired(scan.noisy, scan.mean, scan.sigma, spectrum, scan.mean - scan.clean)

    return add


def _bias(added: Floats, tissue: Mask) -> float:
    """Return the absolute mean of noise in tissue over its standard deviation there."""
    values = added[tissue]
    return abs(float(values.mean())) / max(float(values.std()), 1e-9) if values.size else 0.0


def _smooth_field(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Draw a smooth factor of 0.6 to 1.6, [K, J, I]."""
    waves = [
        np.cos(np.linspace(0, np.pi * rng.uniform(0.5, 1.5), side) + rng.uniform(0, 6.3))
        for side in shape
    ]
    k, j, i = np.ix_(*waves)
    factor: Floats = np.exp((k + j + i) * rng.uniform(0.05, 0.15)).astype(np.float32)
    return factor


def _at(starts: Longs) -> Where:
    """Return the place of the crop with these first voxels."""
    k, j, i = (slice(int(at), int(at) + size) for at, size in zip(starts, SHAPE, strict=True))
    return k, j, i
