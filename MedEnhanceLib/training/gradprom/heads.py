"""The training of a head from a folder of label maps, from reading to its bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles.export import record_fields
from MedEnhanceLib.gradprom.structures.anatomy import Anatomy
from MedEnhanceLib.gradprom.structures.correcting import posteriors
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.networks import (
    Corrector,
    Locator,
)
from MedEnhanceLib.gradprom.structures.space import make_space
from MedEnhanceLib.learning.precision import mixed_precision, without_tf32
from MedEnhanceLib.learning.training import Learner, begin_training
from MedEnhanceLib.runtime.ordered import ahead
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
from MedEnhanceLib.training.gradprom.head_export import export_structures
from MedEnhanceLib.training.gradprom.label_maps import (
    find_labeled_images,
    labels_of,
    read_labeled_images,
    read_maps,
    split_maps,
    tissue_map,
)
from MedEnhanceLib.training.gradprom.measuring import measure
from MedEnhanceLib.training.gradprom.painting import NO_SIDE, UNKNOWN, Painted, Painter
from MedEnhanceLib.training.gradprom.sizes import fit_sizes

Scan = TypeVar("Scan")
# Chosen in trials (decision 0075); no table isolates them. Measured by Benchmarks/segmentation.py.
#: A locator's scan covers twice the sides, in voxels twice as large.
_LOCATOR_MM = 4.0
#: Share of the steps after which larger scans are drawn as well, and how often each: sides of the
#: configuration, and these plus 16 and plus 32.
_LATE, _SIZES_EARLY, _SIZES_LATE = 0.6, (0.94, 0.06, 0.0), (0.55, 0.35, 0.1)
#: Weight of the side's loss.
_SIDE_WEIGHT = 0.3
_BETAS = (0.9, 0.99)
#: Learning rate of the locator over that of the corrector.
_FASTER = 2.0
#: A structure of fewer voxels in a scan does not enter the Dice term.
_FEWEST = 20
#: Seconds of two cores, about, by which progress is split: reading and alignment of a map, a voxel
#: of a step of locator and corrector, an image for sizes, and the measurement.
_READ_S, _ALIGN_S, _VOXEL_S, _SIZE_S, _MEASURE_S = 0.5, 4.0, 5e-6, 30.0, 300.0


@without_tf32
def train_head(
    config: TrainHeadConfig,
    folder: Path,
    out: Path,
    monitor: Monitor | None = None,
) -> Path:
    """Train a head from label maps, export its bundle, and measure it on painted scans.

    Args:
        config: of the training.
        folder: of the label maps, which the configuration's patterns are relative to.
        out: for checkpoint and bundle. A training of the same configuration continues from the
            checkpoint there.
        monitor: progress, metrics and cancelling.
    Returns:
        The bundle's folder, `out/<name>`.
    Raises:
        Cancelled: after writing a checkpoint.
        ConfigError: structures or tissues contradict one another.
        InputError: no label maps, or files that are none; images without labels.
        ModelError: the training diverged.
    """
    monitor = monitor or Monitor()
    device = begin_training(config.device, out, monitor)
    training, held_out = split_maps(config, folder)
    labeled, sized = (
        find_labeled_images(Path(folder)) if folder else {}
        for folder in (config.images, config.sizes_from)
    )
    count = len(training)
    parts = _parts(config, (count, len(held_out), len(labeled), len(sized)), monitor)
    volumes = read_maps([*training, *held_out], next(parts))
    values = sorted({int(value) for volume in volumes for value in np.unique(volume.voxels)})
    anatomy = Anatomy.of(
        config.label_set or [*labels_of(values)], config.tissues, config.merged, values
    )
    maps = [tissue_map(volume, anatomy) for volume in volumes]
    maps[count:count] = read_labeled_images(labeled, anatomy, config.modality, next(parts))
    space, placements = make_space(maps, anatomy, count, next(parts))
    drawn = count + len(labeled)
    painter = Painter(maps[:drawn], placements[:drawn], space, anatomy, config.image_share)
    torch.manual_seed(config.seed)
    locator = Locator(config.locator_widths)
    corrector = Corrector(len(anatomy.classes), config.widths)
    steps = next(parts)
    locator = _train_locator(config, locator, painter, anatomy, device, out / "locator", steps)
    steps = next(parts)
    corrector, seconds = train_corrector(config, corrector, painter, device, out, steps)
    model = StructureModel(config.name, anatomy, space, locator, corrector, {}, {})
    measured: dict[str, Any] = {}
    sizing, overlap = next(parts), None
    if sized:
        model, overlap = fit_sizes(model, sized, config.modality, sizing)
    if held_out:
        others = Painter(maps[drawn:], placements[drawn:], space, anatomy)
        model, measured = measure(model, others, config, next(parts), overlap)
    counts = count, sum(len(item.images) for item in maps), len(sized)
    bundle = export_structures(out / config.name, config, model, counts, seconds)
    if measured:
        record_fields(bundle.folder, measured)
    monitor.progress(1.0, "model written")
    return bundle.folder


def _parts(
    config: TrainHeadConfig, counts: tuple[int, int, int, int], monitor: Monitor
) -> Iterator[Monitor]:
    """Split progress as time: reading, alignment, locator, corrector, sizes, measurement.

    Args:
        config: of the training.
        counts: of label maps trained on and held out, of those with images, read in turn, and of
            images for sizes.
        monitor: of the whole training.
    """
    training, held_out, labeled, sized = counts
    scan = _VOXEL_S * prod(config.sides)
    costs = [
        _READ_S * (training + held_out),
        _READ_S * labeled,
        _ALIGN_S * (training + held_out + labeled),
    ]
    costs += [scan * config.locator_steps, scan * config.steps]
    costs += [_SIZE_S * sized, _MEASURE_S * bool(held_out)]
    ends = [end / sum(costs) for end in accumulate(costs, initial=0.0)]
    return (monitor.part(first, last) for first, last in pairwise(ends))


def _train_locator(
    config: TrainHeadConfig,
    network: Locator,
    painter: Painter,
    anatomy: Anatomy,
    device: str,
    out: Path,
    monitor: Monitor,
) -> Locator:
    """Train the locator; returns it with averaged weights.

    Args:
        config: of the training.
        network: before the training.
        painter: of the maps that are trained on.
        anatomy: classes.
        device: of the network; scans are painted on the CPU.
        out: folder of the checkpoint.
        monitor: progress, metrics and cancelling.
    """
    learner = Learner(network.to(device), _FASTER * config.learning_rate, config.ema, _BETAS)

    def paint(number: int) -> Painted:
        rng = np.random.default_rng([config.seed, 2, number])
        # Windows of one size, and whole fields of view.
        more = (0, 0, 0) if rng.random() < 0.75 else rng.integers(0, 3, 3) * 8
        k, j, i = (side + int(extra) for side, extra in zip(config.sides, more, strict=True))
        return painter.draw(rng, (k, j, i), voxel_mm=_LOCATOR_MM)

    scan_of = _painted_ahead(paint, config.locator_steps)

    def loss_of(number: int) -> tuple[Tensor, dict[str, Tensor]]:
        scan = scan_of(number)
        with mixed_precision(device):
            places, logits = learner.network(scan.image[None, None].to(device))
        inner = (scan.classes > 0) & (scan.classes <= len(anatomy.structures))
        shown = F.avg_pool3d(inner[None].float(), 2)[0].to(device)
        distance = ((places[0] - scan.places.to(device)) ** 2).sum(0).add(1e-2).sqrt()
        mean = (distance * shown).sum() / shown.sum().clamp_min(1)
        loss = mean / 10 + F.binary_cross_entropy_with_logits(logits[0], shown)
        return loss, {"locator, mm": mean}

    learner.run(loss_of, config.locator_steps, out, config.to_json(), monitor)
    return learner.averaged().cpu()


def train_corrector(
    config: TrainHeadConfig,
    network: Corrector,
    painter: Painter,
    device: str,
    out: Path,
    monitor: Monitor,
) -> tuple[Corrector, float]:
    """Train the corrector; returns it with averaged weights, and the seconds.

    Args:
        config: of the training.
        network: before the training.
        painter: of the maps that are trained on.
        device: of the network; scans are painted on the CPU.
        out: folder of the checkpoint.
        monitor: progress, metrics and cancelling.
    """
    learner = Learner(network.to(device), config.learning_rate, config.ema, _BETAS)

    def paint(number: int) -> tuple[Painted, Tensor]:
        rng = np.random.default_rng([config.seed, number])
        chances = _SIZES_LATE if number >= _LATE * config.steps else _SIZES_EARLY
        more = 16 * int(rng.choice(3, p=chances))
        k, j, i = (side + more for side in config.sides)
        scan = painter.draw(rng, (k, j, i))
        return scan, posteriors(scan.image, scan.prior)

    scan_of = _painted_ahead(paint, config.steps)

    def loss_of(number: int) -> tuple[Tensor, dict[str, Tensor]]:
        scan, share = scan_of(number)
        inputs = (scan.image[None], share, scan.prior, scan.about)
        with mixed_precision(device):
            logits, side = learner.network(*(item[None].to(device) for item in inputs))
        loss = class_loss(logits, scan.classes.to(device))
        loss = loss + _SIDE_WEIGHT * _side_loss(side[0], scan.left.to(device))
        return loss, {"loss": loss}

    seconds = learner.run(loss_of, config.steps, out, config.to_json(), monitor)
    return learner.averaged().cpu(), seconds


def _painted_ahead(paint: Callable[[int], Scan], count: int) -> Callable[[int], Scan]:
    """Paint the scans of steps in a thread, ahead of these; each depends on seed and step alone."""
    scans: Iterator[Scan] | None = None

    def scan_of(number: int) -> Scan:
        nonlocal scans
        scans = scans or ahead(map(paint, range(number, count)), 2)
        return next(scans)

    return scan_of


def class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Compute cross-entropy plus 1 − Dice of the classes shown.

    Weights of rare classes would enlarge them: volumes of small nuclei were 20 to 100 % too large.

    Args:
        logits: [1, C, K, J, I].
        classes: [K, J, I], indices; UNKNOWN where nothing is learned.
    """
    count = logits.shape[1]
    known = classes.reshape(-1) != UNKNOWN
    if not known.any():
        return logits.sum() * 0
    logs = logits[0].flatten(1)[:, known].log_softmax(0)
    target = classes.reshape(-1)[known].long()
    true = logs.gather(0, target[None])[0]
    size = torch.bincount(target, minlength=count).float()
    both = torch.zeros(count, device=logits.device).index_add(0, target, true.exp())
    dice = (2 * both + 1) / (logs.exp().sum(1) + size + 1)
    shown = size > _FEWEST
    shown[0] = False
    entropy = -true.mean()
    return entropy + (1 - dice[shown]).mean() if shown.any() else entropy


def _side_loss(side: Tensor, left: Tensor) -> Tensor:
    known = left != NO_SIDE
    if not known.any():
        return side.sum() * 0
    return F.binary_cross_entropy_with_logits(side[known], left[known].float())
