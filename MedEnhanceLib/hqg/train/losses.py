"""The losses of HQG-Net: the objective of a training, its terms, and the critic.

Sources: names from arXiv 2307.07829; forms and weights reconstructed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.hqg.config import LossConfig, TrainConfig
from MedEnhanceLib.hqg.network import Cue, Enhancer, GuidanceEncoder, make_discriminator
from MedEnhanceLib.hqg.train.pools import Batch
from MedEnhanceLib.nets.precision import constant
from MedEnhanceLib.nets.training import finite_gradients, frozen

_HAAR = torch.tensor(
    [
        [[0.5, 0.5], [0.5, 0.5]],
        [[0.5, 0.5], [-0.5, -0.5]],
        [[0.5, -0.5], [0.5, -0.5]],
        [[0.5, -0.5], [-0.5, 0.5]],
    ]
)[:, None]
_RATE = 2e-4
#: Averages the gradients of parameters over the processes of a training.
Share = Callable[[Iterable[nn.Parameter]], None]
_KL_WARM_UP = 0.1
#: The terms that need E(T(z), z′).
_OF_CYCLE = ("cycle", "gradient", "structure", "wavelet", "feature", "error")
Terms = dict[str, Tensor]


class Objective:
    """Weighted loss terms of batches, by name; a term that is off is not computed.

    Only the networks run in half precision: variances in SSIM and the local correlation are small
    differences of large numbers, whose gradients are wrong in bfloat16.
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
        self.structure = structure_loss(1.0 if config.modality == "MR" else 0.5)

    def enhanced(self, batch: Batch) -> Tensor:
        """E(T(z), z′) alone."""
        with self.autocast:
            cue: Cue = self.guide(batch.guide)
            output: Tensor = self.enhancer(batch.degraded, cue.sample())
        return output

    def clean_terms(
        self, batch: Batch, number: int, *, with_output: bool = False
    ) -> tuple[Terms, Tensor | None]:
        """Terms on clean slabs z: E(T(z), z′) and E(z, z′) against z, distribution of the cue.

        Args:
            batch: of the step.
            number: of the step, for the warm-up of the cue's term.
            with_output: compute E(T(z), z′) even where no term needs it.
        Returns:
            The terms, and E(T(z), z′) or None.
        """
        weights = self.config.loss
        with self.autocast:
            cue: Cue = self.guide(batch.guide)
        drawn = cue.sample()
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
            terms["kl"] = weights.kl * warm_up * kl_loss(cue, weights.free_bits)
        return terms, output

    def _cycle_terms(self, batch: Batch, cue: Tensor) -> tuple[Terms, Tensor]:
        weights, target = self.config.loss, batch.target
        terms: Terms = {}
        with self.autocast:
            if weights.error:
                output, error = self.enhancer.estimate(batch.degraded, cue)
                terms["error"] = weights.error * error_likelihood(output, target, error)
            else:
                output = self.enhancer(batch.degraded, cue)
        if weights.cycle:
            terms["cycle"] = weights.cycle * F.l1_loss(output, target)
        if weights.gradient:
            terms["gradient"] = weights.gradient * gradient_loss(output, target)
        if weights.structure:
            similarity = self.structure(_some_slices(output), _some_slices(target))
            terms["structure"] = weights.structure * similarity
        if weights.wavelet:
            content = wavelet_content(_each_slice(output), _each_slice(target))
            terms["wavelet"] = weights.wavelet * content
        if weights.feature:
            terms["feature"] = weights.feature * self._encoder_content(output, target)
        return terms, output

    def real_terms(self, batch: Batch, rng: np.random.Generator, share: Share) -> Terms:
        """Terms on real low-quality slabs y: fidelity to y, and the critic's.

        The critic is trained in the same step, on enhanced slices and high-quality ones.
        """
        weights, low = self.config.loss, batch.low
        assert low is not None
        real = batch.guide[: len(low)]
        with self.autocast:
            cue: Cue = self.guide(real)
            # Without a request to undo blur, as their blur is not known.
            output = self.enhancer(low, cue.sample())
        terms: Terms = {}
        if weights.low_band:
            terms["low_band"] = weights.low_band * low_band(output, low)
        if weights.real_wavelet:
            content = published_wavelet(
                _each_slice(output),
                _each_slice(low),
                low_weight=weights.real_wavelet_low,
                finest_hh=weights.real_wavelet_finest_hh,
            )
            terms["real_wavelet"] = weights.real_wavelet * content
        if weights.real_feature:
            with frozen(self.guide), self.autocast:
                features = self.guide(_middle(output)).mean
            guided = F.l1_loss(features, cue.mean.detach())
            kept = self._encoder_content(output, low)
            terms["real_feature"] = weights.real_feature * (guided + kept)
        if self.critic is not None:
            self.critic.teach(_middle(output), real, rng, share)
            terms["adversarial"] = weights.adversarial * self.critic.judge(_middle(output))
        return terms

    def _encoder_content(self, output: Tensor, reference: Tensor) -> Tensor:
        """Distance of two slabs in the features of the enhancer's encoder, which is frozen.

        If it were trained by this term, constant features would minimize it.
        """
        with frozen(self.enhancer), self.autocast:
            with torch.no_grad():
                theirs = self.enhancer.encode(reference)
            ours = self.enhancer.encode(output)
        return feature_content(ours, theirs)


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


