"""The networks of an enhancer's bundle: weights as arrays, which C and PyTorch make theirs of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from MedEnhanceLib.bundles.export import load_arrays, must_fit
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.arrays import Array, Floats, Longs
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.denoise.config import NetworkConfig
from MedEnhanceLib.filters.native_engine import NetworkWeights
from MedEnhanceLib.native import CELLS, SIDE
from MedEnhanceLib.scanner.corrector.slice_corrector import UNPAIRED

#: A network of a bundle that sees whole slices: the field of its sizes, the prefix of its weights.
VIEW = "view"


@dataclass(frozen=True, eq=False)
class SetWeights:
    """The weights of a set network and, where it takes guides, of its correction by them.

    Attributes:
        config: sizes of the network.
        tensors: float32, by the names in a bundle.
    """

    config: NetworkConfig
    tensors: Mapping[str, Array]

    @cached_property
    def packed(self) -> NetworkWeights:
        """The network without guides, as the compiled library reads it."""
        config = self.config
        *parts, weight, bias = (self.tensors[name] for name in _set_shapes(config))
        # The last output is the weight of the block.
        parts += [weight[:-1], bias[:-1], weight[-1], bias[-1:]]
        values = np.concatenate([each.reshape(-1) for each in parts])
        sizes = config.width, config.hidden, config.layers
        return NetworkWeights(values, changed_shares(config), *sizes)


def _set_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights without guides, by name, in the order of network.c."""
    width, hidden, shapes = config.width, config.hidden, dict[str, tuple[int, ...]]()

    def add(name: str, *shape: int) -> None:
        shapes[f"network.{name}.weight"], shapes[f"network.{name}.bias"] = shape, shape[:1]

    for name in ("token", "group"):
        add(name, width, 3 * CELLS + 2)
    for layer in (f"layers.{number}" for number in range(config.layers)):
        add(f"{layer}.norm_of_set", width)
        add(f"{layer}.norm_of_block", width)
        shapes[f"network.{layer}.mix"] = (config.blocks, config.blocks)
        add(f"{layer}.after_mix", width, width)
        add(f"{layer}.up", hidden, width)
        add(f"{layer}.down", width, hidden)
    add("norm", width)
    add("out", 4 * CELLS + 1, width)
    return shapes


def orders() -> Longs:
    """Return the sum of the orders of each frequency along the three axes, [64], 0 to 9."""
    order: Longs = np.indices((SIDE,) * 3).sum(axis=0).reshape(CELLS)
    return order


def changed_shares(config: NetworkConfig) -> Floats:
    """Return the share of the residual of each frequency that is added, [64]."""
    shares: Floats = np.clip(orders() - config.least_order + 1, 0, 1).astype(np.float32)
    return shares


def set_weights(bundle: Bundle) -> SetWeights:
    """Open the set network of a verified bundle; raises ModelError where weights do not fit."""
    every = load_arrays(bundle)
    others = f"{VIEW}.", f"{UNPAIRED}."
    tensors = {k: v for k, v in every.items() if not k.startswith(others)}
    with must_fit(bundle, tensors):
        config = config_from_json(NetworkConfig, bundle.metadata.get("network", {}))
        own = {k: v.shape for k, v in tensors.items() if not k.startswith("correction.")}
        if own != _set_shapes(config):
            raise ValueError("names or shapes of the weights")
    return SetWeights(config, tensors)
