"""What a run measures of a whole volume before its first slice, kept for the next run over it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from MedEnhanceLib.core.volume import Volume
    from MedEnhanceLib.hqg.guide import AlignedGuide
    from MedEnhanceLib.nets.intensity import Scaling
    from MedEnhanceLib.nets.noise import NoiseEstimate


@dataclass
class VolumeCache:
    """Measurements of one volume, filled by the first run over it.

    Owned by who keeps the volume in memory; valid as long as nobody writes to its voxels.

    Attributes:
        scaling: of its intensities; None before the first run.
        floor: lowest value of a result, in the volume's units.
        noise: as measured; None before the first run.
        guides: those of the last run that had any, each with what it is on the volume's grid.
        later: of the frames of a sequence after the first, by number.
    """

    scaling: Scaling | None = None
    floor: float = -math.inf
    noise: NoiseEstimate | None = None
    guides: tuple[tuple[Volume, AlignedGuide], ...] = ()
    later: dict[int, VolumeCache] = field(default_factory=dict)

    def of_frame(self, number: int) -> VolumeCache:
        """The measurements of one frame; those of a single volume are of its frame 0."""
        return self if number == 0 else self.later.setdefault(number, VolumeCache())
