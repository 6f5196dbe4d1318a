"""Does the enhancer harm what needs nothing? Defaults on many volumes.

    python Testing/Benchmarks/harm.py

Undamaged volumes go through `enhance` with its defaults; the result is compared with the input.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
from _common import QUICK, SHARED_DATA, Gate, Part, Row, at_least, at_most, least, most, run
from _enhancement_data import CT_RANGE_HU, TEMPLATE, robust_max

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.resources import resource_folder

#: Central slices of each volume.
_SLICES = 6 if QUICK else 16


def parts() -> Iterator[Part]:
    names = [TEMPLATE, *volumes()]
    for name in [names[0], names[1]] if QUICK else names:
        yield name, partial(undamaged, name)


def volumes() -> list[str]:
    """All CT and MR volumes, by path relative to the folder."""
    files = [*SHARED_DATA.glob("ct/**/*.nii.gz"), *SHARED_DATA.glob("mr/**/*.nii.gz")]
    others = ("organs", "PET", "brain", "lesion", "mask", "label", "seg", "tissue", "gt", "ROI")
    kept = (f for f in sorted(files) if not any(word in f.name for word in others))
    return [str(file.relative_to(SHARED_DATA)) for file in kept]


def opened(name: str) -> Volume:
    """The central slices of a volume."""
    if name == TEMPLATE:
        volume = load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
    else:
        volume = load(SHARED_DATA / name, modality="CT" if name.startswith("ct/") else "MR")
    volume = volume.frame(0)
    first = max(0, (volume.shape[0] - _SLICES) // 2)
    return volume.crop(k=slice(first, min(volume.shape[0], first + _SLICES)))


def undamaged(name: str) -> Iterator[Row]:
    """Changes of a volume as it is by the defaults, and in CT by `smooth`."""
    volume = opened(name)
    is_ct = volume.modality == "CT"
    before, top = volume.voxels.astype(np.float32), robust_max(volume.voxels)
    inside = before > (-950 if is_ct else 0.1 * top)
    span = CT_RANGE_HU if is_ct else top
    for smooth in (False, True)[: 1 + is_ct]:
        result = enhance(volume, EnhanceConfig(for_viewing=smooth))
        change = result.volume.voxels.astype(np.float32) - before
        tissue = inside if not is_ct else before > -300
        sigma = result.measured["noise"]["sigma"]
        yield {
            "table": "undamaged",
            "volume": name,
            "modality": volume.modality,
            "arm": "smooth" if smooth else "default",
            "psnr": 10 * float(np.log10(span**2 / max(_power(change[inside]), 1e-9 * span**2))),
            "sigma": sigma,
            "change_in_sigma": float(np.sqrt(_power(change[tissue])) / sigma) if sigma else 0.0,
        }


def _power(values: npt.NDArray[np.float32]) -> float:
    return float(np.mean(np.square(values, dtype=np.float64)))


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    yield at_least(
        "undamaged: PSNR to the input, least, dB", least(row["psnr"] for row in rows), 42,
        "volumes that are noisy by themselves are denoised: no noise was added, but some is there",
    )  # fmt: skip
    changes = [row["change_in_sigma"] for row in rows if row["modality"] == "CT"]
    yield at_most(
        "undamaged CT, smooth too: RMS change of tissue over the measured noise, most",
        most(changes) if changes else None, 1.0, "edges of bone and metal change, too",
    )  # fmt: skip


if __name__ == "__main__":
    run("harm", __doc__, parts, gates_of, seeds=[0])
