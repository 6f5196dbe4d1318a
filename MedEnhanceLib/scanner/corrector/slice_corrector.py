"""A network that sees whole slices, ready for use: in C, or in PyTorch on a device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib import native
from MedEnhanceLib.bundles.export import load_arrays, must_fit
from MedEnhanceLib.bundles.store import Bundle, read_bundle
from MedEnhanceLib.core.arrays import Array, Floats
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.learning.native_unet import NativeUNet
from MedEnhanceLib.scanner.corrector.config import ViewConfig
from MedEnhanceLib.scanner.corrector.view_inputs import IMAGES, NEIGHBORS, inputs_of

if TYPE_CHECKING:
    from MedEnhanceLib.scanner.corrector.view_network import ViewNet

#: The network of a scanner's bundle: the field of its sizes, and the prefix of its weights.
UNPAIRED = "unpaired"


def view_weights(bundle: Bundle, part: str = UNPAIRED) -> tuple[ViewConfig, dict[str, Array]]:
    """Open a network of a verified bundle; ModelError where it has none that fits.

    part: the field of its sizes, and the prefix of its weights.
    """
    if part not in bundle.metadata:
        raise ModelError(
            f"{bundle.name} has no network that corrects an inverted scanner",
            "Choose a model that was trained without pairs.",
        )
    every = load_arrays(bundle).items()
    tensors = {k.removeprefix(f"{part}."): v for k, v in every if k.startswith(f"{part}.")}
    with must_fit(bundle, tensors):
        return config_from_json(ViewConfig, bundle.metadata[part]), tensors


def open_view_network(bundle: Bundle, part: str = UNPAIRED) -> ViewNet:
    """Build a network of a verified bundle in PyTorch, as `view_weights`."""
    import torch

    from MedEnhanceLib.scanner.corrector.view_network import ViewNet

    config, weights = view_weights(bundle, part)
    with must_fit(bundle, weights), torch.random.fork_rng(devices=[]):
        network = ViewNet(config)
        network.load_state_dict({name: torch.from_numpy(each) for name, each in weights.items()})
    return network.eval().requires_grad_(False)


@lru_cache(maxsize=4)
def _opened(folder: Path, sha256: str, part: str, device: str) -> ViewNet:
    """Open a network in PyTorch, which stays loaded between jobs; another one has another hash."""
    from MedEnhanceLib.learning.precision import move

    network = open_view_network(read_bundle(folder, expected_sha256=sha256), part)
    move(network, device)
    return network


@dataclass(frozen=True)
class SliceCorrector:
    """A network of a bundle that sees whole slices, ready for use.

    Attributes:
        device: as PyTorch names it.
        compiled: the network in C, which takes arrays; None where PyTorch computes.
        view: the network in PyTorch, on the device; None where C computes.
    """

    device: str
    compiled: NativeUNet | None = None
    view: ViewNet | None = None

    @classmethod
    def opened(cls, bundle: Bundle, device: str, part: str = UNPAIRED) -> SliceCorrector:
        """Open that of a verified bundle.

        Args:
            bundle: of an enhancer.
            device: as PyTorch names it.
            part: of the bundle, as of `view_weights`.
        """
        config, weights = view_weights(bundle, part)
        library = native.load() if device == "cpu" else None
        if library is None:
            return cls(device, view=_opened(bundle.folder, bundle.sha256, part, device))
        with must_fit(bundle, weights):
            unet = NativeUNet(weights, IMAGES, config.widths, config.depth, library)
        return cls(device, compiled=unet)

    def corrected(self, noisy: Any, smooth: Any, sigma: Any, top: float) -> Floats:
        """Correct a slice, [J, I].

        Args:
            noisy: five slices, [5, J, I], arrays for C and tensors on the device for PyTorch.
            smooth: the same, filtered.
            sigma: of the noise in the slice.
            top: intensity of bright tissue.
        """
        if self.compiled is None:
            assert self.view is not None
            result: Floats = self.view.corrected((noisy, smooth, sigma), top).numpy(force=True)
            return result
        change = self.compiled.change(inputs_of(noisy, smooth, sigma, top))
        corrected: Floats = smooth[NEIGHBORS] + sigma * change
        return corrected
