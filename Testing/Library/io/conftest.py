"""What the tests of files share: a maker of DICOM series, a disk that is full, an ear."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.geometry import Geometry
from MedEnhanceLib.progress import Event, Monitor
from MedEnhanceLib.volume import Volume


class Ear:
    """Hears what a load warns of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.monitor = Monitor(self._hear)

    def _hear(self, event: Event) -> None:
        if event.kind == "warning":
            self.warnings.append(event.fields["message"])


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def ct(rng: np.random.Generator, oblique_geometry: Geometry) -> Volume:
    """Small, int16, HU, oblique, with a history."""
    return Volume(
        rng.integers(-1000, 2000, (4, 6, 5), dtype=np.int16),
        oblique_geometry,
        modality="CT",
        units="HU",
        source="ct",
        history=("DERIVED: first step", "DERIVED: second step"),
    )


@pytest.fixture(scope="session")
def full_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a disk of 256 KiB; skips where no such disk can be mounted."""
    folder = tmp_path_factory.mktemp("disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk needs Linux and root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


Make = Callable[..., Path]


@pytest.fixture
def make_series(tmp_path: Path) -> Make:
    """Write a DICOM series; see `write_series`."""
    return lambda *args, **kwargs: write_series(tmp_path / "series", *args, **kwargs)


def write_series(
    folder: Path,
    stored: np.ndarray,
    *,
    positions: list[tuple[float, float, float]] | None = None,
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    uid: str = "1.2.3.1",
    number: int = 1,
    prefix: str = "",
    slice_elements: Callable[[int], dict[str, Any]] = lambda index: {},
    **elements: Any,
) -> Path:
    """One file per slice of `stored` [K, J, I], named against the order of their positions.

    elements: by keyword, over the defaults; None leaves one out. slice_elements: those of a slice.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    positions = positions or [(-10.0, 20.0, 2.5 * index) for index in range(len(stored))]
    for index, (pixels, position) in enumerate(zip(stored, positions, strict=True)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{uid}.{index + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        values = {
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": f"{uid}.{index + 1}",
            "SeriesInstanceUID": uid,
            "SeriesNumber": number,
            "SeriesDescription": "axial",
            "Modality": "CT",
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "PixelSpacing": [0.8, 0.5],
            "ImagePositionPatient": list(position),
            "ImageOrientationPatient": list(orientation),
            "SliceThickness": 2.5,
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": pixels.dtype.itemsize * 8,
            "BitsStored": pixels.dtype.itemsize * 8,
            "HighBit": pixels.dtype.itemsize * 8 - 1,
            "PixelRepresentation": int(pixels.dtype.kind == "i"),
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "PixelData": pixels.tobytes(),
        }
        for key, value in (values | elements | slice_elements(index)).items():
            if value is not None:
                setattr(dataset, key, value)
        dataset.save_as(folder / f"{prefix}{len(stored) - index:03d}.dcm", enforce_file_format=True)
    return folder
