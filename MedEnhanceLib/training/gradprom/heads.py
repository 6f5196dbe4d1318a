"""The training of a head from a folder of label maps, from reading to its bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import accumulate, pairwise
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles.export import record_fields
from MedEnhanceLib.core.arrays import Doubles
from MedEnhanceLib.core.metrics import dice
from MedEnhanceLib.gradprom.structures.anatomy import Anatomy
from MedEnhanceLib.gradprom.structures.correcting import posteriors
from MedEnhanceLib.gradprom.structures.locating import Location
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.networks import Corrector, Locator
from MedEnhanceLib.gradprom.structures.segmenting import expected_dice, find_unlike, segment_painted
from MedEnhanceLib.gradprom.structures.space import make_space
from MedEnhanceLib.learning.precision import mixed_precision, without_tf32
from MedEnhanceLib.learning.training import Learner, begin_training
from MedEnhanceLib.runtime.ordered import ahead
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
from MedEnhanceLib.training.gradprom.enhanced import Enhancer
from MedEnhanceLib.training.gradprom.head_export import export_structures
from MedEnhanceLib.training.gradprom.label_maps import (
    find_labeled_images,
    labels_of,
    read_labeled_images,
    read_maps,
    split_maps,
    tissue_map,
)
from MedEnhanceLib.training.gradprom.painting import NO_SIDE, UNKNOWN, Painted, Painter

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
#: CPU seconds, about: of reading a map, of aligning it, of a voxel of a step, of a measured scan.
_READ_S, _ALIGN_S, _VOXEL_S, _MEASURE_S = 0.5, 4.0, 5e-6, 10.0
# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/segmentation.py.
#: What lies within this share of the painted scans' range is usual.
_MARGIN = 0.9
#: Least voxels of a structure, and least scans that show it, for its measurement.
_LEAST_VOXELS, _LEAST_SCANS = 50, 3
#: Slopes of true Dice by expected that are credible.
_SLOPES = (0.0, 2.0)
#: Painted scans of held-out maps on which a head is measured, and their sides beyond those of the
#: training.
_MEASURED, _LARGER = 12, 32


@without_tf32
def train_head(
    config: TrainHeadConfig,
    folder: Path,
    out: Path,
    monitor: Monitor | None = None,
    *,
    images: Path | None = None,
    enhancer: Enhancer | None = None,
) -> Path:
    """Train a head from label maps, export its bundle, and measure it on painted scans.

    Args:
        config: of the training.
        folder: of the label maps, which the configuration's patterns are relative to.
        out: for checkpoint and bundle. A training of the same configuration continues from the
            checkpoint there.
        monitor: progress, metrics and cancelling.
        images: folder of labeled images, of which a share of the scans has the intensities.
        enhancer: of the configuration; None if it names none.
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
    labeled = find_labeled_images(images) if images else {}
    count, total = len(training), len(training) + len(held_out)
    parts = _parts(config, total + len(labeled), monitor)
    reading, share = next(parts), total / (total + len(labeled))
    volumes = read_maps([*training, *held_out], reading.part(0, share))
    values = sorted({int(value) for volume in volumes for value in np.unique(volume.voxels)})
    anatomy = Anatomy.of(
        config.label_set or [*labels_of(values)], config.tissues, config.merged, values
    )
    maps = [tissue_map(volume, anatomy) for volume in volumes]
    maps += read_labeled_images(labeled, anatomy, config.modality, reading.part(share, 1))
    space, placements = make_space(maps, anatomy, count, next(parts))
    painter = Painter(
        maps[:count] + maps[total:],
        placements[:count] + placements[total:],
        space,
        anatomy,
        image_share=config.image_share,
    )
    locator = _train_locator(config, painter, anatomy, device, out / "locator", next(parts))
    corrector, seconds = _train_corrector(
        config, painter, anatomy, device, out, next(parts), enhancer
    )
    model = StructureModel(config.name, anatomy, space, locator, corrector, {}, {})
    measured: dict[str, Any] = {}
    if held_out:
        others = Painter(maps[count:total], placements[count:total], space, anatomy)
        model, measured = _measure(model, others, config, next(parts))
    counts = count, sum(len(item.images) for item in maps)
    bundle = export_structures(out / config.name, config, model, counts, seconds, enhancer)
    if measured:
        record_fields(bundle.folder, measured)
    monitor.progress(1.0, "model written")
    return bundle.folder


def _parts(config: TrainHeadConfig, maps: int, monitor: Monitor) -> Iterator[Monitor]:
    """Split progress as time: reading, alignment, locator, corrector, measurement."""
    step = _VOXEL_S * prod(config.sides)
    costs = [_READ_S * maps, _ALIGN_S * maps, step * config.locator_steps, step * config.steps]
    costs.append(_MEASURE_S * _MEASURED if config.held_out else 0.0)
    ends = [end / sum(costs) for end in accumulate(costs, initial=0.0)]
    for start, end in pairwise(ends):
        yield monitor.part(start, end)


