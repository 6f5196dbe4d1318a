"""The losses of HQG-Net, each a function of images or features.

Sources: names from arXiv 2307.07829; forms and weights reconstructed (docs/decisions/0004).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.hqg.network import Cue

_HAAR = torch.tensor(
    [
        [[0.5, 0.5], [0.5, 0.5]],
        [[0.5, 0.5], [-0.5, -0.5]],
        [[0.5, -0.5], [0.5, -0.5]],
        [[0.5, -0.5], [-0.5, 0.5]],
    ]
)[:, None]


def haar(images: Tensor) -> tuple[Tensor, Tensor]:
    """One level of the orthonormal Haar transform.

    images: [B, 1, H, W], H and W even → LL [B, 1, H/2, W/2] and details [B, 3, H/2, W/2]
    (LH, HL, HH).
    """
    bands = F.conv2d(images, _HAAR.to(images), stride=2)
    return bands[:, :1], bands[:, 1:]


def inverse_haar(low: Tensor, details: Tensor) -> Tensor:
    """The inverse of `haar`, exact up to rounding."""
    bands = torch.cat([low, details], dim=1)
    return F.conv_transpose2d(bands, _HAAR.to(bands), stride=2)


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
    """L1 of the twice averaged images: what noise and blur leave intact."""
    return F.l1_loss(F.avg_pool2d(output, 4), F.avg_pool2d(reference, 4))


def feature_content(output: list[Tensor], reference: list[Tensor]) -> Tensor:
    """L1 between instance-normalised enhancer features of stages 2 and 3; reference is fixed.

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

    Along slices it makes neighbours agree.
    """
    axes = (1, 2, 3) if output.shape[1] > 1 else (2, 3)
    return sum(
        (F.l1_loss(output.diff(dim=axis), reference.diff(dim=axis)) for axis in axes),
        output.new_zeros(()),
    )


def error_likelihood(output: Tensor, reference: Tensor, error: Tensor) -> Tensor:
    """−ln of a Laplace distribution with mean absolute deviation `error`, less ln 2.

    The image does not learn from it: its residual is taken as it is.
    """
    residual = (output - reference).detach().abs()
    return (residual / error + error.log()).mean()


def kl_loss(cue: Cue, free_bits: float) -> Tensor:
    """KL to the standard normal per dimension, above `free_bits` nats: guards from collapse."""
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