def haar(images: Tensor) -> tuple[Tensor, Tensor]:
    """One level of the orthonormal Haar transform.

    images: [B, 1, H, W], H and W even → LL [B, 1, H/2, W/2] and details [B, 3, H/2, W/2]
    (LH, HL, HH).
    """
    bands = F.conv2d(images, constant(_HAAR, images.device, images.dtype), stride=2)
    return bands[:, :1], bands[:, 1:]


def inverse_haar(low: Tensor, details: Tensor) -> Tensor:
    """The inverse of `haar`, exact up to rounding."""
    bands = torch.cat([low, details], dim=1)
    return F.conv_transpose2d(bands, constant(_HAAR, bands.device, bands.dtype), stride=2)


def wavelet_content(output: Tensor, reference: Tensor, window: int = 11) -> Tensor:
    """1 − local correlation of the absolute detail bands, averaged over two levels.

    output, reference: [B, 1, H, W], H and W multiples of 4. Pixel level of the content-aware loss.
    """
    loss = output.new_zeros(())
    for _ in range(2):
        output, fine_output = haar(output)
        reference, fine_reference = haar(reference)
        correlation = _local_correlation(fine_output.abs(), fine_reference.abs(), window)
        loss = loss + (1 - correlation).mean() / 2
    return loss


def published_wavelet(
    output: Tensor,
    reference: Tensor,
    *,
    low_weight: float = 1.0,
    finest_hh: bool = True,
    window: int = 11,
) -> Tensor:
    """The pixel level of the content-aware loss as published, for real low-quality input.

    The mean over two levels of (1 − local correlation of the absolute detail bands), plus
    low_weight (κ) times L1 of the low band that is left. finest_hh: whether the finest diagonal
    band counts. output, reference: [B, 1, H, W], H and W multiples of 4.
    """
    losses = []
    for level in range(2):
        output, fine_output = haar(output)
        reference, fine_reference = haar(reference)
        bands = 3 if finest_hh or level else 2
        ours, theirs = fine_output[:, :bands].abs(), fine_reference[:, :bands].abs()
        losses.append((1 - _local_correlation(ours, theirs, window)).mean())
    detail = torch.stack(losses).mean()
    return detail + low_weight * F.l1_loss(output, reference) if low_weight else detail


def gradient_penalty(critic: nn.Module, images: Tensor) -> Tensor:
    """R1: ½ of the mean squared gradient of the critic's mean score by each of its images.

    images: [B, 1, H, W], high quality. Source: Mescheder et al., arXiv 1801.04406.
    """
    images = images.detach().requires_grad_(True)
    scores = critic(images)[-1].mean(dim=(1, 2, 3)).sum()
    (gradient,) = torch.autograd.grad(scores, images, create_graph=True)
    return 0.5 * gradient.square().sum(dim=(1, 2, 3)).mean()


def low_band(output: Tensor, reference: Tensor) -> Tensor:
    """L1 of images averaged over 4 × 4 pixels, which noise and blur hardly change."""
    return F.l1_loss(F.avg_pool2d(output, 4), F.avg_pool2d(reference, 4))


def feature_content(output: list[Tensor], reference: list[Tensor]) -> Tensor:
    """L1 between instance-normalized enhancer features of stages 2 and 3; reference is fixed.

    Feature level of the content-aware loss; both lists as Enhancer.encode gives them.
    """
    pairs = list(zip(output, reference, strict=True))[1:3]
    loss = torch.zeros((), device=output[0].device)
    for ours, theirs in pairs:
        fixed = F.instance_norm(theirs.detach().float())
        loss = loss + F.l1_loss(F.instance_norm(ours.float()), fixed)
    return loss


def gradient_loss(output: Tensor, reference: Tensor) -> Tensor:
    """L1 between the finite differences of slabs [B, D, H, W] along slices, rows and columns.

    Along slices it makes neighbors agree.
    """
    axes = (1, 2, 3) if output.shape[1] > 1 else (2, 3)
    return sum(
        (F.l1_loss(output.diff(dim=axis), reference.diff(dim=axis)) for axis in axes),
        output.new_zeros(()),
    )


