"""The page of the distillation benchmark: gates, tables, curves, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import gate, gate_table, table
from _distillation_cases import CASES, Case
from _distillation_elsewhere import elsewhere_table

from MedEnhanceLib.report.drawing import INK, PAPER
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.spg import comparison_report
from MedEnhanceLib.spg.comparison import (
    ALL,
    ARMS,
    FULL,
    MATCHED_NETWORK,
    PRIOR,
    PUBLIC,
    RANDOM,
    SPG,
    STATISTICS,
    CompareConfig,
    Row,
)
from MedEnhanceLib.spg.comparison_arms import Material
from MedEnhanceLib.spg.comparison_report import LEAST_GAP_DB, Closure, closure, kept, mean_of
from MedEnhanceLib.spg.images import Floats
from MedEnhanceLib.spg.networks import UNSEEN

_OTHERS = (PUBLIC, PRIOR, STATISTICS, "dc-noise", "dc-real", "dm")
_WITHIN_DB, _CLOSED, _KEPT = 0.5, 0.5, 0.7
_CURVE_IN, _PICTURES, _PICTURE_IN, _DPI = (6.4, 4.2), 5, 1.7, 110


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


def page(found: Sequence[Found]) -> str:
    """The whole text."""
    entries = gates(found)
    missed = [entry["name"] for entry in entries if not entry["pass"]]
    parts = [
        "# What distilled images are worth",
        _words(found),
        "## Gates",
        gate_table(entries),
        "Missed, or not measured: " + ("; ".join(missed) + "." if missed else "none."),
        "![Quality against images given](distillation.png)",
        "![Distilled images beside the prior](distillation-images.jpg)",
        "Upper rows: the prior with the cohort's intensities. Lower rows: what the first patient's "
        "images became. They are training signal: shapes in them are no anatomy of anybody.",
    ]
    parts += [_case(one) for one in found]
    parts += ["## What is saved", _savings(found), "## The arms", _arms(), "## Limits", _limits()]
    return "\n\n".join(parts)


def _words(found: Sequence[Found]) -> str:
    first = found[0].config
    loop = first.distill.loop
    counts = "; ".join(
        f"{one.case}: {len(one.material.training)} patients to learn from, "
        f"{len(one.material.held_out)} held out, {len(one.rows)} of {one.planned} rows measured"
        for one in found
    )
    measured = {one.case for one in found}
    missing = ", ".join(str(case) for case in CASES if case not in measured)
    lengths = ", ".join(f"{one.case} {one.case.steps}" for one in found)
    return (
        "Small networks are trained on what each arm gives, and measured on patients who are held "
        f"out ({first.test_images} slices of each). {comparison_report.NOTE}\n\n"
        f"Every training of a case takes as many steps ({lengths}), of "
        f"{first.restorer.batch} patches of {first.restorer.patch}², mirrored and turned at "
        "random, with new damage for every patch, "
        f"Adam at {first.restorer.learning_rate:g} with a cosine. SPG, DC and DM take "
        f"{loop.outer * loop.inner} matches of {loop.batch} patches at the small budgets; SPG "
        f"{first.ordinary * loop.inner} for each patient at the ordinary one, where its images are "
        "made once and the seeds train anew. These are few steps, chosen for one core: trainings "
        f"of this length do not reach what longer ones would. Cases: {counts}."
        + (f" **Not measured: {missing}**; the same line goes on with it." if missing else "")
    )


def _case(one: Found) -> str:
    parts = [f"## {one.case}", table(*comparison_report.quality_table(one.rows))]
    parts.append(table(*comparison_report.closure_table(one.rows)))
    head, lines = comparison_report.network_table(one.rows)
    if lines:
        parts.append(table(head, lines))
    added = _over_statistics(one)
    if added:
        parts += [
            "What SPG adds to the statistics that it starts from, SRCNN, dB; ±: 95 % of means, "
            "over seeds and over held-out patients. At the ordinary budget SPG has ten images of "
            "each patient, statistics ten in all.",
            table(("budget", "seeds", "added", "± over seeds", "± over patients", "images"), added),
        ]
    if one.elsewhere:
        parts += [
            f"On volumes of other scanners, body parts and contrasts: the networks (SRCNN) of the "
            f"budget {one.ordinary}, mean ± standard deviation over seeds.",
            elsewhere_table(one.elsewhere),
        ]
    return "\n\n".join(parts)


def _over_statistics(one: Found) -> list[tuple[Any, ...]]:
    """A row for each budget at which both were measured by patient."""
    lines = []
    for budget in one.config.budgets:
        rows = {
            arm: {
                row["seed"]: row
                for row in [*one.rows, *one.more]
                if (row["arm"], row["budget"], row["network"])
                == (arm, budget.name, MATCHED_NETWORK)
                and "by_patient_db" in row
            }
            for arm in (SPG, STATISTICS)
        }
        seeds = sorted(set(rows[SPG]) & set(rows[STATISTICS]))
        if len(seeds) < 2:
            continue
        ours, theirs = (
            np.array([rows[arm][seed]["by_patient_db"] for seed in seeds])
            for arm in (SPG, STATISTICS)
        )
        more = ours - theirs  # [seeds, patients]
        images = [rows[arm][seeds[0]]["images"] for arm in (SPG, STATISTICS)]
        over = (_half_interval(more.mean(axis=1)), _half_interval(more.mean(axis=0)))
        lines.append(
            (
                budget.name,
                len(seeds),
                f"{more.mean():+.2f}",
                *(f"{each:.2f}" for each in over),
                "{} : {}".format(*images),
            )
        )
    return lines


def _half_interval(values: np.ndarray[Any, Any]) -> float:
    from scipy import stats

    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(stats.t.ppf(0.975, len(values) - 1) * error)


def _savings(found: Sequence[Found]) -> str:
    lines = []
    for one in found:
        rows = {
            (row["arm"], row["budget"]): row
            for row in one.rows
            if row["seed"] == 0 and row["network"] == MATCHED_NETWORK
        }
        full, ours = rows.get((FULL, ALL.name)), rows.get((SPG, one.ordinary))
        crop = rows.get((SPG, one.one_crop))
        if full and ours and crop:
            lines.append(
                (
                    one.case,
                    f"{full['images']} → {ours['images']} ({full['pixels'] / ours['pixels']:.1f}×)",
                    f"{full['pixels'] / crop['pixels']:.0f}×",
                    f"{full['trained_s'] / ours['trained_s']:.2f}×",
                    f"{ours['made_s']:.0f} s",
                )
            )
    head = (
        "case",
        "images, ordinary (pixels)",
        "pixels, 1 crop",
        "time of a training of SRCNN",
        "distilling, CPU",
    )
    return (
        f"{table(head, lines)}\nAt equal steps a training takes as long on distilled images as on "
        "all: what is saved is storage and reading. The distillation's own time comes on top."
    )


def _arms() -> str:
    return table(("arm", "what it gives"), ARMS.items())


def _limits() -> str:
    return (
        "- Two cohorts of soft-tissue sarcoma and one split of each: the spread over seeds is that "
        "of trainings and draws, not of other patients. At the ordinary budget all seeds learn "
        "from one distilled set.\n"
        "- The template is a T1 average of brains, the MR cohort T1 of limbs and trunk; the prior "
        "of CT is one CT of an abdomen that belongs to no patient of the cohort.\n"
        "- SPG's defaults were chosen on MR denoising with the same patients held out: its figures "
        "there flatter it a little.\n"
        "- No long training was measured, and of CT no other scanner: no other CT is open here but "
        "the prior.\n"
        "- Rows are kept from run to run, and those of this page were measured on processors of "
        "two kinds. The same seed gives other figures on another kind: mostly by hundredths of a "
        "dB, by up to 0.4 in trainings that were repeated.\n"
        f"- Gaps below {LEAST_GAP_DB} dB are not reported.\n"
        "- Research software, not a medical device; nothing here is a claim about patients."
    )


def draw(path: Path, found: Sequence[Found]) -> None:
    """A curve for each case."""
    require("matplotlib", purpose="Drawing")
    from matplotlib.figure import Figure

    columns = min(2, len(found))
    lines = -(-len(found) // columns)
    size = (_CURVE_IN[0] * columns, _CURVE_IN[1] * lines)
    figure = Figure(size, dpi=_DPI, facecolor=PAPER, layout="constrained")
    for place, one in enumerate(found):
        comparison_report.draw_on(
            figure.add_subplot(lines, columns, place + 1), one.rows, str(one.case)
        )
    figure.savefig(path)


def draw_images(path: Path, found: Sequence[Found]) -> None:
    """For each case the prior's images and what the first patient's became."""
    from matplotlib.figure import Figure

    shown = [one for one in found if "distilled" in one.images]
    size = (_PICTURE_IN * _PICTURES, max(1, 2 * len(shown)) * _PICTURE_IN)
    figure = Figure(size, dpi=_DPI, facecolor=PAPER, layout="constrained")
    for place, one in enumerate(shown):
        chosen = np.linspace(0, len(one.images["prior"]) - 1, _PICTURES).astype(int)
        for line, kind in enumerate(("prior", "distilled")):
            for column, number in enumerate(chosen):
                spot = (2 * place + line) * _PICTURES + column + 1
                axes = figure.add_subplot(2 * len(shown), _PICTURES, spot)
                axes.imshow(one.images[kind][number], cmap="gray", vmin=0, vmax=1)
                axes.axis("off")
                if column == 0:
                    axes.set_title(f"{one.case}: {kind}", color=INK, fontsize=8, loc="left")
    figure.savefig(path, pil_kwargs={"quality": 82})
