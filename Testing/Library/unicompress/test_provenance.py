"""A container keeps what must never be forgotten: lossy steps, and the DICOM series behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import DicomOrigin, Instance, Lossy
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress, recover
from MedEnhanceLib.unicompress.container import Container
from MedEnhanceLib.unicompress.header import LOSSY_METHOD

LOSSLESS = CompressConfig(lossless=True, speed="fast", threads=1)
JPEG = Lossy("ISO_10918_1", 8.0)


@pytest.fixture
def series(rng: np.random.Generator) -> Volume:
    """A CT that was read from files, and that a scanner's archive compressed before."""
    slices = tuple(Instance(f"/patients/a/{k}.dcm", "1.2.840", f"1.2.3.{k}") for k in range(6))
    return Volume(
        rng.integers(-1000, 1000, (6, 20, 24), dtype=np.int16),
        Geometry(spacing=(0.5, 0.5, 2.0)),
        modality="CT",
        units="HU",
        source="/patients/a (series 1.2.3)",
        dicom_origin=DicomOrigin("1.2.1", "1.2.3", (slices,)),
        lossy=(JPEG,),
    )


def test_a_lossy_step_adds_itself_with_the_ratio_of_the_file(
    series: Volume, tmp_path: Path
) -> None:
    done = compress(series, tmp_path / "a.ucv", CompressConfig(max_error=3, speed="fast"))
    first, own = decompress(done.path).lossy
    assert first == JPEG
    assert own.method == LOSSY_METHOD
    assert own.ratio == pytest.approx(done.ratio)
    assert decompress(done.path, region=(slice(0, 2), ...)).lossy == (first, own)
    assert recover(done.path)[0].lossy == (first, own)


def test_the_series_is_known_after_and_its_files_are_not(series: Volume, tmp_path: Path) -> None:
    compress(series, tmp_path / "a.ucv", LOSSLESS)
    origin = decompress(tmp_path / "a.ucv").dicom_origin
    assert origin == DicomOrigin("1.2.1", "1.2.3", (), on_grid=False)
    with Container(tmp_path / "a.ucv") as container:
        assert "patients" not in str(container.header)


def test_a_header_with_odd_values_does_not_spoil_the_file(series: Volume, tmp_path: Path) -> None:
    odd = DicomOrigin("no UID at all", "1.2.3", ())
    steps = (Lossy("ISO_10918_1", float("inf")), Lossy("ISO_10918_1", -4.0))
    compress(replace(series, dicom_origin=odd, lossy=steps), tmp_path / "a.ucv", LOSSLESS)
    back = decompress(tmp_path / "a.ucv")
    assert back.dicom_origin is not None
    assert (back.dicom_origin.study, back.dicom_origin.series) == ("", "1.2.3")
    assert [step.ratio for step in back.lossy] == [1.0, 1.0]
