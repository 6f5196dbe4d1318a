"""Pictures of the uncertainty: reliability curves, and maps beside the errors that they tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt


def draw_reliability(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Actual against nominal coverage, a line for each subject and damage."""
    modalities = list(dict.fromkeys(row["modality"] for row in rows))
    figure, axes = plt.subplots(1, len(modalities), figsize=(5 * len(modalities), 4.6))
    for axis, modality in zip(axes if len(modalities) > 1 else [axes], modalities, strict=True):
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        axis.fill_between([0.875, 0.925], 0.85, 0.95, color="0.9")
        for row in rows:
            if row["modality"] == modality:
                levels = [float(level) for level in row["coverage"]]
                style = ":" if row["case"] == "undamaged" else "-"
                name = f"{Path(row['subject']).parent.name or row['subject']} · {row['case']}"
                axis.plot(levels, list(row["coverage"].values()), style, label=name, linewidth=1)
        axis.set(title=modality, xlabel="nominal", ylabel="share of errors inside", aspect="equal")
        axis.legend(fontsize=5.5)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_maps(folder: Path, measured: Sequence[Any]) -> list[str]:
    """Image, absolute error and raw σ of one slice, the last two on one scale; names of files."""
    names = []
    for one in measured:
        name = f"uncertainty-{one.modality.lower()}"
        if name in names:
            continue
        image, miss, deviation = one.pictures
        figure, axes = plt.subplots(1, 3, figsize=(10, 3.9))
        low, high = (0, 1.1) if one.modality == "MR" else (-0.2, 0.25)
        top = float(deviation.max()) if deviation.max() > 0 else 1.0
        axes[0].imshow(image, cmap="gray", vmin=low, vmax=high)
        axes[1].imshow(miss, cmap="inferno", vmin=0, vmax=top)
        axes[2].imshow(deviation, cmap="inferno", vmin=0, vmax=top)
        for axis, title in zip(axes, (f"enhanced ({one.case})", "|error|", "σ"), strict=True):
            axis.set_title(title)
            axis.axis("off")
        figure.tight_layout()
        figure.savefig(folder / f"{name}.png", dpi=90)
        plt.close(figure)
        names.append(name)
    return names
