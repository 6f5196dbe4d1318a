"""A head that was trained on label maps as a segmenter."""

from __future__ import annotations

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.segmenters import HeadSegmenter, VoxelLabels
from MedEnhanceLib.gradprom.structures.model import StructureModel, open_structures
from MedEnhanceLib.gradprom.structures.segmenting import (
    PlacedScan,
    find_unlike,
    place,
    segment_structures,
)
from MedEnhanceLib.runtime.progress import Monitor


class StructureSegmenter(HeadSegmenter):
    """Structures with sides, their uncertainty and expected quality."""

    @property
    def _model(self) -> StructureModel:
        return self.opened(open_structures)

    def find_unlike(self, volume: Volume) -> str:
        """State why a volume cannot be segmented; "" if it can."""
        return find_unlike(self._placed(volume), self._model)

    def segment(self, volume: Volume, device: str, monitor: Monitor) -> VoxelLabels:
        """Label the structures.

        Args:
            volume: single, in canonical order.
            device: as torch names it.
            monitor: receives progress; may cancel.
        """
        monitor.progress(0.0, "placing the structures")
        return segment_structures(volume, self._placed(volume), self._model, device, monitor)

    def _placed(self, volume: Volume) -> PlacedScan:
        """Find the structures in a volume; for the last volume they are known."""
        known: tuple[Volume, PlacedScan] | None = vars(self).get("_last")
        if known is None or not _are_same(known[0], volume):
            known = vars(self)["_last"] = volume, place(volume, self._model)
        return known[1]


def _are_same(a: Volume, b: Volume) -> bool:
    """Return whether two volumes are views of the same voxels, at the same place."""
    views = [(v.voxels.ctypes.data, v.voxels.strides, v.shape, v.dtype) for v in (a, b)]
    return views[0] == views[1] and a.geometry == b.geometry and a.modality == b.modality
