"""The gates of enhancement against peers."""

from __future__ import annotations

import importlib
from typing import Any

import pytest


def rows_with(**psnr: float) -> list[dict[str, Any]]:
    names = {"ours": "ours", "bm4d": "BM4D", "informed": "BM4D, true σ"}
    return [
        {"subject": subject, "modality": "MR", "case": "Rician 10 %", "seed": 0,
         "arm": names[arm], "psnr_foreground": value, "cpu_s_per_mvoxel": 1.0}
        for subject in ("one", "two") for arm, value in psnr.items()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("peers", "name", "lead"),
    [
        ({"bm4d": 30.0, "informed": 30.8}, "BM4D, true σ", 0.2),
        ({"bm4d": 30.6, "informed": 30.1}, "BM4D", 0.4),
        ({"bm4d": 30.5}, "BM4D", 0.5),
    ],
)
def test_the_gate_takes_the_better_bm4d(peers: dict[str, float], name: str, lead: float) -> None:
    gates = importlib.import_module("_enhancement_gates").gates(rows_with(ours=31.0, **peers))
    title = f"MR, Rician 10 %: ours above {name}, PSNR, dB"
    assert [g["value"] for g in gates if g["name"] == title] == [pytest.approx(lead)]
