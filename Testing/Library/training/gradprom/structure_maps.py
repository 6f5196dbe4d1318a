"""Label maps of a made-up anatomy: a head with two hemispheres, a core on each side, and a stem."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import one_hot

from MedEnhanceLib.core.labels import Label
from MedEnhanceLib.gradprom.structures.anatomy import Anatomy
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.networks import Corrector, Locator
from MedEnhanceLib.gradprom.structures.space import Space, TissueMap
from MedEnhanceLib.training.gradprom.config import TrainFromLabelsConfig
from MedEnhanceLib.training.gradprom.head_export import export_structures

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
    prior = one_hot(torch.from_numpy(classes).long(), count).movedim(-1, 0).float() + 0.1
    config = TrainFromLabelsConfig(name="halves", widths=(4, 8), locator_widths=(4, 8))
    locator = Locator(config.locator_widths)
    torch.nn.init.constant_(locator.out.bias[3:], 1.0)
    space = Space(prior / prior.sum(0), (-30.0, -30.0, -30.0))
    corrector = Corrector(count, config.widths)
    model = StructureModel(config.name, anatomy(), space, locator, corrector, {}, {})
    return export_structures(folder / config.name, config, model, 1, 1.0).folder


def maps(count: int = 3) -> list[TissueMap]:
    """Draw some maps."""
    to_mm = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    return [TissueMap(anatomy().painted(label_values(seed)), to_mm) for seed in range(count)]
