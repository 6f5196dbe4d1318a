"""How far slices lie apart: even, or with gaps and changes that are named by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.errors import GeometryError
from MedEnhanceLib.io.dicom.words import named

#: Of the spacing: how far a slice may lie off the regular grid.
_MOST_UNEVEN = 0.05
#: Of the spacing: what the rounding of positions may add to that, where their digits explain it.
_MOST_ROUNDED = 0.2
#: Neighbouring distances that differ by less, relatively, count as one spacing …
_ALIKE = 0.05
#: … and so many of them in a row are a spacing that somebody chose, not an accident.
_A_RUN = 3
#: A distance above this many spacings is a gap.
_GAP = 1.5
#: So many slices in a row are made from their neighbours, and no more.
MOST_FILLED = 2

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spacing:
    """How slices lie along their normal.

    along: mm, ascending. step: mm, the even spacing; where it is uneven, the one to resample to.
    fault: what is uneven, in words; empty where nothing is. gaps: (slice before, slices missing).
    """

    along: Vector
    step: float
    fault: str = ""
    gaps: tuple[tuple[int, int], ...] = ()

    @property
    def count(self) -> int:
        """Slices of the even grid from the first to the last."""
        return 1 + max(1, round(float(self.along[-1] - self.along[0]) / self.step))

    @property
    def can_be_evened(self) -> bool:
        """Whether nowhere more than MOST_FILLED slices in a row would be made up."""
        return float(np.diff(self.along).max()) <= (MOST_FILLED + 1.5) * self.step

    def evened(self, name: str) -> tuple[tuple[int, float], ...]:
        """For each slice of the even grid: the slice before it, and the share of the one after.

        Raises GeometryError where more than MOST_FILLED slices in a row would be made up.
        """
        if not self.can_be_evened:
            widest = int(np.diff(self.along).argmax())
            before, after = self.along[widest : widest + 2]
            raise GeometryError(
                f"{name}: between {before:.2f} and {after:.2f} mm there is no slice, where "
                f"others are {self.step:.3f} mm apart: too far to be filled (at most "
                f"{MOST_FILLED} slices in a row are made from their neighbours)",
                "Export or copy the series again, complete, or load its parts one by one.",
            )
        targets = np.linspace(self.along[0], self.along[-1], self.count)
        lower = np.searchsorted(self.along, targets, "right") - 1
        lower = np.clip(lower, 0, len(self.along) - 2)
        shares = (targets - self.along[lower]) / np.diff(self.along)[lower]
        # A slice that lies on the grid but for rounding passes as it is.
        nearest = np.round(shares)
        passes = np.abs(shares - nearest) * np.diff(self.along)[lower] < 1e-3 * self.step
        lower = np.where(passes, lower + nearest.astype(int), lower)
        shares = np.where(passes, 0.0, shares)
        return tuple(zip(lower.tolist(), shares.tolist(), strict=True))

    @property
    def even_step(self) -> float:
        """From slice to slice of the even grid, mm."""
        return float(self.along[-1] - self.along[0]) / (self.count - 1)

    def note(self) -> str:
        """What was done about it, for people."""
        steps = np.diff(self.along)
        missing_mm = sum(steps[index] * count / (count + 1) for index, count in self.gaps)
        length = self.along[-1] - self.along[0]
        return (
            f"resampled across the slices to an even {self.even_step:.3f} mm, linearly between "
            f"neighbours, because {self.fault}"
            + (f"; {missing_mm:.2f} of {length:.2f} mm were imaged by no slice" * bool(self.gaps))
        )


def measure_spacing(along: Vector, labels: Sequence[str], rounding_mm: float) -> Spacing:
    """Judge two or more ascending positions that all differ.

    labels: a name for each slice. rounding_mm: what the digits of the positions leave open.
    """
    steps = np.diff(along)
    expected, runs = _expected(steps)
    gaps = tuple(
        (index, round(step / mm) - 1)
        for index, (step, mm) in enumerate(zip(steps.tolist(), expected.tolist(), strict=True))
        if step > _GAP * mm
    )
    finest = min(mm for _, _, mm in runs) if runs else float(expected[0])
    if gaps:
        changes = f"; besides, {_changes(along, runs)}" if len(runs) > 1 else ""
        others = f"; the others are {finest:.3f} mm apart" if len(runs) <= 1 else ""
        return Spacing(along, finest, f"slices are missing {_name_gaps(along, labels, gaps)}"
                       f"{others}{changes}", gaps)  # fmt: skip
    step = float(along[-1] - along[0]) / (len(along) - 1)
    off = np.abs(along - along[0] - step * np.arange(len(along)))
    if off.max() <= max(_MOST_UNEVEN * step, min(rounding_mm, _MOST_ROUNDED * step)):
        return Spacing(along, step)
    worst = int(off.argmax())
    return Spacing(
        along,
        finest,
        _changes(along, runs)
        if len(runs) > 1
        else f"uneven spacing: slices are {steps.min():.3f} to {steps.max():.3f} mm apart; the "
        f"one at {along[worst]:.2f} mm ({labels[worst]}) is {off[worst]:.3f} mm off a regular grid",
    )


def _name_gaps(along: Vector, labels: Sequence[str], gaps: Sequence[tuple[int, int]]) -> str:
    """As `between 2.50 and 7.50 mm (1 missing) [b.dcm … c.dcm]`, and how many more."""
    places = [
        f"between {along[index]:.2f} and {along[index + 1]:.2f} mm ({missing} missing) "
        f"[{labels[index]} … {labels[index + 1]}]"
        for index, missing in gaps
    ]
    return named(places)


Run = tuple[int, int, float]


def _expected(steps: Vector) -> tuple[Vector, list[Run]]:
    """For each distance, what it should be; and the spacings that hold for a while.

    A run is (first distance, one behind the last, mm). A distance within a run is as it should
    be; any other should be as the finer of the runs beside it.
    """
    ends = np.flatnonzero(np.abs(np.diff(steps)) > _ALIKE * np.minimum(steps[1:], steps[:-1])) + 1
    bounds = [0, *ends.tolist(), len(steps)]
    runs = [
        (start, end, float(np.median(steps[start:end])))
        for start, end in pairwise(bounds)
        if end - start >= _A_RUN
    ]
    if not runs:
        usual = float(np.sort(steps)[(len(steps) - 1) // 2])
        return np.full(len(steps), usual), []
    starts, stops, spacings = (np.array(column) for column in zip(*runs, strict=True))
    index = np.arange(len(steps))
    left = np.searchsorted(starts, index, "right") - 1
    right = np.searchsorted(stops, index, "right")
    beside = spacings[left.clip(0)], spacings[right.clip(max=len(runs) - 1)]
    return np.where(left == right, steps, np.minimum(*beside)), _joined(runs)


def _joined(runs: list[Run]) -> list[Run]:
    """Runs of one spacing, with accidents between them, are one."""
    joined = [runs[0]]
    for start, end, mm in runs[1:]:
        first, _, before = joined[-1]
        if abs(mm - before) <= _ALIKE * min(mm, before):
            joined[-1] = (first, end, before)
        else:
            joined.append((start, end, mm))
    return joined


def _changes(along: Vector, runs: Sequence[Run]) -> str:
    parts = [
        f"{mm:.3f} mm from {along[start]:.2f} to {along[end]:.2f} mm" for start, end, mm in runs
    ]
    return f"the spacing changes: {named(parts, between=', then ')}"
