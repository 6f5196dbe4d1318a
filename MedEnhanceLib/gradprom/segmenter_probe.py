"""A user's network as it is used: frozen, and tried out with a random image before that."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.gradprom.segmenter_spec import SegmenterSpec

#: Side of the probe along each axis, at least; normalization needs more than one voxel inside.
_PROBE = 32
#: Probabilities of a voxel add up to 1 within this.
_SUM = 1e-3
_LAST_STEP = "Export it without the last step, so that it gives logits."


class Frozen(nn.Module):
    """A network that does not learn: no gradient for its weights, statistics as they are."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network, self._name = network, name
        self.training = False
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> Frozen:
        """No effect: a module that contains this one may be trained, this one is not."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """[B, channels, …] → logits [B, outputs, …]; of several outputs, the first."""
        given = self.network(images)
        while isinstance(given, list | tuple) and given:
            given = given[0]
        if not isinstance(given, Tensor):
            raise ModelError(
                f"segmenter {self._name!r} gives a {type(given).__name__}, no tensor",
                "Give a network whose output is logits [batch, channels, …].",
            )
        return given


def probe(network: nn.Module, spec: SegmenterSpec, name: str) -> None:
    """Raise ModelError unless the network takes and gives what its spec says, and can teach."""
    side = math.ceil(_PROBE / spec.multiple) * spec.multiple
    sides = (side,) * spec.dimensions
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((1, spec.channels, *sides), generator=generator).requires_grad_()
    who, shape = f"segmenter {name!r}", " × ".join(map(str, sides))
    try:
        given = network(images)
    except ModelError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, KeyError) as cause:
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
        raise ModelError(
            f"{who} does not take {count(spec.channels, 'channel')} of {shape} voxels: {reason}",
            "Choose one for images of one channel, or correct what its bundle states.",
        ) from cause
    if given.ndim != images.ndim or given.shape[2:] != images.shape[2:]:
        raise ModelError(
            f"{who} gives {list(given.shape)} for {list(images.shape)}",
            "A segmenter gives [batch, channels, …] on the grid of its input.",
        )
    if given.shape[1] != spec.outputs:
        more = " and the background" if spec.activation == "softmax" else ""
        raise ModelError(
            f"{who} gives {count(given.shape[1], 'channel')}, its bundle names "
            f"{count(len(spec.labels), 'label')}{more}, which makes {spec.outputs}",
            "Correct channel_def in its metadata.",
        )
    if not torch.isfinite(given).all():
        raise ModelError(f"{who} gives values that are not finite", "Check its weights.")
    weights = torch.randn(given.shape, generator=generator)
    slope = None
    if given.requires_grad:
        (slope,) = torch.autograd.grad((given * weights).sum(), images, allow_unused=True)
    if slope is None or not slope.any():
        raise ModelError(
            f"{who} is not differentiable: its output does not depend smoothly on the image, as "
            "after an argmax or a threshold",
            _LAST_STEP,
        )
    sums = given.detach().sum(dim=1)
    is_share = bool((given >= 0).all()) and float((sums - 1).abs().max()) < _SUM
    if spec.activation == "softmax" and is_share:
        raise ModelError(f"{who} gives probabilities: its channels add up to 1", _LAST_STEP)


def count(number: int, thing: str) -> str:
    """A number of things in words of a message."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
