"""The loss of a step: squared error behind the scanner, and the parts of the paper.

Simulated scans have a target; its code is theirs. Scans of low quality have none: they get the
codes of these targets, and adversary, content and style act on what the network makes of them,
after noise removal and inversion. What the adversary takes for real are the targets, too: they are
high-quality volumes with the slow changes that inversions keep, so that fields do not decide.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.learning.precision import mixed_precision, move, on_device
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.scanner.corrector.config import NEIGHBORS
from MedEnhanceLib.training.hqg.adversary import Adversary
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.hqg.content import ContentLoss
from MedEnhanceLib.training.hqg.patches import PatchBatch, SlabPool, TrainingSlab, batch_of
from MedEnhanceLib.training.hqg.scanned_slabs import LowQualitySlabMaker, ScannedSlabMaker
from MedEnhanceLib.training.hqg.style_code import CodedNetwork, divergence, drawn

# Chosen by hand (decision 0109).
#: Patches of a step.
_BATCH = 8
#: Errors beyond this, in σ, count no more: edges of metal must not decide.
_MOST_ERROR = 4.0
#: Added to the mean square error of the inversion, in σ², that the network's is relative to.
_FLOOR = 0.02
#: Share of the steps in which the weight of the divergence grows to its full size.
_WARM_UP = 0.3
#: Keys of the random numbers of simulated scans, and of those of low quality.
_SIMULATED, _SCANS = 5, 10


class Losses:
    """Losses of the steps, by number.

    Args:
        network: on the device.
        simulated: makes simulated scans.
        scans: makes scans of low quality, for the parts that take them.
        config: of the training.
        device: as PyTorch names it.
        monitor: of all steps.
    """

    def __init__(
        self,
        network: CodedNetwork,
        simulated: ScannedSlabMaker,
        scans: LowQualitySlabMaker,
        config: TrainConfig,
        device: str,
        monitor: Monitor,
    ) -> None:
        self._network, self._config, self._device = network, config, device
        self._monitor, self._pools = monitor, ExitStack()
        weights = config.unpaired
        self._pairs = self._batches(simulated.make, _SIMULATED)
        if weights.takes_scans:
            self._scans = self._batches(scans.make, _SCANS)
        encoder = network.encoder.features if weights.code else None
        self._content = ContentLoss(device, encoder) if weights.content else None
        self.adversary = Adversary(config.learning_rate) if weights.adversary else None
        if self.adversary:
            move(self.adversary, device)

    def __call__(self, number: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a step, and its terms without their weights."""
        pairs, steps = self._pairs(number), self._config.steps
        parts, encoder, code = self._config.unpaired, self._network.encoder, None
        terms, weights = dict[str, Tensor](), {"relative error": 1.0, **parts.to_json()}
        if parts.code:
            mean, log_variance = encoder(pairs.clean)
            code = drawn(mean, log_variance)
            terms["code"] = divergence(mean, log_variance)
            weights["code"] *= min(1.0, (number + 1) / (_WARM_UP * steps + 1))
        image = self._corrected(pairs, code)
        terms["relative error"] = relative_error(image, pairs)
        if parts.takes_scans:
            scans = self._scans(number)
            result = self._corrected(scans, code)
        if self._content:
            terms["content"] = self._content(result, scans.filtered[:, NEIGHBORS])
        if parts.style:
            terms["style"] = (encoder(result)[0] - mean.detach()).abs().mean()
        learned = dict[str, Tensor]()
        if self.adversary:
            fake = torch.cat([result, image])
            learned["discriminator"] = self.adversary.learn(pairs.clean, fake, number, steps)
            terms["adversary"] = self.adversary.loss(fake)
        total = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        return total, terms | learned

    def _batches(
        self, make: Callable[[int], TrainingSlab], key: int
    ) -> Callable[[int], PatchBatch]:
        """Return a function of a step's number that returns its patches, on the device.

        Args:
            make: makes the slab of a number, in any thread.
            key: of the random numbers, besides the seed.
        """
        config = self._config
        pool = SlabPool(make, config.slabs, config.renewed_every)
        self._pools.callback(pool.close)

        def batch_at(number: int) -> PatchBatch:
            rng = np.random.default_rng([config.seed, key, number])
            place = self._monitor.part(number / config.steps, number / config.steps)
            batch = batch_of(lambda: pool.draw(number, rng, place), _BATCH, rng)
            return on_device(batch, self._device)

        return batch_at

    def _corrected(self, batch: PatchBatch, code: Tensor | None) -> Tensor:
        with mixed_precision(self._device):
            image: Tensor = self._network((batch.noisy, batch.filtered, batch.sigma), code)
        return image

    def close(self) -> None:
        """End the threads that make slabs."""
        self._pools.close()


def relative_error(image: Tensor, batch: PatchBatch) -> Tensor:
    """Average the squared error of patches over that of the inversion, so that dB count alike.

    image: [B, J, I], as `ViewNet.forward` returns it.
    """

    def error(values: Tensor) -> Tensor:
        difference = (values - batch.clean) / batch.sigma.clamp_min(1e-4)
        squares = difference.clamp(-_MOST_ERROR, _MOST_ERROR).square()
        return (batch.weight * squares).mean((1, 2))

    before = error(batch.filtered[:, NEIGHBORS])
    return (error(image) / (before + _FLOOR)).mean()
