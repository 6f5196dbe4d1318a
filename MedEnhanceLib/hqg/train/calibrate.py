"""Calibrates the uncertainty of a newly trained enhancer on volumes that it did not learn from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from MedEnhanceLib.bundles.store import Bundle, read_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degrade import Blur, Composite, Degradation, LowDose, Rician, standard_composite
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.bundle import EnhancerModel, open_enhancer, record_calibration
from MedEnhanceLib.hqg.calibration import Calibration
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.hqg.predict import SliceRun, predict_slices
from MedEnhanceLib.io import load
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.nets.slices import Plan, SliceStacks
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]

#: Above this there is tissue, on the network's scale: air is left out.
_TISSUE = {"MR": 0.1, "CT": -0.3}
_SLICES = 24
_VOXELS_PER_PAIR = 100_000
#: Held-out volumes that a training calibrates on.
_MOST_HELD_OUT = 3

#: A degraded volume and what it was before, on one grid.
Pair = tuple[Volume, Volume]


@without_tf32()
def calibrate(
    folder: Path,
    pairs: Iterable[Pair],
    *,
    fitted_on: str,
    device: str = "auto",
    monitor: Monitor | None = None,
) -> Bundle:
    """Fit a bundle's calibration to pairs that it was not trained on, and store it there.

    Args:
        folder: of the bundle.
        pairs: (degraded, reference) on one grid, see `damaged_pairs`.
        fitted_on: a description of the data, for the model card and every result.
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
    measured: list[tuple[Floats, Floats]] = []
    for number, (degraded, reference) in enumerate(pairs):
        monitor.log(f"calibrating on pair {number + 1}")
        # The number of pairs is not known: each takes a part of the remaining progress.
        part = monitor.part(number / (number + 1), (number + 1) / (number + 2))
        measured.append(_some_tissue(model, degraded, reference, where, rng, part))
    if not measured:
        raise InputError("nothing to calibrate with", "Give pairs of volumes.")
    expected, miss = (np.concatenate(parts) for parts in zip(*measured, strict=True))
    return record_calibration(folder, Calibration.fit(expected, miss, fitted_on=fitted_on))


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
            damaged_pairs(volumes),
            fitted_on=f"volumes held out of the training ({count}), degraded",
            device=device,
            monitor=monitor,
        )
    except InputError as cause:
        monitor.warn(f"the uncertainty could not be calibrated: {cause}")


def damaged_pairs(volumes: Iterable[Volume], *, slices: int = _SLICES) -> Iterator[Pair]:
    """Pairs (degraded, reference) from the central slices of good volumes.

    Args:
        volumes: of high quality.
        slices: number of central slices.

    Yields:
        Pairs at degradation strengths across the range of training, and one without degradation.
    """
    for volume in volumes:
        middle = central_slices(volume, slices)
        for degradation in _degradations(volume.modality):
            yield degradation.apply(middle), kept_reference(middle, degradation)
        yield middle.with_voxels(middle.voxels.astype(np.float32)), middle


def kept_reference(volume: Volume, degradation: Degradation) -> Volume:
    """The ideal result for a degraded volume: its shading is kept."""
    steps = degradation.steps if isinstance(degradation, Composite) else (degradation,)
    for step in steps:
        if step.name == "bias":
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
    model: EnhancerModel,
    degraded: Volume,
    reference: Volume,
    device: str,
    rng: np.random.Generator,
    monitor: Monitor,
) -> tuple[Floats, Floats]:
    """Expected and true absolute error of some voxels of tissue."""
    defaults = EnhanceConfig()
    plan = Plan.make(device, batch=None, tile=defaults.tile, overlap=defaults.overlap)
    scaling = scaling_for(degraded)
    stacks = SliceStacks(degraded.voxels, scaling, model.config.context)
    run = SliceRun(model, stacks, model.bank.mean[None], plan, slice(0, len(stacks)))
    image, error = (np.empty(degraded.shape, np.float32) for _ in range(2))
    with torch.inference_mode():
        for where, scaled, expected in predict_slices(run, monitor, wants_error=True):
            image[where], error[where] = scaled, expected
    truth = scaling.apply(reference.voxels)
    inside = np.flatnonzero(truth > _TISSUE.get(reference.modality, 0.1))
    if inside.size > _VOXELS_PER_PAIR:
        inside = rng.choice(inside, _VOXELS_PER_PAIR, replace=False)
    return error.ravel()[inside], np.abs(image - truth).ravel()[inside]
