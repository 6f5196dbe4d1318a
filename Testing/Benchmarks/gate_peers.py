"""The gradient gate beside published ways to join two gradients, on two digits that overlap.

    python Testing/Benchmarks/gate_peers.py            writes results
    python Testing/Benchmarks/gate_peers.py --quick    one seed, few steps, writes runs/benchmarks

Needs TorchJD with its solvers and scikit-learn, whose digits these are: pip install
'torchjd[full]' scikit-learn. Six to ten minutes of one core.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import torch
from _common import REPOSITORY, RESULTS, gate, peak_bytes, write
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.gradprom import GradientGate
from MedEnhanceLib.gradprom.gradients import Gradient, both_gradients

Row = dict[str, Any]
SIDE, DIGIT = 12, 8
#: Columns of the left digit and of the right one: four to six of eight overlap.
_LEFT, _RIGHT = (0, 2), (3, 5)
#: Variance of the left digit's image around its mean image, measured over 20,000 pairs.
_VARIANCE = 0.053
_TRAINING_DIGITS = 1200
_HELD_OUT_PAIRS = 2000
CLASSES, IMAGE = "two classes", "image and class"
ALONE, AUX_ALONE, SUM = "main alone", "auxiliary alone", "sum"
BINARY, OURS, COSINE = "gate, binary", "gate, EMA 0.99", "gate, cosine"
PEERS = ("PCGrad", "MGDA", "CAGrad", "UPGrad", "AlignedMTL", "IMTL-G", "Nash-MTL")
ACTING = (OURS,)
ARMS = (ALONE, AUX_ALONE, SUM, BINARY, COSINE, *ACTING, *PEERS)


@dataclass(frozen=True)
class Settings:
    """Length of a run, the same for all arms."""

    steps: int = 400
    batch: int = 64
    learning_rate: float = 5e-3
    #: Steps in which the gate on averages is closed: as many as they span.
    warm_up: int = 100


class Pairs(NamedTuple):
    """image: [B, 1, 12, 12], 0 to 1; left: image of the left digit; classes: [B] each."""

    image: Tensor
    left: Tensor
    of_left: Tensor
    of_right: Tensor


@dataclass(frozen=True)
class Digits:
    """images: [N, 8, 8], 0 to 1; classes: [N]."""

    images: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    def draw(self, count: int, rng: np.random.Generator) -> Pairs:
        """Two digits each, at places of their own; where they overlap the brighter one shows."""
        canvases = np.zeros((2, count, SIDE, SIDE), np.float32)
        chosen = rng.integers(len(self.images), size=(2, count))
        steps = np.arange(DIGIT)
        for canvas, numbers, (first, end) in zip(canvases, chosen, (_LEFT, _RIGHT), strict=True):
            rows = rng.integers(SIDE - DIGIT + 1, size=(count, 1, 1)) + steps[:, None]
            columns = rng.integers(first, end, size=(count, 1, 1)) + steps
            canvas[np.arange(count)[:, None, None], rows, columns] = self.images[numbers]
        return Pairs(
            torch.from_numpy(canvases.max(axis=0))[:, None],
            torch.from_numpy(canvases[0]),
            *(torch.from_numpy(self.classes[index]) for index in chosen),
        )


def split(seed: int) -> tuple[Digits, Digits]:
    """Digits to learn from and held-out ones: others for each seed."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images / 16).astype(np.float32)
    classes = found.target.astype(np.int64)
    order = np.random.default_rng([seed, 9]).permutation(len(images))
    parts = (order[:_TRAINING_DIGITS], order[_TRAINING_DIGITS:])
    learned, held_out = (Digits(images[part], classes[part]) for part in parts)
    return learned, held_out


# --- network and its losses -----------------------------------------------------------------------


