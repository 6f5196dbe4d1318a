"""The network that corrects what the inversion of a scanner leaves, slice by slice.

It is a `ViewNet`: of five slices of the scan, with noise and blur, and of the inversion it predicts
the error of the inversion in the middle one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib.bundles.export import must_fit
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.dependencies import load_packages
from MedEnhanceLib.runtime.device import choose_device, is_out_of_memory
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.corrector.config import NEIGHBORS, UNPAIRED
from MedEnhanceLib.scanner.invert import Inversion, contradictions
from MedEnhanceLib.scanner.measure import scale_of, softened
from MedEnhanceLib.scanner.scanner import Scanner

if TYPE_CHECKING:
    from MedEnhanceLib.scanner.corrector.view_network import ViewNet

_HU = 1000.0


@dataclass(frozen=True)
class ScannerModel:
    """A scanner, and the network that follows its inversion.

    Attributes:
        scanner: as measured.
        bundle: that it comes from; None for a scanner of a file.
        device: that the network runs on; the CPU without one.
    """

    scanner: Scanner
    bundle: Bundle | None = None
    device: str = "cpu"

    @classmethod
    def of(cls, bundle: Bundle, device: str, monitor: Monitor) -> ScannerModel:
        """Open that of a verified bundle.

        Args:
            bundle: of the kind "enhancer".
            device: as requested, for its network.
            monitor: receives progress while PyTorch is loaded, and the choice of the device.
        Raises ModelError where its parts do not fit, DependencyError without PyTorch.
        """
        with must_fit(bundle, {}):
            scanner = config_from_json(Scanner, bundle.metadata["scanner"])
        if UNPAIRED not in bundle.metadata:
            return cls(scanner, bundle)
        load_packages("torch", purpose="Correcting an inverted scanner", monitor=monitor)
        choice = choose_device(device)
        monitor.log(f"running {bundle.name} ({bundle.origin}) on {choice.name}: {choice.reason}")
        model = cls(scanner, bundle, choice.name)
        model.network(choice.name)  # refused before the work
        return model

    def network(self, device: str) -> ViewNet:
        """Return the network on a device."""
        from MedEnhanceLib.scanner.corrector.view_network import opened_network

        assert self.bundle is not None
        return opened_network(self.bundle.folder, self.bundle.sha256, device)

    def follow(
        self, inversion: Inversion, scan: Volume, sigma: float, monitor: Monitor
    ) -> Inversion:
        """Correct an inversion, and state it in its facts.

        Where a device's memory runs out, the CPU corrects the slices that are missing.

        Args:
            inversion: of this scanner.
            scan: that was inverted.
            sigma: of its noise.
            monitor: may cancel.
        """
        if self.bundle is None or UNPAIRED not in self.bundle.metadata:
            return inversion
        slices, device = list[Floats](), self.device
        while len(slices) < len(inversion.voxels):
            try:
                rest = range(len(slices), len(inversion.voxels))
                slices.extend(_corrected(self.network(device), inversion, sigma, rest, monitor))
            except (MemoryError, RuntimeError) as cause:
                if device == "cpu" or not is_out_of_memory(cause):
                    raise
                monitor.warn(
                    f"memory ran out on {device}; correcting the inversion goes on with the CPU, "
                    "slower"
                )
                device = "cpu"
        facts = inversion.facts | {"network": True}
        result = replace(inversion, voxels=np.stack(slices), facts=facts)
        facts["inconsistent"] = round(contradictions(result, scan, sigma)[1], 4)
        return result


def _corrected(
    network: ViewNet, inversion: Inversion, sigma: float, numbers: range, monitor: Monitor
) -> Iterator[Floats]:
    """Correct slices of an inversion, by their numbers."""
    noisy, inverted, top = inversion.noisy, inversion.voxels, top_of(inversion)
    for z in numbers:
        monitor.check()
        near = np.clip(np.arange(z - NEIGHBORS, z + NEIGHBORS + 1), 0, len(inverted) - 1)
        yield network.corrected(noisy[near], inverted[near], sigma, top)


def top_of(inversion: Inversion) -> float:
    """Return what is 1 for the network: the 99th percentile of tissue, of CT a thousand HU."""
    if profile_of(inversion.scanner.modality).is_absolute:
        return _HU
    return scale_of(softened(inversion.voxels, inversion.spacing))
