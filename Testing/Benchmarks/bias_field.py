"""What the correction of the bias field changes in crops that nobody damaged.

    python Testing/Benchmarks/bias_field.py

The correction is asked for without reason; beside it stands the default, which leaves the field.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from _common import QUICK, SHARED_DATA, Part, Row, run
from harm import volumes

from MedEnhanceLib.core.arrays import robust_max
from MedEnhanceLib.core.metrics import psnr
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.io import load

CROP = (8, 112, 112)
LEFT, CORRECTED = "ours, field left", "ours, field corrected"
_MOST_DB = 99.0


def parts() -> Iterator[Part]:
    names = [name for name in volumes() if name.startswith("mr/")]
    names.append("sample/mni152_t1.nii.gz")
    for name in names[:1] if QUICK else names:
        yield name, partial(measured, name)


def opened(name: str) -> Volume:
    """A crop of 8 slices in the middle of the body."""
    volume = load(SHARED_DATA / name, modality="MR").frame(0)
    volume = volume.with_voxels(volume.voxels.astype(np.float32))
    inside = volume.voxels > 0.1 * robust_max(volume.voxels)
    parts = []
    for axis, (size, count) in enumerate(zip(CROP, volume.shape, strict=True)):
        shown = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        middle, length = (shown[0] + shown[-1]) / 2, min(size, count)
        first = int(np.clip(round(middle - length / 2), 0, count - length))
        parts.append(slice(first, first + length))
    return volume.crop(k=parts[0], j=parts[1], i=parts[2])


def measured(name: str) -> Iterator[Row]:
    """A row without and one with the correction, on one thread."""
    volume = opened(name)
    top = robust_max(volume.voxels)
    inside = volume.voxels > 0.1 * top
    for arm in (LEFT, CORRECTED):
        result = enhance(volume, EnhanceConfig(correct_bias_field=arm == CORRECTED)).volume
        value = psnr(volume.voxels, result.voxels.astype(np.float32), top, mask=inside)
        yield {"volume": name, "arm": arm, "psnr": min(value, _MOST_DB)}


if __name__ == "__main__":
    run("bias_field", __doc__, parts)
