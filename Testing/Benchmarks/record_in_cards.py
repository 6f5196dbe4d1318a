"""Copy what the benchmarks measured into the cards of the shipped models.

    python Testing/Benchmarks/record_in_cards.py
    python Testing/Benchmarks/record_in_cards.py --codec FILE    the codec's, of compression.py

FILE: the JSON that compression.py wrote, whole or --quick.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _common import REPOSITORY, RESULTS

from MedEnhanceLib.bundles.export import record_measurements

MODELS = REPOSITORY / "Resources" / "models"
ENHANCERS = {"mr": "MR", "ct": "CT"}
ARMS = ("filter", "network")
HEADS = ("brain-tissue", "sts-tumour-ct")


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
    rows = json.loads((RESULTS / "denoising.json").read_text())["rows"]
    for name, modality in ENHANCERS.items():
        record_measurements(MODELS / name, enhancement_rows(rows, modality))
    rows = json.loads((RESULTS / "segmentation.json").read_text())["rows"]
    for name in HEADS:
        record_measurements(MODELS / name, head_rows(rows, name))


def head_rows(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Dice of each label in each subject, of the head that ships."""
    chosen = [row for row in rows if row["model"] == name and row["head"] == "learned alone"]
    return [
        {key: row[key] for key in ("subject", "case", "input")} | row["labels"] for row in chosen
    ]


def enhancement_rows(rows: list[dict[str, Any]], modality: str) -> list[dict[str, Any]]:
    """For each damage: PSNR and SSIM of filter and network, means over volumes and seeds.

    Only of volumes that nothing was trained on, with the noise as it was measured.
    """
    chosen = [
        row
        for row in rows
        if row["part"] == modality
        and row["in_card"] != "volume"
        and row["arm"] in ARMS
        and "true σ" not in row["case"]
    ]
    table = []
    for case in dict.fromkeys(row["case"] for row in chosen):
        of_case = [row for row in chosen if row["case"] == case]
        line = {"volumes not trained on, PSNR dB / SSIM": case}
        for arm in ARMS:
            found = [row for row in of_case if row["arm"] == arm]
            psnr, ssim = (
                sum(row[figure] for row in found) / len(found) for figure in ("psnr", "ssim")
            )
            line[arm] = f"{psnr:.2f} / {ssim:.3f}"
        table.append(line)
    return table


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
