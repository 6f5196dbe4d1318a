"""What a training of HQG-Net minimises: the terms that its configuration switches on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.hqg import losses
from MedEnhanceLib.hqg.batches import StepBatch
from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.critic import Critic, Share
from MedEnhanceLib.hqg.network import Cue, Enhancer, GuidanceEncoder
from MedEnhanceLib.nets.training import frozen

_KL_WARM_UP = 0.1
#: The terms that need E(T(z), z′).
_OF_CYCLE = ("cycle", "gradient", "structure", "wavelet", "feature", "error")

Terms = dict[str, Tensor]


class Objective:
    """Weighted loss terms of batches, by name; a term that is off is not computed.

    Only the networks run in half precision: variances inside SSIM and the local correlation are
    small differences of large numbers, and in bfloat16 their gradients point anywhere.
    """

    def __init__(
        self,
        config: TrainConfig,
        enhancer: Enhancer,
        guide: GuidanceEncoder,
        critic: Critic | None,
        autocast: torch.autocast,
    ) -> None:
        self.config, self.enhancer, self.guide = config, enhancer, guide
        self.critic, self.autocast = critic, autocast
        self.structure = losses.structure_loss(1.0 if config.modality == "MR" else 0.5)

    def enhanced(self, batch: StepBatch) -> Tensor:
        """E(T(z), z′) alone."""
        with self.autocast:
            cue: Cue = self.guide(batch.guide)
            output: Tensor = self.enhancer(batch.degraded, self._drawn(cue, batch))
        return output

    def _drawn(self, cue: Cue, batch: StepBatch) -> Tensor:
        """A cue of the guides' distribution, with what is asked."""
        return self.guide.asking(cue.sample(), batch.deblur)

    def clean_terms(
        self, batch: StepBatch, number: int, *, with_output: bool = False
    ) -> tuple[Terms, Tensor | None]:
        """On clean slabs z: E(T(z), z′) against z, E(z, z′) against z, the cue's distribution.

        Also E(T(z), z′) itself where a term needs it, or `with_output`.
        """
        weights = self.config.loss
        with self.autocast:
            cue: Cue = self.guide(batch.guide)
        drawn = self._drawn(cue, batch)
        terms: Terms = {}
        output = None
        if with_output or any(getattr(weights, name) for name in _OF_CYCLE):
            terms, output = self._cycle_terms(batch, drawn)
        if weights.identity:
            with self.autocast:
                same = self.enhancer(batch.target, drawn)
            terms["identity"] = weights.identity * F.l1_loss(same, batch.target)
        if weights.kl and self.config.network.guidance and self.config.network.variational:
            warm_up = min(1.0, number / max(1.0, _KL_WARM_UP * self.config.steps))
            terms["kl"] = weights.kl * warm_up * losses.kl_loss(cue, weights.free_bits)
        return terms, output

    def _cycle_terms(self, batch: StepBatch, cue: Tensor) -> tuple[Terms, Tensor]:
        weights, target = self.config.loss, batch.target
        terms: Terms = {}
        with self.autocast:
            if weights.error:
                output, error = self.enhancer.estimate(batch.degraded, cue)
                terms["error"] = weights.error * losses.error_likelihood(output, target, error)
            else:
                output = self.enhancer(batch.degraded, cue)
        if weights.cycle:
            terms["cycle"] = weights.cycle * F.l1_loss(output, target)
        if weights.gradient:
            terms["gradient"] = weights.gradient * losses.gradient_loss(output, target)
        if weights.structure:
            similarity = self.structure(_some_slices(output), _some_slices(target))
            terms["structure"] = weights.structure * similarity
        if weights.wavelet:
            content = losses.wavelet_content(_each_slice(output), _each_slice(target))
            terms["wavelet"] = weights.wavelet * content
        if weights.feature:
            terms["feature"] = weights.feature * self._encoder_content(output, target)
        return terms, output

    def real_terms(self, batch: StepBatch, rng: np.random.Generator, share: Share) -> Terms:
        """On real low-quality slabs y: what must stay of them, and what the critic says.

        The critic learns in the same step, on enhanced slices and high-quality ones.
        """
        weights, low = self.config.loss, batch.low
        assert low is not None
        real = batch.guide[: len(low)]
        with self.autocast:
            cue: Cue = self.guide(real)
            # Without asking for blur to be undone: how blurred they are, nobody knows.
            output = self.enhancer(low, cue.sample())
        terms: Terms = {}
        if weights.low_band:
            terms["low_band"] = weights.low_band * losses.low_band(output, low)
        if weights.real_wavelet:
            content = losses.published_wavelet(
                _each_slice(output),
                _each_slice(low),
                low_weight=weights.real_wavelet_low,
                finest_hh=weights.real_wavelet_finest_hh,
            )
            terms["real_wavelet"] = weights.real_wavelet * content
        if weights.real_feature:
            with frozen(self.guide), self.autocast:
                seen = self.guide(_middle(output)).mean
            guided = F.l1_loss(seen, cue.mean.detach())
            kept = self._encoder_content(output, low)
            terms["real_feature"] = weights.real_feature * (guided + kept)
        if self.critic is not None:
            self.critic.teach(_middle(output), real, rng, share)
            terms["adversarial"] = weights.adversarial * self.critic.judge(_middle(output))
        return terms

    def _encoder_content(self, output: Tensor, reference: Tensor) -> Tensor:
        """How differently the enhancer's encoder sees two slabs; it is a judge and does not learn.

        Were it to learn, seeing nothing at all would be the easiest way to see no difference.
        """
        with frozen(self.enhancer), self.autocast:
            with torch.no_grad():
                theirs = self.enhancer.encode(reference)
            ours = self.enhancer.encode(output)
        return losses.feature_content(ours, theirs)


def _each_slice(slabs: Tensor) -> Tensor:
    """[B, D, H, W] → [B·D, 1, H, W]."""
    return slabs.flatten(0, 1)[:, None]


def _some_slices(slabs: Tensor) -> Tensor:
    """Every fourth slice, as `_each_slice`: SSIM of all took a third of a step."""
    return _each_slice(slabs[:, 1::4] if slabs.shape[1] > 1 else slabs)


def _middle(slabs: Tensor) -> Tensor:
    """[B, D, H, W] → the middle slice of each, [B, 1, H, W]."""
    middle = slabs.shape[1] // 2
    return slabs[:, middle : middle + 1]
