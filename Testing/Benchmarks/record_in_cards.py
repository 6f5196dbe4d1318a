"""Copy what enhancement.py and segmentation.py measured into the cards of the shipped models.

python Testing/Benchmarks/record_in_cards.py
"""

from __future__ import annotations

import json
from typing import Any

from _common import DOCS, REPOSITORY

from MedEnhanceLib.bundles.export import record_measurements

MODELS = REPOSITORY / "Resources" / "models"
ENHANCERS = {"mr-brain": "MR", "ct-lowdose": "CT"}
ARMS = (
    "input",
    "NLM",
    "BM4D",
    "NLM + N4",
    "BM4D + N4",
    "ours",
    "ours + N4",
    "ours, deblur",
    "ours, deblur + N4",
)


def main() -> None:
    rows = json.loads((DOCS / "enhancement.json").read_text())["rows"]
    for name, modality in ENHANCERS.items():
        chosen = [row for row in rows if row["modality"] == modality and "psnr_image" in row]
        record_measurements(MODELS / name, enhancement_rows(chosen))
    segmentation = json.loads((DOCS / "segmentation.json").read_text())["rows"]
    record_measurements(MODELS / "brain-tissue", segmentation)


def enhancement_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per degradation: whole-image PSNR / SSIM of each arm, means over subjects.

    On the first seed's noise alone: slow arms were measured on no other.
    """
    table = []
    rows = [row for row in rows if row["seed"] == 0]
    for case in dict.fromkeys(row["case"] for row in rows):
        line: dict[str, Any] = {"held-out subjects, PSNR dB / SSIM": case}
        for arm in ARMS:
            found = [row for row in rows if row["case"] == case and row["arm"] == arm]
            if found:
                psnr, ssim = (
                    sum(row[figure] for row in found) / len(found)
                    for figure in ("psnr_image", "ssim_image")
                )
                line[arm] = f"{psnr:.2f} / {ssim:.3f}"
        table.append(line)
    return table


if __name__ == "__main__":
    main()
