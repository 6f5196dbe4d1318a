"""A user's network as it is used: frozen, and tried out with a random image before that."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.gradprom.segmenter_spec import SegmenterSpec

#: Side of the probe along each axis, at least; normalization needs more than one voxel inside.
_PROBE = 32
#: Probabilities of a voxel add up to 1 within this.
_SUM = 1e-3


class Frozen(nn.Module):
    """A network that does not learn: no gradient for its weights, statistics as they are."""

    def __init__(self, network: nn.Module, spec: SegmenterSpec, name: str) -> None:
        super().__init__()
        self.network = network
        self._key, self._name = spec.output, name
        self._inverse = _LOGITS[spec.activation] if spec.probabilities else None
        self.training = False
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> Frozen:
        """No effect: a module that contains this one may be trained, this one is not."""
        return self

    def forward(self, images: Tensor) -> Tensor:
        """[B, channels, …] → logits [B, outputs, …]; of several outputs, the first."""
        found = self.network(images)
        if isinstance(found, Mapping):
            if self._key not in found:
                raise ModelError(
                    f"segmenter {self._name!r} gives a dictionary with "
                    f"{', '.join(map(str, found))}",
                    "Name the key of its logits in its spec (output).",
                )
            found = found[self._key]
        while isinstance(found, list | tuple) and found:
            found = found[0]
        if not isinstance(found, Tensor):
            raise ModelError(
                f"segmenter {self._name!r} gives a {type(found).__name__}, no tensor",
                "Give a network whose output is logits [batch, channels, …].",
            )
        return self._inverse(found) if self._inverse else found


def _log_odds(probabilities: Tensor) -> Tensor:
    return torch.logit(probabilities, eps=1e-6)


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(1e-6).log()


#: From probabilities to logits whose activation gives them.
_LOGITS: dict[str, Callable[[Tensor], Tensor]] = {"softmax": _log, "sigmoid": _log_odds}


def probe(network: nn.Module, spec: SegmenterSpec, name: str) -> None:
    """Raise ModelError unless the network takes and gives what its spec says, and can teach."""
    side = math.ceil(_PROBE / spec.multiple) * spec.multiple
    sides = spec.window if spec.fixed else (side,) * spec.dimensions
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((1, spec.channels, *sides), generator=generator).requires_grad_()
    before = [buffer.clone() for buffer in network.buffers()]
    who, shape = f"segmenter {name!r}", " × ".join(map(str, sides))
    try:
        given = network(images)
        again = network(images)
    except ModelError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, KeyError) as cause:
        raise ModelError(
            f"{who} does not take {count(spec.channels, 'channel')} of {shape} voxels"
            f"{_first_layer(network, spec)}: {_first_line(cause)}",
            "Correct its spec: dimensions, context, multiple, window and fixed.",
        ) from cause
    if not given.is_floating_point():
        raise ModelError(
            f"{who} is not differentiable: it gives whole numbers ({given.dtype}), as after an "
            "argmax",
            "Export it without the last step, so that it gives logits.",
        )
    if given.ndim != images.ndim or given.shape[2:] != images.shape[2:]:
        raise ModelError(
            f"{who} gives {list(given.shape)} for {list(images.shape)}",
            "A segmenter gives [batch, channels, …] on the grid of its input.",
        )
    if given.shape[1] != spec.outputs:
        more = " and the background" if spec.activation == "softmax" else ""
        raise ModelError(
            f"{who} gives {count(given.shape[1], 'channel')}, its spec names "
            f"{count(len(spec.labels), 'label')}{more}, which makes {spec.outputs}",
            "Correct labels or activation in its spec.",
        )
    if not torch.isfinite(given).all():
        raise ModelError(f"{who} gives values that are not finite", "Check its weights.")
    if not torch.equal(given, again):
        raise ModelError(
            f"{who} gives another result each time", "Export it for use, without dropout (eval)."
        )
    if any(not torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True)):
        raise ModelError(f"{who} changes itself when it is used", "Export it for use (eval).")
    weights = torch.randn(given.shape, generator=generator)
    slope = None
    if given.requires_grad:
        (slope,) = torch.autograd.grad((given * weights).sum(), images, allow_unused=True)
    if slope is None or not slope.any():
        raise ModelError(
            f"{who} is not differentiable: its output does not depend smoothly on the image, as "
            "after an argmax or a threshold",
            "Export it without the last step, so that it gives logits.",
        )
    if not torch.isfinite(slope).all():
        raise ModelError(f"{who} has a gradient that is not finite", "Check its weights.")
    sums = given.detach().sum(dim=1)
    is_share = bool((given >= 0).all()) and float((sums - 1).abs().max()) < _SUM
    if spec.activation == "softmax" and is_share:
        raise ModelError(
            f"{who} gives probabilities: its channels add up to 1",
            "State probabilities: true in its spec.",
        )


def count(number: int, thing: str) -> str:
    """A number of things in words of a message."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _first_line(cause: BaseException) -> str:
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]


def _first_layer(network: nn.Module, spec: SegmenterSpec) -> str:
    """What the first convolution takes, where that is another number of channels."""
    shapes = (p.shape for p in network.parameters() if p.ndim == spec.dimensions + 2)
    taken = next((shape[1] for shape in shapes), spec.channels)
    return f" (its first layer takes {taken})" if taken != spec.channels else ""
