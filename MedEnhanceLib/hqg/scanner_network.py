"""The network that corrects what the inversion of a scanner leaves, slice by slice.

It is a `ViewNet`: of five slices of the scan, with noise and blur, and of the inversion it predicts
the error of the inversion in the middle one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib import native
from MedEnhanceLib.bundles.export import must_fit
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.bundle import UNPAIRED, view_weights
from MedEnhanceLib.hqg.view_inputs import IMAGES, NEIGHBORS, inputs_of
from MedEnhanceLib.learning.native_unet import NativeUNet
from MedEnhanceLib.runtime.machine import cpu_threads
from MedEnhanceLib.runtime.ordered import ordered_map
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.invert import Inversion, consistency
from MedEnhanceLib.scanner.measure import scale_of, softened
from MedEnhanceLib.scanner.scanner import Scanner

if TYPE_CHECKING:
    from MedEnhanceLib.hqg.view_network import ViewNet

_HU = 1000.0


@dataclass(frozen=True, eq=False)
class ScannerModel:
    """A scanner, and the network that follows its inversion.

    Attributes:
        scanner: as measured.
        network: in C, or in PyTorch on its device; None for the inversion alone.
        device: as PyTorch names it.
    """

    scanner: Scanner
    network: NativeUNet | ViewNet | None = None
    device: str = "cpu"

    @classmethod
    def of(cls, bundle: Bundle, device: str) -> ScannerModel:
        """Open that of a verified bundle; raises ModelError where its parts do not fit."""
        with must_fit(bundle, {}):
            scanner = config_from_json(Scanner, bundle.metadata["scanner"])
        if UNPAIRED not in bundle.metadata:
            return cls(scanner)
        library = native.load() if device == "cpu" else None
        if library is not None:
            config, weights = view_weights(bundle, UNPAIRED)
            with must_fit(bundle, weights):
                unet = NativeUNet(weights, IMAGES, config.widths, config.depth, library)
            return cls(scanner, unet)
        from MedEnhanceLib.hqg.view_network import open_view_network
        from MedEnhanceLib.learning.precision import move

        network = open_view_network(bundle, UNPAIRED)
        move(network, device)
        return cls(scanner, network, device)

    def follow(
        self, inversion: Inversion, scan: Volume, sigma: float, monitor: Monitor
    ) -> Inversion:
        """Correct an inversion of a scan with noise of `sigma`, and state it in its facts."""
        if self.network is None:
            return inversion
        top, count = top_of(inversion), len(inversion.voxels)
        level = np.full(inversion.voxels.shape[1:], sigma, np.float32)

        def corrected(z: int) -> Floats:
            near = np.clip(np.arange(z - NEIGHBORS, z + NEIGHBORS + 1), 0, count - 1)
            return self._slice(inversion.noisy[near], inversion.voxels[near], level, top)

        slices = ordered_map(corrected, range(count), threads=cpu_threads(), monitor=monitor)
        result = replace(
            inversion, voxels=np.stack([*slices]), facts=inversion.facts | {"network": True}
        )
        result.facts["inconsistent"] = round(consistency(result, scan, sigma), 4)
        return result

    def _slice(self, noisy: Floats, inverted: Floats, sigma: Floats, top: float) -> Floats:
        """Correct the middle one of five slices, [5, J, I]; top: what is 1 for the network."""
        result: Any
        if isinstance(self.network, NativeUNet):
            change = self.network.change(inputs_of(noisy, inverted, sigma, top))
            result = inverted[NEIGHBORS] + sigma * change
        else:
            from MedEnhanceLib.filters.tensor_run import as_tensor

            assert self.network is not None
            images = [as_tensor(each, device=self.device) for each in (noisy, inverted, sigma)]
            result = self.network.corrected(images, top, None).cpu().numpy()
        return np.asarray(result, np.float32)


def top_of(inversion: Inversion) -> float:
    """Return what is 1 for the network: the 99th percentile of tissue, of CT a thousand HU."""
    if profile_of(inversion.scanner.modality).is_absolute:
        return _HU
    return scale_of(softened(inversion.voxels, inversion.spacing))
