"""The enhancer as a bundle: exported after training, opened for inference."""

from __future__ import annotations

from typing import TYPE_CHECKING

from MedEnhanceLib.bundles.export import (
    load_tensors,
    must_fit,
)
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.hqg.config import NetworkConfig
from MedEnhanceLib.hqg.groups import GuidedNetwork
from MedEnhanceLib.hqg.view_network import VIEW_PREFIX

if TYPE_CHECKING:
    from torch import Tensor


def set_network_tensors(bundle: Bundle) -> dict[str, Tensor]:
    """Load the weights of an enhancer's set network, without those of a view network."""
    return {k: v for k, v in load_tensors(bundle).items() if not k.startswith(VIEW_PREFIX)}


def open_enhancer(bundle: Bundle) -> GuidedNetwork:
    """Build the network of a verified bundle; raises ModelError where weights do not fit."""
    tensors = set_network_tensors(bundle)
    is_guided = any(name.startswith("correction.") for name in tensors)
    with must_fit(bundle, tensors):
        network = GuidedNetwork(config_from_json(NetworkConfig, bundle.metadata.get("network", {})))
        rest = {} if is_guided else network.state_dict()
        network.load_state_dict({**rest, **tensors})
    return network.eval().requires_grad_(False)
