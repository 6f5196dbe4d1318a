"""Voxels through DICOM and back: every form, type and way to be shown gives the same values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.conftest import Make
from Library.dicom.images import MR
from Library.dicom.reading import read_with_itk
from Library.dicomout.conftest import Sound
from Library.dicomout.writing import derive, write_series

from MedEnhanceLib import io
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout import new_study

HEAD = {"BodyPartExamined": "HEAD", "WindowCenter": ["400", "40"], "WindowWidth": ["800", "80"]}


def voxels_of(kind: str, rng: np.random.Generator) -> np.ndarray:
    if kind == "bool":
        return rng.integers(0, 2, (3, 6, 5)).astype(bool)
    if kind == "float":
        return rng.normal(0, 300, (3, 6, 5)).astype(np.float32)
    return rng.integers(0, 60_000, (3, 6, 5)).astype(np.uint16)


def intensities(image: Any) -> np.ndarray:
    """By pydicom alone, [J, I]."""
    slope, intercept = image.get("RescaleSlope", 1), image.get("RescaleIntercept", 0)
    return np.asarray(image.pixel_array * float(slope) + float(intercept))


@pytest.mark.slow
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("kind", ["int16", "uint16", "float", "bool"])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_voxels_come_back_whatever_the_form(
    sound: Sound,
    out: Path,
    make_series: Make,
    rng: np.random.Generator,
    photometric: str,
    kind: str,
    modality: str,
) -> None:
    stored = rng.integers(0, 3000, (3, 6, 5)).astype(np.int16)
    stated: dict[str, Any] = {} if modality == "CT" else MR | HEAD
    if kind == "int16":
        stated |= {"RescaleSlope": "0.25", "RescaleIntercept": "-1000"}
    source = io.load(make_series(stored, PhotometricInterpretation=photometric, **stated))
    volume = source if kind == "int16" else source.with_voxels(voxels_of(kind, rng))
    images = sound(derive(volume))
    bound = 0.51 * float(np.ptp(volume.voxels)) / 65535 if kind == "float" else 0
    wanted = volume.voxels.astype(float)
    assert np.abs([*map(intensities, images)] - wanted).max() <= bound
    back = io.load(out)
    assert np.abs(back.voxels.astype(float) - wanted).max() <= bound
    assert back.geometry.is_close(volume.geometry, 1e-5)
    if photometric == "MONOCHROME2":  # ITK turns the numbers of MONOCHROME1 round
        read = read_with_itk(out)[0].astype(float)
        assert np.abs(read - wanted).max() <= max(bound, 1e-4 * bool(bound))


NEW = new_study(modality="MR")


def new_volume(voxels: np.ndarray) -> Volume:
    return Volume(voxels, Geometry((1.0, 1.0, 2.0)), "MR")


@pytest.mark.parametrize("kind", ["unit", "constant", "single", "bool", "large"])
def test_narrow_windows_pass_the_examiner(
    sound: Sound, out: Path, rng: np.random.Generator, kind: str
) -> None:
    voxels = {
        "unit": rng.random((3, 6, 5)).astype(np.float32),
        "constant": np.full((3, 6, 5), 0.1, np.float32),
        "single": np.full((1, 1, 1), 7, np.uint8),
        "bool": rng.integers(0, 2, (3, 6, 5)).astype(bool),
        "large": rng.random((3, 6, 5)) * 1e37,
    }[kind]
    sound(derive(new_volume(voxels), template=NEW))
    back = io.load(out).voxels.astype(float)
    bound = 0.51 * (float(voxels.max()) - float(voxels.min())) / 65535
    assert np.abs(back - voxels.astype(float)).max() <= bound


@pytest.mark.parametrize(
    ("scale", "says"), [(1e300, "too large"), (1e-322, "too close"), (np.nan, "NaN")]
)
def test_what_readers_could_not_hold_is_refused(
    rng: np.random.Generator, scale: float, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        derive(new_volume(rng.random((2, 3, 4)) * scale), template=NEW)


def test_the_error_that_is_reported_holds(
    out: Path, rng: np.random.Generator, recorder: Any
) -> None:
    volume = new_volume(1e6 + rng.random((3, 6, 5)) * 1e-3)  # float32 knows steps of 0.06 here
    write_series(volume, out, template=NEW, monitor=recorder.monitor)
    (said,) = [said for said in recorder.warnings if "rounded" in said]
    error = np.abs(io.load(out).voxels.astype(float) - volume.voxels).max()
    assert error <= 1.01 * float(said.rpartition("up to ")[2])


def test_whole_numbers_far_from_zero_are_exact(out: Path) -> None:
    volume = new_volume(np.arange(24, dtype=np.uint32).reshape(2, 3, 4) * 2800 + 3_000_000)
    write_series(volume, out, template=NEW)
    assert np.array_equal(io.load(out).voxels, volume.voxels)
