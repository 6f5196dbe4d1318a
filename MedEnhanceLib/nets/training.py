"""What every training loop shares: its steps, its learning rate, its averaged weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from MedEnhanceLib.progress import Monitor

_WARM_UP = 0.02
_LAST_SHARE = 0.01


def training_steps(
    start: int, total: int, save: Callable[[int], None], every_s: float, monitor: Monitor
) -> Iterator[int]:
    """The numbers of the steps still to do.

    `save` is called with the next step's number every `every_s` seconds, before Cancelled is
    raised where the user asked to stop, and at the end.
    """
    saved = time.monotonic()
    for number in range(start, total):
        if monitor.cancelled:
            save(number)
        monitor.progress(number / total, f"step {number} of {total}")
        yield number
        if time.monotonic() - saved > every_s:
            save(number + 1)
            saved = time.monotonic()
    save(total)


def set_learning_rate(optimiser: Optimizer, peak: float, number: int, total: int) -> None:
    """Linear warm-up over 2 % of the steps, then a cosine down to a hundredth of the peak."""
    warm_up = min(1.0, (number + 1) / (_WARM_UP * total + 1))
    cosine = 0.5 * (1 + math.cos(math.pi * number / total))
    for group in optimiser.param_groups:
        group["lr"] = peak * warm_up * (_LAST_SHARE + (1 - _LAST_SHARE) * cosine)


def averaged_weights(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of the network whose weights are the exponential moving average of its own."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=average, use_buffers=True)
