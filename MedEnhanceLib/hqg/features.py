"""What a volume looks like, in a few numbers: cue, intensities, noise and texture.

They are what the out-of-range warning compares (hqg/range.py): cheap, deterministic, and measured
on the network's scale, so that another unit or gain is no other volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.degrade.noise import foreground
from MedEnhanceLib.hqg.network import GuidanceEncoder
from MedEnhanceLib.nets.intensity import Scaling
from MedEnhanceLib.nets.slices import SliceStacks

Floats = npt.NDArray[np.float32]

#: Slices that are measured: among the half that shows most, evenly spaced.
SLICES = 8
#: Their middle is enough.
_SIDE = 512
#: Sides of what the guidance encoder sees: it pools four times.
_GRID = 32
#: Above this there is tissue rather than air: in CT on the network's scale, in MR as a share of
#: what is typical of the brighter half. Looked for in averages of _SMOOTH² pixels: noise is not it.
_CT_TISSUE, _MR_TISSUE, _SMOOTH = -0.5, 0.4, 5
#: The median of |x| over σ of a normal distribution, and the gain of the mask 1 −2 1 ⊗ 1 −2 1.
_MAD_TO_SIGMA, _MASK_GAIN = 1.4826, 6.0
#: Where there is no noise or texture at all, logarithms need a floor (share of the range).
_FLOOR = 1e-4
_LAGS = (1, 2, 4, 8)
_BANDS = 4
_BINS = 64

#: What each figure says, for people: what it is, when it is high, when it is low.
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
    "entropy": ("the grey values of tissue", "are spread more evenly", "are fewer"),
    "noise": ("noise", "is stronger", "is weaker"),
    "structure": ("structure", "reaches further", "is less coherent"),
    "neighbours": ("neighbouring slices", "are more alike", "are less alike"),
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
    """cue: [cue_size], the guidance encoder's mean. named: figures by name, see WORDS."""

    cue: Floats
    named: dict[str, float]

    @property
    def names(self) -> tuple[str, ...]:
        """What each entry of `vector` is; entries of the cue are all called that."""
        return (*self.named, *("cue",) * len(self.cue))

    @property
    def vector(self) -> npt.NDArray[np.float64]:
        """All of it, [F]."""
        return np.concatenate([[*self.named.values()], self.cue]).astype(np.float64)

    @property
    def noise(self) -> float:
        """σ of the noise as a share of the network's scale (MR: of the robust maximum)."""
        return float(np.exp(self.named["noise"]))

    @property
    def sharpness(self) -> float:
        """Logarithm of fine over coarse detail, free of noise as far as it can be told."""
        return self.named["band0"] - self.named["band2"]


def measure_features(
    voxels: npt.NDArray[Any], scaling: Scaling, guide: GuidanceEncoder, modality: str
) -> Features:
    """Measure a volume [K, J, I] in its units; under two seconds for 300 slices of 512²."""
    chosen = SliceStacks(voxels, scaling, context=0).telling(SLICES)
    near = np.where(chosen + 1 < len(voxels), chosen + 1, np.maximum(chosen - 1, 0))
    planes, neighbours = (scaling.apply(_middle(voxels, which)) for which in (chosen, near))
    return features_of_planes(planes, neighbours, guide, modality)


def _middle(voxels: npt.NDArray[Any], which: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    rows, columns = (max(0, (side - _SIDE) // 2) for side in voxels.shape[-2:])
    return voxels[which, rows : rows + _SIDE, columns : columns + _SIDE]


def features_of_planes(
    planes: Floats, neighbours: Floats, guide: GuidanceEncoder, modality: str
) -> Features:
    """planes, neighbours: [N, H, W], slices and the ones beside them, on the network's scale."""
    cue = _cue(planes, guide)
    tissue = find_tissue(planes, modality)
    return Features(cue, _intensities(planes, tissue) | _texture(planes, neighbours, tissue))


def find_tissue(planes: Floats, modality: str) -> npt.NDArray[np.bool_]:
    """Where planes [N, H, W] on the network's scale show the body; everywhere where nothing is."""
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


def _texture(planes: Floats, neighbours: Floats, tissue: npt.NDArray[np.bool_]) -> dict[str, float]:
    noise = noise_level(planes, tissue)
    lags = {f"lag{lag}": _correlation_in(planes, tissue, lag) for lag in _LAGS}
    bands = _bands(planes, tissue)
    return {
        "noise": float(np.log(noise + _FLOOR)),
        "structure": _shifted_correlation(planes, 4),
        "neighbours": _correlation(planes, neighbours),
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
    """Of all pixels with those `lag` rows and columns away: near 0 where there is only noise."""
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
    """Spread in tissue of what each halving of the resolution loses, finest first."""
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
