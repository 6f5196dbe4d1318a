"""Shared by training loops: steps, learning rate, averaged weights, loss watch, metrics journal."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from MedEnhanceLib.errors import Cancelled, ModelError
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.nets.checkpoint import load_checkpoint, save_checkpoint
from MedEnhanceLib.runtime.progress import NOTHING_WRITTEN, Monitor

#: File of a training's state in its output folder.
CHECKPOINT = "checkpoint.safetensors"
_GO_ON = "Start again with the same output folder to continue."
_WARM_UP = 0.02
_LAST_SHARE = 0.01
#: A loss is far off above 5 times the running median of up to 500 (at least 50) losses.
_FAR, _REMEMBERED, _LEAST_REMEMBERED = 5.0, 500, 50
_PATIENCE = 50
Curves = dict[str, list[tuple[int, float]]]
_DECAY = 0.95


def training_steps(
    start: int,
    total: int,
    save: Callable[[int], None],
    every_s: float,
    monitor: Monitor,
    *,
    of: str = "",
) -> Iterator[int]:
    """The numbers of the remaining steps.

    Args:
        start: first step.
        total: number of steps in all.
        save: called with the next step's number every `every_s` seconds, before Cancelled, and at
            the end.
        every_s: seconds between two checkpoints.
        monitor: progress and cancelling.
        of: name of what is trained, for the progress text.
    Raises:
        Cancelled: after a step and a checkpoint, or before the first step.
    """
    saved, text = time.monotonic(), f"{of}, step" if of else "step"
    for number in range(start, total):
        is_due = number > start and time.monotonic() - saved > every_s
        stops = monitor.cancelled
        if stops and number == start:
            raise cancelled_before(resumed=start > 0)
        if stops or is_due:
            save(number)
            saved = time.monotonic()
        if stops:
            raise Cancelled(
                f"cancelled after step {number} of {total}; the checkpoint is written", _GO_ON
            )
        with suppress(Cancelled):  # a cancel at this moment takes effect at the next step
            monitor.progress(number / total, f"{text} {number} of {total}")
        yield number
    save(total)


def cancelled_before(*, resumed: bool) -> Cancelled:
    """The error of a cancel before the first step of this run: there is nothing to save."""
    if resumed:
        return Cancelled("cancelled before it went on; the checkpoint is as it was", _GO_ON)
    return Cancelled(
        "cancelled before the first step; no checkpoint was written", "Start again when you like."
    )


@contextmanager
def checkpoint_named(out: Path) -> Iterator[None]:
    """A cancel within it that finds a checkpoint in `out` says that it is kept.

    The monitor's own error, before and after the steps of a training, says that nothing is there.
    """
    try:
        yield
    except Cancelled as cause:
        if cause.hint != NOTHING_WRITTEN or not any(out.glob("*checkpoint*.safetensors")):
            raise
        raise Cancelled("cancelled; the checkpoint is kept", _GO_ON) from cause


def run_steps(
    step: Callable[[int], Mapping[str, float]],
    count: int,
    out: Path,
    parts: Mapping[str, Any],
    monitor: Monitor,
    *,
    every_s: float,
    reported_every: int,
    is_sound: Callable[[], bool] = lambda: True,
) -> tuple[Curves, float]:
    """All remaining steps of a training in one folder, from its checkpoint where there is one.

    Args:
        step: makes a step of this number; returns its losses.
        count: of all steps.
        out: folder of `checkpoint.safetensors` and `metrics.jsonl`.
        parts: what `save_checkpoint` takes: config, modules, optimizers, generator.
        monitor: progress, metrics and cancelling.
        every_s: seconds between two checkpoints.
        reported_every: steps between two reports of the losses.
        is_sound: whether the state is worth a checkpoint.
    Returns:
        The losses by name, and the seconds of all steps.
    Raises:
        Cancelled: after a checkpoint was written.
        ConfigError: the checkpoint is of another training.
        DivergenceError: a loss is not finite.
    """
    path = out / CHECKPOINT
    start, notes = 0, {"seconds": 0.0}
    if path.exists():
        start = load_checkpoint(path, notes=notes, **parts)
        monitor.log(f"resumed at step {start}")
    began = time.monotonic() - notes["seconds"]
    journal = Journal(out / "metrics.jsonl", start, monitor)

    def save(number: int) -> None:
        if is_sound():
            notes = {"seconds": time.monotonic() - began}
            save_checkpoint(path, step=number, notes=notes, **parts)

    for number in training_steps(start, count, save, every_s, monitor):
        losses = step(number)
        if not all(map(math.isfinite, losses.values())):
            raise diverged(number)
        journal.add(losses)
        if number % reported_every == 0 or number == count - 1:
            journal.report(number)
    return journal.curves, time.monotonic() - began


def diverged(number: int) -> DivergenceError:
    """The error of a training that does not converge."""
    return DivergenceError(
        f"the training diverged at step {number}",
        "Start again in another folder with a lower learning_rate.",
    )


def set_learning_rate(
    optimizer: Optimizer, peak: float, number: int, total: int, *, warm_up: float = _WARM_UP
) -> None:
    """Linear warm-up over that share of the steps, cosine decay to a hundredth of the peak."""
    warmed = min(1.0, (number + 1) / (warm_up * total + 1))
    cosine = 0.5 * (1 + math.cos(math.pi * number / total))
    for group in optimizer.param_groups:
        group["lr"] = peak * warmed * (_LAST_SHARE + (1 - _LAST_SHARE) * cosine)


def averaged_weights(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of the network with exponentially averaged weights.

    The decay grows with the steps up to `decay`, so that a short training does not average its
    beginning.
    """

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