def _measure(
    model: StructureModel, painter: Painter, config: TrainHeadConfig, monitor: Monitor
) -> tuple[StructureModel, dict[str, Any]]:
    """Measure a head on painted scans of held-out maps.

    Returns the model with its quality (how Dice follows from certainty) and its limits (beyond
    which a volume is refused), and fields of the card.
    """
    names = model.anatomy.structures
    true, expected = np.full((2, _MEASURED, len(names)), np.nan)
    locations: list[Location] = []
    entropies: list[float] = []
    k, j, i = (side + _LARGER for side in config.sides)
    for number in range(_MEASURED):
        monitor.progress(number / _MEASURED, "measuring painted scans")
        rng = np.random.default_rng([config.seed, 1, number])
        scan = painter.draw(rng, (k, j, i))
        result = segment_painted(scan.image, model)
        if result is None:
            continue
        location, share, entropy = result
        classes, place = share.argmax(0), len(locations)
        locations.append(location)
        entropies.append(entropy)
        for index in range(len(names)):
            if int((scan.classes == index + 1).sum()) > _LEAST_VOXELS:
                true[place, index] = dice(scan.classes.numpy(), classes.numpy(), index + 1)
                expected[place, index] = expected_dice(share, classes, index + 1)
    limits = _limits(config, locations, entropies)
    refused = [bool(find_unlike(location, limits)) for location in locations]
    quality = _calibration(names, expected[: len(locations)], true[: len(locations)], refused)
    known = ~np.isnan(true[: len(locations)])
    row: dict[str, Any] = {"subject": f"{_MEASURED} painted scans of held-out maps"}
    row |= {
        name: round(float(true[: len(locations), index][known[:, index]].mean()), 3)
        for index, name in enumerate(names)
        if known[:, index].any()
    }
    return replace(model, quality=quality, limits=limits), {"measured": [row]}


def _calibration(
    names: tuple[str, ...], expected: Doubles, true: Doubles, refused: list[bool]
) -> dict[str, tuple[float, float]]:
    """Fit true by expected Dice: one slope, and an offset for each structure.

    Args:
        names: of the structures.
        expected: [scans, structures], NaN where one is not shown.
        true: the same.
        refused: of the scans, which users do not see either.
    """
    known = np.isfinite(expected) & np.isfinite(true) & ~np.array(refused, bool)[:, None]
    count = known.sum(0)
    if not known.any():
        return {}
    x, y = np.where(known, expected, 0), np.where(known, true, 0)
    mean_x, mean_y = x.sum(0) / np.maximum(count, 1), y.sum(0) / np.maximum(count, 1)
    dx, dy = np.where(known, x - mean_x, 0), np.where(known, y - mean_y, 0)
    slope = float(np.clip((dx * dy).sum() / max(1e-6, (dx**2).sum()), *_SLOPES))
    return {
        name: (round(slope, 4), round(float(mean_y[index] - slope * mean_x[index]), 4))
        for index, name in enumerate(names)
        if count[index] >= _LEAST_SCANS
    }


def _limits(
    config: TrainHeadConfig, locations: list[Location], entropies: list[float]
) -> dict[str, float]:
    """Return what a volume is refused or warned for: a margin beyond most painted scans."""
    if not locations:
        return {}
    scales = [scale for location in locations for scale in location.scales]
    volumes = [location.volume_ml for location in locations]
    information = [location.information for location in locations]
    least = config.least_information or _MARGIN * float(np.percentile(information, 5))
    return {
        "information": round(least, 3),
        "scale_low": round(_MARGIN * float(np.percentile(scales, 5)), 3),
        "scale_high": round(float(np.percentile(scales, 95)) / _MARGIN, 3),
        "low_ml": round(_MARGIN * min(volumes), 1),
        "high_ml": round(max(volumes) / _MARGIN, 1),
        "entropy": round(max(entropies) / _MARGIN, 3),
    }


def _train_locator(
    config: TrainHeadConfig,
    painter: Painter,
    anatomy: Anatomy,
    device: str,
    out: Path,
    monitor: Monitor,
) -> Locator:
    """Train the locator; returns it with averaged weights.

    Args:
        config: of the training.
        painter: of the maps that are trained on.
        anatomy: classes.
        device: of the network; scans are painted on the CPU.
        out: folder of the checkpoint.
        monitor: progress, metrics and cancelling.
    """
    torch.manual_seed(config.seed)
    network = Locator(config.locator_widths).to(device)
    learner = Learner(network, _FASTER * config.learning_rate, config.ema, _BETAS)

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


def _train_corrector(
    config: TrainHeadConfig,
    painter: Painter,
    anatomy: Anatomy,
    device: str,
    out: Path,
    monitor: Monitor,
    enhancer: Enhancer | None,
) -> tuple[Corrector, float]:
    """Train the corrector as `_train_locator`, on enhanced scans too; returns also the seconds."""
    torch.manual_seed(config.seed)
    network = Corrector(len(anatomy.classes), config.widths).to(device)
    learner = Learner(network, config.learning_rate, config.ema, _BETAS)

    def paint(number: int) -> tuple[Painted, Tensor]:
        rng = np.random.default_rng([config.seed, number])
        chances = _SIZES_LATE if number >= _LATE * config.steps else _SIZES_EARLY
        more = 16 * int(rng.choice(3, p=chances))
        k, j, i = (side + more for side in config.sides)
        scan = painter.draw(rng, (k, j, i))
        if enhancer and rng.random() < config.enhanced_share:
            scan = replace(scan, image=enhancer.after_noise(scan.image, rng))
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
    """Compute cross-entropy, rare classes weighted up, plus 1 − Dice of the classes shown.

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
    weight = ((size.clamp(min=50) / size.sum()) ** -0.25)[target]
    entropy = -(true * weight).sum() / weight.sum()
    return entropy + (1 - dice[shown]).mean() if shown.any() else entropy


def _side_loss(side: Tensor, left: Tensor) -> Tensor:
    known = left != NO_SIDE
    if not known.any():
        return side.sum() * 0
    return F.binary_cross_entropy_with_logits(side[known], left[known].float())
