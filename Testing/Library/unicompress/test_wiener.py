"""Filters of videos: they take slices nearer to their source, and forged ones do no harm."""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from MedEnhanceLib import native
from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.unicompress.codec_models import DecodeContext
from MedEnhanceLib.unicompress.codecs.video import video, wiener
from MedEnhanceLib.unicompress.decode import FOREIGN_ERRORS

from . import minimal_video
from .test_video import context_of, smooth

MOST = wiener.MOST_BYTES


BLOCK = smooth((12, 64, 60))


@cache
def coded_with_error() -> tuple[video.Video, np.ndarray, int]:
    coded = video.encode(BLOCK, 60.0, speed="fast")
    exact = (BLOCK - coded.low) * (coded.top / (coded.high - coded.low))
    error = (exact - coded.frames).astype(np.float32)
    return coded, error, video.noise_code(float(np.mean(error**2)))


def test_a_filter_takes_slices_nearer_to_their_source() -> None:
    coded, error, noise = coded_with_error()
    chosen = wiener.fit(coded.frames, error, noise, 1 << 20, MOST)
    assert chosen is not None
    out = np.stack(list(wiener.apply(coded.frames, noise, chosen)))
    left = error - (out / wiener.PARTS - coded.frames)
    assert np.mean(left**2) < 0.97 * np.mean(error**2)


def test_forged_filters_are_refused() -> None:
    classes, few, many, odd = (
        zlib.compress(data) for data in (bytes(78 << 5), bytes(77), bytes(1 << 20), b"\x80" * 78)
    )
    for power, content, more in (
        *((5, classes, 0), (0, few, 0), (0, many, 0), (0, odd, 0)),
        *((0, b"no zlib", 0), (0, few, 4000)),
    ):
        with pytest.raises(FOREIGN_ERRORS):
            wiener.read(wiener.HEAD.pack(power, 9, 9, len(content) + more) + content)


def test_a_filter_never_leaves_the_range_of_the_volume() -> None:
    coded, _, noise = coded_with_error()
    weights = np.full((16, 78), 127, np.int8)
    data = replace(coded, noise=noise, filter=wiener.Filter(0, 1, weights)).data
    back = video.decode(data, BLOCK.shape, DecodeContext(BLOCK.dtype, (-200, 250)))
    assert back.min() >= -200
    assert back.max() <= 250


@pytest.mark.parametrize("classes", [16, 4, 1])
@pytest.mark.parametrize("top", [60, 4095])
def test_sums_are_exact_however_large_they_are(classes: int, top: int) -> None:
    """Also where float32 would not hold them; the reader made from the page is the reference."""
    rng = np.random.default_rng(classes)
    busier = np.geomspace(0.01, 1, 21)  # towards the right, for all classes to be there
    frames = (rng.integers(0, top + 1, (3, 17, 21)) * busier).astype(np.uint16)
    frames[:, 5:12, 14:21] = rng.integers(0.98 * top, top + 1, (3, 7, 7))
    frames[:, 8, 16:19] = 0, 1, 0
    weights = rng.integers(125, 128, (classes, wiener.TERMS)).astype(np.int8)
    chosen = wiener.Filter(40, 8, weights)
    wanted = minimal_video.apply_filter(frames.astype(np.int64), 70, chosen.data)
    assert np.array_equal(list(wiener.apply(frames, 70, chosen)), wanted)


def test_without_the_compiled_library_nothing_is_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    coded, error, noise = coded_with_error()
    chosen = wiener.fit(coded.frames, error, noise, 1 << 20, MOST)
    data = replace(coded, noise=noise, filter=chosen).data
    monkeypatch.setattr(native, "find", lambda _folder: (None, "not compiled: build it"))
    assert wiener.fit(coded.frames, error, noise, 1 << 20, MOST) is None
    with pytest.raises(DependencyError, match="compiled library") as caught:
        video.decode(data, BLOCK.shape, context_of(BLOCK))
    assert "build it" in caught.value.hint
