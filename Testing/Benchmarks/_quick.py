"""Small synthetic volumes under the names of the open ones: scripts run through in seconds.

What is measured on them says nothing; that a script runs, is all that a quick run shows.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SHAPE, SPACING = (24, 72, 72), (1.0, 1.0, 1.0)
_PATIENTS = ("002", "003", "004", "006", "008", "013", "014", "019", "024", "025", "037")
_OPEN_MS = ("C07", "C19")
_SERIES = ("T1", "T1POST", "T2", "FLAIR")
_FRAMES = 4


def small_data(folder: Path) -> Path:
    """Write the volumes, unless they are there, and return the folder."""
    if (folder / "complete").is_file():
        return folder
    from MedEnhanceLib.core.geometry import Geometry
    from MedEnhanceLib.core.volume import Volume
    from MedEnhanceLib.io import save

    def write(name: str, voxels: np.ndarray, modality: str) -> None:
        path = folder / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(Volume(voxels, Geometry(SPACING), modality=modality), path, overwrite=True)

    for name, modality in _names():
        patient, series = name.rsplit("/", 1)
        voxels = _image(zlib.crc32(patient.encode()), modality)
        if series in _SERIES:  # of one patient: the same shapes with other contrasts
            power = 0.6 + 0.3 * _SERIES.index(series)
            voxels = (1000 * (voxels / 1000.0) ** power).astype(np.int16)
        write(name, voxels, modality)
    ball = (_distance() < 0.3).astype(np.uint8)
    for patient in _PATIENTS:
        write(f"ct/sts/STS_{patient}/CT_gtv", ball, "SEG")
        write(f"mr/sts/STS_{patient}/MR_T1_gtv", ball, "SEG")
    for patient in _OPEN_MS:
        write(f"mr/open_ms/{patient}/lesion", ball, "SEG")
    still = _image(0, "MR")[9:15]
    noise = np.random.default_rng(0).normal(0, 30, (_FRAMES, *still.shape))
    write("repeated/frames", np.maximum(still + noise, 0).astype(np.int16), "MR")
    samples = Path(__file__).resolve().parents[2] / "Resources" / "samples"
    shutil.copytree(samples, folder / "sample", dirs_exist_ok=True)
    (folder / "complete").touch()
    return folder


def _names() -> Iterator[tuple[str, str]]:
    yield "ct/abdomen/CT", "CT"
    yield "mr/studyforrest/T1", "MR"
    yield "em/medulla_v_z0", "EM"
    for patient in _PATIENTS:
        yield f"ct/sts/STS_{patient}/CT", "CT"
        yield f"mr/sts/STS_{patient}/MR_T1", "MR"
    for patient in _OPEN_MS:
        yield from ((f"mr/open_ms/{patient}/{series}", "MR") for series in _SERIES)
    for study in ("L01/study2_T1W", "L01/study2_T2W", "L20/study2_T1W"):
        yield f"mr/open_ms/{study}", "MR"


def _distance() -> np.ndarray:
    """From the middle of the volume: 1 at the middle of each face."""
    k, j, i = (np.linspace(-1, 1, side) for side in SHAPE)
    return np.sqrt(k[:, None, None] ** 2 + j[:, None] ** 2 + i**2)


def _image(number: int, modality: str) -> np.ndarray:
    """A body with shapes in it, in air; int16 [24, 72, 72]."""
    from MedEnhanceLib.synthetic import synthetic_volume

    inside = _distance() < 1.2
    if modality == "CT":
        tissue = np.clip(synthetic_volume("CT", number, shape=SHAPE).voxels, -100, 200)
        return np.where(inside, tissue, -1000).astype(np.int16)
    tissue = 300 + 500 * synthetic_volume("MR", number, shape=SHAPE).voxels
    voxels = np.where(inside, tissue, 0)
    return (voxels / 5).astype(np.uint8) if modality == "EM" else voxels.astype(np.int16)
