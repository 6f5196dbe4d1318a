"""Label maps of a made-up head: skull, a body, and two structures with sides in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import save

LEFT_CORE, RIGHT_CORE, LEFT_HORN, RIGHT_HORN, SKULL = 10, 49, 17, 53, 165
STRUCTURES = [
    {"value": LEFT_CORE, "name": "Left core", "color": "#00760e"},
    {"value": RIGHT_CORE, "name": "Right core", "color": "#00760e"},
    {"value": LEFT_HORN, "name": "Left horn", "color": "#dcd814"},
    {"value": RIGHT_HORN, "name": "Right horn", "color": "#dcd814"},
]


def label_map(seed: int) -> Volume:
    """A map of 40³ voxels of 4 mm, in RAS order: the left side has the higher x of LPS."""
    rng = np.random.default_rng(seed)
    z, y, x = (np.mgrid[-1:1:40j, -1:1:40j, -1:1:40j].T * rng.uniform(0.95, 1.05, 3)).T
    head = np.sqrt((z / 0.9) ** 2 + (y / 0.9) ** 2 + (x / 0.8) ** 2)
    labels = np.select([head < 0.8, head < 1], [3, SKULL], 0)
    for values, center, radius in (
        ((RIGHT_CORE, LEFT_CORE), (0.1, 0.0, 0.3), 0.25),
        ((RIGHT_HORN, LEFT_HORN), (-0.35, 0.2, 0.3), 0.15),
    ):
        for side, value in zip((-1, 1), values, strict=True):
            cz, cy, cx = center
            labels[np.sqrt((z - cz) ** 2 + (y - cy) ** 2 + (x - side * cx) ** 2) < radius] = value
    return Volume(labels.astype(np.uint8), Geometry((4.0, 4.0, 4.0)), modality="SEG")


def write_label_maps(folder: Path, count: int = 3) -> Path:
    """Save maps as 0.nii.gz …, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        save(label_map(number), folder / f"{number}.nii.gz")
    return folder


def fields(**more: Any) -> dict[str, Any]:
    """A training's configuration of seconds."""
    skull = {"name": "skull", "values": [SKULL], "outside": "skull"}
    return {
        "preset": "smoke",
        "name": "toy",
        "modality": "MR",
        "device": "cpu",
        "structures": STRUCTURES,
        "tissues": [skull],
        **more,
    }