def error_likelihood(output: Tensor, reference: Tensor, error: Tensor) -> Tensor:
    """−ln of a Laplace distribution with mean absolute deviation `error`, less ln 2.

    No gradient reaches the image.
    """
    residual = (output - reference).detach().abs()
    return (residual / error + error.log()).mean()


def kl_loss(cue: Cue, free_bits: float) -> Tensor:
    """KL to the standard normal per dimension, above `free_bits` nats, which prevents collapse."""
    return cue.kl_divergence().mean(dim=0).clamp_min(free_bits).sum()


def _local_correlation(a: Tensor, b: Tensor, window: int) -> Tensor:
    """Pearson's correlation within windows that overlap by half, [B, C, H, W] → [B, C, h, w]."""

    def mean(values: Tensor) -> Tensor:
        # Every half window is enough: at every pixel this took a fifth of a training step.
        return F.avg_pool2d(
            values, window, stride=window // 2, padding=window // 2, count_include_pad=False
        )

    mean_a, mean_b = mean(a), mean(b)
    covariance = mean(a * b) - mean_a * mean_b
    variance_a = (mean(a * a) - mean_a.square()).clamp_min(0)
    variance_b = (mean(b * b) - mean_b.square()).clamp_min(0)
    # The floor keeps flat background, where correlation means nothing, from dominating.
    floor = 1e-5
    return (covariance + floor) / (torch.sqrt((variance_a + floor) * (variance_b + floor)))


@lru_cache(maxsize=4)
def structure_loss(data_range: float) -> nn.Module:
    """1 − SSIM (MONAI), for images of this range."""
    from monai.losses.ssim_loss import SSIMLoss

    loss: nn.Module = SSIMLoss(spatial_dims=2, data_range=data_range)
    return loss


@lru_cache(maxsize=1)
def adversarial_loss() -> nn.Module:
    """Least-squares GAN loss on patch scores (MONAI)."""
    from monai.losses.adversarial_loss import PatchAdversarialLoss

    loss: nn.Module = PatchAdversarialLoss(criterion="least_squares")
    return loss


class PastImages:
    """A buffer of enhanced images of earlier steps for the critic.

    Source: Shrivastava et al., arXiv 1612.07828.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def mix(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """images: [B, 1, H, W]; once the buffer is full, half of them become old ones."""
        if not self.size:
            return images
        shown = []
        for image in images:
            if len(self.images) < self.size:
                self.images.append(image.clone())
                shown.append(image)
            elif rng.random() < 0.5:
                place = int(rng.integers(self.size))
                shown.append(self.images[place])
                self.images[place] = image.clone()
            else:
                shown.append(image)
        return torch.stack(shown)

    def state_dict(self) -> dict[str, Tensor]:
        """All images in one tensor; empty without images."""
        return {"images": torch.stack(self.images)} if self.images else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict`."""
        self.images = list(state["images"]) if "images" in state else []


class Critic:
    """Separates enhanced from high-quality images: a least-squares PatchGAN, its optimizer."""

    def __init__(self, config: LossConfig, device: str, autocast: torch.autocast) -> None:
        self.network = make_discriminator().to(device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=_RATE, betas=(0.5, 0.999))
        self.past = PastImages(config.past_images)
        self._config, self._autocast = config, autocast
        self._criterion = adversarial_loss()

    def teach(self, enhanced: Tensor, real: Tensor, rng: np.random.Generator, share: Share) -> None:
        """One training step on images [B, 1, H, W] each; skipped where it is not finite."""
        shown = self.past.mix(enhanced.detach().float(), rng)
        loss: Tensor = self._criterion(
            self._scores(shown), target_is_real=False, for_discriminator=True
        ) + self._criterion(self._scores(real), target_is_real=True, for_discriminator=True)
        if self._config.r1:
            # In full precision, as it is a gradient of a gradient.
            loss = loss + self._config.r1 * gradient_penalty(self.network, real)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        share(self.network.parameters())
        if finite_gradients(self.network.parameters()):
            self.optimizer.step()

    def judge(self, enhanced: Tensor) -> Tensor:
        """The enhancer's adversarial loss for images [B, 1, H, W]."""
        with frozen(self.network):
            loss: Tensor = self._criterion(
                self._scores(enhanced), target_is_real=True, for_discriminator=False
            )
        return loss

    def _scores(self, images: Tensor) -> Tensor:
        with self._autocast:
            scores: Tensor = self.network(images)[-1].float()
        return scores
