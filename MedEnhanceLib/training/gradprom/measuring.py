"""The measurement of a trained head on painted scans: Dice, volumes, calibrations, limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.core.arrays import Doubles
from MedEnhanceLib.core.metrics import dice
from MedEnhanceLib.gradprom.structures.locating import (
    CoarseScan,
    Location,
    information_at,
    locate,
)
from MedEnhanceLib.gradprom.structures.model import ALL, StructureModel
from MedEnhanceLib.gradprom.structures.networks import FINE_MM, VOXEL_MM, scale_of
from MedEnhanceLib.gradprom.structures.segmenting import expected_dice, find_unlike, segment_painted
from MedEnhanceLib.gradprom.structures.space import Placement, index_grid
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
from MedEnhanceLib.training.gradprom.painting import Painted, Painter, coarsened

# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/segmentation.py.
#: What lies within this share of the painted scans' range is usual.
_MARGIN = 0.9
#: Every how many voxels are counted; least of a structure, and least scans that show it.
_EACH, _LEAST_VOXELS, _LEAST_SCANS = 7, 50, 3
#: Painted scans of held-out maps on which a head is measured, and their sides beyond those of the
#: training.
_MEASURED, _LARGER = 12, 32
#: Largest shift of a disturbed placement, mm; σ of the change of its linear part, per mm.
_FARTHEST_MM, _TURN = 8.0, 0.01
#: Share of the structures from which a voxel counts; credible factors of a class's size.
_NEAR, _FACTORS = 0.01, (0.2, 5.0)
#: Rounds in which sizes, and weights of the errors of expected Dice, settle; an error that counts
#: in full.
_ROUNDS, _USUAL = 12, 0.05
#: Credible changes of true Dice by certainty and by mutual information.
_SLOPES = (0.0, 2.0)


@dataclass(frozen=True, eq=False)
class _Seen:
    """A painted scan as a head sees it from a location, in the voxels around the structures.

    Attributes:
        location: of the structures.
        entropy: of the probabilities.
        classes: [N], true, of a part of these voxels.
        share: [C, N], probabilities before sizes are corrected, in half precision.
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
        share, entropy = segment_painted(painted.image, scan, location, model)
        share, classes = share.flatten(1)[:, ::_EACH], painted.classes.flatten()[::_EACH]
        true = (classes > 0) & (classes <= len(model.anatomy.structures))
        near = true | (model.anatomy.inner(share) > _NEAR)
        return cls(location, entropy, classes[near].long(), share[:, near])

    def voxels(self, model: StructureModel) -> tuple[Doubles, Doubles]:
        """Count the voxels of each structure, true and found; NaN of those that hardly show."""
        count = len(self.share)
        found = model.weighted(self.share.float()).argmax(0)
        inner = slice(1, len(model.anatomy.structures) + 1)
        true, made = (
            torch.bincount(each, minlength=count)[inner].double().numpy()
            for each in (self.classes, found)
        )
        return np.where(true > _LEAST_VOXELS, true, np.nan), made


