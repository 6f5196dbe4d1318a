"""What every recognition that learns along with an enhancer has: a network and its average."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from torch import Tensor, nn

from MedEnhanceLib.nets.precision import move
from MedEnhanceLib.nets.training import averaged_weights

#: Slices of a slab that a loss is taken of: neighbours say nearly the same.
_MOST_SLICES = 4


class Learner:
    """A network over few slices, learned by lower steps, used with its averaged weights.

    A subclass gives `loss`; then it is a head as the bi-level scheme wants it (hqg.bilevel's
    protocol TaskHead). ema: decay of the averaged weights.
    """

    def __init__(self, network: nn.Module, device: str, *, context: int, ema: float) -> None:
        self.network = move(network, device)
        self.average = averaged_weights(self.network, ema)
        self.context = context

    def parameters(self) -> Iterator[nn.Parameter]:
        """What a lower step changes; the averaged weights follow."""
        return self.network.parameters()

    def train(self, mode: bool = True) -> None:
        """Whether batch normalisation takes its statistics from the batch."""
        self.network.train(mode)

    def follow(self) -> None:
        """Move the averaged weights towards the network's."""
        self.average.update_parameters(self.network)

    def state_dict(self) -> dict[str, Tensor]:
        """Of the network and of its averaged weights."""
        return self._both().state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from such a state."""
        self._both().load_state_dict(state)

    def _both(self) -> nn.ModuleDict:
        return nn.ModuleDict({"network": self.network, "average": self.average})

    def chosen(self, images: Tensor) -> tuple[list[int], Tensor]:
        """Up to four slices of slabs [B, D, H, W], and stacks [B·M, 2k + 1, H, W] around them.

        Slices whose neighbours are all in the slab are preferred.
        """
        depth = images.shape[1]
        whole = list(range(self.context, depth - self.context)) or [depth // 2]
        places = np.linspace(0, len(whole) - 1, min(len(whole), _MOST_SLICES)).round().astype(int)
        middles = [whole[place] for place in places]
        return middles, self.stacks(images, middles)

    def stacks(self, images: Tensor, middles: list[int]) -> Tensor:
        """Each of these slices with its neighbours; beyond the ends the last slice is repeated."""
        offsets = np.arange(-self.context, self.context + 1)
        last = images.shape[1] - 1
        seen = [np.clip(middle + offsets, 0, last).tolist() for middle in middles]
        return images[:, seen].flatten(0, 1)
