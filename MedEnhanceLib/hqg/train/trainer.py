"""One training of HQG-Net, step by step: networks, optimizers, and what goes wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from MedEnhanceLib.core.options import config_to_json
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.network import Enhancer, GuidanceEncoder
from MedEnhanceLib.hqg.train.augment import begin_with_spectrum
from MedEnhanceLib.hqg.train.losses import Critic, Objective
from MedEnhanceLib.hqg.train.pools import Batch, Batches, Pools, step_generator
from MedEnhanceLib.hqg.train.task import MakeTask, Teaching
from MedEnhanceLib.nets.checkpoint import load_checkpoint, save_checkpoint
from MedEnhanceLib.nets.precision import mixed_precision, move
from MedEnhanceLib.nets.processes import Processes
from MedEnhanceLib.nets.training import (
    DivergenceError,
    LossWatch,
    averaged_weights,
    finite_weights,
    set_learning_rate,
)

#: Steps between two copies of the averaged weights, made while losses are calm.
_KEEP_EVERY = 50
#: More consecutive gradients that are not finite are not due to half precision alone.
_MOST_SKIPPED = 20
#: Fields that do not change what is learned: a training may continue with other values.
_FREE = {"device": "", "checkpoint_s": 0.0, "validation_s": 0.0, "workers": None}
RETRY = (
    "The last good checkpoint is kept. Train into another folder with a lower learning_rate, "
    "or look at the data: damaged voxels, another modality."
)


class Trainer:
    """Networks, optimizers and state of one training.

    Args:
        config: of the training.
        pools: its volumes.
        device: as torch names it.
        processes: all that train together; None for this one alone.
        make_task: makes the head of stage 2, where the configuration has a task.
    Raises:
        ConfigError: the task has no head, or several processes train.
    """

    def __init__(
        self,
        config: TrainConfig,
        pools: Pools,
        device: str,
        *,
        processes: Processes | None = None,
        make_task: MakeTask | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.pools, self.device = config, pools, device
        self.processes = processes or Processes(device=device)
        self.batches = Batches(pools, config, self.processes.rank)
        self.autocast = mixed_precision(device)
        self.enhancer = Enhancer(config.network)
        begin_with_spectrum(self.enhancer, [v.noise[0] for v in pools.high if v.noise])
        self.guide = GuidanceEncoder(config.network)
        self.networks = nn.ModuleDict({"enhancer": self.enhancer, "guide": self.guide})
        move(self.networks, device)
        self.critic = None
        if config.loss.adversarial and pools.low:
            self.critic = Critic(config.loss, device, self.autocast)
        self.average = averaged_weights(self.networks, config.ema)
        self.optimizer = torch.optim.AdamW(
            self.networks.parameters(),
            lr=config.learning_rate,
            betas=(config.beta1, 0.999),
            weight_decay=1e-4,
        )
        self.objective = Objective(config, self.enhancer, self.guide, self.critic, self.autocast)
        self.teaching = self._make_teaching(make_task)
        self.watch = LossWatch()
        self.skipped, self._skipped_in_a_row = 0, 0
        self.seconds = 0.0
        self.good_step = 0
        self._good = self._kept()

    def _make_teaching(self, make: MakeTask | None) -> Teaching | None:
        if self.config.task is None:
            return None
        if make is None:
            raise ConfigError("the task has no head", "Train through the job or the command.")
        if self.processes.count > 1:
            raise ConfigError(
                "a task cannot be trained in several processes",
                "Start without torchrun, or leave the task out.",
            )
        return Teaching(self.config, self.config.task, make, self.device)

    def step(self, number: int, batch: Batch | None = None) -> dict[str, float]:
        """One optimizer step.

        Args:
            number: of the step.
            batch: of that step; None makes it.
        Returns:
            The weighted loss terms by name, and what a task's gate did.
        Raises:
            DivergenceError: losses or gradients are not finite, or losses were far off for long.
        """
        try:
            return self._step(number, batch)
        except DivergenceError as cause:
            raise DivergenceError(
                f"the training diverged at step {number}: {cause.message}", RETRY
            ) from cause

    def _step(self, number: int, batch: Batch | None) -> dict[str, float]:
        config = self.config
        set_learning_rate(self.optimizer, config.learning_rate, number, config.steps)
        rng = step_generator(config.seed, number, self.processes.rank, purpose=1)
        torch.manual_seed(int(rng.integers(2**63)))
        batch = (batch or self.batches[number]).to(self.device)
        measured: dict[str, float] = {}
        upper = None
        if self.teaching is not None:
            measured |= self.teaching.lower_step(number, self.objective.enhanced)
            upper = self.teaching.upper_batch(number)
        joined = batch if upper is None else batch.joined(upper[0])
        terms, output = self.objective.clean_terms(joined, number, with_output=upper is not None)
        if batch.low is not None:
            share = self.processes.average_gradients
            terms |= self.objective.real_terms(batch, rng, share)
        if not terms:
            raise ConfigError(
                f"no loss is switched on at step {number}",
                "Give cycle or identity a weight, or low-quality images from the first step on.",
            )
        total = torch.stack(list(terms.values())).sum()
        if upper is None or output is None:
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
        else:
            measured |= self._gated_gradients(total, output, upper[1])
        norm = self._share_and_clip()
        values = self._values(terms, norm)
        self._judge(number, values, float(values.pop("gradient norm")))
        return values | measured

    def _gated_gradients(self, total: Tensor, output: Tensor, labels: Tensor) -> dict[str, float]:
        """Set the gradients of both losses as far as the gate admits them; returns what it did."""
        assert self.teaching is not None
        task, weights = self.teaching.task, dict(self.networks.named_parameters())
        task_loss = task.task_loss(output[-len(labels) :], labels)
        gradients, report = task.upper_gradients(total, task_loss, weights.items())
        for weight, gradient in zip(weights.values(), gradients, strict=True):
            weight.grad = gradient
        return {
            "task": float(task_loss.detach()),
            "gate_open": float(report.open),
            "gate_cosine": report.cosine,
            "gate_batch_cosine": report.batch_cosine,
        }

    def _share_and_clip(self) -> Tensor:
        weights = list(self.networks.parameters())
        self.processes.average_gradients(weights)
        return nn.utils.clip_grad_norm_(weights, 1.0)

    def _values(self, terms: dict[str, Tensor], norm: Tensor) -> dict[str, float]:
        """The terms as numbers, averaged over the processes, in one transfer from the device."""
        parts = torch.stack([*(term.detach().float() for term in terms.values()), norm.float()])
        numbers = self.processes.mean(parts).tolist()
        return dict(zip((*terms, "gradient norm"), numbers, strict=True))

    def _judge(self, number: int, values: dict[str, float], norm: float) -> None:
        """Take the step, skip it, or raise DivergenceError; the same in all processes."""
        losses = ", ".join(f"{name} {value:.3g}" for name, value in values.items())
        if not all(math.isfinite(value) for value in values.values()):
            raise DivergenceError(losses)
        # The likelihood of the error may be negative, and does not influence the image.
        distance = sum(value for name, value in values.items() if name != "error")
        if self.watch.observe(distance, tuple(values)):
            raise DivergenceError(
                f"for {self.watch.patience} steps the losses were far above their median ({losses})"
            )
        if not math.isfinite(norm):
            self._skip()
            return
        self._skipped_in_a_row = 0
        self.optimizer.step()
        self.average.update_parameters(self.networks)
        if (number + 1) % _KEEP_EVERY == 0 and self.watch.is_calm:
            self._good, self.good_step = self._kept(), number + 1

    def _skip(self) -> None:
        self.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row > _MOST_SKIPPED:
            raise DivergenceError(f"{self._skipped_in_a_row} gradients in a row were not finite")

    def _kept(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.average.module.state_dict().items()}

    def averaged(self) -> tuple[Enhancer, GuidanceEncoder]:
        """The networks with their averaged weights, which are what is shipped."""
        enhancer, guide = self.average.module.children()
        assert isinstance(enhancer, Enhancer)
        assert isinstance(guide, GuidanceEncoder)
        return enhancer.eval(), guide.eval()

    def go_back(self) -> None:
        """Restore the averaged weights that were kept last while losses were calm."""
        self.average.module.load_state_dict(self._good)

    @property
    def is_finite(self) -> bool:
        """Whether the averaged weights are finite."""
        return finite_weights(self.average.module.state_dict())

    @property
    def is_sound(self) -> bool:
        """Whether this state is worth keeping: finite weights, calm losses."""
        return self.watch.is_calm and self.is_finite

    def _parts(self) -> dict[str, Any]:
        modules: dict[str, Any] = {"networks": self.networks, "average": self.average}
        optimizers: dict[str, Any] = {"adam": self.optimizer}
        if self.critic is not None:
            modules["critic"] = self.critic.network
            modules["past images"] = _OfAll(self.critic.past, self.processes)
            optimizers["critic optimizer"] = self.critic.optimizer
        if self.teaching is not None:
            parts = self.teaching.checkpoint_parts()
            modules |= parts["modules"]
            optimizers |= parts["optimizers"]
        config = config_to_json(replace(self.config, **_FREE))  # type: ignore[arg-type]
        return {
            "config": config | {"processes": self.processes.count},
            "modules": modules,
            "optimizers": optimizers,
        }

    def save(self, path: Path, step: int) -> None:
        """Write a checkpoint for `resume`; only the first process writes."""
        if self.processes.is_first:
            notes = {
                "seconds": self.seconds,
                "skipped": self.skipped,
                "watch": self.watch.to_json(),
            }
            save_checkpoint(path, step=step, notes=notes, **self._parts())
        elif self.critic is not None:
            self.processes.gather(self.critic.past.state_dict())

    def resume(self, path: Path) -> int:
        """Restore a checkpoint; returns the step to continue with.

        Its weights are the ones to return to, unless its losses were far off.
        """
        notes: dict[str, Any] = {}
        step = load_checkpoint(path, notes=notes, **self._parts())
        self.seconds, self.skipped = notes.get("seconds", 0.0), notes.get("skipped", 0)
        self.watch.restore(notes.get("watch", {}))
        if self.is_sound:
            self._good, self.good_step = self._kept(), step
        return step


class _OfAll:
    """The states of all processes in one checkpoint, where each process has its own."""

    def __init__(self, inner: Any, processes: Processes) -> None:
        self._inner, self._processes = inner, processes

    def state_dict(self) -> dict[str, Tensor]:
        states = self._processes.gather(self._inner.state_dict())
        return {f"{rank}/{n}": t for rank, state in enumerate(states) for n, t in state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        mine = f"{self._processes.rank}/"
        own = {n.removeprefix(mine): t for n, t in state.items() if n.startswith(mine)}
        self._inner.load_state_dict(own)
