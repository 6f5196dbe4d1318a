"""What compression does to the work that follows, as tables, curves and a recommendation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from _common import table
from _downstream_rows import ERROR, ORIGINAL, RATIO, Row, Setting
from _downstream_scans import HEAD_SLICES, THIN_SLICES, UNSEEN
from _downstream_statistics import (
    LEAST_WITHIN,
    MOST_DICE_CHANGE,
    Outcome,
    concordance,
    share_within,
    strongest,
)

_INTRODUCTION = """# What compression does to the work that follows

{what} compressed with each setting, read back, and given to what a user would do next: radiomic
features in tumours that readers outlined, the heads and the enhancers that ship. Errors
are in stored units (HU in CT, gray levels in MR, whose scans here reach from 200 to 1500 of them).
So few scans show what happened to them, not what will happen to a patient; nothing here is a claim
about diagnosis. Scans: {scans}."""
_WHOLE = "Each scan was"
_THIN = f"""Of each scan {THIN_SLICES} slices around the middle of the tumour (where there is none:
of the volume) were"""
_RECOMMENDED = f"""The strongest setting at which, with all weaker ones, no Dice with a reference
changed by {MOST_DICE_CHANGE:g} or more, and {100 * LEAST_WITHIN:.0f} % of the features stayed
within 5 % (mean over patients)."""
_HEADS = """Dice of the labels found after compression. *Agreement*: with the labels found before.
*Reference*: with the outlines of readers (tumours), or labels propagated from a template (tissue:
agreement with a method, not with a reader). The tissue head sees {slab} central slices. The tumour
head is a weak one: where it finds little, small changes flip much."""
_FEATURES = """{count} features after the definitions of IBSI: intensities, their histogram (CT:
levels of 25 HU, MR: 32 levels), co-occurrence, run lengths and zones, in 3D over all directions.
*Within 5 %*: share of the features that changed by at most 5 % of what they were, mean over
patients and the worst patient. *Concordance*: Lin's, of each feature over the patients; the median
feature, and the share of features above 0.95. {unseen}"""
_UNSEEN = """Models of the codec learned from other slices of most of these patients; *unseen* is
the one that none learned from."""
_SHARES = """A largest error, divided by the noise that each scan itself has where it is quietest,
as `--keep-noise-level` measures it. *Agreement*: the least Dice of any structure with the labels
found before; *within 5 %*: share of the features of the tumor."""
_ENHANCED = """A slab of 12 slices with simulated noise (seed 0), compressed, then enhanced. PSNR in
dB inside the body: of the input and of the result against the clean slab, and of the result against
the result without compression. *Noise*: what an estimator finds in the compressed input (gray
levels; HU in CT). Where the result loses less than the input gained or lost, the codec took away
what the enhancer would have taken away."""

_FEWEST_PATIENTS = 3


def page(rows: list[Row], enhanced: list[Row], *, thin: bool = False) -> str:
    """The whole page in Markdown; thin: whether few slices of each scan were compressed."""
    scans = [row for row in rows if "features" in row]
    count = len(scans[0]["features"]) if scans else 0
    slab = THIN_SLICES if thin else HEAD_SLICES
    parts = [
        _INTRODUCTION.format(what=_THIN if thin else _WHOLE, scans=", ".join(_names(rows, "scan"))),
        f"## Recommendation\n\n{_RECOMMENDED}\n\n" + recommendation_table(rows),
        "![Dice and features over settings](downstream.png)",
        f"## Segmentation\n\n{_HEADS.format(slab=slab)}\n\n" + _heads_table(rows),
        f"## Radiomics\n\n{_FEATURES.format(count=count, unseen=_UNSEEN)}\n\n"
        + _features_table(rows),
        "### The features that change first\n\nThose with the lowest concordance at the weakest "
        "setting that failed.\n\n" + _fragile_table(rows),
        f"## Errors as shares of the noise\n\n{_SHARES}\n\n" + _shares_table(rows),
        f"## Enhancement\n\n{_ENHANCED}\n\n" + _enhanced_table(enhanced) if enhanced else "",
    ]
    return "\n\n".join(part.rstrip() for part in parts)


def outcomes(rows: list[Row], modality: str, mode: str) -> list[Outcome]:
    """One for each strength of a mode that every scan of the modality was given."""
    mine = [row for row in rows if row["modality"] == modality]
    originals = {row["scan"]: row for row in mine if not row["mode"]}
    found = []
    for value in sorted({row["value"] for row in mine if row["mode"] == mode}):
        chosen = [row for row in mine if (row["mode"], row["value"]) == (mode, value)]
        changes = [
            abs(dice - originals[row["scan"]]["dice_reference"][name])
            for row in chosen
            for name, dice in row.get("dice_reference", {}).items()
        ]
        kept = _kept(chosen, originals)
        found.append(
            Outcome(value, max(changes, default=None), float(np.mean(kept)) if kept else None)
        )
    return found


def recommendation_table(rows: list[Row]) -> str:
    lines = []
    for modality in _names(rows, "modality"):
        for mode, what in ((ERROR, "largest error"), (RATIO, "ratio")):
            every = outcomes(rows, modality, mode)
            best = strongest(every)
            beyond = next((o for o in every if best is None or o.strength > best.strength), None)
            stated = _stated(best) + _alone(every)
            lines.append((modality, what, stated, _reason(best), _stated(beyond), _reason(beyond)))
    columns = ("strongest that passes", "Dice change, features", "the next", "why not")
    return table(("modality", "mode", *columns), lines)


def _stated(outcome: Outcome | None) -> str:
    return "none" if outcome is None else f"**{outcome.strength:g}**"


def _alone(every: list[Outcome]) -> str:
    """What a recommendation rests on, where one of the two was not measured."""
    if all(outcome.dice_change is None for outcome in every):
        return ", by features alone"
    return ", by Dice alone" if all(outcome.within is None for outcome in every) else ""


def _reason(outcome: Outcome | None) -> str:
    if outcome is None:
        return "–"
    missing = "not measured"
    dice = missing if outcome.dice_change is None else f"{outcome.dice_change:.4f}"
    within = missing if outcome.within is None else f"{100 * outcome.within:.1f} %"
    return f"{dice}, {within}"


def _kept(chosen: Iterable[Row], originals: dict[str, Row]) -> list[float]:
    return [
        share_within(originals[row["scan"]]["features"], row["features"])
        for row in chosen
        if "features" in row
    ]


def _shares_table(rows: list[Row]) -> str:
    originals = {row["scan"]: row for row in rows if not row["mode"]}
    lines = []
    for row in rows:
        if row["mode"] != ERROR or not row["noise"]:
            continue
        kept = _kept([row], originals)
        agreement = row.get("dice_original")
        lines.append(
            (
                row["scan"],
                f"{row['noise']:.3g}",
                f"{row['value']:g}",
                f"{row['value'] / row['noise']:.2f}",
                f"{row['ratio']:.1f}",
                f"{min(agreement.values()):.4f}" if agreement else "–",
                f"{100 * kept[0]:.1f} %" if kept else "–",
            )
        )
    columns = ("noise", "largest error", "share", "ratio", "agreement", "within 5 %")
    return table(("scan", *columns), lines)


def _heads_table(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        for name, dice in row.get("dice_reference", {}).items():
            before = _original(rows, row)["dice_reference"][name]
            change = f"{dice - before:+.4f}" if row["mode"] else ""
            lines.append(
                (
                    row["scan"],
                    row["setting"],
                    f"{row['ratio']:.1f}",
                    _number(row["psnr_db"], 1),
                    name,
                    f"{row['dice_original'][name]:.4f}",
                    f"{dice:.4f}",
                    change,
                )
            )
    columns = ("setting", "ratio", "PSNR", "structure", "agreement", "reference", "change")
    return table(("scan", *columns), lines)


def _features_table(rows: list[Row]) -> str:
    lines = []
    for modality in _names(rows, "modality"):
        mine = [row for row in rows if row["modality"] == modality and "features" in row]
        originals = {row["scan"]: row for row in mine if not row["mode"]}
        for setting in _names(mine, "setting"):
            chosen = [row for row in mine if row["setting"] == setting and row["mode"]]
            if not chosen:
                continue
            kept = _kept(chosen, originals)
            unseen = _kept([row for row in chosen if row["scan"] in UNSEEN], originals)
            agree = list(concordances(chosen, originals).values())
            lines.append(
                (
                    modality,
                    setting,
                    f"{np.mean([row['ratio'] for row in chosen]):.1f}",
                    str(len(chosen)),
                    f"{100 * np.mean(kept):.1f} %",
                    f"{100 * min(kept):.1f} %",
                    f"{100 * unseen[0]:.1f} %" if unseen else "–",
                    *_agreement(agree, len(chosen)),
                )
            )
    columns = ("ratio, mean", "patients", "within 5 %", "worst patient", "unseen")
    agreement = ("concordance, median", "above 0.95")
    return table(("modality", "setting", *columns, *agreement), lines)


def _agreement(agree: list[float], patients: int) -> tuple[str, str]:
    """Nothing can be said of an agreement over two patients."""
    if patients < _FEWEST_PATIENTS:
        return "–", "–"
    return f"{np.median(agree):.4f}", f"{100 * np.mean(np.array(agree) > 0.95):.0f} %"


def concordances(chosen: list[Row], originals: dict[str, Row]) -> dict[str, float]:
    """Of each feature over the patients of one setting."""
    before: dict[str, list[float]] = defaultdict(list)
    after: dict[str, list[float]] = defaultdict(list)
    for row in chosen:
        for name, value in row["features"].items():
            before[name].append(originals[row["scan"]]["features"][name])
            after[name].append(value)
    return {name: concordance(before[name], after[name]) for name in before}


def _fragile_table(rows: list[Row]) -> str:
    lines = []
    for modality in _names(rows, "modality"):
        mine = [row for row in rows if row["modality"] == modality and "features" in row]
        originals = {row["scan"]: row for row in mine if not row["mode"]}
        for mode in (ERROR, RATIO):
            failed = [o for o in outcomes(mine, modality, mode) if not o.passes]
            if not failed:
                continue
            value = failed[0].strength
            chosen = [row for row in mine if (row["mode"], row["value"]) == (mode, value)]
            worst = sorted(concordances(chosen, originals).items(), key=lambda item: item[1])[:5]
            stated = ", ".join(f"{name} ({agree:.2f})" for name, agree in worst)
            lines.append((modality, str(Setting(mode, value)), stated))
    return table(("modality", "setting", "features (concordance)"), lines)


def _enhanced_table(enhanced: list[Row]) -> str:
    keys = ("noise", "input_to_clean_db", "enhanced_to_clean_db", "enhanced_to_enhanced_db")
    return table(
        (
            "scan",
            "setting",
            "ratio",
            "noise",
            "input",
            "enhanced",
            "enhanced, against uncompressed",
        ),
        (
            (
                row["scan"],
                row["setting"],
                f"{row['ratio']:.1f}",
                *(_number(row[key], 2) for key in keys),
            )
            for row in enhanced
        ),
    )


def public(rows: list[Row]) -> list[Row]:
    """Rows for the record: features as the share that stayed, instead of hundreds of values."""
    stated = []
    for row in rows:
        slim = {key: value for key, value in row.items() if key != "features"}
        if "features" in row:
            slim["within"] = share_within(_original(rows, row)["features"], row["features"])
        stated.append(slim)
    return stated


def draw(path: Path, rows: list[Row]) -> None:
    """Change of Dice and share of features over ratios and over errors."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    for column, (mode, label) in enumerate(((RATIO, "ratio"), (ERROR, "largest error")), 1):
        upper, lower = (figure.add_subplot(2, 2, column + line) for line in (0, 2))
        for modality in _names(rows, "modality"):
            found = outcomes(rows, modality, mode)
            dice = [(o.strength, o.dice_change) for o in found if o.dice_change is not None]
            kept = [(o.strength, o.within) for o in found if o.within is not None]
            upper.plot(*np.array(dice).reshape(-1, 2).T, marker="o", label=modality)
            lower.plot(*np.array(kept).reshape(-1, 2).T, marker="o", label=modality)
        upper.axhline(MOST_DICE_CHANGE, color="gray", linestyle=":")
        lower.axhline(LEAST_WITHIN, color="gray", linestyle=":")
        upper.set(ylabel="largest change of Dice", yscale="symlog")
        upper.set_yscale("symlog", linthresh=1e-3)
        lower.set(ylabel="features within 5 %", xlabel=label, ylim=(0, 1.02))
        for axes in (upper, lower):
            axes.set_xscale("log", base=2)
            values = sorted({row["value"] for row in rows if row["mode"] == mode})
            axes.set_xticks(values, [f"{value:g}" for value in values])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        upper.legend()
    figure.savefig(path, dpi=90)


def _original(rows: list[Row], row: Row) -> Row:
    name = str(ORIGINAL)
    return next(r for r in rows if r["scan"] == row["scan"] and r["setting"] == name)


def _names(rows: Iterable[Row], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
