"""What a step of each arm costs: processor time and memory, held to plain joint training.

Time: of the process, all arms a step each in turn, so that whatever else slows the machine slows
all alike. Memory: the most bytes that PyTorch's allocator held at once, from making the networks
to the last of a few steps: weights, averages, optimizers' moments, activations, gradients. What
convolution kernels take from the system by themselves is not seen, nor the images on disk.
"""

from __future__ import annotations

import statistics
import time
from functools import partial

import torch
from _common import peak_bytes
from _gradprom_arms import GATES, RANDOM, Learner, Plain, PlainLearner, Settings
from _gradprom_data import Case
from _gradprom_runs import cases_of

PLAIN = "joint, one backward pass"
_WARM_UP, _STEPS_OF_MEMORY = 3, 3


def costs(settings: Settings, timed: int) -> dict[str, dict[str, float]]:
    """By arm: seconds per step, of the enhancer's part alone too, bytes, and their ratios."""
    torch.set_num_threads(1)
    cases = cases_of(settings)
    seconds = _seconds(settings, cases, timed)
    found: dict[str, dict[str, float]] = {}
    for arm, (step, upper) in seconds.items():
        peak = peak_bytes(partial(_few_steps, settings, cases, arm))
        found[arm] = {"step_s": step, "upper_s": upper, "bytes": float(peak)}
    plain = found[PLAIN]
    for entry in found.values():
        entry |= {f"{name} ratio": entry[name] / plain[name] for name in ("step_s", "upper_s")}
        entry["bytes ratio"] = entry["bytes"] / plain["bytes"]
    return found


def _learner(settings: Settings, cases: list[Case], arm: str) -> Learner:
    if arm == PLAIN:
        return PlainLearner(settings, cases, 0, gate=Plain())
    return Learner(settings, cases, 0, arm, rate=0.5)


def _seconds(settings: Settings, cases: list[Case], timed: int) -> dict[str, tuple[float, float]]:
    """Medians of a whole step and of the enhancer's part of it."""
    learners = {name: _learner(settings, cases, name) for name in (PLAIN, *GATES) if name != RANDOM}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in learners}
    for _ in range(_WARM_UP + timed):
        for name, learner in learners.items():
            began = time.process_time()
            batch = learner.lower_step(settings.alone)
            middle = time.process_time()
            learner.upper_step(batch)
            ended = time.process_time()
            taken[name].append((ended - began, ended - middle))
    return {
        name: (
            statistics.median(whole for whole, _ in values[_WARM_UP:]),
            statistics.median(upper for _, upper in values[_WARM_UP:]),
        )
        for name, values in taken.items()
    }


def _few_steps(settings: Settings, cases: list[Case], arm: str) -> None:
    learner = _learner(settings, cases, arm)
    for number in range(_STEPS_OF_MEMORY):
        learner.step(settings.alone + number)