class DivergenceError(ModelError):
    """Losses are not finite any more, or far above what they were for many steps."""


class LossWatch:
    """Detects divergence: losses far above their running median, 50 steps in a row.

    Losses that are far off do not enter it.
    """

    def __init__(self) -> None:
        self._seen: deque[float] = deque(maxlen=_REMEMBERED)
        self._far = 0

    @property
    def is_calm(self) -> bool:
        """Whether the last loss was near its median, so that the weights are worth keeping."""
        return self._far == 0

    def observe(self, value: float) -> bool:
        """Add a step's loss (not negative); whether the training has diverged."""
        seen = self._seen
        if len(seen) >= _LEAST_REMEMBERED and not value <= _FAR * statistics.median(seen):
            self._far += 1
        else:
            self._far = 0
            seen.append(value)
        return self._far >= _PATIENCE


def finite_weights(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether all tensors of a state are finite; synchronizes with the device once."""
    found = [torch.isfinite(t).all() for t in state.values() if t.is_floating_point()]
    return not found or bool(torch.stack([each.to(found[0].device) for each in found]).all())


class Journal:
    """Smooths losses, reports them as metrics and appends them to a file, one JSON line each.

    path: of the file. start: first step of this run: rows of later steps in the
    file are dropped, as these steps are repeated.
    """

    def __init__(self, path: Path, start: int, monitor: Monitor) -> None:
        self.curves: Curves = {}
        self._path, self._monitor = path, monitor
        self._smooth: dict[str, tuple[float, float]] = {}
        for name, value, step in _read(path) if start else []:
            if step < start:
                self.curves.setdefault(name, []).append((step, value))
        rows = [(n, v, s) for n, curve in self.curves.items() for s, v in curve]
        with atomic_write(path, overwrite=True) as temporary:
            temporary.write_text("".join(_line(*row) for row in rows), encoding="utf-8")

    def add(self, values: Mapping[str, float]) -> None:
        """Add the losses of a step to their running means."""
        for name, value in values.items():
            total, weight = self._smooth.get(name, (0.0, 0.0))
            self._smooth[name] = (_DECAY * total + value, _DECAY * weight + 1)

    def report(self, step: int) -> None:
        """Record the running means at this step."""
        means = {name: total / weight for name, (total, weight) in self._smooth.items()}
        self.record(means, step)

    def record(self, values: Mapping[str, float], step: int) -> None:
        """Report values as metrics and write them."""
        for name, value in values.items():
            self.curves.setdefault(name, []).append((step, value))
            self._monitor.metric(name, value, step)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.writelines(_line(name, value, step) for name, value in values.items())


def _line(name: str, value: float, step: int) -> str:
    return json.dumps({"name": name, "value": value, "step": step}) + "\n"


def _read(path: Path) -> list[tuple[str, float, int]]:
    """The rows of a journal, up to a line that a killed process left incomplete."""
    rows: list[tuple[str, float, int]] = []
    with suppress(OSError, ValueError, KeyError):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows.append((row["name"], row["value"], row["step"]))
    return rows
