"""Features of a volume for the out-of-range warning: cue, intensities, noise and texture.

They are deterministic, take seconds, and are measured on the network's scale, so that they do not
depend on units or gain. hqg/range.py compares them with the training data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.degrade.image import foreground
from MedEnhanceLib.hqg.network import GuidanceEncoder
from MedEnhanceLib.nets.intensity import Scaling
from MedEnhanceLib.nets.slices import SliceStacks

Floats = npt.NDArray[np.float32]

#: Slices that are measured, evenly spaced among the half with the largest contrast.
SLICES = 8
#: Side of their middle part that is measured, in pixels.
_SIDE = 512
#: Sides of the guidance encoder's input are multiples of this: it pools four times.
_GRID = 32
#: Threshold of tissue against air: in CT on the network's scale, in MR as a share of the median of
#: the foreground. It is applied to averages of _SMOOTH² pixels, to ignore noise.
_CT_TISSUE, _MR_TISSUE, _SMOOTH = -0.5, 0.4, 5
#: The median of |x| over σ of a normal distribution, and the gain of the mask 1 −2 1 ⊗ 1 −2 1.
_MAD_TO_SIGMA, _MASK_GAIN = 1.4826, 6.0
#: Floor of logarithms, as a share of the range, for images without noise or texture.
_FLOOR = 1e-4
_LAGS = (1, 2, 4, 8)
_BANDS = 4
_BINS = 64

#: For warnings: what each feature is, and what a high and a low value mean.
WORDS = {
    "tissue": ("the picture", "is filled with more signal", "shows more air"),
    "bottom": ("the lowest values", "are higher", "are lower"),
    "negative": ("values below zero", "are more frequent", "are rarer"),
    "q05": ("the darkest tissue", "is brighter", "is darker"),
    "q25": ("dark tissue", "is brighter", "is darker"),
    "q50": ("tissue as a whole", "is brighter", "is darker"),
    "q75": ("bright tissue", "is brighter", "is darker"),
    "q95": ("the brightest tissue", "is brighter", "is darker"),
    "spread": ("the contrast within tissue", "is larger", "is smaller"),
    "entropy": ("the gray values of tissue", "are spread more evenly", "are fewer"),
    "noise": ("noise", "is stronger", "is weaker"),
    "structure": ("structure", "reaches further", "is less coherent"),
    "neighbours": ("neighboring slices", "are more alike", "are less alike"),
    **{f"lag{lag}": ("texture", "is coarser", "is finer or noisier") for lag in _LAGS},
    **{
        f"band{level}": (
            ("fine detail", "middle detail", "coarse detail", "large structure")[level],
            "is stronger",
            "is weaker",
        )
        for level in range(_BANDS)
    },
    "cue": ("the look of the images (the cue)", "is another", "is another"),
}


@dataclass(frozen=True)
class Features:
    """cue: [cue_size], the guidance encoder's mean. named: features by name, see WORDS."""

    cue: Floats
    named: dict[str, float]

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each entry of `vector`; those of the cue are all "cue"."""
        return (*self.named, *("cue",) * len(self.cue))

    @property
    def vector(self) -> npt.NDArray[np.float64]:
        """All features, [F]."""
        return np.concatenate([[*self.named.values()], self.cue]).astype(np.float64)

    @property
    def noise(self) -> float:
        """σ of the noise as a share of the network's scale (MR: of the robust maximum)."""
        return float(np.exp(self.named["noise"]))

    @property
    def sharpness(self) -> float:
        """Logarithm of fine over coarse detail."""
        return self.named["band0"] - self.named["band2"]


def measure_features(
    voxels: npt.NDArray[Any], scaling: Scaling, guide: GuidanceEncoder, modality: str
) -> Features:
    """Measure a volume [K, J, I] in its units; under two seconds for 300 slices of 512²."""
    chosen = SliceStacks(voxels, scaling, context=0).informative(SLICES)
    near = np.where(chosen + 1 < len(voxels), chosen + 1, np.maximum(chosen - 1, 0))
    planes, neighbors = (scaling.apply(_middle(voxels, which)) for which in (chosen, near))
    return features_of_planes(planes, neighbors, guide, modality)