def measure(
    model: StructureModel, painter: Painter, config: TrainHeadConfig, monitor: Monitor
) -> tuple[StructureModel, dict[str, Any]]:
    """Measure a head on painted scans of held-out maps.

    Args:
        model: as it was trained.
        painter: of maps that were not trained on.
        config: of the training.
        monitor: progress and cancelling.
    Returns the model with its limits (beyond which a volume is refused), sizes, intervals of
    volumes and quality (how Dice follows from certainty and placement), and fields of the card.
    """
    found: list[_Seen] = []
    misplaced: list[_Seen] = []
    k, j, i = (round((side + _LARGER) * VOXEL_MM / FINE_MM) for side in config.sides)
    for number in range(_MEASURED):
        monitor.progress(number / _MEASURED, "measuring painted scans")
        rng = np.random.default_rng([config.seed, 1, number])
        painted = painter.draw(rng, (k, j, i), voxel_mm=FINE_MM)
        coarse = coarsened(painted.image)
        scan = CoarseScan(coarse, scale_of(coarse), torch.full((3,), VOXEL_MM))
        if (location := locate(scan, model)) is not None:
            found.append(_Seen.of(scan, painted, location, model))
            near = _near_truth(rng, scan, painted, location, model)
            misplaced.append(_Seen.of(scan, painted, near, model))
    limits = _limits(config, found)
    # Users do not see what is refused either.
    usual = [index for index, seen in enumerate(found) if not find_unlike(seen.location, limits)]
    found, misplaced = ([each[index] for index in usual] for each in (found, misplaced))
    if not found:
        return replace(model, limits=limits), {}
    # The sizes by which volumes are judged come from the other half of the scans.
    halves = [_sizes(model, [*found[part::2], *misplaced[part::2]]) for part in (1, 0)]
    judged = [replace(model, sizes=sizes) for sizes in halves]
    volumes = np.concatenate([_ratios(judged[part], found[part::2]) for part in (0, 1)])
    names, scans = model.anatomy.structures, [*found, *misplaced]
    model = replace(model, limits=limits, sizes=_sizes(model, scans))
    true, expected = np.array([_dice(model, seen) for seen in scans]).transpose(1, 0, 2)
    information = np.array([seen.location.information for seen in scans])
    model = replace(
        model,
        quality=_calibration(names, true, expected, information),
        volume_interval=_intervals((*names, ALL), volumes),
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
    """Place a scan where it lies but for a shift, a turn and another size, as placements err."""
    classes = painted.classes[::2, ::2, ::2]
    inner = (classes > 0) & (classes <= len(model.anatomy.structures))
    points = index_grid(classes.shape)[inner] * scan.step_mm
    rows = torch.cat([points, torch.ones(len(points), 1)], 1).double()
    true = torch.linalg.lstsq(rows, painted.places[:, inner].T.double()).solution.T.numpy()
    distance, way = rng.uniform(0, _FARTHEST_MM), rng.normal(size=3)
    affine = (np.eye(3) + rng.normal(0, _TURN * distance, (3, 3))) @ true
    affine[:, 3] += distance * way / np.linalg.norm(way)
    placement = Placement.linear(affine)
    information = information_at(scan, placement.affine, model)
    return replace(location, placement=placement, information=information)


def _dice(model: StructureModel, seen: _Seen) -> Doubles:
    """Return true and expected Dice of each structure, [2, structures]; NaN where hardly shown."""
    share = model.weighted(seen.share.float())
    classes, (true, _) = share.argmax(0), seen.voxels(model)
    shown = np.isfinite(true)
    pairs = np.full((2, len(true)), np.nan)
    for index in np.flatnonzero(shown):
        pairs[0, index] = dice(seen.classes.numpy(), classes.numpy(), int(index) + 1)
        pairs[1, index] = expected_dice(share, classes, int(index) + 1)
    return pairs


def _sizes(model: StructureModel, scans: Sequence[_Seen]) -> dict[str, float]:
    """Find the factors of structures' probabilities by which half of the volumes are too small."""
    names = model.anatomy.structures
    factors = np.ones(len(names))
    for _ in range(_ROUNDS if len(scans) >= _LEAST_SCANS else 0):
        sized = replace(model, sizes=dict(zip(names, factors.tolist(), strict=True)))
        ratios = _ratios(sized, scans)[:, :-1]
        known = np.isfinite(ratios).sum(0) >= _LEAST_SCANS
        factors[known] *= np.nanmedian(ratios[:, known], 0) ** 0.7
        factors = factors.clip(*_FACTORS)
    return {
        name: round(float(factor), 3)
        for name, factor in zip(names, factors, strict=True)
        if factor != 1
    }


def _ratios(model: StructureModel, found: Sequence[_Seen]) -> Doubles:
    """Return true over found volumes of each structure and of all: [scans, structures + 1]."""
    table = np.full((len(found), len(model.anatomy.structures) + 1), np.nan)
    for row, seen in zip(table, found, strict=True):
        true, made = seen.voxels(model)
        row[:-1] = true / np.maximum(made, 1)
        row[-1] = np.nansum(true) / max(1.0, made[np.isfinite(true)].sum())
    return table


def _intervals(names: Sequence[str], ratios: Doubles) -> dict[str, tuple[float, float]]:
    """Return factors of a found volume between which 95 % of the true ones are expected."""
    intervals = {}
    for name, column in zip(names, np.log(ratios).T, strict=True):
        known = column[np.isfinite(column)]
        if (count := len(known)) >= _LEAST_SCANS:
            reach = 2 * known.std(ddof=1) * (1 + 1 / count) ** 0.5
            low, high = np.exp(known.mean() + reach * np.array([-1, 1]))
            intervals[name] = round(float(low), 3), round(float(high), 3)
    return intervals


def _calibration(
    names: Sequence[str], true: Doubles, expected: Doubles, information: Doubles
) -> dict[str, tuple[float, float, float]]:
    """Fit true Dice by expected and by mutual information: two slopes, offsets of structures.

    Large errors count less, since few painted scans fail, and those entirely.

    Args:
        names: of the structures.
        true: [scans, structures], NaN where one is not shown.
        expected: the same.
        information: [scans].
    """
    rows, group = np.nonzero(np.isfinite(true) & np.isfinite(expected))
    y = true[rows, group]
    x = np.stack([expected[rows, group], information[rows]])
    weight = np.ones(len(y))
    slopes, offsets = np.zeros(2), np.zeros(len(names))

    def mean(values: Doubles) -> Doubles:
        total = np.bincount(group, weight, len(names))
        result: Doubles = np.bincount(group, weight * values, len(names)) / np.maximum(total, 1e-6)
        return result

    for _ in range(_ROUNDS):
        root = np.sqrt(weight)
        inner = np.stack([(line - mean(line)[group]) * root for line in (*x, y)])
        slopes = np.linalg.lstsq(inner[:2].T, inner[2], rcond=None)[0].clip(*_SLOPES)
        offsets = mean(y - slopes @ x)
        error = abs(y - slopes @ x - offsets[group])
        weight = _USUAL / np.maximum(error, _USUAL)
    counts = np.bincount(group, minlength=len(names))
    return {
        name: (round(float(slopes[0]), 4), round(float(slopes[1]), 4), round(float(offset), 4))
        for name, offset, shown in zip(names, offsets, counts, strict=True)
        if shown >= _LEAST_SCANS
    }


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
