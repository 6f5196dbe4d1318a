"""Copy what the benchmarks measured into the cards of the shipped models.

python Testing/Benchmarks/record_in_cards.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
from _common import REPOSITORY
from _figure_origins import record
from _heads_data import STRUCTURES

from MedEnhanceLib.bundles.export import record_fields
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.gradprom.structures.model import ALL, open_structures
from MedEnhanceLib.training.gradprom.measuring import volume_intervals

MODELS = REPOSITORY / "Resources" / "models"
#: What the card of the brain's head states: rows of a table, and figures.
BRAIN = {
    "FreeSurfer": ("dice", "cortex", "white", "worst", "volume_error"),
    "manual": ("dice", "cortex", "white", "worst", "volume_error"),
    "sequences": ("dice", "cortex", "white", "worst"),
    "outside": ("outside", "missed"),
    "retest": ("difference", "largest"),
}
#: Shipped models of the codec, and the start of the names of the volumes in their cards.
SETTINGS_OF_CODEC = (("lossless", None), ("ratio", 32), ("ratio", 128), ("ratio", 512))
CODECS = {"codec-ct": "CT ", "codec-mr": "MR ", "codec-em": "EM "}
SLICES = {"mr-slices": "MR", "ct-slices": "CT"}


def main() -> None:
    rows = record("segmentation")["rows"]
    brain = read_bundle(MODELS / "brain")
    # Where nobody drew a structure, painted scans say nothing: sizes are those of labeled images.
    whole = {ALL: brain.metadata["volume_interval"][ALL]}
    intervals = brain_intervals(rows, [*open_structures(brain).anatomy.structures]) | whole
    record_fields(brain.folder, {"measured": brain_rows(rows), "volume_interval": intervals})
    for name, start in CODECS.items():
        record_fields(MODELS / name, {"measured": codec_rows(record("compression")["rows"], start)})
    for name, modality in SLICES.items():
        record_fields(MODELS / name, {"measured": slice_rows(record("slices")["rows"], modality)})


def brain_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means and ranges over subjects of what labels of heads were compared with."""
    table = []
    for name, figures in BRAIN.items():
        known = [row for row in rows if row["table"] == name and row["arm"] == "head"]
        for figure in figures if known else ():
            values = [row[figure] for row in known if figure in row]
            if not values:
                continue
            spread = f"{sum(values) / len(values):.3f} ({min(values):.3f} to {max(values):.3f})"
            table.append({"compared": name, "figure": figure, "mean (range)": spread,
                          "n": len(values)})  # fmt: skip
        drawn = [row for row in known if "volume_errors" in row]
        for structure in STRUCTURES if drawn else ():
            dice = [row["structures"][structure] for row in drawn]
            errors = [100 * row["volume_errors"][structure] for row in drawn]
            spread = f"{np.mean(dice):.3f}, {np.mean(errors):+.0f} % "
            spread += f"({min(errors):+.0f} to {max(errors):+.0f} %)"
            table.append({"compared": name, "figure": f"{structure}: Dice, volume error",
                          "mean (range)": spread, "n": len(drawn)})  # fmt: skip
    return table


def brain_intervals(rows: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Factors of the head's volumes between which those of readers are, by the head's names."""
    drawn = [
        row["volume_errors"]
        for row in rows
        if row["table"] == "manual" and row["arm"] == "head" and "volume_errors" in row
    ]
    ratios = np.array([[1 / (1 + row[name]) for name in STRUCTURES] for row in drawn])
    found = volume_intervals([*STRUCTURES], ratios) if drawn else {}
    by_name = {name: "ventricles" if "ventricle" in name else name.lower() for name in names}
    return {name: found[part] for name, part in by_name.items() if part in found}


def slice_rows(rows: list[dict[str, Any]], modality: str) -> list[dict[str, Any]]:
    """PSNR of the spline and of the restored slices, of each volume, thickness and noise."""
    table: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        if row.get("modality") == modality and row["arm"] in ("spline", "ours"):
            place = (row["reference"], row["thickness_mm"], row["noise"])
            head = dict(zip(("volume", "slices (mm)", "noise"), place, strict=True))
            line = table.setdefault(place, head | {"spline (dB)": 0.0, "restored (dB)": 0.0})
            line["restored (dB)" if row["arm"] == "ours" else "spline (dB)"] = row["psnr"]
    return list(table.values())


def codec_rows(rows: list[dict[str, Any]], start: str) -> list[dict[str, Any]]:
    """What the codec reaches on each volume whose name begins so."""
    return [
        {"held-out volume": row["volume"], "mode": _mode(row), "reached": _reached(row)}
        for row in rows
        if row["volume"].startswith(start)
        and row["codec"] == "ours"
        and (row["mode"], row["setting"]) in SETTINGS_OF_CODEC
    ]


def _mode(row: dict[str, Any]) -> str:
    return row["mode"] if row["setting"] is None else f"{row['mode']} {row['setting']:g}"


def _reached(row: dict[str, Any]) -> str:
    if row["psnr_db"] is None:
        return f"{row['ratio']:.2f} times smaller"
    return f"{row['psnr_db']:.2f} dB, {row['ratio']:.1f} times smaller"


if __name__ == "__main__":
    main()
