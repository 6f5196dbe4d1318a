"""A model that inverts a scanner which changes nothing, without a network: quick to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from MedEnhanceLib.bundles.export import export_bundle
from MedEnhanceLib.scanner.scanner import Curve, Measured, Scanner, VolumePool


def scanner(modality: str) -> Scanner:
    """A scanner that is as sharp as the pool that it is compared with, and has its contrast."""
    figure, places = Measured(value=0.01, low=0.0, high=0.02), (0.0, 0.5)
    pool = VolumePool(files=("1", "2", "3"), spacing_mm=(1, 1, 1), noise=figure, field=figure)
    sharp = Curve(places=places, values=(1.0, 1.0), low=(1.0, 1.0), high=(1.0, 1.0))
    return Scanner(
        modality=modality, low_quality=pool, high_quality=pool, rician_share=0.0,
        spectrum=(1.0,) * 64, slices=sharp, rows=sharp, columns=sharp,
    )  # fmt: skip


def write_scanner_model(folder: Path, modality: str, **more: Any) -> str:
    """Write its bundle and return the folder; more: fields of its card."""
    metadata: dict[str, Any] = {
        "name": folder.name,
        "kind": "enhancer",
        "modality": modality,
        "description": "It inverts nothing.",
        "license": "CC0-1.0",
        "limits": ["Of nothing."],
        "scanner": scanner(modality).to_json(),
    }
    return str(export_bundle(folder, {"w": torch.zeros(1)}, metadata | more).folder)
