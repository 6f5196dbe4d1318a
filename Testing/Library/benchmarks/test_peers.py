"""Peers give back what they were given: the right place, scale and offset, at their best quality.

A slip here would flatter ours.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

LOSSY = ("JPEG 2000", "HTJ2K", "JPEG XL", "SPERR", "SZ3", "zfp")
VIDEO = ("HEVC 12 bit, slow", "SVT-AV1 10 bit, slow")


@pytest.fixture(scope="module")
def peers() -> Any:
    return import_module("_compression_peers")


@pytest.fixture(scope="module")
def scan() -> Any:
    """12 × 71 × 93, int16 from below 0, as CT: a body with noise; odd in rows and columns."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in (12, 71, 93)), indexing="ij")
    body = (((j - 35) / 30) ** 2 + ((i - 46) / 40) ** 2 + ((k - 6) / 20) ** 2) < 1
    noise = np.random.default_rng(0).normal(0, 6, body.shape)
    return (np.where(body, 40 + 300 * np.sin(i / 9), -1000) + noise).astype(np.int16)


def _psnr(source: Any, decoded: Any) -> float:
    error = np.square(decoded.astype(np.float64) - source).mean()
    return float(10 * np.log10(np.ptp(source.astype(np.float64)) ** 2 / max(error, 1e-9)))


@pytest.mark.parametrize("name", [*LOSSY, *VIDEO])
def test_a_lossy_peer_gives_back_the_volume(peers: Any, scan: Any, name: str) -> None:
    if name in VIDEO and find_spec("av") is None:
        pytest.skip("PyAV is not installed")
    peer = next(peer for peer in peers.lossy_peers(16) if peer.name == name)
    fine, coarse = (
        peers.run(lambda image, s=setting: peer.code(image, s), scan)
        for setting in (peer.settings[0], peer.settings[len(peer.settings) // 2])
    )
    assert fine.decoded.shape == scan.shape
    assert _psnr(scan, fine.decoded) > 45
    assert abs((fine.decoded - scan).mean()) < 0.5
    assert fine.size > coarse.size
    assert _psnr(scan, fine.decoded) > _psnr(scan, coarse.decoded) > 20


def test_bounded_peers_keep_the_bound_that_they_are_compared_at(peers: Any, scan: Any) -> None:
    import imagecodecs

    for bound in (1, 2, 8):
        point = peers.run(peers.bounded_peers(bound)["SZ3"], scan)
        assert np.abs(point.decoded.astype(int) - scan).max() <= bound
        image = (scan.astype(int) + 1100).astype(np.uint16)
        quantized = peers._quantized(image, bound).astype(int) * (2 * bound + 1)
        assert np.abs(quantized - image).max() <= bound
        near = imagecodecs.jpegls_decode(imagecodecs.jpegls_encode(image[0], level=bound))
        assert np.abs(near.astype(int) - image[0]).max() <= bound


def test_lossless_peers_are_those_of_whole_volumes(peers: Any, scan: Any) -> None:
    sizes = {name: peers.run(code, scan).size for name, code in peers.lossless_peers().items()}
    assert all(scan.nbytes / 4 < size < scan.nbytes for size in sizes.values()), sizes
