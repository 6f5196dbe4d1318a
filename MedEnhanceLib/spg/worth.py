"""What a distillation can gain at all, before minutes are spent on it.

Small networks learn from the public prior, from the prior with the cohort's statistics, and from
all raw images of one half of the patients, and are measured on raw images of the other half. Ours.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.nets.training import set_learning_rate
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig, Method
from MedEnhanceLib.spg.images import Floats, shown, spread_over
from MedEnhanceLib.spg.networks import make_network
from MedEnhanceLib.spg.prepare import Prepared
from MedEnhanceLib.spg.statistics import NUMBERS, imposed, mean_over, measure
from MedEnhanceLib.spg.tasks import Patches, Task, draw_pairs, make_task

#: Raw images of each patient that are measured.
_MEASURED = 8
#: Steps of a training, and trainings of each arm and half of the patients.
_STEPS, _SEEDS = 500, 2
#: dB; what gains less is called nothing to gain.
LEAST_ROOM = 0.3
#: dB that statistics have to leave before matching is advised. In eight cohorts and tasks, where
#: they left up to 0.5, matching gained 0.14 at most; in two of 17 and 18 patients they left 0.6,
#: and it gained 0.2 and 0.3.
ROOM_FOR_MATCHING = 1.0
#: Share of the steps over which the learning rate rises, and factor of the last layer's first
#: weights. At 0.02 and 1 one seed in three lost all its units in CT, and learned nothing.
_WARM_UP, _START = 0.1, 0.1
#: Steps after which whole images are degraded anew, which takes long, and how many at once.
_REDRAWN_EVERY, _AT_ONCE = 50, 8
#: Patches of a step, the side of a patch in pixels, and the learning rate.
_BATCH, _PATCH, _RATE = 4, 24, 3e-3


@dataclass(frozen=True)
class Room:
    """Gain that a cohort's images could add to the public prior, for one task.

    Mean PSNR in dB of what networks restore that learned from the public prior (public_db), from it
    with the cohort's statistics, and from all raw images (full_db); error_db: standard error of
    full_db − statistics_db, over seeds and halves. patients: on which they were measured.
    """

    public_db: float
    statistics_db: float
    full_db: float
    error_db: float
    patients: int

    @property
    def method(self) -> Method:
        """The advised method: matching where statistics leave more than it was seen to gain."""
        return "matching" if self.left_db >= ROOM_FOR_MATCHING else "statistics"

    @property
    def gain_db(self) -> float:
        """Gain of all raw images over the public prior."""
        return self.full_db - self.public_db

    @property
    def left_db(self) -> float:
        """Rest of it that statistics leave."""
        return self.full_db - self.statistics_db

    @property
    def sentence(self) -> str:
        """Sentences for a person who is about to distill."""
        if self.gain_db < LEAST_ROOM:
            return (
                f"There is almost nothing to gain: networks that learn from the public prior "
                f"restore other patients to {self.public_db:.1f} dB, those that learn from all raw "
                f"images to {self.full_db:.1f} dB. The public prior is enough."
            )
        reached = min(max(0.0, (self.statistics_db - self.public_db) / self.gain_db), 1.0)
        advice = (
            "matching may gain a part of the rest: it is advised."
            if self.method == "matching"
            else "where so little was left matching gained 0.3 dB at most: the method statistics "
            "is advised."
        )
        return (
            f"All raw images would gain {self.gain_db:.1f} dB over the public prior "
            f"({self.public_db:.1f} to {self.full_db:.1f} dB on other patients); the cohort's "
            f"{NUMBERS} statistics reach {reached:.0%} of it. {self.left_db:.1f} ± "
            f"{self.error_db:.1f} dB are left; {advice}"
        )

    def record(self) -> dict[str, Any]:
        """Convert to the fields that are published."""
        figures = {name: round(value, 4) for name, value in asdict(self).items()}
        return {**figures, "method": self.method, "sentence": self.sentence}


def room_of(
    prepared: Prepared,
    config: DistillConfig,
    *,
    device: str = "cpu",
    monitor: Monitor | None = None,
) -> Room:
    """Estimate what there is to gain, by training on halves of the patients who are distilled.

    Of the configuration task, pixel spacing and seed are used. Raises ConfigError for fewer than
    two patients.
    """
    raw, modality = prepared.training, prepared.modality
    if len(raw) < 2:
        raise ConfigError(
            f"the estimate needs two patients, besides those held out; there are {len(raw)}",
            "Use more patients, or select the method without an estimate.",
        )
    monitor = monitor or Monitor()
    public, everybody = prepared.public, list(raw.values())
    numbers = [measure(images, modality) for images in everybody]
    # By name, images of the first half of the patients and of the second.
    arms = {
        "the public prior": [public, public],
        "statistics": [imposed(public, mean_over(numbers[half::2]), modality) for half in (0, 1)],
        "all raw images": [np.concatenate(everybody[half::2]) for half in (0, 1)],
    }
    task = make_task(config, modality)
    test = [spread_over(images, min(_MEASURED, len(images))) for images in everybody]
    trainings = [(seed, half) for seed in range(_SEEDS) for half in (0, 1)]
    figures = np.zeros((len(arms), len(trainings)))
    silent = Monitor(cancel=lambda: monitor.cancelled)
    for row, (name, halves) in enumerate(arms.items()):
        for column, (seed, half) in enumerate(trainings):
            done = (row * len(trainings) + column) / figures.size
            monitor.progress(done, f"what can be gained: {name}")
            network = train_network(
                halves[half],
                task,
                modality,
                _STEPS,
                seed=config.seed + seed,
                device=device,
                monitor=silent,
            )
            others = np.concatenate(test[1 - half :: 2])
            figures[row, column] = restored_psnr(network, others, task, modality, device)
    public_db, statistics_db, full_db = figures.mean(axis=1).tolist()
    error_db = float((figures[2] - figures[1]).std(ddof=1) / math.sqrt(len(trainings)))
    return Room(public_db, statistics_db, full_db, error_db, len(raw))


def train_network(
    images: Floats,
    task: Task,
    modality: str,
    steps: int,
    *,
    seed: int,
    device: str,
    monitor: Monitor,
) -> nn.Module:
    """Train SRCNN on images [N, H, W] in [0, 1] to undo the task's degradation."""
    network = make_network(np.random.default_rng((seed, 0))).to(device)
    with torch.no_grad():
        for parameter in network.body[-1].parameters():
            parameter.mul_(_START)
    adam = torch.optim.Adam(network.parameters(), lr=_RATE)
    patches = Patches(shown(images, modality), min(_PATCH, *images.shape[1:]))
    everything = torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None].to(device)
    numbers, some, drawn = np.arange(len(images)), everything, None
    rng = np.random.default_rng((seed, 1))
    for number in range(steps):
        monitor.progress(number / steps, f"step {number} of {steps}")
        set_learning_rate(adam, _RATE, number, steps, warm_up=_WARM_UP)
        if not task.on_patches and number % _REDRAWN_EVERY == 0:
            numbers = rng.permutation(len(images))[:_AT_ONCE]
            some = everything[torch.from_numpy(numbers).to(device)]
            drawn = task.draw(some, rng)
        chosen, noise = rng.integers(len(numbers), size=_BATCH), int(rng.integers(2**62))
        low, high = draw_pairs(task, some, patches, numbers, chosen, rng, seed=noise, drawn=drawn)
        loss: Tensor = (network(low) - high).square().mean()
        adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return network.eval()


@torch.no_grad()
def restored_psnr(
    network: nn.Module,
    images: Floats,
    task: Task,
    modality: str,
    device: str,
) -> float:
    """Measure the PSNR in dB of what the network restores from degraded images [N, H, W]; peak 1.

    Over the pixels that show something: air would only dilute it.
    """
    batches = torch.split(torch.from_numpy(task.damaged(images, seed=0))[:, None], _AT_ONCE)
    restored = torch.cat([network(low.to(device)).cpu() for low in batches])[:, 0].numpy()
    return psnr(images, restored, 1.0, mask=shown(images, modality))
