"""How far an enhancement may be off, per voxel: expected error, spread of samples, calibration.

    σ_raw = √2 b                without samples; b: the network's expected absolute error (Laplace)
    σ_raw² = s² + (0.05 √2 b)²  with samples; s: the spread over sampled cues and mirrorings, which
                                ranks errors better; b keeps the map above zero
    σ = ratio · σ_raw           fitted where the truth is known: ± 1.645 σ hold 90 % of the errors

It covers errors by noise, and by blur where that is undone, including the bias of the estimate. It
does not cover shading.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.bundles.store import Bundle, read_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import Blur, Composite, Degradation, LowDose, Rician, standard_composite
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.bundle import EnhancerModel, open_enhancer, record_calibration
from MedEnhanceLib.hqg.calibration import fit_calibration
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.predict import SliceRun, predict_oriented, predict_slices, shrunk
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.intensity import Scaling, scaling_for
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.nets.slices import Plan, SliceStacks
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]

#: Mirrorings that samples cycle through: none, columns, rows, both.
_FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
#: Above this there is tissue, on the network's scale: air is left out.
_TISSUE = {"MR": 0.1, "CT": -0.3}
_SAMPLES = 8
_SLICES = 24
#: Weight of the expected error beside the spread of samples: see docs/uncertainty.md.
_ERROR_SHARE = 0.05
_VOXELS_PER_PAIR = 100_000
#: Held-out volumes that a training calibrates on; each takes dozens of runs.
_MOST_HELD_OUT = 3

#: A degraded volume and what it was before, on one grid.
Pair = tuple[Volume, Volume]


@dataclass(frozen=True)
class RawEstimate:
    """Image, expected absolute error and spread, [K, J, I] each, on the network's scale."""

    image: Floats
    error: Floats
    spread: Floats
    scaling: Scaling


def raw_deviation(error: Floats, spread: Floats | None) -> Floats:
    """σ_raw from the expected absolute error (b of a Laplace distribution) and the spread."""
    expected: Floats = np.float32(2**0.5) * error
    return expected if spread is None else np.hypot(spread, np.float32(_ERROR_SHARE) * expected)


def spread_of_samples(
    run: SliceRun, monitor: Monitor, *, samples: int, seed: int, flips: bool = True
) -> Floats:
    """Standard deviation over sampled cues and mirrorings (Welford).

    Args:
        run: its cue is the mean that cues are sampled around, with the bank's spread.
        monitor: progress and cancelling.
        samples: number of runs, 2 or more.
        seed: of the sampled cues.
        flips: mirror three of every four samples as well.

    Returns:
        [slices of run.only, J, I] on the network's scale.
    """
    only, bank = run.only, run.model.bank
    generator = torch.Generator().manual_seed(seed)
    mean = np.zeros(run.stacks.voxels[only].shape, np.float32)
    squares = np.zeros(mean.shape, np.float32)
    for sample in range(samples):
        drawn = run.cue.clone()
        spread = bank.spread * torch.randn(bank.spread.shape, generator=generator)
        drawn[:, : len(spread)] += spread  # behind the cue there may be the request
        for where, scaled, _ in predict_slices(
            replace(run, cue=drawn),
            monitor.part(sample / samples, (sample + 1) / samples),
            flips=_FLIPS[sample % len(_FLIPS)] if flips else (),
        ):
            inside = slice(where.start - only.start, where.stop - only.start)
            step = scaled - mean[inside]
            mean[inside] += step / (sample + 1)
            squares[inside] += step * (scaled - mean[inside])
    return np.sqrt(squares / (samples - 1))


def raw_estimate(
    model: EnhancerModel,
    volume: Volume,
    monitor: Monitor,
    *,
    samples: int = _SAMPLES,
    device: str = "cpu",
    flips: bool = True,
    cue: Tensor | None = None,
) -> RawEstimate:
    """Image, expected error and spread of a volume, before any calibration.

    Args:
        model: the networks.
        volume: a single volume.
        monitor: progress and cancelling.
        samples: number of sampled runs; 0 leaves the spread at 0.
        device: as torch names it.
        flips: as for `spread_of_samples`.
        cue: [1, cue_size]; None takes the mean of the bank.
    """
    defaults = EnhanceConfig()
    plan = Plan.make(device, batch=None, tile=defaults.tile, overlap=defaults.overlap)
    stacks = SliceStacks(volume.voxels, scaling_for(volume), model.config.context)
    cue = model.bank.mean[None] if cue is None else cue
    run = SliceRun(model, stacks, cue, plan, slice(0, len(stacks)))
    image, error = (np.empty(volume.shape, np.float32) for _ in range(2))
    spread = np.zeros_like(image)
    share = 1 / (1 + samples)
    with torch.inference_mode():
        if samples:
            run = replace(run, start=shrunk(run, monitor.part(0, 0.5 * share)))
        for where, scaled, expected in predict_oriented(
            run,
            monitor.part(0.5 * share, share),
            orientations=defaults.orientations,
            wants_error=True,
        ):
            image[where], error[where] = scaled, expected
        if samples:
            spread = spread_of_samples(
                run, monitor.part(share, 1), samples=samples, seed=defaults.seed, flips=flips
            )
    return RawEstimate(image, error, spread, stacks.scaling)


