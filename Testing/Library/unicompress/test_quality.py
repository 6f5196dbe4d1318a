"""A PSNR that is asked for is met, and no ratio from 4 to 256 is a step backwards."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib import io
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress, inspect_container

from .conftest import Write


@pytest.fixture(scope="module")
def head() -> Volume:
    """[24, 96, 96], int16: a bright shell with waves and noise inside, air around."""
    rng = np.random.default_rng(1)
    k, j, i = np.mgrid[-1:1:24j, -1:1:96j, -1:1:96j]
    radius = np.sqrt(k**2 * 0.4 + j**2 + i**2)
    inside = 400 + 150 * np.sin(9 * i + 2 * k) * np.cos(7 * j) + rng.normal(0, 12, k.shape)
    voxels = np.where(radius < 0.7, inside, 0) + np.where(abs(radius - 0.75) < 0.05, 1500, 0)
    return Volume(voxels.astype(np.int16), Geometry(), modality="OT", source="head")


def psnr_of(volume: Volume, path: Path) -> float:
    error = decompress(path).voxels.astype(float) - volume.voxels
    peak = float(volume.voxels.max()) - float(volume.voxels.min())
    return float(10 * np.log10(peak**2 / np.mean(error**2)))


@pytest.mark.slow
def test_a_psnr_is_kept_and_little_more(head: Volume, write: Write) -> None:
    path = write(head, psnr=28.0, speed="fast")
    assert 28 <= psnr_of(head, path) < 29.5
    card = inspect_container(path)
    assert (card["mode"], card["target"]) == ("psnr", {"psnr": 28.0})


def test_what_no_loss_can_keep_is_kept_without_loss(head: Volume, write: Write) -> None:
    path = write(head, psnr=150.0, speed="fast")
    np.testing.assert_array_equal(decompress(path).voxels, head.voxels)


def test_a_volume_without_a_range_needs_no_bytes(write: Write) -> None:
    flat = Volume(np.full((12, 30, 30), 5, np.int16))
    assert (decompress(write(flat, psnr=40.0)).voxels == 5).all()


@pytest.mark.slow
def test_there_is_no_break_from_4_to_256(tmp_path: Path) -> None:
    template = io.load(resource_folder("samples") / "mni152_t1.nii.gz").voxels
    head = template[74:98, 60:170, 45:155] * 4.0
    noise = np.random.default_rng(0).normal(0, 8, head.shape)
    large = Volume(np.where(head > 0, head + noise, 0).astype(np.int16), modality="MR")
    quality = {}
    for exponent in (2, 5, 8):
        path = tmp_path / f"{exponent}.ucv"
        done = compress(large, path, CompressConfig(ratio=2.0**exponent, speed="fast", threads=1))
        assert path.stat().st_size * 2**exponent <= large.voxels.nbytes
        quality[exponent] = psnr_of(large, path)
        assert done.psnr == pytest.approx(quality[exponent])
    for (fine, before), (coarse, after) in pairwise(quality.items()):
        assert 0 < before - after < 12 * (coarse - fine)


def test_a_volume_as_smooth_as_a_formula_is_compressed(tmp_path: Path) -> None:
    """Sums over its voxels are singular to single precision."""
    k, j, i = np.indices((24, 72, 80))
    bell = 500 * np.exp(-((k - 12) ** 2 / 80 + (j - 36) ** 2 / 400 + (i - 40) ** 2 / 500))
    values = (bell + 60 * np.sin(j / 5) * np.cos(i / 7)).astype(np.float32)
    done = compress(Volume(values, modality="MR"), tmp_path / "a.ucv", CompressConfig(ratio=12))
    assert done.ratio >= 12
