"""The network that corrects what the inversion of a scanner leaves, slice by slice.

It is a `ViewNet`: of five slices of the scan, with noise and blur, and of the inversion it predicts
the error of the inversion in the middle one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from MedEnhanceLib.bundles.export import must_fit
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.device import is_out_of_memory
from MedEnhanceLib.runtime.machine import cpu_threads
from MedEnhanceLib.runtime.ordered import ordered_map
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.corrector.slice_corrector import UNPAIRED, SliceCorrector
from MedEnhanceLib.scanner.corrector.view_inputs import NEIGHBORS
from MedEnhanceLib.scanner.invert import Inversion, contradictions
from MedEnhanceLib.scanner.measure import scale_of, softened
from MedEnhanceLib.scanner.scanner import Scanner

_HU = 1000.0


@dataclass(frozen=True)
class ScannerModel:
    """A scanner, and the network that follows its inversion.

    Attributes:
        scanner: as measured.
        corrector: the network; None for the inversion alone.
        bundle: that both come from; None for a scanner of a file.
    """

    scanner: Scanner
    corrector: SliceCorrector | None = None
    bundle: Bundle | None = None

    @property
    def device(self) -> str:
        """The device that computes, by its torch name."""
        return self.corrector.device if self.corrector else "cpu"

    @classmethod
    def of(cls, bundle: Bundle, device: str) -> ScannerModel:
        """Open that of a verified bundle; raises ModelError where its parts do not fit."""
        with must_fit(bundle, {}):
            scanner = config_from_json(Scanner, bundle.metadata["scanner"])
        if UNPAIRED not in bundle.metadata:
            return cls(scanner, bundle=bundle)
        return cls(scanner, SliceCorrector.opened(bundle, device, UNPAIRED), bundle)

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
        corrector, slices = self.corrector, list[Floats]()
        if corrector is None:
            return inversion
        while len(slices) < len(inversion.voxels):
            try:
                for each in _corrected(corrector, inversion, sigma, len(slices), monitor):
                    slices.append(each)
            except (MemoryError, RuntimeError) as cause:
                if corrector.device == "cpu" or not is_out_of_memory(cause) or not self.bundle:
                    raise
                monitor.warn(
                    f"memory ran out on {corrector.device}; correcting the inversion goes on "
                    "with the CPU, slower"
                )
                corrector = SliceCorrector.opened(self.bundle, "cpu", UNPAIRED)
        facts = inversion.facts | {"network": True}
        result = replace(inversion, voxels=np.stack(slices), facts=facts)
        facts["inconsistent"] = round(contradictions(result, scan, sigma)[1], 4)
        return result


def _corrected(
    corrector: SliceCorrector, inversion: Inversion, sigma: float, start: int, monitor: Monitor
) -> Iterator[Floats]:
    """Correct the slices of an inversion from `start` on."""
    noisy, inverted = inversion.noisy, inversion.voxels
    taken: Any = np.asarray
    if corrector.compiled is None:
        from MedEnhanceLib.learning.precision import as_tensor

        taken = partial(as_tensor, device=corrector.device)
    top, level = top_of(inversion), taken(np.full(inverted.shape[1:], sigma, np.float32))

    def corrected(z: int) -> Floats:
        near = np.clip(np.arange(z - NEIGHBORS, z + NEIGHBORS + 1), 0, len(inverted) - 1)
        images = taken(noisy[near]), taken(inverted[near]), level
        return corrector.corrected(*images, top)

    threads = cpu_threads() if corrector.device == "cpu" else 1
    yield from ordered_map(corrected, range(start, len(inverted)), threads=threads, monitor=monitor)


def top_of(inversion: Inversion) -> float:
    """Return what is 1 for the network: the 99th percentile of tissue, of CT a thousand HU."""
    if profile_of(inversion.scanner.modality).is_absolute:
        return _HU
    return scale_of(softened(inversion.voxels, inversion.spacing))
