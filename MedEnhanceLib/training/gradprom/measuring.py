"""The measurement of a trained head on painted scans: Dice, volumes, calibrations, limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.core.arrays import Doubles
from MedEnhanceLib.gradprom.structures.locating import (
    CoarseScan,
    Location,
    locate,
    register_from,
)
from MedEnhanceLib.gradprom.structures.model import ALL, StructureModel
from MedEnhanceLib.gradprom.structures.networks import VOXEL_MM, scale_of
from MedEnhanceLib.gradprom.structures.segmenting import find_unlike, segment_painted
from MedEnhanceLib.gradprom.structures.space import Placement, index_grid
from MedEnhanceLib.noise.sequence import MAD
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
from MedEnhanceLib.training.gradprom.painting import Painted, Painter
from MedEnhanceLib.training.gradprom.sizes import Overlap

# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/segmentation.py.
#: What lies within this share of the painted scans' range is usual.
_MARGIN = 0.9
#: Every how many voxels are counted; least of a structure, and least scans that show it.
_EACH, _LEAST_VOXELS, _LEAST_SCANS = 7, 50, 3
#: Painted scans of held-out maps on which a head is measured, and their sides beyond those of the
#: training.
_MEASURED, _LARGER = 12, 32
#: Largest error of a start of the registration, mm, as the locator's; σ of the change of its linear
#: part, per mm.
_FARTHEST_MM, _TURN = 16.0, 0.01
#: Share of the structures from which a voxel counts; credible powers of sizes.
_NEAR, _POWERS = 0.01, [number / 20 for number in range(17)]
#: Rounds in which weights of the errors of expected Dice settle; an error that counts in full.
_ROUNDS, _USUAL = 8, 0.05
#: Credible changes of true Dice by certainty and by mutual information.
_SLOPES = (0.0, 3.0)


@dataclass(frozen=True, eq=False)
class _Seen:
    """A painted scan as a head sees it from a location, in some voxels around the structures.

    Attributes:
        location: of the structures.
        entropy: of the probabilities.
        classes: [N], true, of a part of these voxels.
        share: [C, N], probabilities before sizes are corrected.
    """

    location: Location
    entropy: float
    classes: Tensor
    share: Tensor

    @classmethod
    def of(
        cls, scan: CoarseScan, painted: Painted, location: Location, model: StructureModel
    ) -> _Seen:
        """Segment a scan from a location."""
        share, entropy = segment_painted(scan, location, model)
        share, classes = share.flatten(1)[:, ::_EACH], painted.classes.flatten()[::_EACH]
        true = (classes > 0) & (classes <= len(model.anatomy.structures))
        near = true | (model.anatomy.inner(share) > _NEAR)
        return cls(location, entropy, classes[near].long(), share[:, near])

    def judged(self, model: StructureModel) -> Doubles:
        """Return true and expected Dice, true and found voxels of each structure: [4, structures].

        Those that hardly show are NaN.
        """
        share, count = model.weighted(self.share), len(self.share)
        certainty, found = share.max(0)
        pairs = torch.bincount(self.classes * count + found, minlength=count**2)
        both, (true, made) = (
            pairs.view(count, count).diagonal(),
            (torch.bincount(each, minlength=count).double() for each in (self.classes, found)),
        )
        sure = torch.bincount(found, certainty, count)
        overlap = [2 * both / (true + made), 2 * sure / (made + share.sum(1))]
        rows = torch.stack([*overlap, true, made])[:, 1 : len(model.anatomy.structures) + 1]
        rows[:, rows[2] <= _LEAST_VOXELS] = torch.nan
        return rows.double().numpy()


def measure(
    model: StructureModel,
    painter: Painter,
    config: TrainHeadConfig,
    monitor: Monitor,
    labeled: Overlap | None = None,
) -> tuple[StructureModel, dict[str, Any]]:
    """Measure a head on painted scans of held-out maps.

    Args:
        model: as it was trained; with sizes if labeled images gave them.
        painter: of maps that were not trained on.
        config: of the training.
        monitor: progress and cancelling.
        labeled: Dice of the model on labeled images, if there are any.
    Returns the model with its limits (beyond which a volume is refused), sizes, intervals of
    volumes and quality (how Dice follows from certainty and placement), and fields of the card.
    """
    found: list[_Seen] = []
    misplaced: list[_Seen] = []
    k, j, i = (side + _LARGER for side in config.sides)
    for number in range(_MEASURED):
        monitor.progress(number / _MEASURED, "measuring painted scans")
        rng = np.random.default_rng([config.seed, 1, number])
        painted = painter.draw(rng, (k, j, i))
        image = painted.image
        scan = CoarseScan(image, scale_of(image), torch.full((3,), VOXEL_MM))
        if (location := locate(scan, model)) is not None:
            found.append(_Seen.of(scan, painted, location, model))
            near = _near_truth(rng, scan, painted, location, model)
            misplaced.append(_Seen.of(scan, painted, near, model))
    limits = _limits(config, found)
    # Users do not see what is refused either.
    usual = [index for index, seen in enumerate(found) if not find_unlike(seen.location, limits)]
    found, misplaced = ([each[index] for index in usual] for each in (found, misplaced))
    if len(found) < _LEAST_SCANS:
        return replace(model, limits=limits), {}
    # The sizes by which volumes are judged come from the other half of the scans, or from images.
    halves = [model.sizes or _sizes(model, misplaced[part::2]) for part in (1, 0)]
    volumes = np.concatenate([_ratios(model, found[n::2], halves[n]) for n in (0, 1)])
    names, scans = model.anatomy.structures, [*found, *misplaced]
    model = replace(model, limits=limits, sizes=model.sizes or _sizes(model, misplaced))
    true, expected, *_ = np.stack([seen.judged(model) for seen in scans], 1)
    information = np.array([seen.location.information for seen in scans])
    model = replace(
        model,
        quality=_calibration(names, Overlap(true, expected, information), labeled),
        volume_interval=volume_intervals((*names, ALL), volumes),
    )
    rows = [
        {
            "structure": name,
            "Dice": round(float(np.nanmean(true[: len(found), index])), 3),
            "volume error": f"{100 * float(np.nanmean(1 / volumes[:, index] - 1)):+.0f} %",
            "painted scans": int(np.isfinite(volumes[:, index]).sum()),
        }
        for index, name in enumerate(names)
        if np.isfinite(volumes[:, index]).any()
    ]
    return model, {"measured": rows}


def _near_truth(
    rng: np.random.Generator,
    scan: CoarseScan,
    painted: Painted,
    location: Location,
    model: StructureModel,
) -> Location:
    """Place a scan from a start that errs by a shift, a turn and another size."""
    points = index_grid(painted.places.shape[1:]).reshape(-1, 3) * scan.step_mm
    rows = torch.cat([points, torch.ones(len(points), 1)], 1).double()
    true = torch.linalg.lstsq(rows, painted.places.flatten(1).T.double()).solution.T.numpy()
    distance, way = rng.uniform(0, _FARTHEST_MM), rng.normal(size=3)
    start = (np.eye(3) + rng.normal(0, _TURN * distance, (3, 3))) @ true
    start[:, 3] += distance * way / np.linalg.norm(way)
    affine, information = register_from(scan, torch.from_numpy(start).float(), model)
    return replace(location, placement=Placement.linear(affine), information=information)


def _sizes(model: StructureModel, scans: Sequence[_Seen]) -> dict[str, float]:
    """Find the power of the structures' sizes that, as factors, makes volumes right.

    One number for all: factors that are fitted for each class follow what is peculiar to painted
    scans, which are harder than most (decision 0103).
    """
    voxels = np.nansum([seen.judged(model)[2] for seen in scans], 0)
    share = np.where(voxels > 0, voxels / max(1.0, voxels.max()), 1.0)

    def sizes(power: float) -> dict[str, float]:
        return dict(zip(model.anatomy.structures, (share**power).round(3).tolist(), strict=True))

    def error(power: float) -> float:
        ratios = _ratios(model, scans, sizes(power))
        known = ratios[:, np.isfinite(ratios).any(0)]
        return float(abs(np.log(np.nanmedian(known, 0))).mean())

    return sizes(min(_POWERS, key=error))


def _ratios(model: StructureModel, scans: Sequence[_Seen], sizes: Mapping[str, float]) -> Doubles:
    """Return true over found volumes of structures, then of all: [scans, structures + 1]."""
    sized = replace(model, sizes=sizes)
    _, _, true, made = np.stack([seen.judged(sized) for seen in scans], 1)
    made = np.maximum(made, 1)
    table: Doubles = np.c_[true / made, np.nansum(true, 1) / np.nansum(made, 1)]
    return table


def volume_intervals(names: Sequence[str], ratios: Doubles) -> dict[str, tuple[float, float]]:
    """Return factors of a found volume between which 95 % of the true ones lie, if no scan fails.

    Medians give them: few scans fail, and those entirely, which the expected Dice shows. The found
    volume itself lies between them.

    Args:
        names: of the structures.
        ratios: [scans, structures], true over found volumes; NaN where one is not shown.
    """
    logs, count = np.log(np.maximum(ratios, 1e-3)), np.isfinite(ratios).sum(0)
    middle = np.nanmedian(logs, 0)
    reach = 2 * MAD * np.nanmedian(abs(logs - middle), 0) * np.sqrt(1 + 1 / np.maximum(count, 1))
    low, high = np.minimum(middle - reach, 0), np.maximum(middle + reach, 0)
    ends = np.exp([low, high]).round(3).T.tolist()
    return {
        name: (first, last)
        for name, (first, last), shown in zip(names, ends, count, strict=True)
        if shown >= _LEAST_SCANS
    }


def _calibration(
    names: Sequence[str], painted: Overlap, labeled: Overlap | None
) -> dict[str, tuple[float, float, float, float]]:
    """Fit true Dice by expected and by mutual information: two slopes, offsets of structures.

    Slopes are those of all scans; offsets those of labeled images, as painted scans are harder.
    No more than the highest Dice that was measured is expected.
    Large errors count less, since few painted scans fail, and those entirely.

    Args:
        names: of the structures.
        painted: Dice on painted scans.
        labeled: Dice on labeled images, if there are any.
    """
    pieces = []
    for column, part in zip((0, len(names)), (painted, labeled), strict=True):
        if part is not None:
            scan, structure = np.nonzero(np.isfinite(part.true) & np.isfinite(part.expected))
            dice = part.true[scan, structure], part.expected[scan, structure]
            pieces.append(np.stack([column + structure, *dice, part.information[scan]]))
    numbers, y, *lines = np.concatenate(pieces, 1)
    x = np.stack(lines)
    group, count = numbers.astype(int), 2 * len(names)
    weight = np.ones(len(y))
    slopes, offsets = np.zeros(2), np.zeros(count)

    def mean(values: Doubles) -> Doubles:
        total = np.bincount(group, weight, count)
        result: Doubles = np.bincount(group, weight * values, count) / np.maximum(total, 1e-6)
        return result

    for _ in range(_ROUNDS):
        root = np.sqrt(weight)
        inner = np.stack([(line - mean(line)[group]) * root for line in (*x, y)])
        slopes = np.linalg.lstsq(inner[:2].T, inner[2], rcond=None)[0].clip(*_SLOPES)
        offsets = mean(y - slopes @ x)
        error = abs(y - slopes @ x - offsets[group])
        weight = _USUAL / np.maximum(error, _USUAL)
    shown = np.bincount(group, minlength=count) >= _LEAST_SCANS
    quality: dict[str, tuple[float, float, float, float]] = {}
    for number in map(int, np.flatnonzero(shown)):  # those of labeled images come last
        fit = *slopes, offsets[number], y[group == number].max()
        first, second, third, most = (round(float(each), 4) for each in fit)
        quality[names[number % len(names)]] = first, second, third, most
    return quality


def _limits(config: TrainHeadConfig, found: Sequence[_Seen]) -> dict[str, float]:
    """Return what a volume is refused or warned for: a margin beyond most painted scans."""
    if not found:
        return {}
    locations = [seen.location for seen in found]
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
        "entropy": round(max(seen.entropy for seen in found) / _MARGIN, 3),
    }
