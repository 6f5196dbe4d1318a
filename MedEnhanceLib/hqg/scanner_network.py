"""The network that corrects what the inversion of a scanner leaves, slice by slice.

It is that of whole slices (`ViewNet`): five slices of the scan with its noise and blur, and of the
inversion, relative to the noise; it predicts the error of the inversion in the middle one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib import native
from MedEnhanceLib.bundles.export import must_fit
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.bundle import unpaired_weights
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

#: Noisy and inverted slices [5, J, I], σ [J, I], and what is 1 for the network → the middle slice.
Correct = Callable[[Floats, Floats, Floats, float], Floats]
_HU = 1000.0


@dataclass(frozen=True, eq=False)
class ScannerModel:
    """A scanner, and what follows its inversion.

    Attributes:
        scanner: as measured.
        name: of the bundle; "" for a scanner alone.
        correct: the network; None where the inversion alone is used.
    """

    scanner: Scanner
    name: str = ""
    correct: Correct | None = None

    @classmethod
    def of(cls, bundle: Bundle, device: str) -> ScannerModel:
        """Open that of a verified bundle; raises ModelError where its parts do not fit."""
        scanner, config, weights = unpaired_weights(bundle)
        if not bundle.metadata["unpaired"]["used"]:
            return cls(scanner, bundle.name)
        if device == "cpu" and (library := native.load()):
            with must_fit(bundle, weights):
                unet = NativeUNet(weights, IMAGES, config.widths, config.depth, library)
            return cls(scanner, bundle.name, _in_c(unet))
        import torch

        from MedEnhanceLib.hqg.view_network import ViewNet
        from MedEnhanceLib.learning.precision import move

        with must_fit(bundle, weights), torch.random.fork_rng(devices=[]):
            network = ViewNet(config)
            network.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
        network.eval().requires_grad_(requires_grad=False)
        move(network, device)
        return cls(scanner, bundle.name, in_torch(network, device))

    def follow(
        self, inversion: Inversion, scan: Volume, sigma: float, monitor: Monitor
    ) -> Inversion:
        """Correct an inversion, and state whether a network did.

        Args:
            inversion: of the scan.
            scan: as of `invert`.
            sigma: of its noise.
            monitor: may cancel.
        """
        if not self.name:
            return inversion
        facts = inversion.facts | {"model": self.name, "network": self.correct is not None}
        if self.correct is None:
            return replace(inversion, facts=facts)
        corrected = np.stack([*slices_of(self.correct, inversion, sigma, monitor)])
        result = replace(inversion, voxels=corrected, facts=facts)
        facts["inconsistent"] = round(consistency(result, scan, sigma), 4)
        return result


def slices_of(correct: Correct, inversion: Inversion, sigma: float, monitor: Monitor) -> Any:
    """Yield the corrected slices of an inversion, in order."""
    top, count = top_of(inversion), len(inversion.voxels)
    level = np.full(inversion.voxels.shape[1:], sigma, np.float32)

    def corrected(near: Any) -> Floats:
        return correct(inversion.noisy[near], inversion.voxels[near], level, top)

    offsets = np.arange(-NEIGHBORS, NEIGHBORS + 1)
    places = (np.clip(z + offsets, 0, count - 1) for z in range(count))
    return ordered_map(corrected, places, threads=cpu_threads(), monitor=monitor)


def top_of(inversion: Inversion) -> float:
    """Return what is 1 for the network: the 99th percentile of tissue, of CT a thousand HU."""
    if profile_of(inversion.scanner.modality).is_absolute:
        return _HU
    return scale_of(softened(inversion.voxels, inversion.spacing))


def in_torch(network: ViewNet, device: str) -> Correct:
    """Return a function that corrects slices by a network in PyTorch, on its device."""
    import torch

    def correct(noisy: Floats, inverted: Floats, sigma: Floats, top: float) -> Floats:
        images = [torch.from_numpy(each).to(device) for each in (noisy, inverted, sigma)]
        result: Floats = network.corrected(images, top, None).cpu().numpy()
        return result

    return correct


def _in_c(unet: NativeUNet) -> Correct:
    def correct(noisy: Floats, inverted: Floats, sigma: Floats, top: float) -> Floats:
        change = unet.change(inputs_of(noisy, inverted, sigma, top))
        result: Floats = inverted[NEIGHBORS] + sigma * change
        return result

    return correct
