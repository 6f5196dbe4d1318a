"""One training of the set network, step by step."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.core.options import config_to_json
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.groups import GuidedNetwork, on_device
from MedEnhanceLib.hqg.train import losses, unpaired
from MedEnhanceLib.hqg.train.crops import Crop, CropMaker
from MedEnhanceLib.hqg.train.losses import Critic, Made, Turn, Window
from MedEnhanceLib.hqg.train.pool import CropPool
from MedEnhanceLib.hqg.train.targets import Target
from MedEnhanceLib.hqg.train.teaching import Teaching
from MedEnhanceLib.native import CELLS
from MedEnhanceLib.nets.precision import mixed_precision
from MedEnhanceLib.nets.training import averaged_weights, set_learning_rate
from MedEnhanceLib.runtime.progress import Monitor

T = TypeVar("T")
#: Fields that do not change what is learned: a training may continue with other values.
_FREE = {"device": "", "checkpoint_s": 0.0, "validation_s": 0.0, "workers": 1}
_BETAS, _WEIGHT_DECAY, _MOST_GRADIENT = (0.9, 0.98), 1e-4, 1.0
_WARM_UP = 0.01
_CRITIC_RATE = 4e-4
#: Weight of what only the guide shows, in the lesion stage.
_TRACE = 3.0
#: Share of the steps before the critic counts.
_CRITIC_START = 0.3
#: Labeled crops have noise of their own. Keys of the pools of labeled and of real crops.
_LABELED_SEED, _LABELED, _REAL = 2, -1, -2
#: The stages in their order: without a guide, with guides, with planted lesions.
STAGES = ("set network", "guide", "lesions")


class Trainer:
    """Networks, optimizers and crops of a training.

    Args:
        config: of the training.
        targets: clean volumes of the first stage.
        examinations: of the stages with guides.
        device: as torch names it.
        monitor: messages and cancelling.
        noisy: real volumes without targets, of the unpaired steps.
        teaching: by a task, with its labeled volumes; None without.
    """

    def __init__(
        self,
        config: TrainConfig,
        targets: Sequence[Target],
        examinations: Sequence[Target],
        device: str,
        monitor: Monitor,
        teaching: tuple[Teaching, Sequence[Target]] | None = None,
        noisy: Sequence[unpaired.RealVolume] = (),
    ) -> None:
        self.config, self.device, self.monitor = config, device, monitor
        self.teaching = teaching[0] if teaching else None
        labeled = teaching[1] if teaching else ()
        torch.manual_seed(config.seed)
        self.network = _started(config).to(device).train()
        self.average = averaged_weights(self.network, config.ema)
        self.critic = (
            Critic().to(device) if config.loss.adversarial or config.loss.unpaired else None
        )
        with_guide = (config.guide_steps, config.lesion_steps) if examinations else (0, 0)
        self.counts = (config.steps, *with_guide)
        plain = CropMaker(targets, config.modality, config.network.blocks, config.seed)
        guided = replace(plain, targets=examinations, guided=True)
        self._makers = [plain, guided, replace(guided, lesions=True)]
        self._real_maker = unpaired.RealCropMaker(noisy, self._makers[0]) if noisy else None
        self._labeled = replace(plain, targets=labeled, seed=config.seed + _LABELED_SEED)
        self._pools: dict[int, CropPool] = {}
        correction = list(self.network.correction.parameters())
        learned = [list(self.network.network.parameters()), correction, correction]
        self.optimizers = [
            torch.optim.AdamW(
                weights, lr=config.learning_rate, betas=_BETAS, weight_decay=_WEIGHT_DECAY
            )
            for weights in learned
        ]
        self.critic_optimizer = (
            torch.optim.Adam(self.critic.parameters(), lr=_CRITIC_RATE, betas=(0.5, 0.9))
            if self.critic is not None
            else None
        )

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(self.counts)

    def stage_of(self, number: int) -> tuple[int, int]:
        """The stage of a step, and the step's number in it."""
        stage = 0
        while stage < len(self.counts) - 1 and number >= self.counts[stage]:
            number -= self.counts[stage]
            stage += 1
        return stage, number

    def step(self, number: int) -> dict[str, float]:
        """Make a step of this number; its losses."""
        stage, here = self.stage_of(number)
        if here == 0 and stage > 0 and number > 0:
            self._begin(stage)
        rng = np.random.default_rng([self.config.seed, 1, number])
        torch.manual_seed(int(rng.integers(2**62)))
        optimizer = self.optimizers[stage]
        set_learning_rate(
            optimizer, self.config.learning_rate, here, self.counts[stage], warm_up=_WARM_UP
        )
        optimizer.zero_grad(set_to_none=True)
        teaching = self.teaching if stage == 0 else None
        if teaching is not None and not teaching.is_due(here):
            teaching = None
        pool = self._crops(_LABELED if teaching else stage).at(here, self.monitor)
        weights = list(self.network.network.named_parameters())
        seen: dict[str, float] = {}
        for _ in range(self.config.windows):
            drawn = pool[int(rng.integers(len(pool)))]
            crop = on_device(drawn[int(rng.integers(len(drawn)))], self.device)
            window = Window.drawn(crop.plain, rng)
            made, parts = self._losses(crop, window, stage, here, rng)
            total = torch.stack([*parts.values()]).sum() / self.config.windows
            if teaching is None:
                total.backward()  # type: ignore[no-untyped-call]
            else:
                parts |= teaching.add(
                    total, made.guided, crop, window, weights, share=1 / self.config.windows
                )
            for name, value in parts.items():
                seen[name] = seen.get(name, 0.0) + float(value.detach()) / self.config.windows
        if teaching is not None:
            seen |= teaching.decide(weights, here / self.counts[stage])
        self._update(optimizer)
        return seen

    def _update(self, optimizer: torch.optim.Optimizer) -> None:
        weights = [w for group in optimizer.param_groups for w in group["params"]]
        norm = nn.utils.clip_grad_norm_(weights, _MOST_GRADIENT)
        if torch.isfinite(norm):
            optimizer.step()
        self.average.update_parameters(self.network)

    def _begin(self, stage: int) -> None:
        """A stage learns upon the averaged weights of the one before."""
        self.network.load_state_dict(self.average.module.state_dict())

    def _crops(self, stage: int) -> CropPool:
        """Of a stage, or of the first one the labeled or the real ones."""
        if stage not in self._pools:
            if stage > 0:
                self.close()
            config = self.config
            extra = {_LABELED: self._labeled, _REAL: self._real_maker}
            maker = self._makers[stage] if stage >= 0 else extra[stage]
            assert maker is not None
            self._pools[stage] = CropPool(
                maker.make, config.crops, config.renewed_every, config.workers
            )
        return self._pools[stage]

    def _losses(
        self, crop: Crop, window: Window, stage: int, here: int, rng: np.random.Generator
    ) -> tuple[Made, dict[str, Tensor]]:
        is_mr = self.config.modality == "MR"
        turn = Turn.drawn(rng, in_plane=not is_mr, inverts=is_mr)
        turn = replace(turn, order=turn.order.to(self.device), sign=turn.sign.to(self.device))
        mixed = mixed_precision(self.device)
        weight = losses.voxel_weight(crop, window)

        def run(noisy: Any, window: Window, guide: Tensor | None) -> Made:
            return losses.made(
                self.network, noisy, window, turn, guide, frozen=stage > 0, mixed=mixed
            )

        guide = crop.guide.voxels if crop.guide is not None else None
        made = run(crop.plain, window, guide)
        parts = {"error": losses.squared_error(made.guided, crop.plain, window, weight)}
        if crop.guide is not None:
            parts["excess"] = losses.excess(made, crop.plain, window, is_right=crop.guide.is_right)
            if self.config.loss.kl:
                parts["kl"] = self.config.loss.kl * made.residual.divergence
        if crop.lesion is not None and crop.guide is not None:
            parts |= self._of_lesion(crop, window, made, run)
        parts |= self._content(crop, window, made, stage, here)
        if self._real_maker is not None and stage == 0 and self._critic_counts(stage, here):
            parts |= self._unpaired(crop.plain.target[window.where], here, rng)
        return made, parts

    def _of_lesion(self, crop: Crop, window: Window, made: Made, run: Any) -> dict[str, Tensor]:
        """What is lost of a lesion in the input, or seen of one that only the guide has."""
        assert crop.lesion is not None
        assert crop.guide is not None
        if crop.guide.with_lesion is not None:
            other = run(crop.plain, window, crop.guide.with_lesion)
            seen = losses.trace(made.guided, other.guided, crop.lesion, window)
            return {"trace": _TRACE * seen}
        assert crop.planted is not None
        same = window.same_in(crop.planted)
        other = run(crop.planted, same, crop.guide.voxels)
        weight = losses.voxel_weight(crop, same)
        lost = losses.lost_contrast(other, made, crop.lesion, window)
        error = losses.squared_error(other.guided, crop.planted, same, weight)
        return {"kept": lost, "error with lesion": error}

    def _content(
        self, crop: Crop, window: Window, made: Made, stage: int, here: int
    ) -> dict[str, Tensor]:
        """The terms that are options."""
        config, parts = self.config.loss, {}
        if config.wavelet:
            loss = losses.wavelet_loss(made.guided, crop.plain, window)
            parts["wavelet"] = config.wavelet * loss
        if config.feature:
            loss = losses.feature_loss(self.network, crop.plain, window, made.guided)
            parts["feature"] = config.feature * loss
        if config.adversarial and self._critic_counts(stage, here):
            image, clean = made.guided[window.where], crop.plain.target[window.where]
            parts["adversarial"] = config.adversarial * self._judged(image, clean)
        return parts

    def _critic_counts(self, stage: int, here: int) -> bool:
        return here >= _CRITIC_START * self.counts[stage]

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

    def _unpaired(self, clean: Tensor, here: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Terms of a crop of a real noisy volume; clean: a window of another one."""
        assert self._real_maker is not None
        config = self.config
        pool = self._crops(_REAL).at(here, self.monitor)
        crop = on_device(pool[int(rng.integers(len(pool)))][0], self.device).plain
        window = Window.drawn(crop, rng)
        straight = Turn(torch.arange(CELLS, device=self.device), clean.new_ones(CELLS))
        mixed = mixed_precision(self.device)
        made = losses.made(self.network, crop, window, straight, None, frozen=False, mixed=mixed)
        fooled = self._judged(made.guided[window.where], clean)
        return {
            "unpaired": config.loss.unpaired * fooled,
            "changed means": unpaired.changed_means(made.guided, crop, window),
        }

    def averaged(self) -> GuidedNetwork:
        """The averaged weights, which are what is shipped."""
        network = copy.deepcopy(self.average.module)
        assert isinstance(network, GuidedNetwork)
        return network.eval().requires_grad_(False)

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds, as `save_checkpoint` takes it."""
        modules: dict[str, Any] = {
            "network": self.network,
            "average": self.average,
        }
        optimizers = dict(zip(STAGES, self.optimizers, strict=True))
        if self.critic is not None and self.critic_optimizer is not None:
            modules["critic"] = self.critic
            optimizers["critic optimizer"] = self.critic_optimizer  # type: ignore[assignment]
        if self.teaching is not None:
            modules["gate"] = self.teaching.gate
            if self.teaching.optimizer is not None:
                modules["head"] = self.teaching.head
                optimizers["head optimizer"] = self.teaching.optimizer
        config: Mapping[str, Any] = config_to_json(replace(self.config, **_FREE))  # type: ignore[arg-type]
        return {"config": config, "modules": modules, "optimizers": optimizers}

    def close(self) -> None:
        """End the threads that make crops."""
        for pool in self._pools.values():
            pool.close()
        self._pools = {}


def _started(config: TrainConfig) -> GuidedNetwork:
    """A new network, or that of the enhancer that the configuration names.

    Where that takes no guide, the correction by a guide is new, and of any size and kind.
    """
    if not config.start:
        return GuidedNetwork(config.network)
    from MedEnhanceLib.bundles.store import open_bundle
    from MedEnhanceLib.hqg.bundle import open_enhancer

    bundle = open_bundle(config.start, kind="enhancer", modality=config.modality)
    started = open_enhancer(bundle)
    # What stays as the filter leaves it is no question of size.
    trained = replace(started.config, least_order=config.network.least_order)
    if not bundle.uses_guides:
        kind, layers = config.network.modulation, config.network.guide_layers
        trained = replace(trained, modulation=kind, guide_layers=layers)
    if trained != config.network:
        raise ConfigError(
            f"start: {config.start} has another size of network",
            "Give the fields of network that its metadata.json states.",
        )
    network = GuidedNetwork(config.network)
    network.network.load_state_dict(started.network.state_dict())
    if bundle.uses_guides:
        network.correction.load_state_dict(started.correction.state_dict())
    return network