def _middle(voxels: npt.NDArray[Any], which: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    rows, columns = (max(0, (side - _SIDE) // 2) for side in voxels.shape[-2:])
    return voxels[which, rows : rows + _SIDE, columns : columns + _SIDE]


def features_of_planes(
    planes: Floats, neighbors: Floats, guide: GuidanceEncoder, modality: str
) -> Features:
    """planes, neighbors: [N, H, W], slices and adjacent slices, on the network's scale."""
    cue = _cue(planes, guide)
    tissue = find_tissue(planes, modality)
    return Features(cue, _intensities(planes, tissue) | _texture(planes, neighbors, tissue))


def find_tissue(planes: Floats, modality: str) -> npt.NDArray[np.bool_]:
    """Mask of tissue in planes [N, H, W] on the network's scale; all true where there is none."""
    images = torch.from_numpy(planes)[:, None]
    smooth = F.avg_pool2d(images, _SMOOTH, 1, _SMOOTH // 2, count_include_pad=False)[:, 0].numpy()
    level = (
        _CT_TISSUE
        if modality == "CT"
        else _MR_TISSUE * float(np.median(smooth[foreground(smooth)]))
    )
    tissue: npt.NDArray[np.bool_] = smooth > level
    return tissue if tissue.any() else np.ones_like(tissue)


def _cue(planes: Floats, guide: GuidanceEncoder) -> Floats:
    device = next(guide.parameters()).device
    with torch.inference_mode():
        means = [guide(_padded(plane).to(device)).mean for plane in planes]
        mean: Floats = torch.cat(means).mean(dim=0).cpu().numpy()
    return mean


def _padded(plane: Floats) -> Tensor:
    rows, columns = plane.shape
    padding = (0, -columns % _GRID, 0, -rows % _GRID)
    return F.pad(torch.from_numpy(plane)[None, None], padding, mode="replicate")


def _intensities(planes: Floats, tissue: npt.NDArray[np.bool_]) -> dict[str, float]:
    values = planes[tissue]
    marks = np.percentile(values, (5, 25, 50, 75, 95))
    share = float(np.clip(tissue.mean(), 0.01, 0.99))
    span = np.percentile(values, (0.5, 99.5))
    counts = np.histogram(values, bins=_BINS, range=(span[0], max(span[1], span[0] + _FLOOR)))[0]
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return {
        "tissue": float(np.log(share / (1 - share))),
        "bottom": float(np.percentile(planes, 1)),
        "negative": float(np.sqrt((planes < 0).mean())),
        **{f"q{mark:02d}": float(at) for mark, at in zip((5, 25, 50, 75, 95), marks, strict=True)},
        "spread": float(np.log(values.std() + _FLOOR)),
        "entropy": float(-(shares * np.log(shares)).sum()),
    }


def _texture(planes: Floats, neighbors: Floats, tissue: npt.NDArray[np.bool_]) -> dict[str, float]:
    noise = noise_level(planes, tissue)
    lags = {f"lag{lag}": _correlation_in(planes, tissue, lag) for lag in _LAGS}
    bands = _bands(planes, tissue)
    return {
        "noise": float(np.log(noise + _FLOOR)),
        "structure": _shifted_correlation(planes, 4),
        "neighbours": _correlation(planes, neighbors),
        **lags,
        **{f"band{level}": float(np.log(band + _FLOOR)) for level, band in enumerate(bands)},
    }


def noise_level(planes: Floats, tissue: npt.NDArray[np.bool_]) -> float:
    """σ of white noise in the tissue, on the scale of `planes` [N, H, W].

    The median of a mask that no plane or slope passes, where all nine pixels are tissue.
    Source: Immerkær, Computer Vision and Image Understanding 64 (1996) 300, made robust.
    """
    if min(planes.shape[1:]) < 3:
        return 0.0
    rows = planes[:, :-2] - 2 * planes[:, 1:-1] + planes[:, 2:]
    mask = rows[:, :, :-2] - 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
    inner = tissue[:, 1:-1, 1:-1].copy()
    for j in (0, 2):
        for i in (0, 2):
            inner &= tissue[:, j : j + inner.shape[1], i : i + inner.shape[2]]
    values = np.abs(mask[inner] if inner.any() else mask)
    return float(np.median(values)) * _MAD_TO_SIGMA / _MASK_GAIN


def _correlation(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Pearson's, 0 where one of them is constant."""
    if one.size < 2:
        return 0.0
    a, b = one - one.mean(dtype=np.float64), other - other.mean(dtype=np.float64)
    scale = float(np.sqrt((a * a).sum(dtype=np.float64) * (b * b).sum(dtype=np.float64)))
    return float((a * b).sum(dtype=np.float64)) / scale if scale > 0 else 0.0


def _shifted_correlation(planes: Floats, lag: int) -> float:
    """Correlation of pixels `lag` rows or columns apart: near 0 where there is only noise."""
    lag = min(lag, min(planes.shape[1:]) - 1)
    if lag < 1:
        return 0.0
    return (
        _correlation(planes[:, :-lag], planes[:, lag:])
        + _correlation(planes[:, :, :-lag], planes[:, :, lag:])
    ) / 2


def _correlation_in(planes: Floats, tissue: npt.NDArray[np.bool_], lag: int) -> float:
    """The same where both pixels are tissue, along rows."""
    if lag >= planes.shape[2]:
        return 0.0
    both = tissue[:, :, :-lag] & tissue[:, :, lag:]
    return _correlation(planes[:, :, :-lag][both], planes[:, :, lag:][both])


def _bands(planes: Floats, tissue: npt.NDArray[np.bool_]) -> list[float]:
    """RMS in tissue of the detail that each halving of the resolution removes, finest first."""
    images = torch.from_numpy(planes)[:, None]
    inside = torch.from_numpy(tissue.astype(np.float32))[:, None]
    bands = []
    for _ in range(_BANDS):
        if min(images.shape[-2:]) < 4:
            bands.append(0.0)
            continue
        coarser = F.avg_pool2d(images, 2)
        rows, columns = (2 * side for side in coarser.shape[-2:])
        lost = images[..., :rows, :columns] - F.interpolate(coarser, scale_factor=2)
        shown = inside[..., :rows, :columns] > 0.99
        values = lost[shown] if bool(shown.any()) else lost.flatten()
        bands.append(float(values.square().mean().sqrt()))
        images, inside = coarser, F.avg_pool2d(inside, 2)
    return bands
