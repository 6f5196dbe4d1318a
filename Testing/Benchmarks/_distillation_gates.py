"""What the distillation benchmark measured of a case, and the goals of the method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from _common import gate
from _distillation_cases import Case

from MedEnhanceLib.spg.comparison import (
    ALL,
    FULL,
    PRIOR,
    PUBLIC,
    RANDOM,
    SPG,
    STATISTICS,
    CompareConfig,
    Row,
)
from MedEnhanceLib.spg.comparison_arms import Material
from MedEnhanceLib.spg.comparison_report import Closure, closure, kept, mean_of
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.networks import UNSEEN

_OTHERS = (PUBLIC, PRIOR, STATISTICS, "dc-noise", "dc-real", "dm")
_WITHIN_DB, _CLOSED, _KEPT = 0.5, 0.5, 0.7


@dataclass(frozen=True)
class Found:
    """What was measured of a case; images: `distilled` and `prior` where they were kept.

    planned: rows that a whole run has. elsewhere: rows of other scanners and contrasts. more: rows
    of matching and statistics at the last budget, of more seeds than the others have.
    """

    case: Case
    config: CompareConfig
    material: Material
    rows: list[Row]
    images: dict[str, Floats]
    planned: int
    elsewhere: list[Row]
    more: list[Row]

    @property
    def one_crop(self) -> str:
        return self.config.budgets[0].name

    @property
    def ordinary(self) -> str:
        return self.config.budgets[-1].name


def gates(found: Sequence[Found]) -> list[dict[str, Any]]:
    """The goals of the method's page; what was not measured is not passed."""
    entries = []
    for one in found:
        rows, name = one.rows, str(one.case)
        entries.append(
            _closed(f"{name}: G_R at 1 crop", closure(rows, one.one_crop, RANDOM), _CLOSED)
        )
        if one.case.modality == "MR":
            share = closure(rows, one.ordinary, PUBLIC)
            entries.append(_closed(f"{name}: G_P at {one.ordinary}", share, _CLOSED))
            entries.append(_behind_full(one))
        entries += [_above_others(one, one.one_crop), _above_others(one, one.ordinary)]
        for budget in (one.one_crop, one.ordinary):
            share = kept(rows, budget, UNSEEN)
            entries.append(_closed(f"{name}: gain kept on the U-Net, {budget}", share, _KEPT))
    return entries


def _closed(name: str, share: Closure | None, bound: float) -> dict[str, Any]:
    if share is not None and share.share is None:
        name += f" (inconclusive: the gap is {share.gap_db:.2f} dB)"
    value = None if share is None else share.share
    return gate(name, value, f"≥ {bound:g}", value is not None and value >= bound)


def _behind_full(one: Found) -> dict[str, Any]:
    full = mean_of(one.rows, FULL, ALL.name)
    ours = mean_of(one.rows, SPG, one.ordinary)
    behind = full.mean - ours.mean if full and ours else None
    name = f"{one.case}: dB behind full data, {one.ordinary}"
    return gate(name, behind, f"≤ {_WITHIN_DB:g}", behind is not None and behind <= _WITHIN_DB)


def _above_others(one: Found, budget: str) -> dict[str, Any]:
    """SPG against the best of the priors, DC and DM that were measured at this budget."""
    ours = mean_of(one.rows, SPG, budget)
    others = {arm: mean_of(one.rows, arm, budget) for arm in _OTHERS}
    known = {arm: mean for arm, mean in others.items() if mean is not None}
    if ours is None or not known:
        return gate(f"{one.case}: above priors, DC and DM, {budget}", None, "> 0", False)
    best = max(known, key=lambda arm: known[arm].mean)
    above = ours.mean - known[best].mean
    name = f"{one.case}: dB above the best of priors, DC and DM ({best}), {budget}"
    return gate(name, above, "> 0", above > 0)
