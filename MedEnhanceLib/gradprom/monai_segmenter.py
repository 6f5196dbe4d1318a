"""A MONAI bundle as a segmenter."""

from __future__ import annotations

from pathlib import Path

from MedEnhanceLib.core.labels import Label, color_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.monai_reader import read_monai_bundle
from MedEnhanceLib.gradprom.segmenters import Comparison, VoxelLabels
from MedEnhanceLib.runtime.progress import Monitor


class MonaiSegmenter:
    """A MONAI bundle as a segmenter; what it was trained on is not known."""

    origin, anatomy = "MONAI bundle", ""
    limits = ("Trained elsewhere: see its documentation. Do not measure patients with it.",)

    def __init__(self, folder: Path) -> None:
        self._bundle = bundle = read_monai_bundle(folder)
        self.name, self.modality = bundle.name, bundle.modality
        self.labels = tuple(
            Label(value=value, name=name, color=color_of(value))
            for value, name in enumerate(bundle.labels, 1)
        )
        self.warnings = (
            f"{bundle.name} is not a MedEnhance model: its accuracy is not known, "
            "and it was not checked whether the volume is like its training images",
            # Warnings, as nobody would see the license in a log.
            *(f"{bundle.name}: {note}" for note in bundle.notes),
        )

    def identity(self) -> dict[str, str]:
        """Return name, kind and hash."""
        return {"name": self.name, "kind": "monai-bundle", "sha256": self._bundle.sha256}

    def compare(self, volume: Volume) -> Comparison:
        """Find no difference, as a bundle does not describe its training images.

        Raises UnfitModelError for another modality.
        """
        self._bundle.refuse_other_modality(volume)
        return Comparison()

    def segment(
        self, volume: Volume, device: str, monitor: Monitor, placement: None = None
    ) -> VoxelLabels:
        """Label a volume by MONAI's windows.

        Args:
            volume: single, in canonical order.
            device: as torch names it.
            monitor: receives progress; may cancel.
            placement: of no use.
        """
        self._bundle.network.to(device)
        return VoxelLabels(self._bundle.segment(volume, monitor))
