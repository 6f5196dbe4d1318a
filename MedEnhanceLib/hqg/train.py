"""Trains HQG-Net on two unpaired pools; resumable, stoppable, reproducible from its seed.

Every step: clean patches of the high-quality pool are degraded at random strength and have to
come back, guided by another high-quality patch. From the middle of the training on, every n-th
step also runs real low-quality patches against a discriminator. Why this and not the published
sum of losses: docs/decisions/0004-hqg-first-form.md.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.config import config_to_json
from MedEnhanceLib.device import choose_device
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.hqg import losses
from MedEnhanceLib.hqg.bundle import CueBank, export_enhancer
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.network import Enhancer, GuidanceEncoder, make_discriminator
from MedEnhanceLib.hqg.pools import Batch, Pools
from MedEnhanceLib.nets.checkpoint import load_checkpoint, save_checkpoint
from MedEnhanceLib.nets.precision import mixed_precision, move
from MedEnhanceLib.nets.training import averaged_weights, set_learning_rate, training_steps
from MedEnhanceLib.progress import Monitor

_KL_WARM_UP = 0.1
_DISCRIMINATOR_RATE = 2e-4
_METRIC_EVERY = 20
_BANK_PATCHES = 256


class Trainer:
    """Networks, optimisers and the random state of one training."""

    def __init__(self, config: TrainConfig, pools: Pools, device: str) -> None:
        torch.manual_seed(config.seed)
        self.config, self.pools, self.device = config, pools, device
        self.rng = np.random.default_rng(config.seed + 1)
        self.enhancer = Enhancer(config.network)
        self.guide = GuidanceEncoder(config.network)
        self.networks = nn.ModuleDict({"enhancer": self.enhancer, "guide": self.guide})
        move(self.networks, device)
        self.discriminator = make_discriminator().to(device)
        self.average = averaged_weights(self.networks, config.ema)
        self.optimiser = torch.optim.AdamW(
            self.networks.parameters(), lr=config.learning_rate, weight_decay=1e-4
        )
        self.critic_optimiser = torch.optim.AdamW(
            self.discriminator.parameters(), lr=_DISCRIMINATOR_RATE, betas=(0.5, 0.999)
        )
        self.autocast = mixed_precision(device)
        self.structure = losses.structure_loss(1.0 if config.modality == "MR" else 0.5)

    def step(self, number: int) -> dict[str, float]:
        """One optimiser step; returns its loss terms."""
        set_learning_rate(self.optimiser, self.config.learning_rate, number, self.config.steps)
        batch = self.pools.cycle_batch(self.rng)
        terms = self.cycle_terms(batch, number)
        if self._is_unpaired(number):
            terms |= self.unpaired_terms(batch)
        total = torch.stack(list(terms.values())).sum()
        values = {name: float(value.detach()) for name, value in terms.items()}
        if not torch.isfinite(total):
            raise ModelError(
                f"the training diverged at step {number}: "
                + ", ".join(f"{name} {value:.3g}" for name, value in values.items()),
                "The last checkpoint is kept. Resume with a lower learning_rate.",
            )
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.networks.parameters(), 1.0)
        self.optimiser.step()
        self.average.update_parameters(self.networks)
        return values

    def cycle_terms(self, batch: Batch, number: int) -> dict[str, Tensor]:
        """Weighted losses of E(T(z), z′) against z, and of the cue's distribution.

        Only the networks run in half precision: variances inside SSIM and the local correlation
        are small differences of large numbers, and in bfloat16 their gradients point anywhere.
        """
        weights = self.config.loss
        degraded, target = self._tensor(batch.degraded), self._tensor(batch.target)
        with self.autocast:
            cue = self.guide(self._tensor(batch.guide))
            output, error = self.enhancer.estimate(degraded, cue.sample())
        warm_up = min(1.0, number / max(1.0, _KL_WARM_UP * self.config.steps))
        terms = {
            "cycle": weights.cycle * F.l1_loss(output, target),
            "kl": weights.kl * warm_up * losses.kl_loss(cue, weights.free_bits),
            "error": weights.error * losses.error_likelihood(output, target, error),
        }
        if weights.gradient:
            terms["gradient"] = weights.gradient * losses.gradient_loss(output, target)
        if weights.structure:
            terms["structure"] = weights.structure * self.structure(
                _some_slices(output), _some_slices(target)
            )
        if weights.wavelet:
            terms["wavelet"] = weights.wavelet * losses.wavelet_content(
                _each_slice(output), _each_slice(target)
            )
        if weights.feature:
            with self.autocast:
                with torch.no_grad():
                    reference = self.enhancer.encode(target)
                ours = self.enhancer.encode(output)
            terms["feature"] = weights.feature * losses.feature_content(ours, reference)
        return terms

    def unpaired_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Losses on real low-quality images: what must stay, and what a critic says.

        The critic learns in the same step, on the enhanced patches and the high-quality ones.
        """
        weights, criterion = self.config.loss, losses.adversarial_loss()
        count = max(1, self.config.batch // 2)
        stacks = self._tensor(self.pools.low_quality_batch(self.rng, count))
        real = self._tensor(batch.guide[:count])
        with self.autocast:
            with torch.no_grad():
                cue = self.guide(real).sample()
            output = self.enhancer(stacks, cue)
        terms = {"low_band": weights.low_band * losses.low_band(output, stacks)}
        if weights.adversarial:
            middle = stacks.shape[1] // 2
            shown = output[:, middle : middle + 1]
            self._teach_critic(shown.detach(), real)
            self.discriminator.requires_grad_(False)
            with self.autocast:
                scores = self.discriminator(shown)[-1].float()
            self.discriminator.requires_grad_(True)
            terms["adversarial"] = weights.adversarial * criterion(
                scores, target_is_real=True, for_discriminator=False
            )
        return terms

    def _teach_critic(self, fake: Tensor, real: Tensor) -> None:
        criterion = losses.adversarial_loss()
        with self.autocast:
            scores = [self.discriminator(images)[-1].float() for images in (fake, real)]
        loss = criterion(scores[0], target_is_real=False, for_discriminator=True) + criterion(
            scores[1], target_is_real=True, for_discriminator=True
        )
        self.critic_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimiser.step()

    def _is_unpaired(self, number: int) -> bool:
        config = self.config
        late = number >= config.loss.adversarial_start * config.steps
        return late and self.pools.has_low_quality and number % config.unpaired_every == 0

    def _tensor(self, values: np.ndarray[Any, np.dtype[np.float32]]) -> Tensor:
        tensor = torch.from_numpy(values)
        return tensor.to(self.device, non_blocking=True)

    def averaged(self) -> tuple[Enhancer, GuidanceEncoder]:
        """The networks with their averaged weights, which are what is shipped."""
        enhancer, guide = self.average.module.children()
        assert isinstance(enhancer, Enhancer)
        assert isinstance(guide, GuidanceEncoder)
        return enhancer.eval(), guide.eval()

    def _parts(self) -> dict[str, Any]:
        return {
            "config": config_to_json(replace(self.config, device="", checkpoint_s=0)),
            "modules": {
                "networks": self.networks,
                "average": self.average,
                "discriminator": self.discriminator,
            },
            "optimisers": {"adam": self.optimiser, "critic": self.critic_optimiser},
            "generator": self.rng,
        }

    def save(self, path: Path, step: int) -> None:
        """Write a checkpoint from which `resume` goes on to the same state."""
        save_checkpoint(path, step=step, **self._parts())

    def resume(self, path: Path) -> int:
        """Restore a checkpoint; returns the step to go on with."""
        return load_checkpoint(path, **self._parts())


def _each_slice(slabs: Tensor) -> Tensor:
    """[B, D, H, W] → [B·D, 1, H, W]."""
    return slabs.flatten(0, 1)[:, None]


def _some_slices(slabs: Tensor) -> Tensor:
    """Every fourth slice, as `_each_slice`: SSIM of all took a third of a step."""
    return _each_slice(slabs[:, 1::4] if slabs.shape[1] > 1 else slabs)


def train(config: TrainConfig, data: Path, out: Path, monitor: Monitor | None = None) -> Path:
    """Train and export a bundle; returns its folder, `out/<name>`.

    data: the folder that the configuration's patterns are relative to. out: holds checkpoint,
    metrics and bundle; where it holds a checkpoint of the same configuration, the training goes
    on from there. Raises Cancelled after writing a checkpoint.
    """
    monitor = monitor or Monitor()
    choice = choose_device(config.device)
    monitor.log(f"training on {choice.name}: {choice.reason}")
    out.mkdir(parents=True, exist_ok=True)
    pools = Pools.load(config, data, monitor.part(0.0, 0.03))
    trainer = Trainer(config, pools, choice.name)
    checkpoint = out / "checkpoint.safetensors"
    start = trainer.resume(checkpoint) if checkpoint.exists() else 0
    if start:
        monitor.log(f"resumed at step {start}")
    began = time.monotonic()
    steps = training_steps(
        start,
        config.steps,
        lambda number: trainer.save(checkpoint, number),
        config.checkpoint_s,
        monitor.part(0.03, 0.98),
    )
    for number in steps:
        terms = trainer.step(number)
        if number % _METRIC_EVERY == 0:
            for name, value in terms.items():
                monitor.metric(name, value, number)
    seconds = time.monotonic() - began
    enhancer, guide = trainer.averaged()
    bank = CueBank.measure(guide, _bank_patches(pools, config))
    bundle = export_enhancer(out / config.name, config, enhancer, guide, bank, seconds)
    monitor.progress(1.0, "model written")
    return bundle.folder


def _bank_patches(pools: Pools, config: TrainConfig) -> Tensor:
    rng = np.random.default_rng(config.seed + 2)
    count = math.ceil(_BANK_PATCHES / config.batch)
    return torch.from_numpy(np.concatenate([pools.cycle_batch(rng).guide for _ in range(count)]))
