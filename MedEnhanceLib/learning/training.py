"""Parts of training loops: steps, learning rate, averaged weights, metrics journal."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from MedEnhanceLib.errors import Cancelled, ModelError
from MedEnhanceLib.io.atomic import atomic_write, make_folder, refuse_unwritable
from MedEnhanceLib.learning.checkpoint import Checkpoint, Stateful
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import NOTHING_WRITTEN, Monitor

Network = TypeVar("Network", bound=nn.Module)
#: File of a training's state in its output folder.
CHECKPOINT = "checkpoint.safetensors"
_GO_ON = "Start again with the same output folder to continue."
# Chosen by hand; no table isolates them.
_WARM_UP = 0.02
_LAST_SHARE = 0.01
#: Weight decay of AdamW, and the largest norm of a gradient.
_WEIGHT_DECAY, _MOST_GRADIENT = 1e-4, 1.0
#: Decay of the averaged weights, which are shipped.
EMA = 0.998
#: Decay of the running means of losses, per step.
_DECAY = 0.95
#: Seconds between two checkpoints, and steps between two reports of the losses, in `run_steps`.
_CHECKPOINT_S, _REPORTED_EVERY = 120.0, 20


def training_steps(
    start: int,
    total: int,
    save: Callable[[int], None],
    every_s: float,
    monitor: Monitor,
    *,
    of: str = "",
) -> Iterator[int]:
    """Yield the numbers of the remaining steps.

    Args:
        start: first step.
        total: number of steps.
        save: called with the next step's number every `every_s` seconds, before Cancelled, and at
            the end.
        every_s: seconds between checkpoints.
        monitor: progress and cancellation.
        of: name of what is trained, for the progress text.
    Raises Cancelled: after a step and a checkpoint, or before the first step.
    """
    saved, text = time.monotonic(), f"{of}, step" if of else "step"
    if monitor.cancelled and start < total:
        if start > 0:
            raise Cancelled("cancelled before resuming; the checkpoint is unchanged", _GO_ON)
        raise Cancelled(
            "cancelled before the first step; no checkpoint was written",
            "Start the training again.",
        )
    for number in range(start, total):
        with suppress(Cancelled):  # a cancel takes effect after the step
            monitor.progress(number / total, f"{text} {number} of {total}")
        yield number
        stops = monitor.cancelled and number + 1 < total
        if stops or number + 1 == total or time.monotonic() - saved > every_s:
            save(number + 1)
            saved = time.monotonic()
        if stops:
            raise Cancelled(
                f"cancelled after step {number + 1} of {total}; the checkpoint is written", _GO_ON
            )


@contextmanager
def checkpoint_named(out: Path) -> Iterator[None]:
    """State in the message of a cancel within the context that the checkpoint is kept."""
    try:
        yield
    except Cancelled as cause:
        if cause.hint != NOTHING_WRITTEN or not any(out.glob("*checkpoint*.safetensors")):
            raise
        raise Cancelled("cancelled; the checkpoint is kept", _GO_ON) from cause


def begin_training(device: str, out: Path, monitor: Monitor) -> str:
    """Check the output folder and choose the device; returns the device's name.

    Args:
        device: "auto", or as PyTorch names it.
        out: made by `run_steps`, so that refused data leave no empty folder.
        monitor: logs the device and why.
    """
    choice = choose_device(device)
    monitor.log(f"training on {choice.name}: {choice.reason}")
    refuse_unwritable(out)
    return choice.name


class Learner(Generic[Network]):
    """A network, its optimizer (AdamW), and its averaged weights, which are shipped.

    Args:
        learning_rate: its peak; see `set_learning_rate`.
        ema: decay of the averaged weights.
    """

    def __init__(
        self,
        network: Network,
        learning_rate: float,
        ema: float,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self.network, self._learning_rate = network, learning_rate
        self.average = averaged_weights(network, ema)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=learning_rate, betas=betas, weight_decay=_WEIGHT_DECAY
        )

    def step(self, loss: Tensor, number: int, total: int) -> None:
        """Descend a loss; see `update`.

        Args:
            loss: a scalar with a gradient.
            number: of the step, from 0.
            total: number of steps, which the learning rate follows.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.update(number, total)

    def update(self, number: int, total: int) -> None:
        """Update the weights by their gradients, unless these are not finite."""
        set_learning_rate(self.optimizer, self._learning_rate, number, total)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), _MOST_GRADIENT)
        if torch.isfinite(norm):
            self.optimizer.step()
            self.average.update_parameters(self.network)

    def run(
        self,
        loss_of: Callable[[int], tuple[Tensor, Mapping[str, Tensor]]],
        count: int,
        out: Path,
        config: Mapping[str, Any],
        monitor: Monitor,
        generator: np.random.Generator | None = None,
        modules: Mapping[str, Stateful] | None = None,
        optimizers: Mapping[str, Optimizer] | None = None,
    ) -> float:
        """Descend the losses of all steps, as `run_steps`; returns the seconds.

        Args:
            loss_of: of a step's number returns the loss, and values to report by name.
            count: number of all steps.
            out: folder of checkpoint and metrics.
            config: JSON; all of it but the device must be the same on resuming.
            monitor: progress and cancellation.
            generator: of random numbers that `loss_of` draws besides torch's.
            modules: other states that the checkpoint keeps.
            optimizers: of those, that `loss_of` steps itself.
        """

        def step(number: int) -> dict[str, float]:
            loss, reported = loss_of(number)
            self.step(loss, number, count)
            return {name: float(value.detach()) for name, value in reported.items()}

        parts = {
            "config": {**config, "device": ""},
            "modules": {"network": self.network, "average": self.average, **(modules or {})},
            "optimizers": {"adam": self.optimizer, **(optimizers or {})},
            "generator": generator,
        }
        return run_steps(step, count, out, parts, monitor)

    def averaged(self) -> Network:
        """Copy the network with its averaged weights, for use."""
        network: Network = copy.deepcopy(self.average.module)  # type: ignore[assignment]
        return network.eval().requires_grad_(False)


