"""Posteriors of classes from priors and one image: a histogram for each class, by EM."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

# Chosen in trials (decision 0075); no table isolates them. Measured by Benchmarks/segmentation.py.
#: Bins of a histogram; σ of their smoothing, in bins.
_BINS, _BLUR = 48, 1.3
#: Voxels at which a class trusts its own histogram by half; fewer borrow from all of its prior.
_FEW = 300.0
#: Every how many voxels enter the histograms: prime, so that all columns do.
_EACH = 5


def posteriors(image: Tensor, prior: Tensor, rounds: int = 6) -> Tensor:
    """Estimate the classes of voxels by expectation maximization.

    Args:
        image: [K, J, I], 0 to 1.
        prior: [C, k, j, i], shares in cells of two voxels a side.
        rounds: of the estimation.
    Returns shares [C, K, J, I].
    """
    count = len(prior)
    fine = F.interpolate(prior[None], size=image.shape, mode="trilinear", align_corners=False)
    prior = (fine[0].reshape(count, -1) + 1e-4) / (1 + count * 1e-4)
    bins = (image.reshape(-1) * (_BINS - 1)).round().long().clamp(0, _BINS - 1)
    # Histograms are estimated from a part of the voxels: all of them only take longer.
    some, some_bins = prior[:, ::_EACH].contiguous(), bins[::_EACH]
    likelihood = _histograms(some, some_bins)
    for _ in range(rounds - 1):
        share = some * likelihood[:, some_bins]
        likelihood = _histograms(share / share.sum(0, keepdim=True), some_bins)
    share = prior * likelihood[:, bins]
    return (share / share.sum(0, keepdim=True)).view(count, *image.shape)


def _histograms(share: Tensor, bins: Tensor) -> Tensor:
    """Return the smoothed distribution of each class over the bins: [C, bins]."""
    taps = torch.exp(-0.5 * (torch.arange(-4, 5) / _BLUR) ** 2)
    counts = torch.zeros(len(share), _BINS).index_add_(1, bins, share * _EACH)
    total = counts.sum(1, keepdim=True) + 1e-3
    lines = F.pad((counts / total)[:, None], (4, 4), mode="replicate")
    smoothed = F.conv1d(lines, (taps / taps.sum()).view(1, 1, -1))[:, 0] + 1e-4
    trust = total / (total + _FEW)
    return trust * smoothed / smoothed.sum(1, keepdim=True) + (1 - trust) / _BINS
