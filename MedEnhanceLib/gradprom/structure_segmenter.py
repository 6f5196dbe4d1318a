"""A head that was trained on label maps as a segmenter."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.segmenters import HeadSegmenter, VoxelLabels
from MedEnhanceLib.gradprom.structures.model import StructureModel, open_structures
from MedEnhanceLib.gradprom.structures.segmenting import find_unlike, segment_structures
from MedEnhanceLib.runtime.progress import Monitor


class StructureSegmenter(HeadSegmenter):
    """Structures with sides, their uncertainty and expected quality."""

    @property
    def _model(self) -> StructureModel:
        return _warm_structures(self.bundle.folder, self.bundle.sha256)

    def find_unlike(self, volume: Volume) -> str:
        """State why a volume cannot be segmented; "" if it can."""
        return find_unlike(volume, self._model)

    def segment(self, volume: Volume, device: str, monitor: Monitor) -> VoxelLabels:
        """Label the structures.

        Args:
            volume: single, in canonical order.
            device: as torch names it.
            monitor: receives progress; may cancel.
        """
        return segment_structures(volume, self._model, device, monitor)


@lru_cache(maxsize=4)
def _warm_structures(folder: Path, sha256: str) -> StructureModel:
    """Open a head, which stays loaded between jobs; other weights have another hash."""
    return open_structures(read_bundle(folder, expected_sha256=sha256))
