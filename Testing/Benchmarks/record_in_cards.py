"""Copy what the benchmarks measured into the cards of the shipped models.

    python Testing/Benchmarks/record_in_cards.py
    python Testing/Benchmarks/record_in_cards.py --codec FILE    the codec's, of compression.py

FILE: the JSON that compression.py wrote, whole or --quick.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _common import REPOSITORY, RESULTS

from MedEnhanceLib.bundles.export import record_measurements

MODELS = REPOSITORY / "Resources" / "models"
ENHANCERS = {"mr": "MR", "ct": "CT"}
#: Measured on all seeds, and on the first alone.
ARMS = ("input", "NLM", "ours")
SLOW_ARMS = ("BM4D", "ours")


#: Shipped models of the codec, and the start of the names of the volumes in their cards.
ARMS_OF_CODEC = {"all": "with its models", "no models": "without models"}
SETTINGS_OF_CODEC = (("lossless", None), ("ratio", 32), ("ratio", 128), ("ratio", 512))
CODECS = {"codec-ct": "CT ", "codec-mr": "MR ", "codec-em": "EM "}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", type=Path)
    options = parser.parse_args()
    if options.codec:
        rows = json.loads(options.codec.read_text())["rows"]
        for name, start in CODECS.items():
            record_measurements(MODELS / name, codec_rows(rows, start))
        return
    rows = json.loads((RESULTS / "enhancement.json").read_text())["rows"]
    for name, modality in ENHANCERS.items():
        chosen = [row for row in rows if row["modality"] == modality and "psnr_image" in row]
        record_measurements(MODELS / name, enhancement_rows(chosen))
    segmentation = json.loads((RESULTS / "segmentation.json").read_text())["rows"]
    segmentation = [row for row in segmentation if row["head"] == "with the enhancer"]
    segmentation = [{k: v for k, v in row.items() if k != "head"} for row in segmentation]
    record_measurements(MODELS / "brain-tissue", segmentation)


def enhancement_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per degradation: whole-image PSNR / SSIM of each arm, means over subjects and seeds.

    BM4D has run on the first seed alone; ours on that seed stands beside it.
    """
    table = []
    first = [row for row in rows if row["seed"] == 0]
    for case in dict.fromkeys(row["case"] for row in rows):
        shaded = any(row["arm"] == "NLM + N4" for row in rows if row["case"] == case)
        name = f"{case}, NLM and BM4D followed by N4" if shaded else case
        line: dict[str, Any] = {"volumes not trained on, PSNR dB / SSIM": name}
        line |= _means(rows, case, ARMS)
        if any(row["arm"] == "BM4D" for row in first if row["case"] == case):
            means = _means(first, case, SLOW_ARMS)
            line |= {f"{arm}, one seed": value for arm, value in means.items()}
        table.append(line)
    return table


def _means(rows: list[dict[str, Any]], case: str, arms: Sequence[str]) -> dict[str, str]:
    means = {}
    for arm in arms:
        of_case = [row for row in rows if row["case"] == case]
        found = [row for row in of_case if row["arm"] == f"{arm} + N4" and arm in ("NLM", "BM4D")]
        found = found or [row for row in of_case if row["arm"] == arm]
        if found:
            psnr, ssim = (
                sum(row[figure] for row in found) / len(found)
                for figure in ("psnr_image", "ssim_image")
            )
            means[arm] = f"{psnr:.2f} / {ssim:.3f}"
    return means


def codec_rows(rows: list[dict[str, Any]], start: str) -> list[dict[str, Any]]:
    """What the codec reaches on each volume with its models, and what without any.

    Where it was not measured without them, what it reaches alone.
    """
    of_kind = [row for row in rows if row["volume"].startswith(start)]
    chosen = [row for row in of_kind if row["mode"] == "ablation"] or [
        row | {"codec": "all"}
        for row in of_kind
        if row["codec"] == "ours" and (row["mode"], row["setting"]) in SETTINGS_OF_CODEC
    ]
    table = []
    for volume, setting in dict.fromkeys((row["volume"], row["setting"]) for row in chosen):
        found = {r["codec"]: r for r in chosen if (r["volume"], r["setting"]) == (volume, setting)}
        mode = "lossless" if setting is None else f"ratio {setting:g}"
        line: dict[str, Any] = {"held-out volume": f"{volume}, {mode}"}
        line |= {
            title: _reached(found[arm]) if arm in found else "not measured"
            for arm, title in ARMS_OF_CODEC.items()
        }
        table.append(line)
    return table


def _reached(row: dict[str, Any]) -> str:
    if row.get("psnr_db") is None:
        return f"{row['bits_per_voxel']:.3f} bits per voxel"
    return f"{row['psnr_db']:.2f} dB at {row['ratio']:.1f}"


if __name__ == "__main__":
    main()
