"""What every training loop shares: steps, learning rate, averaged weights, a watch on the loss."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from MedEnhanceLib.errors import Cancelled, ModelError
from MedEnhanceLib.runtime.progress import Monitor

_GO_ON = "Start again with the same output folder to go on."
_WARM_UP = 0.02
_LAST_SHARE = 0.01
#: A loss is far off above so many times its running median, over so many steps of its kind.
_FAR, _REMEMBERED, _LEAST_REMEMBERED = 5.0, 500, 50


class DivergenceError(ModelError):
    """Losses are not finite any more, or far above what they were for many steps."""


def training_steps(
    start: int,
    total: int,
    save: Callable[[int], None],
    every_s: float,
    monitor: Monitor,
    *,
    of: str = "",
    agree: Callable[[Sequence[bool]], Sequence[bool]] = tuple,
) -> Iterator[int]:
    """The numbers of the steps still to do.

    `save` is called with the next step's number every `every_s` seconds, before Cancelled is
    raised where the user asked to stop after a step, and at the end.
    of: whose steps they are, to be told with each.
    agree: which of some wishes any process of the training has; one alone has its own.
    """
    saved, told = time.monotonic(), f"{of}, step" if of else "step"
    for number in range(start, total):
        is_due = number > start and time.monotonic() - saved > every_s
        stops, saves = agree((monitor.cancelled, is_due))
        if stops and number == start:
            raise cancelled_before(resumed=start > 0)
        if stops or saves:
            save(number)
            saved = time.monotonic()
        if stops:
            raise Cancelled(
                f"cancelled after step {number} of {total}; the checkpoint is written", _GO_ON
            )
        with suppress(Cancelled):  # a cancel that came just now is heard at the next step
            monitor.progress(number / total, f"{told} {number} of {total}")
        yield number
    save(total)


def cancelled_before(*, resumed: bool) -> Cancelled:
    """What a cancel ends with before this run has taken a step: it has nothing to save."""
    if resumed:
        return Cancelled("cancelled before it went on; the checkpoint is as it was", _GO_ON)
    return Cancelled(
        "cancelled before the first step; no checkpoint was written", "Start again when you like."
    )


def set_learning_rate(
    optimiser: Optimizer, peak: float, number: int, total: int, *, warm_up: float = _WARM_UP
) -> None:
    """Linear warm-up over that share of the steps, then a cosine to a hundredth of the peak."""
    warmed = min(1.0, (number + 1) / (warm_up * total + 1))
    cosine = 0.5 * (1 + math.cos(math.pi * number / total))
    for group in optimiser.param_groups:
        group["lr"] = peak * warmed * (_LAST_SHARE + (1 - _LAST_SHARE) * cosine)


def averaged_weights(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of the network whose weights are the exponential moving average of its own.

    The decay grows up to `decay` with the steps: a short training is no average of its beginning.
    """

    @torch.no_grad()
    def average(averages: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
        share = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        for averaged, weight in zip(averages, weights, strict=True):
            if averaged.is_floating_point():
                averaged.lerp_(weight.to(averaged.dtype), share)
            else:
                averaged.copy_(weight)

    return AveragedModel(network, multi_avg_fn=average, use_buffers=True)


class LossWatch:
    """Notices a training that runs away: a loss far above its running median, for many steps.

    patience: so many steps in a row. Losses of several kinds (steps with other terms) have a
    median each; those that are far off do not enter it.
    """

    def __init__(self, patience: int = 50) -> None:
        self.patience = patience
        self._seen: dict[object, deque[float]] = {}
        self._far = 0

    @property
    def is_calm(self) -> bool:
        """Whether the last loss was near its median: a time to keep the weights."""
        return self._far == 0

    def hear(self, value: float, kind: object = None) -> bool:
        """Whether the training has run away, after this step's loss, which is not negative."""
        seen = self._seen.setdefault(kind, deque(maxlen=_REMEMBERED))
        if len(seen) >= _LEAST_REMEMBERED and not value <= _FAR * statistics.median(seen):
            self._far += 1
        else:
            self._far = 0
            seen.append(value)
        return self._far >= self.patience

    def to_json(self) -> dict[str, Any]:
        """For a checkpoint: the median goes on with it."""
        return {"far": self._far, "seen": [[kind, [*seen]] for kind, seen in self._seen.items()]}

    def restore(self, noted: Mapping[str, Any]) -> None:
        """Go on from `to_json`, or from nothing; kinds are strings or tuples of them."""
        self._far = noted.get("far", 0)
        self._seen = {
            tuple(kind) if isinstance(kind, list) else kind: deque(seen, maxlen=_REMEMBERED)
            for kind, seen in noted.get("seen", ())
        }


def finite_gradients(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether all gradients are finite; waits for the device."""
    norms = [parameter.grad.norm() for parameter in parameters if parameter.grad is not None]
    return not norms or bool(torch.isfinite(torch.stack(norms)).all())


def finite_weights(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether all tensors of a state are finite."""
    return all(bool(torch.isfinite(t).all()) for t in state.values() if t.is_floating_point())


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Meanwhile gradients pass through the networks, but none reaches their own weights."""
    weights = [w for network in networks for w in network.parameters() if w.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
