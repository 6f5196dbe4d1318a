"""What a run measures of a whole volume before its first slice, kept for the next run over it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from MedEnhanceLib.nets.noise import NoiseEstimate, measure_noise

if TYPE_CHECKING:
    from MedEnhanceLib.core.volume import Volume
    from MedEnhanceLib.hqg.guide import AlignedGuide
    from MedEnhanceLib.runtime.progress import Monitor


@dataclass
class VolumeCache:
    """Measurements of one volume, filled by the first run over it.

    Owned by who keeps the volume in memory; valid as long as nobody writes to its voxels.

    Attributes:
        ranges: intensity of bright tissue and lowest value of a result, by number of the frame.
        noises: the noise, by number of the frame.
        guides: those of the last run that had any, each with its copy on the volume's grid.
    """

    ranges: dict[int, tuple[float, float]] = field(default_factory=dict)
    noises: dict[int, NoiseEstimate] = field(default_factory=dict)
    guides: tuple[tuple[Volume, AlignedGuide], ...] = ()

    def noise(self, number: int, frame: Volume, monitor: Monitor) -> NoiseEstimate:
        """The noise of a frame, measured once for all runs over it."""
        monitor.check()
        if number not in self.noises:
            spacing = frame.geometry.spacing
            self.noises[number] = measure_noise(
                frame.voxels, modality=frame.modality, spacing=spacing
            )
        return self.noises[number]