class Network(nn.Module):
    """Layers that both tasks share, and a head for each task."""

    def __init__(self, case: str) -> None:
        super().__init__()
        self.case = case
        self.shared = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(12, 24, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24 * (SIDE // 2) ** 2, 32),
            nn.ReLU(),
        )
        self.main = nn.Linear(32, 10 if case == CLASSES else SIDE**2)
        self.aux = nn.Linear(32, 10)

    def heads(self) -> list[nn.Parameter]:
        return [*self.main.parameters(), *self.aux.parameters()]

    def answers(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        features = self.shared(pairs.image)
        return self.main(features), self.aux(features)

    def losses(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Each over what the best constant answer has: no weight is chosen for them."""
        main, aux = self.answers(pairs)
        of_aux = F.cross_entropy(aux, pairs.of_right) / math.log(10)
        if self.case == CLASSES:
            return F.cross_entropy(main, pairs.of_left) / math.log(10), of_aux
        wanted = pairs.left.flatten(1)
        return F.mse_loss(main, wanted) / _VARIANCE, of_aux


# --- arms -----------------------------------------------------------------------------------------

#: Gradients of the shared layers from both losses.
Rule = Callable[[Tensor, Tensor, list[nn.Parameter]], Sequence[Gradient]]


def _chosen(
    main: Tensor, aux: Tensor, shared: list[nn.Parameter], *, of: str
) -> Sequence[Gradient]:
    """By one backward pass."""
    loss = {ALONE: main, AUX_ALONE: aux, SUM: main + aux}[of]
    return torch.autograd.grad(loss, shared)


def _gated(
    main: Tensor, aux: Tensor, shared: list[nn.Parameter], *, by: GradientGate
) -> Sequence[Gradient]:
    return by(main, aux, shared)[0]


def _aggregated(
    main: Tensor, aux: Tensor, shared: list[nn.Parameter], *, by: Callable[[Tensor], Tensor]
) -> Sequence[Gradient]:
    both = both_gradients(main, aux, shared)
    rows = [torch.cat([g.flatten() for g in side if g is not None]) for side in both]
    parts = by(torch.stack(rows)).split([p.numel() for p in shared])
    return [part.view_as(p) for part, p in zip(parts, shared, strict=True)]


def make_rule(arm: str, settings: Settings) -> Rule:
    if arm in (ALONE, AUX_ALONE, SUM):
        return partial(_chosen, of=arm)
    gates = {
        BINARY: partial(GradientGate, "binary", ema=0.0),
        OURS: partial(GradientGate, "binary", ema=0.99, warm_up=settings.warm_up),
        COSINE: partial(GradientGate, "cosine", ema=0.0),
    }
    if arm in gates:
        return partial(_gated, by=gates[arm]())
    from torchjd import aggregation

    peers: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
        "PCGrad": aggregation.PCGrad,
        "MGDA": aggregation.MGDA,
        "CAGrad": partial(aggregation.CAGrad, c=0.5),
        "UPGrad": aggregation.UPGrad,
        "AlignedMTL": aggregation.AlignedMTL,
        "IMTL-G": aggregation.IMTLG,
        "Nash-MTL": partial(aggregation.NashMTL, n_tasks=2),
    }
    return partial(_aggregated, by=peers[arm]())


class Learner:
    """One network that learns by one arm's rule; its heads learn by their own losses alone."""

    def __init__(self, case: str, arm: str, seed: int, settings: Settings) -> None:
        torch.manual_seed(seed)
        self.settings = settings
        self.network = Network(case)
        self.shared, self.heads = list(self.network.shared.parameters()), self.network.heads()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=settings.learning_rate)
        self.rule = make_rule(arm, settings)
        self.is_sum = arm == SUM

    def step(self, pairs: Pairs, number: int) -> float:
        """One step of the optimizer; the main loss."""
        main, aux = self.network.losses(pairs)
        if self.is_sum:  # as one would write it: one pass for everything
            gradients = torch.autograd.grad(main + aux, [*self.shared, *self.heads])
            self._descend([*gradients], number)
            return float(main.detach())
        of_heads = torch.autograd.grad(main + aux, self.heads, retain_graph=True)
        of_shared = self.rule(main, aux, self.shared)
        self._descend([*of_shared, *of_heads], number)
        return float(main.detach())

    def _descend(self, gradients: Sequence[Gradient], number: int) -> None:
        for group in self.optimizer.param_groups:
            place = math.pi * number / self.settings.steps
            group["lr"] = self.settings.learning_rate * (1 + math.cos(place)) / 2
        for parameter, gradient in zip([*self.shared, *self.heads], gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()


def learned(case: str, arm: str, seed: int, settings: Settings) -> Row:
    """One training, and what it makes of held-out digits."""
    training, held_out = split(seed)
    learner = Learner(case, arm, seed, settings)
    rng = np.random.default_rng([seed, 1])
    for number in range(settings.steps):
        learner.step(training.draw(settings.batch, rng), number)
    pairs = held_out.draw(_HELD_OUT_PAIRS, np.random.default_rng([seed, 2]))
    return {"case": case, "arm": arm, "seed": seed, **measured(learner.network, pairs)}


@torch.no_grad()
def measured(network: Network, pairs: Pairs) -> Row:
    """main: accuracy in %, or PSNR in dB; aux: accuracy in %; and both losses."""
    main, aux = network.answers(pairs)
    losses = network.losses(pairs)
    if network.case == CLASSES:
        found = 100 * float((main.argmax(1) == pairs.of_left).float().mean())
    else:
        found = -10 * math.log10(float(F.mse_loss(main, pairs.left.flatten(1))))
    return {
        "main": found,
        "aux": 100 * float((aux.argmax(1) == pairs.of_right).float().mean()),
        "main_loss": float(losses[0]),
        "aux_loss": float(losses[1]),
    }


# --- costs ----------------------------------------------------------------------------------------


def costs(case: str, settings: Settings, timed: int) -> Iterator[Row]:
    """Of a step of each arm, a step each in turn: whatever else slows the machine slows all."""
    digits, rng = split(0)[0], np.random.default_rng(5)
    learners = {arm: Learner(case, arm, 0, settings) for arm in ARMS}
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(timed):
        pairs = digits.draw(settings.batch, rng)
        for arm, learner in learners.items():
            began = time.process_time()
            learner.step(pairs, number)
            seconds[arm].append(time.process_time() - began)
    medians = {arm: statistics.median(values) for arm, values in seconds.items()}
    memory = {arm: peak_bytes(partial(_few_steps, case, arm, settings, pairs)) for arm in ARMS}
    for arm in ARMS:
        yield {
            "case": case,
            "arm": arm,
            "step_ms": 1000 * medians[arm],
            "time_ratio": medians[arm] / medians[SUM],
            "memory_ratio": memory[arm] / memory[SUM],
        }


def _few_steps(case: str, arm: str, settings: Settings, pairs: Pairs) -> None:
    learner = Learner(case, arm, 0, settings)
    for number in range(3):
        learner.step(pairs, number)


# --- statistics and gates -------------------------------------------------------------------------


class Mean(NamedTuple):
    """A mean over seeds and its 95 % interval by Student's t; no interval of one seed."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def mean_of(values: Sequence[float]) -> Mean:
    from scipy.stats import t

    value = statistics.fmean(values)
    if len(values) < 2:
        return Mean(value, -math.inf, math.inf)
    error = statistics.stdev(values) / math.sqrt(len(values))
    reach = float(t.ppf(0.975, len(values) - 1)) * error
    return Mean(value, value - reach, value + reach)


def of(rows: Sequence[Row], case: str, arm: str, key: str) -> list[float]:
    """By seed."""
    return [row[key] for row in rows if (row["case"], row["arm"]) == (case, arm)]


def above(rows: Sequence[Row], case: str, arm: str, key: str, other: str = ALONE) -> Mean:
    """Seed by seed: digits and first weights of a seed are the same for all arms."""
    pairs = zip(of(rows, case, arm, key), of(rows, case, other, key), strict=True)
    return mean_of([one - two for one, two in pairs])


def cost(rows: Sequence[Row], case: str, arm: str) -> Mean:
    """Of the main loss on held-out digits over that of the main loss alone, dB."""
    pairs = zip(of(rows, case, arm, "main_loss"), of(rows, case, ALONE, "main_loss"), strict=True)
    return mean_of([10 * math.log10(one / two) for one, two in pairs])


def better_than(
    rows: Sequence[Row], case: str, arm: str, others: Sequence[str] = ARMS
) -> list[str]:
    """Those that are better on average in both losses."""

    def losses(name: str) -> tuple[float, float]:
        main, aux = (of(rows, case, name, key) for key in ("main_loss", "aux_loss"))
        return statistics.fmean(main), statistics.fmean(aux)

    main, aux = losses(arm)
    return [o for o in others if losses(o)[0] < main and losses(o)[1] < aux]


def gates_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every gate also asks that the auxiliary accuracy grows: a closed gate passes none."""
    found = []
    for case in (CLASSES, IMAGE):
        for arm in ACTING:
            spent, acts = cost(rows, case, arm).value, above(rows, case, arm, "aux").low > 0
            name = f"{case}: {arm}, cost of the main loss, dB"
            found.append(gate(name, spent, "≤ 0.1, and the task gains", acts and spent <= 0.1))
            number = len(better_than(rows, case, arm, PEERS))
            found.append(
                gate(
                    f"{case}: {arm}, peers that are better in both losses",
                    number,
                    "0, and the task gains",
                    acts and number == 0,
                )
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--quick", action="store_true", help="one seed, few steps, in runs/")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # Of CVXPY: that Nash-MTL states its problem in a form that is solved anew in each step.
    warnings.filterwarnings("ignore", module="torchjd")
    settings = Settings(steps=20, warm_up=5) if options.quick else Settings()
    seeds = options.seeds[:1] if options.quick else options.seeds
    rows = []
    for case in (CLASSES, IMAGE):
        for seed in seeds:
            for arm in ARMS:
                began = time.process_time()
                rows.append(learned(case, arm, seed, settings))
                print(f"{time.process_time() - began:.1f} s", rows[-1], flush=True)
    costs_of = [
        row for case in (CLASSES, IMAGE) for row in costs(case, settings, min(100, settings.steps))
    ]
    gates = gates_of(rows)
    write(
        "gate_peers",
        gates=gates,
        rows=[*rows, *costs_of],
        seeds=seeds,
        folder=REPOSITORY / "runs" / "benchmarks" if options.quick else RESULTS,
    )


# --- results


if __name__ == "__main__":
    main()
