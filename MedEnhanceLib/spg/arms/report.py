"""A comparison for people: the tables in Markdown, and the curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.report.style import INK, MUTED, PAPER
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.spg.arms.closures import (
    LEAST_GAP_DB,
    REFERENCES,
    closure,
    floor_of,
    kept,
    mean_of,
)
from MedEnhanceLib.spg.arms.comparison import ALL, ARMS, FULL, MATCHED_NETWORK, SPG
from MedEnhanceLib.spg.arms.rows import Row

_SIZE_IN, _DPI = (7.6, 4.6), 120
_COLOURS = {
    "random": "#9aa4b2",
    "k-centre": "#c8a2ff",
    "public": "#e8762c",
    "prior": "#ffd58a",
    "dc-noise": "#7a5c3a",
    "dc-real": "#d95f8a",
    "dm": "#58c28a",
    SPG: "#6cb6ff",
}
#: In words that a reader of the table needs.
NOTE = (
    "PSNR in dB on patients who are held out, over the pixels that show something, mean ± standard "
    "deviation over seeds (of the random coreset: over draws), whose number is in brackets. "
    "G_R = (SPG − random) / (full − random), G_P = (SPG − public prior) / (full − public prior); "
    f"where the lower part is below {LEAST_GAP_DB} dB the cell cannot tell. On some single pieces "
    "a training fails, which weighs in a mean: so closures from the median of seeds or draws stand "
    "besides. The random coreset and k-centre are raw images of patients: they cannot be shared "
    "where raw images cannot."
)


def budgets_of(rows: Sequence[Row]) -> list[str]:
    """The names of the budgets, from the fewest pixels to the most."""
    pixels: dict[str, int] = {}
    for row in rows:
        if row["budget"] != ALL.name:
            pixels[row["budget"]] = max(pixels.get(row["budget"], 0), row["pixels"])
    return sorted(pixels, key=lambda name: pixels[name])


def quality_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: arms by budgets, for the matched network."""
    budgets = budgets_of(rows)
    lines = [["damaged images", *[f"{floor_of(rows):.2f}"] * len(budgets)]]
    full = mean_of(rows, FULL, ALL.name)
    for arm, words in ARMS.items():
        found = [mean_of(rows, arm, budget) for budget in budgets]
        if arm == FULL and full is not None:
            lines.append([words, *[str(full)] * len(budgets)])
        elif any(found):
            lines.append([words, *("–" if one is None else str(one) for one in found)])
    return ["arm", *budgets], lines


def closure_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: G_R and G_P by budgets."""
    budgets = budgets_of(rows)
    lines = []
    for name, reference in REFERENCES.items():
        for is_median in (False, True):
            found = [closure(rows, budget, reference, from_median=is_median) for budget in budgets]
            told = f"{name}, from the median" if is_median else name
            lines.append([told, *("–" if one is None else str(one) for one in found)])
            gaps = ("–" if one is None else f"{one.gap_db:.2f}" for one in found)
            lines.append(["its gap, dB", *gaps])
    return ["closure", *budgets], lines


def network_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Head and lines: other networks than the matched one, full data against SPG."""
    names = list(dict.fromkeys(row["network"] for row in rows))
    lines = []
    for name in names:
        full = mean_of(rows, FULL, ALL.name, name)
        for budget in budgets_of(rows):
            value, share = mean_of(rows, SPG, budget, name), kept(rows, budget, name)
            if value is not None and full is not None:
                seen = "matched" if name == MATCHED_NETWORK else "not seen"
                lines.append([f"{name} ({seen})", budget, str(full), str(value), str(share)])
    return ["network", "budget", "full data", "SPG", "share of the gain kept"], lines


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """As Markdown has tables."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def words(rows: Sequence[Row]) -> list[str]:
    """What the comparison says in sentences, the most important one first."""
    budgets = budgets_of(rows)
    if not budgets:
        return ["Full data alone were measured."]
    last = budgets[-1]
    found = []
    full, ours = mean_of(rows, FULL, ALL.name), mean_of(rows, SPG, last)
    best, prior = mean_of(rows, "random", last), mean_of(rows, "prior", last)
    if full and full.mean <= floor_of(rows):
        return [
            f"Nothing can be told: networks that learned from all images reach {full.mean:.2f} dB, "
            f"no more than the damaged images ({floor_of(rows):.2f} dB). Train longer (--steps)."
        ]
    if full and ours:
        found.append(
            f"With {last}, distilled images reach {ours.mean:.2f} dB; all images reach "
            f"{full.mean:.2f} dB, and the damaged images are at {floor_of(rows):.2f} dB."
        )
    for name, reference in REFERENCES.items():
        share = closure(rows, last, reference)
        if share is not None:
            against = "raw images by lot" if reference == "random" else "the public prior alone"
            closed = (
                f"cannot be told: the gap is {share.gap_db:.2f} dB"
                if share.share is None
                else f"is {share.share:.2f} of {share.gap_db:.2f} dB"
            )
            found.append(
                f"What they close of the gap from {against} to all images {closed} ({name})."
            )
    if prior and ours:
        found.append(
            f"The prior with the cohort's intensities alone reaches {prior.mean:.2f} dB: "
            f"matching adds {ours.mean - prior.mean:+.2f} dB to it."
        )
    if best and ours and best.mean >= ours.mean:
        found.append("As many raw images by lot do as well or better: share those where you may.")
    return found


def draw_curve(path: Path, rows: Sequence[Row], title: str, *, overwrite: bool = True) -> None:
    """PSNR against pixels given, with the damaged images and full data as lines, as a PNG."""
    require("matplotlib", purpose="Drawing the comparison")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_IN, dpi=_DPI, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw_on(axes, rows, title)
    with atomic_write(path, overwrite=overwrite) as temporary:
        figure.savefig(temporary, format="png")


def draw_on(axes: Any, rows: Sequence[Row], title: str) -> None:
    """The same on axes of matplotlib."""
    axes.set_facecolor(PAPER)
    budgets = budgets_of(rows)
    floor, full = floor_of(rows), mean_of(rows, FULL, ALL.name)
    axes.axhline(floor, color=MUTED, linestyle=":", linewidth=1)
    axes.text(0, floor, " damaged", color=MUTED, fontsize=8, va="bottom")
    if full is not None:
        axes.axhline(full.mean, color=INK, linestyle="--", linewidth=1)
        axes.text(0, full.mean, " all images", color=INK, fontsize=8, va="bottom")
    for arm, colour in _COLOURS.items():
        found = [(x, mean_of(rows, arm, budget)) for x, budget in enumerate(budgets)]
        points = [(x, one) for x, one in found if one is not None]
        if points:
            axes.errorbar(
                [x for x, _ in points],
                [one.mean for _, one in points],
                [one.spread for _, one in points],
                color=colour,
                marker="o",
                markersize=4,
                linewidth=2.4 if arm == SPG else 1.2,
                elinewidth=0.8,
                capsize=2,
                label=arm,
            )
    axes.set_xticks(range(len(budgets)), budgets)
    axes.set_ylabel("PSNR on held-out patients, dB", color=INK)
    axes.set_title(title, color=INK, fontsize=10)
    axes.tick_params(colors=MUTED, labelsize=8)
    for side in axes.spines.values():
        side.set_color(MUTED)
    if budgets:
        axes.legend(fontsize=7, labelcolor=INK, facecolor=PAPER, edgecolor=MUTED, ncol=2)
