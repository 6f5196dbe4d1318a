"""Describes a volume by a few numbers, to compare it with the training images of a head.

They are the distribution of intensities deep inside the body, the size and thickness of the body,
and the brightness of the head's labels in some slices. Intensities are smoothed, against noise, and
divided by the mean of their surroundings, against bias fields and scale.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.bundles.export import record_fields
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.bundles.suitability import fit_likeness
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import Rician
from MedEnhanceLib.gradprom.head import HeadModel, open_head
from MedEnhanceLib.gradprom.slice_runner import stacks_of
from MedEnhanceLib.learning.intensity import scaling_for
from MedEnhanceLib.runtime.dependencies import require

# Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/segmentation.py.
#: Side of cells; σ of fine and coarse smoothing, of the surroundings' mean and of the depth; mm.
_CELL_MM, _FINE_MM, _COARSE_MM, _AROUND_MM, _DEEP_MM = 3.0, 2.0, 4.0, 9.0, 15.0
#: Share of the body that counts, the deepest: without skin, fat and skull.
_DEEPEST = 0.4
#: A cell is body above this share of Otsu's threshold.
_BODY = 0.8
#: HU that become 0 and 1: fat, muscle, blood and bone stay distinct.
_CT_ENDS = (-200.0, 300.0)
#: Slices that the head segments; fewer if they have more pixels than this.
_SLICES, _PIXELS = 6, 512 * 512
#: Least number of cells, and of labeled voxels, for a description.
_FEWEST = 100
#: σ of the noisy view, as a share of the brightest tissue.
_NOISE = 0.1


def record_likeness(folder: Path, volumes: Iterable[Volume]) -> None:
    """Record the description of the training images, single volumes, in the bundle of a head."""
    model = open_head(read_bundle(folder))
    groups = [[describe(view, model) for view in views(volume.canonical())] for volume in volumes]
    likeness = fit_likeness([row for rows in groups for row in rows], len(groups))
    if likeness:
        record_fields(folder, {"likeness": likeness})


def views(volume: Volume) -> Iterator[Volume]:
    """Yield variants of a training image that users may have: whole, halves, and noisy MR."""
    middle = len(volume.voxels) // 2
    yield volume
    if volume.profile.is_magnitude:
        yield Rician(_NOISE, 0).apply(volume)
    if middle:
        yield volume.crop(slice(None, middle))
        yield volume.crop(slice(middle, None))


def describe(volume: Volume, model: HeadModel) -> dict[str, float]:
    """Describe a single volume by numbers, NaN for labels with too few voxels in the slices.

    Returns {} where the body is too small.
    """
    cells, mm = _cells(volume)
    numbers = _body_numbers(cells, mm, volume.modality)
    return numbers | _label_numbers(volume, model) if numbers else {}


def _shifted(values: Floats, modality: str) -> Floats:
    """Map CT from _CT_ENDS to 0 and 1; MR is so already: air at 0, bright tissue at about 1."""
    if profile_of(modality).is_absolute:
        low, high = _CT_ENDS
        values = ((values * 1000 - low) / (high - low)).clip(0, 1.2)
    return values


def _cells(volume: Volume) -> tuple[Floats, tuple[float, ...]]:
    """Average over cells of about 3 mm; returns also their sides along k, j and i, in mm."""
    spacing = tuple(reversed(volume.geometry.spacing))
    pairs = zip(spacing, volume.shape, strict=True)
    sizes = [max(1, min(round(_CELL_MM / mm), side)) for mm, side in pairs]
    planes = [
        F.avg_pool2d(torch.from_numpy(plane.astype(np.float32, order="C"))[None], sizes[1:])
        for plane in volume.voxels
    ]
    means = F.avg_pool1d(torch.cat(planes).permute(1, 2, 0), sizes[0]).permute(2, 0, 1)
    scaled = scaling_for(volume).apply(np.ascontiguousarray(means.numpy()))
    return _shifted(scaled, volume.modality), tuple(np.multiply(spacing, sizes).tolist())


def _body_numbers(cells: Floats, mm: tuple[float, ...], modality: str) -> dict[str, float]:
    def smoothed(values: Floats, sigma: float) -> Floats:
        return gaussian_blur(values, 2 * sigma / (mm[1] + mm[2]), sigma_slices=sigma / mm[0])

    fine = smoothed(cells, _FINE_MM)
    sitk = require("SimpleITK", purpose="Comparing a volume with those that were learned from")
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.GetImageFromArray(np.minimum(fine, 1.2)))
    body = (fine > _BODY * otsu.GetThreshold()).astype(np.float32)
    share = smoothed(body, _AROUND_MM)
    inside = share > 0.5
    if inside.sum() < _FEWEST:
        return {}
    depth = smoothed(body, _DEEP_MM)
    deepest = inside & (depth >= np.quantile(depth[inside], 1 - _DEEPEST))
    around = (smoothed(cells * body, _AROUND_MM) / np.maximum(share, 1e-3))[deepest]
    coarse = smoothed(cells * body, _COARSE_MM) / np.maximum(smoothed(body, _COARSE_MM), 1e-3)
    numbers = {
        "volume of the body in mL": float(np.log(body.sum() * np.prod(mm) / 1000)),
        "thickness of the body": float(np.median(depth[inside])),
    }
    if profile_of(modality).is_absolute:
        numbers["level of the body"] = float(np.median(fine[deepest]))
    for name, image in (("fine", fine), ("coarse", coarse)):
        values = image[deepest] / around
        low, lower, middle, upper, high = np.percentile(values, [2, 25, 50, 75, 98])
        if not low < lower < middle < upper < high:
            return {}
        for tissue, first, last in (
            ("bright and dark tissue", low, high),
            ("most tissue", lower, upper),
        ):
            balance = np.log((last - middle) / (middle - first))
            numbers[f"{name} balance of {tissue}"] = float(balance)
    return numbers


def _label_numbers(volume: Volume, model: HeadModel) -> dict[str, float]:
    """Measure brightness and spread of each label over the mean of all, as logarithms."""
    count, rows, columns = volume.shape
    most = max(2, min(_SLICES, _SLICES * _PIXELS // (rows * columns)))
    places = np.unique(np.linspace(0, count - 1, most + 2)[1:-1].round().astype(int)).tolist()
    scaling, context = scaling_for(volume), model.config.context
    images, labels = [], []
    with torch.inference_mode():
        for place in places:
            stack = stacks_of(volume.voxels, scaling, context, slice(place, place + 1))
            label = model.network(stack).argmax(dim=1)[0, :rows, :columns].numpy()
            labels.append(label[label > 0])
            images.append(stack[0, context, :rows, :columns].numpy()[label > 0])
    image, label = _shifted(np.concatenate(images), volume.modality), np.concatenate(labels)
    numbers = {}
    for index, structure in enumerate(model.labels, 1):
        values = image[label == index]
        is_shown = len(values) >= _FEWEST and float(image.mean()) > 0 and values.mean() > 0
        relative = values / image.mean() if is_shown else np.full(2, np.nan)
        spread = relative.std() / relative.mean() + 0.01
        numbers[f"brightness of {structure.name!r}"] = float(np.log(relative.mean()))
        numbers[f"spread of {structure.name!r}"] = float(np.log(spread))
    return numbers
