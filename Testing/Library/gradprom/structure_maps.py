"""Label maps of a made-up anatomy: a head with two hemispheres, a core on each side, and a stem."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import one_hot

from MedEnhanceLib.bundles.export import export_bundle
from MedEnhanceLib.core.labels import Label
from MedEnhanceLib.gradprom.structures.anatomy import Anatomy
from MedEnhanceLib.gradprom.structures.networks import Corrector, Locator
from MedEnhanceLib.gradprom.structures.space import TissueMap

#: Values: left and right hemisphere, left and right core, stem; scalp.
LEFT, RIGHT, LEFT_CORE, RIGHT_CORE, STEM, SCALP = 1, 2, 3, 4, 5, 300
SIDE, VOXEL_MM = 32, 6.0
LABELS = [
    Label(value=LEFT, name="Left half", color="#ff0000"),
    Label(value=RIGHT, name="Right half", color="#ff0000"),
    Label(value=LEFT_CORE, name="Left core", color="#00ff00"),
    Label(value=RIGHT_CORE, name="Right core", color="#00ff00"),
    Label(value=STEM, name="Stem", color="#0000ff"),
]
TISSUES = [{"name": "scalp", "values": [SCALP], "outside": "scalp"}]


def label_values(seed: int = 0) -> np.ndarray:
    """Draw one map [K, J, I] of voxels of 6 mm, LPS: left is at large i."""
    rng = np.random.default_rng(seed)
    k, j, i = np.indices((SIDE,) * 3) - (SIDE - 1) / 2
    k, j, i = (line * rng.uniform(0.95, 1.05) * 1.5 for line in (k, j, i))

    def ball(at: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        lines = zip((k, j, i), at, radii, strict=True)
        return sum(((line - middle) / radius) ** 2 for line, middle, radius in lines) < 1

    values = np.zeros((SIDE,) * 3, np.uint16)
    values[ball((0, 0, 0), (19, 20, 18))] = SCALP
    inside = ball((0, 0, 0), (16, 17, 15))
    values[inside] = np.where(i > 0, LEFT, RIGHT)[inside]
    values[ball((-2, -3, 6), (5, 6, 4))] = LEFT_CORE
    values[ball((-2, -3, -6), (5, 6, 4))] = RIGHT_CORE
    values[ball((-11, 5, 0), (5, 3.5, 3.5))] = STEM
    return values


def anatomy() -> Anatomy:
    """Return the classes of these maps."""
    return Anatomy.of(LABELS, TISSUES, {}, [LEFT, RIGHT, LEFT_CORE, RIGHT_CORE, STEM, SCALP])


def write_head(folder: Path) -> Path:
    """Write the bundle of an untrained head, which takes everything for structures."""
    classes = anatomy().tissue_classes[anatomy().painted(label_values()[::2, ::2, ::2]) & 127]
    count = len(anatomy().classes)
    prior = one_hot(torch.from_numpy(classes).long(), count).movedim(-1, 0) * 229 + 26
    widths = (4, 8)
    locator, corrector = Locator(widths), Corrector(count, widths)
    torch.nn.init.constant_(locator.out.bias[3:], 1.0)
    tensors = {"prior": prior[..., : (prior.shape[3] + 1) // 2].to(torch.uint8).contiguous()}
    for part, network in (("locator", locator), ("corrector", corrector)):
        tensors |= {f"{part}.{name}": value for name, value in network.state_dict().items()}
    metadata = {
        "name": "halves",
        "kind": "head",
        "modality": "MR",
        "description": "Two halves.",
        "license": "CC0-1.0",
        "network": {
            "kind": "structures",
            "widths": widths,
            "locator_widths": widths,
            "origin": (-30.0, -30.0, -30.0),
            "columns": prior.shape[3],
            "limits": {},
            "quality": {},
            **anatomy().to_json(),
        },
        "labels": [asdict(label) for label in anatomy().labels],
    }
    return export_bundle(folder / "halves", tensors, metadata).folder


def maps(count: int = 3) -> list[TissueMap]:
    """Draw some maps."""
    to_mm = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    return [TissueMap(anatomy().painted(label_values(seed)), to_mm) for seed in range(count)]
