"""What makes a distillation differentially private: a patient's gradient is cut and drowned.

In each match the gradient that a patient's raw images give a network is the only thing that leaves
them. It is cut, all layers together, to a norm, and Gaussian noise is added; all that is done with
the sum afterwards tells no more. The noise comes from a secret that is never told: with it, the
noise could be taken off again.

Source: the Gaussian mechanism, Dwork and Roth 2014, appendix A; Abadi et al., CCS 2016, the
clipping. That the clip follows the distilled images' own gradient, which is no secret, is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.privacy import NoisySteps, epsilon, noise_for, statement

Gradients = Sequence[Tensor]
_NEIGHBOURS = "with and without a patient's gradients; how many patients there are is no secret"


def noisy_steps(config: DistillConfig) -> NoisySteps:
    """The matches of one patient, as the accountant counts them.

    Each patient is distilled in a job of their own, so that every match is about that patient.
    Raises ConfigError where no noise keeps the wished ε.
    """
    dp = config.dp
    assert dp is not None
    matches = config.loop.outer * config.loop.inner
    noise = dp.noise_multiplier
    if noise is None:
        assert dp.epsilon is not None
        noise = noise_for(dp.epsilon, dp.delta, steps=matches)
    return NoisySteps(steps=matches, noise_multiplier=noise)


def privacy_told(config: DistillConfig, patients: int) -> dict[str, object]:
    """What manifest and card say of it; raises ConfigError for a δ that promises nothing."""
    dp = config.dp
    assert dp is not None
    steps = noisy_steps(config)
    return {
        "epsilon": epsilon([steps], dp.delta),
        "delta": dp.delta,
        "clip": dp.clip,
        "noise_multiplier": steps.noise_multiplier,
        "matches": steps.steps,
        "neighbours": _NEIGHBOURS,
        "statement": statement([steps], dp.delta, patients),
    }


class Noising:
    """Cuts and drowns the gradients of one patient; the same step draws the same noise.

    secret: of the run; patient: keeps the noise of patients apart.
    """

    def __init__(self, config: DistillConfig, secret: int, patient: int) -> None:
        assert config.dp is not None
        self._clip = config.dp.clip
        self._multiplier = noisy_steps(config).noise_multiplier
        self._seed = (secret, patient)

    def __call__(self, raw: Gradients, distilled: Gradients, number: int) -> list[Tensor]:
        """What may be known of a patient's gradient, in step `number`.

        distilled: the gradient of the patient's distilled images, whose norm the clip is told in.
        """
        most = self._clip * norm([layer.detach() for layer in distilled])
        rng = np.random.default_rng((*self._seed, number))
        deviation = self._multiplier * most
        return [layer + deviation * _normal(layer, rng) for layer in clipped(raw, most)]


def norm(gradients: Gradients) -> Tensor:
    """Of all layers together."""
    return torch.stack([layer.square().sum() for layer in gradients]).sum().sqrt()


def clipped(gradients: Gradients, most: Tensor) -> list[Tensor]:
    """The same direction, with a norm of at most `most` over all layers.

    Nothing at all of a gradient that is not finite: it has no norm to be cut to.
    """
    length = norm(gradients)
    if not bool(torch.isfinite(length)):
        return [torch.zeros_like(layer) for layer in gradients]
    share = (most / length.clamp_min(torch.finfo(length.dtype).tiny)).clamp_max(1)
    return [layer * share for layer in gradients]


def _normal(like: Tensor, rng: np.random.Generator) -> Tensor:
    drawn = rng.standard_normal(tuple(like.shape))
    return torch.from_numpy(drawn).to(like.device, like.dtype)
