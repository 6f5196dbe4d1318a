"""What all library tests share: volumes, a recorder of warnings, a maker of DICOM series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from MedEnhanceLib import io
from MedEnhanceLib.bundles.store import Bundle, set_default
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.progress import Event, Monitor

# What is slow is for benchmarks: a busy machine is no fault of what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

_REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The open volumes kept beside the project; a fresh clone has none and skips."""
    folder = _REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the open volumes beside the project (../shared/data) are not here")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


def rotation(angle: float) -> np.ndarray:
    """A direction that is turned about z, by an angle in radians."""
    return np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )


@pytest.fixture
def oblique_geometry() -> Geometry:
    """Anisotropic spacing and a direction that no axis is parallel to."""
    tilt = np.roll(rotation(-0.2), 1, axis=(0, 1))  # about x
    return Geometry((0.7, 0.9, 3.3), (-12.5, 80.25, 1e3), (rotation(0.3) @ tilt).tolist())


@pytest.fixture
def head(rng: np.random.Generator, oblique_geometry: Geometry) -> Volume:
    """A small smooth object with an edge and texture, int16, that looks like an MR."""
    k, j, i = np.mgrid[-1:1:12j, -1:1:40j, -1:1:36j]
    inside = (k**2 + j**2 + i**2) < 0.8
    smooth = 600 + 200 * np.sin(4 * i) * np.cos(3 * j)
    voxels = inside * smooth + rng.normal(0, 8, inside.shape)
    return Volume(voxels.astype(np.int16), oblique_geometry, modality="MR", source="head")


@pytest.fixture
def scan(tmp_path: Path, head: Volume) -> Path:
    """A tiny MR on the disk."""
    path = tmp_path / "scan.nii.gz"
    io.save(head, path)
    return path


@pytest.fixture
def user_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Imported models go to a folder of the test's own."""
    monkeypatch.setenv("MEDENHANCE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def default_head(user_models: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A head that stands in for a trained one, installed as the default for MR."""
    from Library.stripes import KIND, Stripes, write_stripes

    from MedEnhanceLib.gradprom.segmenters import SEGMENTERS

    monkeypatch.setitem(SEGMENTERS, KIND, "Library.stripes:Stripes")
    Stripes.seen.clear()
    return set_default(write_stripes(user_models).name)


@pytest.fixture
def coarse_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are looked at in report/test_figures; elsewhere they only have to be there."""
    monkeypatch.setattr("MedEnhanceLib.report.figures.DPI", 40)


class WarningRecorder:
    """Collects the warnings of a load."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.monitor = Monitor(self.listen)

    def listen(self, event: Event) -> None:
        if event.kind == "warning":
            self.warnings.append(event.fields["message"])


@pytest.fixture
def recorder() -> WarningRecorder:
    return WarningRecorder()


@pytest.fixture(scope="session")
def native_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library of the present sources."""
    from MedEnhanceLib import native
    from MedEnhanceLib.native import build

    there = native.load()
    if there is not None:
        return there.path
    try:
        return build.build(tmp_path_factory.mktemp("native"))
    except build.BuildError as error:
        pytest.skip(str(error))


Make = Callable[..., Path]
#: Elements of a series of MR, over the defaults of `write_series`.
MR: dict[str, Any] = {
    "Modality": "MR",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4",
    "RescaleIntercept": None,
    "RescaleSlope": None,
}


@pytest.fixture
def make_series(tmp_path: Path) -> Make:
    """Write a DICOM series, into tmp_path/"series" unless `folder` says where."""

    def make(stored: Any, *, folder: Path = tmp_path / "series", **options: Any) -> Path:
        return write_series(folder, stored, **options)

    return make


def write_series(
    folder: Path,
    stored: np.ndarray | tuple[int, int, int],
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

    stored: the pixels; or their shape, for noise of uint16 that is another for each UID.
    elements: by keyword, over the defaults; None leaves one out. slice_elements: those of a slice.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    if isinstance(stored, tuple):
        stored = np.random.default_rng([*uid.encode()]).integers(0, 1000, stored, dtype=np.uint16)
    folder.mkdir(parents=True, exist_ok=True)
    positions = positions or [(-10.0, 20.0, 2.5 * index) for index in range(len(stored))]
    for index, (pixels, position) in enumerate(zip(stored, positions, strict=True)):
        values = {
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": f"{uid}.{index + 1}",
            "StudyInstanceUID": "1.2.3",
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
        values |= elements | slice_elements(index)
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = values["SOPClassUID"]
        meta.MediaStorageSOPInstanceUID = values["SOPInstanceUID"]
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        for key, value in values.items():
            if value is not None:
                setattr(dataset, key, value)
        dataset.save_as(folder / f"{prefix}{len(stored) - index:03d}.dcm", enforce_file_format=True)
    return folder
