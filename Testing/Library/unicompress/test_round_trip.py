"""What goes in comes out: every mode, every type, odd shapes, open volumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress

from .conftest import Write


def smooth(shape: tuple[int, ...], dtype: str) -> Voxels:
    rng = np.random.default_rng(1)
    walk = np.cumsum(rng.integers(-3, 4, shape), axis=-1) + 60
    return walk.astype(dtype) if dtype != "f4" else (walk / 7).astype(dtype)


def same_bits(left: Voxels, right: Voxels) -> bool:
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


def test_incompressible_noise_costs_next_to_nothing_more(write: Write) -> None:
    noise = np.random.default_rng(0).integers(0, 1 << 16, (4, 128, 128), dtype=np.uint16)
    path = write(Volume(noise), lossless=True)
    assert same_bits(decompress(path).voxels, noise)
    assert path.stat().st_size < 1.02 * noise.nbytes


@pytest.mark.parametrize("dtype", ["i2", "f4", "u8"])
def test_whole_numbers_that_were_rescaled_cost_what_they_did_before(
    write: Write, dtype: str
) -> None:
    rng = np.random.default_rng(0)
    original = np.rint(smooth((8, 64, 64), "f8") + rng.normal(0, 3, (8, 64, 64)))
    slope = 3.7 if np.dtype(dtype).kind in "iu" else 0.37
    rescaled = np.rint((original - original.min()) * slope) if slope > 1 else original * slope
    before = write(Volume(original.astype("i2")), lossless=True).stat().st_size
    path = write(Volume(rescaled.astype(dtype)), lossless=True)
    assert same_bits(decompress(path).voxels, rescaled.astype(dtype))
    assert path.stat().st_size < 1.05 * before + 1000


def test_floats_in_any_order_and_of_any_sign_come_back_from_a_table(write: Write) -> None:
    few = np.array([np.nan, -np.inf, np.inf, -0.0, 0.0, -1e-40, 2.5, -2.5, 3e38], np.float32)
    few = np.append(few, np.array([0x7FC00001, 0xFFC00002], np.uint32).view(np.float32))
    voxels = np.random.default_rng(0).choice(few, (8, 40, 40))
    path = write(Volume(voxels), lossless=True)
    assert same_bits(decompress(path).voxels, voxels)
    assert path.stat().st_size < voxels.nbytes / 4


def test_all_but_the_voxels_comes_back_too(scan: Volume, write: Write) -> None:
    path = write(replace(scan, history=("cut", "très ρ"), source="secret/name"), lossless=True)
    back = decompress(path)
    assert (back.geometry, back.modality, back.units) == (scan.geometry, "CT", "HU")
    assert back.history == ("cut", "très ρ")
    assert back.source == str(path)
    assert b"secret" not in path.read_bytes()


def test_a_sequence_keeps_its_frames_and_their_interval(write: Write, small_blocks: None) -> None:
    voxels = smooth((5, 3, 20, 20), "i2")
    gradients = tuple(Gradient(500.0 * n, (0.6, 0.0, 0.8)) for n in range(5))
    path = write(Volume(voxels, frame_interval_s=0.5, gradients=gradients), lossless=True)
    back = decompress(path)
    assert back.frame_interval_s == 0.5
    assert back.gradients == gradients
    part = decompress(path, region=(slice(1, 3), ..., slice(5, 9)))
    assert part.gradients == gradients[1:3]
    assert np.array_equal(part.voxels, voxels[1:3, :, :, 5:9])
    assert same_bits(back.voxels, voxels)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [{"lossless": True}, {"max_error": 2.0}, {"ratio": 6.0}], ids=str
)
def test_the_file_is_the_same_for_any_number_of_threads(
    scan: Volume,
    config: dict[str, float],
    tmp_path: Path,
    small_blocks: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files, decoded = [], []
    for threads in (1, 5):
        path = tmp_path / f"{threads}.ucv"
        compress(scan, path, CompressConfig(threads=threads, **config))
        files.append(path.read_bytes())
        monkeypatch.setattr("MedEnhanceLib.unicompress.config.cpu_threads", lambda n=threads: n)
        decoded.append(decompress(path).voxels)
    assert files[0] == files[1]
    assert same_bits(*decoded)
