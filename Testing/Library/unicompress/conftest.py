"""Volumes and files that the tests of compression share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.unicompress import CompressConfig, blocks, compress
from MedEnhanceLib.unicompress.allocation import lossy, near_lossless

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here pulls the plug, and a thousand small files would wait for the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 4 × 16 × 16, of 4 slices as videos, so that a small volume has many."""

    def grid(shape: tuple[int, ...]) -> blocks.Grid:
        slices, rows, columns = shape[-3:]
        return blocks.Grid(shape, (-(-slices // 4), -(-rows // 16), -(-columns // 16)))

    def run(shape: tuple[int, ...]) -> blocks.Grid:
        return blocks.Grid(shape, (-(-shape[-3] // 4), 1, 1))

    monkeypatch.setattr(near_lossless, "coding_grid", grid)
    monkeypatch.setattr(near_lossless, "predictor_grid", grid)
    monkeypatch.setattr(lossy, "video_grid", run)


def noisy_waves(shape: tuple[int, int, int], *, seed: int = 3, rise: float = 8) -> Voxels:
    """Smooth with noise, int16, [K, J, I]; rise: from slice to slice."""
    k, j, i = np.indices(shape)
    smooth = 300 * np.sin(j / 9) * np.cos(i / 7) + rise * k
    return (smooth + np.random.default_rng(seed).normal(0, 4, shape)).astype(np.int16)


@pytest.fixture
def scan(oblique_geometry: Geometry) -> Volume:
    """27 blocks of `small_blocks`."""
    voxels = noisy_waves((10, 40, 36))
    return Volume(voxels, oblique_geometry, modality="CT", units="HU", source="scan")


def damage(path: Path, *places: tuple[int, int]) -> None:
    """Change the bytes at offsets and of lengths."""
    raw = bytearray(path.read_bytes())
    for start, length in places:
        raw[start : start + length] = bytes(byte ^ 0x5A for byte in raw[start : start + length])
    path.write_bytes(raw)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Compress a volume into a new file: write(volume, lossless=True)."""

    def write_volume(volume: Volume, name: str = "a.ucv", **config: Any) -> Path:
        path = tmp_path / name
        compress(volume, path, CompressConfig(threads=1, **config), overwrite=True)
        return path

    return write_volume


@pytest.fixture
def file(scan: Volume, write: Write, small_blocks: None) -> Path:
    """`scan` without loss, in 27 blocks."""
    return write(scan, lossless=True, speed="fast")