@without_tf32()
def calibrate(
    folder: Path,
    pairs: Iterable[Pair],
    *,
    fitted_on: str,
    samples: int = _SAMPLES,
    device: str = "auto",
    monitor: Monitor | None = None,
) -> Bundle:
    """Fit a bundle's calibration to pairs that it was not trained on, and store it there.

    Args:
        folder: of the bundle.
        pairs: (degraded, reference) on one grid, see `damaged_pairs`.
        fitted_on: a description of the data, for the model card and every result.
        samples: number of sampled runs for the curve with samples.
        device: "auto", "cpu", "cuda" or as torch names it.
        monitor: progress and cancelling.

    Returns:
        The bundle with its calibration.

    Raises:
        InputError: there are no pairs, or too little tissue in them.
    """
    monitor = monitor or Monitor()
    model = open_enhancer(read_bundle(folder))
    where = choose_device(device).name
    rng = np.random.default_rng(0)
    found: list[tuple[Floats, Floats, Floats]] = []
    for number, (degraded, reference) in enumerate(pairs):
        monitor.log(f"calibrating on pair {number + 1}")
        # The number of pairs is not known: each takes a part of the remaining progress.
        part = monitor.part(number / (number + 1), (number + 1) / (number + 2))
        raw = raw_estimate(model, degraded, part, samples=samples, device=where)
        found.append(_some_tissue(raw, reference, rng))
    if not found:
        raise InputError("nothing to calibrate with", "Give pairs of volumes.")
    miss, error, spread = (np.concatenate(parts) for parts in zip(*found, strict=True))
    kinds = {"error": raw_deviation(error, None), "samples": raw_deviation(error, spread)}
    calibration = fit_calibration(kinds, miss, fitted_on=fitted_on, samples=samples)
    return record_calibration(folder, calibration)


def calibrate_on_held_out(
    folder: Path, files: Sequence[Path], device: str, monitor: Monitor
) -> None:
    """Calibrate a newly trained bundle on the volumes its training held out, if any.

    files: volumes of its modality, of which the first three are used. A failure does not stop the
    training: it becomes a warning, and the bundle stays marked as not calibrated.
    """
    if not files:
        return
    bundle = read_bundle(folder)
    chosen = files[:_MOST_HELD_OUT]
    # Not by name: bundles are passed on, and files are often named after patients.
    count = f"{len(chosen)} volume{'s' if len(chosen) > 1 else ''}"
    volumes = (load(path, modality=bundle.modality) for path in chosen)
    try:
        calibrate(
            folder,
            damaged_pairs(volumes, with_blur=bundle.deblurs),
            fitted_on=f"volumes held out of the training ({count}), degraded",
            device=device,
            monitor=monitor,
        )
    except InputError as cause:
        monitor.warn(f"the uncertainty could not be calibrated: {cause}")


def damaged_pairs(
    volumes: Iterable[Volume], *, with_blur: bool, slices: int = _SLICES
) -> Iterator[Pair]:
    """Pairs (degraded, reference) from the central slices of good volumes.

    Args:
        volumes: of high quality.
        with_blur: keep blur in the reference, for models that undo it on request only
            (Bundle.deblurs). Shading is always kept.
        slices: number of central slices.

    Yields:
        Pairs at degradation strengths across the range of training, and one without degradation.
    """
    for volume in volumes:
        middle = central_slices(volume, slices)
        for degradation in _degradations(volume.modality):
            reference = kept_reference(middle, degradation, with_blur=with_blur)
            yield degradation.apply(middle), reference
        yield middle.with_voxels(middle.voxels.astype(np.float32)), middle


def kept_reference(volume: Volume, degradation: Degradation, *, with_blur: bool) -> Volume:
    """The ideal result for a degraded volume: its shading is kept, and its blur `with_blur`."""
    kept = ("bias", "blur") if with_blur else ("bias",)
    steps = degradation.steps if isinstance(degradation, Composite) else (degradation,)
    for step in steps:
        if step.name in kept:
            volume = step.apply(volume)
    return volume


def central_slices(volume: Volume, count: int) -> Volume:
    """The middle slices along K as a volume of its own."""
    first = max(0, (volume.shape[-3] - count) // 2)
    return replace(volume.crop(k=slice(first, first + count)), origin=None)


def _degradations(modality: str) -> list[Degradation]:
    if modality == "CT":
        return [LowDose(photons, 5.0, seed) for seed, photons in enumerate((2e3, 5e3, 2e4))]
    noises: list[Degradation] = [
        Rician(level, seed) for seed, level in enumerate((0.03, 0.07, 0.12, 0.16))
    ]
    return [*noises, standard_composite(10), Blur(1.0)]


def _some_tissue(
    raw: RawEstimate, reference: Volume, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Absolute error, expected error and spread of some voxels of tissue."""
    truth = raw.scaling.apply(reference.voxels)
    inside = np.flatnonzero(truth > _TISSUE.get(reference.modality, 0.1))
    if inside.size > _VOXELS_PER_PAIR:
        inside = rng.choice(inside, _VOXELS_PER_PAIR, replace=False)
    miss = np.abs(raw.image - truth).ravel()[inside]
    return miss, raw.error.ravel()[inside], raw.spread.ravel()[inside]
