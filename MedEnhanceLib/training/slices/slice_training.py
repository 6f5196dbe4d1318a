"""Trains the network that restores thin slices; can be resumed, and reproduced by its seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.bundles.export import NOT_STATED, export_bundle, training_record
from MedEnhanceLib.bundles.schema import SLICES
from MedEnhanceLib.bundles.store import Bundle, open_bundle, shipped_bundle
from MedEnhanceLib.bundles.suitability import training_length_limits
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io import load
from MedEnhanceLib.io.describe import refuse_unfit
from MedEnhanceLib.learning.precision import move, on_device, without_tf32
from MedEnhanceLib.learning.training import EMA, begin_training
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.slices.planes import MOST_RATIO, Planes, Sampler
from MedEnhanceLib.slices.slice_network import SliceNet, open_network, restore_planes
from MedEnhanceLib.slices.steps import SliceTraining
from MedEnhanceLib.training.slices.config import TrainSlicesConfig

#: Number of test batches, and step of the first one, which no training reaches.
_TESTED_BATCHES, _FIRST_TESTED = 8, 10_000_000
_LIMITS = (
    "It restores what thick slices imply. Structures of low contrast that are thinner than a "
    "slice cannot be recovered.",
    "Trained on few subjects: other scanners, sequences and anatomy can give worse results.",
)


@without_tf32
def train_slices(
    config: TrainSlicesConfig, data: Path, out: Path, monitor: Monitor | None = None
) -> Path:
    """Train, or resume a training.

    Args:
        config: of the training; its patterns are relative to `data`.
        data: folder of volumes.
        out: folder for checkpoint, metrics and bundle.
        monitor: gets progress and metrics, and may cancel.
    Returns the folder of the bundle, `out/<name>`.
    Raises Cancelled: after a checkpoint was written.
    Raises ConfigError: the checkpoint is of another training.
    Raises InputError: the data cannot be used.
    Raises ModelError: a loss is not finite.
    """
    monitor = monitor or Monitor()
    device = begin_training(config.device, out, monitor)
    held_out = {path for pattern in config.held_out for path in data.glob(pattern)}
    files, noiseless = (
        sorted({path for pattern in patterns for path in data.glob(pattern)} - held_out)
        for patterns in (config.files, config.noiseless)
    )
    part = monitor.part(0.0, 0.05)
    planes = read_planes(files, config.modality, part, noiseless=noiseless)
    torch.manual_seed(config.seed)
    network, start = SliceNet(config.network), None
    if config.start:
        start = open_bundle(config.start, kind=SLICES, modality=config.modality)
        network = open_network(start)
    training = SliceTraining(network, Sampler(planes, config), device, EMA)
    learner = training.learner
    # These may differ when a training is resumed, as they do not change the weights.
    ignored = {"data": (), "license": "", "held_out": ()}
    settings = config.to_json() | ignored
    in_steps = monitor.part(0.05, 0.97)
    seconds = learner.run(training.loss_of, config.steps, out, settings, in_steps)
    tested, origin = planes, "new crops of training volumes"
    if held_out:
        tested = read_planes(sorted(held_out), config.modality, monitor.part(0.97, 1.0))
        origin = f"{len(held_out)} held out"
    figures, over_shipped = measured_beside_shipped(
        learner.averaged(), Sampler(tested, config), device
    )
    folder = out / config.name
    described = _described(config, start, seconds) | {"measured": [{"volumes": origin, **figures}]}
    described["training"]["validation"] = over_shipped
    export_bundle(folder, dict(learner.averaged().state_dict()), described)
    monitor.progress(1.0, "model written")
    return folder


def read_planes(
    files: Sequence[Path], modality: str, monitor: Monitor, *, noiseless: Sequence[Path] = ()
) -> list[Planes]:
    """Read the slices of volumes; with nearly cubic voxels all three sets of planes.

    Args:
        files: volumes whose noise is measured and removed as in use: the target has none.
        modality: "CT" or "MR", as which all are taken.
        monitor: receives progress, and warnings of files whose values contradict the modality.
        noiseless: volumes without noise, which follow those of `files`.
    Raises InputError where there is no file.
    """
    planes: list[Planes] = []
    count = len(files) + len(noiseless)
    for number, path in enumerate((*files, *noiseless)):
        part = monitor.part(number / count, (number + 1) / count)
        part.progress(0.0, f"reading {path.name}")
        volume = load(path, modality=modality, monitor=part.part(0, 0)).frame(0)
        refuse_unfit(volume, Monitor(), on_request=True)
        volume = volume.canonical().compact()
        whole = Planes.of(volume, is_clean=path in noiseless, monitor=part)
        orders = [(0, 1, 2), (1, 0, 2), (2, 0, 1)]
        for order in orders if volume.geometry.is_nearly_isotropic else orders[:1]:
            n, h, w = (whole.spacing_mm[axis] for axis in order)
            clean = None if whole.clean is None else whole.clean.transpose(order)
            pixels = whole.pixels.transpose(order)
            planes.append(Planes(pixels, (n, h, w), clean, whole.removed))
    if not planes:
        raise InputError("no training data", "Correct the patterns in `files`.")
    return planes


def measured_beside_shipped(
    network: SliceNet, sampler: Sampler, device: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Measure the PSNR of patches restored by spline, by a network and by the shipped model.

    Args:
        network: on `device`.
        sampler: of planes to test on; its batches beyond those of a training are used.
        device: as PyTorch names it.
    Returns each mean in dB (peak 1 on the network's scale), and the gain of the network over the
    shipped model, with its standard error over batches.
    """
    bundle = shipped_bundle(f"{sampler.config.modality.lower()}-slices")
    shipped, figures = open_network(bundle), []
    move(shipped, device)
    for step in range(_TESTED_BATCHES):
        patches = on_device(sampler.batch(_FIRST_TESTED + step), device)
        with torch.inference_mode():
            spline = patches.maps.interpolate @ patches.slices[:, 1]
            restored = [
                restore_planes(each, patches.slices, patches.maps) for each in (network, shipped)
            ]
        figures.append([_psnr(image, patches.thin) for image in (spline, *restored)])
    before, after, by_shipped = np.mean(figures, axis=0).round(2).tolist()
    difference = np.array(figures)[:, 1] - np.array(figures)[:, 2]
    error = float(difference.std(ddof=1)) / len(difference) ** 0.5
    over = {"over_shipped_db": float(difference.mean()), "over_shipped_error_db": error}
    return (
        {"spline (dB)": before, "restored (dB)": after, "shipped model (dB)": by_shipped},
        {name: round(figure, 3) for name, figure in over.items()},
    )


def _psnr(image: Tensor, truth: Tensor) -> float:
    """Average the PSNR over patches [B, M, W], in dB for a peak of 1."""
    errors = (image - truth).square().mean((1, 2)).clamp_min(1e-9)
    return float(-10 * torch.log10(errors).mean())


def _described(config: TrainSlicesConfig, start: Bundle | None, seconds: float) -> dict[str, Any]:
    return {
        "name": config.name,
        "kind": SLICES,
        "modality": config.modality,
        "anatomy": config.anatomy,
        "description": f"Restores thin slices from thick ones in {config.modality}: up to "
        f"{MOST_RATIO:g} for each. Trained on planes of high-quality images with one axis made "
        f"thick.",
        "license": config.license or NOT_STATED,
        "network": config.network.to_json(),
        "intensity": profile_of(config.modality).scale,
        "training": {
            **training_record(config.to_json(), start),
            "seconds": round(seconds),
            "summary": f"{config.steps} steps of {config.batch} patches of {config.rows} × "
            f"{config.columns} pixels, seed {config.seed}, {seconds / 60:.0f} minutes",
        },
        "data": list(config.data),
        "limits": [*training_length_limits(config.steps), *_LIMITS],
    }