def run_steps(
    step: Callable[[int], Mapping[str, float]],
    count: int,
    out: Path,
    parts: Mapping[str, Any],
    monitor: Monitor,
) -> float:
    """Run the remaining steps of a training in a folder, from its checkpoint if there is one.

    Args:
        step: makes the step of a number; returns its losses.
        count: number of all steps.
        out: folder of `checkpoint.safetensors` and `metrics.jsonl`.
        parts: fields of the `Checkpoint`: config, modules, optimizers, generator.
        monitor: progress and cancellation.
    Returns the seconds of all steps.
    Raises Cancelled: after a checkpoint was written.
    Raises ConfigError: the checkpoint is of another training.
    Raises ModelError: a loss is not finite; the last checkpoint stays.
    """
    checkpoint = Checkpoint(make_folder(out) / CHECKPOINT, **parts)
    start, began = 0, time.monotonic()
    if checkpoint.path.exists():
        start, notes = checkpoint.load()
        began -= notes["seconds"]
        monitor.log(f"resumed at step {start}")
    journal = Journal(out / "metrics.jsonl", start, monitor)

    def save(number: int) -> None:
        checkpoint.save(number, {"seconds": time.monotonic() - began})

    for number in training_steps(start, count, save, _CHECKPOINT_S, monitor):
        losses = step(number)
        if not all(map(math.isfinite, losses.values())):
            raise ModelError(
                f"the training diverged at step {number}",
                "Start again in another folder with a lower learning_rate.",
            )
        journal.add(losses)
        if number % _REPORTED_EVERY == 0 or number == count - 1:
            journal.report(number)
    return time.monotonic() - began


def set_learning_rate(optimizer: Optimizer, peak: float, number: int, total: int) -> None:
    """Set the rate of a step: linear warm-up, then cosine decay to a hundredth of the peak.

    Args:
        optimizer: whose rate is set.
        peak: highest rate.
        number: of the step, from 0.
        total: number of all steps.
    """
    warmed = min(1.0, (number + 1) / (_WARM_UP * total + 1))
    cosine = 0.5 * (1 + math.cos(math.pi * number / total))
    for group in optimizer.param_groups:
        group["lr"] = peak * warmed * (_LAST_SHARE + (1 - _LAST_SHARE) * cosine)


def averaged_weights(network: nn.Module, decay: float) -> AveragedModel:
    """Copy a network with exponentially averaged weights; their decay grows with the steps."""

    @torch.no_grad()
    def average(averages: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
        # As a tensor: to read the count would make the host wait for the device in each step.
        steps = torch.as_tensor(count, dtype=torch.float32)
        share = 1 - ((1 + steps) / (10 + steps)).clamp_max(decay)
        for averaged, weight in zip(averages, weights, strict=True):
            if averaged.is_floating_point():
                averaged.lerp_(weight.to(averaged.dtype), share.to(averaged.dtype))
            else:
                averaged.copy_(weight)

    return AveragedModel(network, multi_avg_fn=average, use_buffers=True)


class Journal:
    """Running means of losses, reported as metrics and appended to a file, one JSON line each."""

    def __init__(self, path: Path, start: int, monitor: Monitor) -> None:
        """Drop the file's rows from step `start` on: these steps are still to be made."""
        self._path, self._monitor = path, monitor
        self._smooth: dict[str, tuple[float, float]] = {}
        rows: list[str] = []
        # A killed process may have left its last line incomplete.
        with suppress(OSError, ValueError, KeyError):
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            rows.extend(line for line in lines if json.loads(line)["step"] < start)
        with atomic_write(path, overwrite=True) as temporary:
            temporary.write_text("".join(rows), encoding="utf-8")

    def add(self, values: Mapping[str, float]) -> None:
        """Add the losses of a step to their running means."""
        for name, value in values.items():
            total, weight = self._smooth.get(name, (0.0, 0.0))
            self._smooth[name] = (_DECAY * total + value, _DECAY * weight + 1)

    def report(self, step: int) -> None:
        """Report the running means at this step as metrics, and write them."""
        with self._path.open("a", encoding="utf-8") as stream:
            for name, (total, weight) in self._smooth.items():
                mean = total / weight
                self._monitor.metric(name, mean, step)
                stream.write(json.dumps({"name": name, "value": mean, "step": step}) + "\n")
