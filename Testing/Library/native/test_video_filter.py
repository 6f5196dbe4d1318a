"""The compiled filter of videos: the same bits at every vector width, and checked arguments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.native import Library, Width
from MedEnhanceLib.native.video_filter import CompiledFilter
from MedEnhanceLib.unicompress.codecs.video import wiener

from ..unicompress import minimal_video

WIDTHS: tuple[Width, ...] = ("plain", "avx2", "avx512")


def made(path: Path, width: Width, shape: tuple[int, int]) -> CompiledFilter:
    if width not in Library(path).widths:
        pytest.skip(f"this processor has no {width}")
    return CompiledFilter(*shape, Library(path, width))


def slices(shape: tuple[int, int]) -> np.ndarray:
    """Five, busier to the right, with the extremes in them."""
    rng = np.random.default_rng(0)
    found = rng.integers(0, 4096, (5, *shape)) * np.geomspace(1e-3, 1, shape[1])
    found.flat[::97], found.flat[::89] = 0, 4095
    return found.astype(np.uint16)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (7, 3), (9, 32), (21, 67)], ids=str)
def test_every_width_gives_the_bits_of_the_method(
    native_path: Path, width: Width, shape: tuple[int, int]
) -> None:
    compiled, frames = made(native_path, width, shape), slices(shape)
    window = [compiled.padded(frame) for frame in frames]
    plain = [padded[:, : shape[1] + 6] for padded in window]
    bounds = wiener.bounds_of(20, 8)
    place = compiled.classes(window, bounds)
    activity = minimal_video.activities(frames.astype(np.int64))[2]
    assert np.array_equal(place, np.searchsorted(bounds, activity, side="right"))
    rng = np.random.default_rng(1)
    cuts = wiener.limits_of(70)
    for shift in (0, 1, 4):
        weights = rng.integers(-127, 128, (16 >> shift, wiener.TERMS)).astype(np.int8)
        chosen = place >> np.uint8(shift)
        sums = compiled.sums(window, chosen, wiener.TAPS, cuts, weights.T)
        wanted = np.zeros(shape, np.int64)
        for number, term in enumerate(wiener.terms(plain, cuts)):
            wanted += weights[chosen, number].astype(np.int64) * term
        assert np.array_equal(sums, wanted)


def test_what_does_not_fit_is_refused(native_path: Path) -> None:
    compiled = made(native_path, "plain", (6, 5))
    window = [compiled.padded(frame) for frame in slices((6, 5))]
    place = np.zeros((6, 5), np.uint8)
    weights = np.zeros((2, 1), np.int8)
    taps = [(0, 0, 1), (1, 0, 0)]
    with pytest.raises(ValueError, match="a slice of"):
        compiled.padded(np.full((6, 5), 4096, np.uint16))
    with pytest.raises(ValueError, match="refuses"):
        compiled.classes(window, range(16))
    with pytest.raises(ValueError, match="padded"):
        compiled.sums([padded[1:] for padded in window], place, taps, [9], weights)
    for wrong in (
        (place + 1, taps, [9], weights),
        (place, taps, [9, 3], weights),
        (place, taps, [0], weights),
        (place, [(3, 0, 0), (0, 0, 1)], [9], weights),
    ):
        with pytest.raises(ValueError, match=r"weights|refuses"):
            compiled.sums(window, *wrong)
