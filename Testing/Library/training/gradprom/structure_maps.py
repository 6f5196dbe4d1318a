"""Label maps of a made-up anatomy: a head with two hemispheres, a core on each side, and a stem."""

from __future__ import annotations

import numpy as np

from MedEnhanceLib.core.labels import Label
from MedEnhanceLib.gradprom.structures.anatomy import Anatomy
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


def maps(count: int = 3) -> list[TissueMap]:
    """Draw some maps."""
    to_mm = np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1.0])
    return [TissueMap(anatomy().painted(label_values(seed)), to_mm) for seed in range(count)]
