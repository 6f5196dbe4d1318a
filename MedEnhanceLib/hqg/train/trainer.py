"""One training of the set network, step by step."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.groups import GuidedNetwork, on_device
from MedEnhanceLib.hqg.train import losses
from MedEnhanceLib.hqg.train.crops import Crop, CropMaker, Noisy
from MedEnhanceLib.hqg.train.losses import Critic, Made, Turn, Window
from MedEnhanceLib.hqg.train.pool import CropPool
from MedEnhanceLib.hqg.train.targets import Data
from MedEnhanceLib.hqg.train.teaching import Teaching
from MedEnhanceLib.nets.precision import mixed_precision
from MedEnhanceLib.nets.training import averaged_weights, set_learning_rate
from MedEnhanceLib.runtime.progress import Monitor

_BETAS, _WEIGHT_DECAY, _MOST_GRADIENT = (0.9, 0.98), 1e-4, 1.0
_WARM_UP = 0.01
#: Decay of the averaged weights, which are what is shipped.
_EMA = 0.998
_CRITIC_RATE, _CRITIC_BETAS = 4e-4, (0.5, 0.9)
#: Weight of what only the guide shows, in the lesion stage.
_TRACE = 3.0
#: Share of the steps before the critic counts.
_CRITIC_START = 0.3
#: Labeled crops have noise of their own.
_LABELED_SEED = 2
#: The stages in their order: without a guide, with guides, with planted lesions.
STAGES = ("set network", "guide", "lesions")


class Trainer:
    """Networks, optimizers and crops of a training.

    Args:
        config: of the training.
        data: what it learns from.
        device: as torch names it.
        monitor: messages and cancelling.
        teaching: by a task; None without.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: Data,
        device: str,
        monitor: Monitor,
        teaching: Teaching | None = None,
    ) -> None:
        self.config, self.device, self.monitor, self.teaching = config, device, monitor, teaching
        torch.manual_seed(config.seed)
        self.network = _started(config).to(device).train()
        self.average = averaged_weights(self.network, _EMA)
        self.critic = self.critic_optimizer = None
        if config.loss.adversarial or config.loss.unpaired:
            self.critic = Critic().to(device)
            self.critic_optimizer = torch.optim.Adam(
                self.critic.parameters(), lr=_CRITIC_RATE, betas=_CRITIC_BETAS
            )
        with_guide = (config.guide_steps, config.lesion_steps) if data.examinations else (0, 0)
        self.counts = (config.steps, *with_guide)
        plain = CropMaker(data.clean, config.modality, config.network.blocks, config.seed)
        guided = replace(plain, targets=data.examinations, kind="guided")
        seed = config.seed + _LABELED_SEED
        self._makers = {
            STAGES[0]: plain,
            STAGES[1]: guided,
            STAGES[2]: replace(guided, kind="lesions"),
            "labeled": replace(plain, targets=data.labeled, seed=seed),
            "real": replace(plain, targets=data.noisy, kind="real"),
        }
        self._pools: dict[str, CropPool] = {}
        correction = list(self.network.correction.parameters())
        learned = [list(self.network.network.parameters()), correction, correction]
        self.optimizers = {
            stage: torch.optim.AdamW(
                weights, lr=config.learning_rate, betas=_BETAS, weight_decay=_WEIGHT_DECAY
            )
            for stage, weights in zip(STAGES, learned, strict=True)
        }

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(self.counts)

    def step(self, number: int) -> dict[str, float]:
        """Make a step of this number; its losses."""
        stage, here = 0, number
        while stage < len(self.counts) - 1 and here >= self.counts[stage]:
            here -= self.counts[stage]
            stage += 1
        if here == 0 and stage > 0 and number > 0:
            # A stage learns upon the averaged weights of the one before.
            self.network.load_state_dict(self.average.module.state_dict())
            self.close()
        rng = np.random.default_rng([self.config.seed, 1, number])
        torch.manual_seed(int(rng.integers(2**62)))
        optimizer, share = self.optimizers[STAGES[stage]], here / self.counts[stage]
        set_learning_rate(
            optimizer, self.config.learning_rate, here, self.counts[stage], warm_up=_WARM_UP
        )
        optimizer.zero_grad(set_to_none=True)
        teaching = self.teaching if stage == 0 else None
        if teaching is not None and self.config.task and here % self.config.task.every:
            teaching = None
        crop = self._drawn("labeled" if teaching else STAGES[stage], here, rng)
        window = Window.drawn(crop.plain, rng)
        made, parts = self._losses(crop, window, stage, here, rng)
        total, seen = torch.stack([*parts.values()]).sum(), {}
        if teaching is None:
            total.backward()  # type: ignore[no-untyped-call]
        else:
            weights = list(self.network.network.named_parameters())
            seen = teaching.step(total, made.guided, crop, window, weights, share=share)
        learned = [weight for group in optimizer.param_groups for weight in group["params"]]
        if torch.isfinite(nn.utils.clip_grad_norm_(learned, _MOST_GRADIENT)):
            optimizer.step()
        self.average.update_parameters(self.network)
        return {name: float(value.detach()) for name, value in parts.items()} | seen

    def _drawn(self, kind: str, here: int, rng: np.random.Generator) -> Crop:
        """A crop of a stage, or of the first one a labeled or a real one."""
        if kind not in self._pools:
            config = self.config
            self._pools[kind] = CropPool(
                self._makers[kind].make, config.crops, config.renewed_every, config.workers
            )
        pool = self._pools[kind].at(here, self.monitor)
        crops = pool[int(rng.integers(len(pool)))]
        return on_device(crops[int(rng.integers(len(crops)))], self.device)

    def _losses(
        self, crop: Crop, window: Window, stage: int, here: int, rng: np.random.Generator
    ) -> tuple[Made, dict[str, Tensor]]:
        """What the networks make of a window, and all terms of its loss."""
        config, plain = self.config.loss, crop.plain
        is_mr = self.config.modality == "MR"
        turn = on_device(Turn.drawn(rng, in_plane=not is_mr, inverts=is_mr), self.device)

        def run(noisy: Noisy, window: Window, guide: Tensor | None, turn: Turn = turn) -> Made:
            mixed = mixed_precision(self.device)
            return losses.made(
                self.network, noisy, window, turn, guide, frozen=stage > 0, mixed=mixed
            )

        made = run(plain, window, crop.guide.voxels if crop.guide is not None else None)
        weight = losses.voxel_weight(crop, window)
        parts = {"error": losses.squared_error(made.guided, plain, window, weight)}
        if crop.guide is not None:
            parts["excess"] = losses.excess(made, plain, window, is_right=crop.guide.is_right)
            if config.kl:
                parts["kl"] = config.kl * made.residual.divergence
        if crop.lesion is not None and crop.guide is not None:
            if crop.guide.with_lesion is not None:  # what only the guide shows is not to be seen
                other = run(plain, window, crop.guide.with_lesion)
                trace = losses.trace(made.guided, other.guided, crop.lesion, window)
                parts["trace"] = _TRACE * trace
            elif crop.planted is not None:  # what only the input shows is to stay
                same = Window.at(window.where, crop.planted)
                other = run(crop.planted, same, crop.guide.voxels)
                weight = losses.voxel_weight(crop, same)
                parts["kept"] = losses.lost_contrast(other, made, crop.lesion, window)
                parts["error with lesion"] = losses.squared_error(
                    other.guided, crop.planted, same, weight
                )
        if config.wavelet:
            loss = losses.wavelet_loss(made.guided, plain, window)
            parts["wavelet"] = config.wavelet * loss
        if config.feature:
            loss = losses.feature_loss(self.network, plain, window, made.guided)
            parts["feature"] = config.feature * loss
        critic_counts = here >= _CRITIC_START * self.counts[stage]
        clean = plain.target[window.where]
        if config.adversarial and critic_counts:
            judged = self._judged(made.guided[window.where], clean)
            parts["adversarial"] = config.adversarial * judged
        if config.unpaired and stage == 0 and critic_counts:
            noisy = self._drawn("real", here, rng).plain
            part = Window.drawn(noisy, rng)
            image = run(noisy, part, None, on_device(Turn.none(), self.device)).guided
            parts["unpaired"] = config.unpaired * self._judged(image[part.where], clean)
            parts["changed means"] = losses.changed_means(image, noisy, part)
        return made, parts

    def _judged(self, image: Tensor, clean: Tensor) -> Tensor:
        """How far the critic is from taking an image for clean, after it learned from both."""
        assert self.critic is not None
        assert self.critic_optimizer is not None
        self.critic_optimizer.zero_grad(set_to_none=True)
        self.critic.loss(image, clean).backward()  # type: ignore[no-untyped-call]
        self.critic_optimizer.step()
        self.critic.requires_grad_(False)
        fooled = self.critic.fooled(image)
        self.critic.requires_grad_(True)
        return fooled

    def averaged(self) -> GuidedNetwork:
        """The averaged weights, which are what is shipped."""
        network = copy.deepcopy(self.average.module)
        assert isinstance(network, GuidedNetwork)
        return network.eval().requires_grad_(False)

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds, as `Checkpoint` takes it."""
        modules: dict[str, Any] = {"network": self.network, "average": self.average}
        optimizers: dict[str, Any] = dict(self.optimizers)
        if self.critic is not None:
            modules["critic"], optimizers["critic optimizer"] = self.critic, self.critic_optimizer
        if self.teaching is not None:
            modules["gate"] = self.teaching.gate
            if self.teaching.head is not None:
                modules["head"] = self.teaching.head.network
                modules["head average"] = self.teaching.head.average
                optimizers["head optimizer"] = self.teaching.optimizer
        # Where and by how many threads it runs does not change what is learned.
        config = replace(self.config, device="", workers=1).to_json()
        return {"config": config, "modules": modules, "optimizers": optimizers}

    def close(self) -> None:
        """End the threads that make crops."""
        for pool in self._pools.values():
            pool.close()
        self._pools = {}


def _started(config: TrainConfig) -> GuidedNetwork:
    """A new network, or with the weights of the enhancer that the configuration names.

    Where that takes no guide, the correction by a guide is new.
    """
    network = GuidedNetwork(config.network)
    if not config.start:
        return network
    from MedEnhanceLib.bundles.export import load_tensors
    from MedEnhanceLib.bundles.store import open_bundle

    bundle = open_bundle(config.start, kind="enhancer", modality=config.modality)
    part = network if bundle.uses_guides else network.network
    prefix = "" if bundle.uses_guides else "network."
    tensors = {name.removeprefix(prefix): t for name, t in load_tensors(bundle).items()}
    try:
        part.load_state_dict(tensors)
    except RuntimeError as cause:
        raise ConfigError(
            f"start: {config.start} has another size of network",
            "Give the fields of network that its metadata.json states.",
        ) from cause
    return network
