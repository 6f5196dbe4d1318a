"""Every extreme in every mode: one table of volumes, one mode each, checked from outside."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress

from .test_round_trip import same_bits

INTEGERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]
FLOATS = ["f2", "f4", "f8"]
PRIMES = (7, 13, 17)


def largest_error(left: Voxels, right: Voxels) -> float:
    """In Python's own numbers: no type is too small for the difference of two of its values."""
    pairs = zip(left.ravel().tolist(), right.ravel().tolist(), strict=True)
    return max((abs(a - b) for a, b in pairs), default=0)


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def smooth(shape: tuple[int, ...], dtype: str = "i2") -> Voxels:
    j, i = np.mgrid[0 : shape[-2], 0 : shape[-1]]
    values = np.broadcast_to(50 + 30 * np.sin(j / 5) * np.cos(i / 4), shape)
    return (values + rng().normal(0, 2, shape)).astype(dtype)


def limits(dtype: str) -> Voxels:
    """Both ends of a type, and their neighbors, in no order."""
    info = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(dtype)
    low, high = np.array([info.min, info.max], dtype)
    one = np.dtype(dtype).type(1)
    near = [low + one, high - one] if np.dtype(dtype).kind in "iu" else [low / 2, high / 2]
    return rng().choice(np.array([low, high, *near], dtype), PRIMES)


def noise(dtype: str) -> Voxels:
    """Every bit by chance: all patterns of NaN and subnormal numbers among the floats."""
    kind = np.dtype(dtype)
    return np.frombuffer(rng().bytes(4 * 24 * 24 * kind.itemsize), kind).reshape(4, 24, 24)


def special(dtype: str) -> Voxels:
    """NaN with payloads and signs, infinities, both zeros, the smallest and the largest."""
    kind = np.dtype(dtype)
    bits = np.dtype(f"u{kind.itemsize}")
    info = np.finfo(kind)
    values = np.array(
        [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, info.tiny, info.max, info.smallest_subnormal],
        kind,
    )
    payload = values[:2].copy()
    payload.view(bits)[:] ^= bits.type(5)  # a signaling one, and a payload
    return np.resize(np.concatenate([values, payload]), PRIMES)


def fractions(dtype: str) -> Voxels:
    """Smooth, and no whole numbers."""
    return smooth(PRIMES, dtype) / np.dtype(dtype).type(7)


VOLUMES: dict[str, Callable[[], Voxels]] = {
    **{f"constant {dtype}": lambda d=dtype: np.full(PRIMES, 42, d) for dtype in INTEGERS + FLOATS},
    **{f"limits {dtype}": lambda d=dtype: limits(d) for dtype in INTEGERS + FLOATS},
    **{f"noise {dtype}": lambda d=dtype: noise(d) for dtype in INTEGERS + FLOATS},
    **{f"special {dtype}": lambda d=dtype: special(d) for dtype in FLOATS},
    **{f"fractions {dtype}": lambda d=dtype: fractions(d) for dtype in FLOATS},
    "nothing but NaN": lambda: np.full(PRIMES, np.nan, "f4"),
    "true": lambda: np.ones(PRIMES, bool),
    "mask": lambda: smooth(PRIMES) > 50,
    "one voxel": lambda: np.array([[[-7]]], "i2"),
    "one slice": lambda: smooth((1, 60, 50)),
    "one row": lambda: smooth((60, 1, 50)),
    "a line along k": lambda: smooth((997, 1, 1)),
    "a line along i": lambda: smooth((1, 1, 997)),
    "prime sizes": lambda: smooth((31, 37, 41)),
    "thin and wide": lambda: smooth((2, 3, 2503)),
    "sequence": lambda: smooth((3, 5, 17, 19)),
    "sequence of single slices": lambda: smooth((11, 1, 23, 29)),
    **{f"big-endian {d}": lambda d=d: smooth(PRIMES).astype(d) for d in (">i2", ">u8", ">f4")},
    "turned axes": lambda: smooth((17, 13, 7)).transpose(2, 0, 1)[::-1],
    "a dot in nothing": lambda: np.eye(1, 7 * 13 * 17, 500, "i2").reshape(PRIMES) * np.int16(3071),
}  # fmt: skip
MODES: dict[str, dict[str, Any]] = {
    "lossless": {"lossless": True},
    "max_error 0": {"max_error": 0.0},
    "max_error 3": {"max_error": 3.0},
    "max_error huge": {"max_error": 1e300},
    "ratio 1.5": {"ratio": 1.5},
}


@pytest.fixture(scope="module", params=VOLUMES)
def voxels(request: pytest.FixtureRequest) -> Voxels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NaN among the numbers is on purpose
        made: Voxels = VOLUMES[request.param]()
    return made


@pytest.mark.parametrize("mode", MODES)
def test_the_target_is_met(mode: str, voxels: Voxels, tmp_path: Path) -> None:
    path, config = tmp_path / "a.ucv", CompressConfig(speed="fast", threads=1, **MODES[mode])
    may_refuse = voxels.dtype.kind == "b" or mode.startswith("ratio")
    try:
        done = compress(Volume(voxels), path, config)
    except (ConfigError, InputError) as error:
        assert may_refuse and config.mode != "lossless"
        assert error.hint
        assert list(tmp_path.iterdir()) == []
        return
    back = decompress(path).voxels
    source = np.ascontiguousarray(voxels, voxels.dtype.newbyteorder("="))
    assert (back.dtype, back.shape) == (source.dtype, source.shape)
    if config.mode == "lossless" or config.max_error == 0:
        assert same_bits(back, source)
        assert (done.max_error, done.psnr) == (0, None)
    elif config.max_error is not None:
        finite = np.isfinite(source)
        assert largest_error(back[finite], source[finite]) <= config.max_error
        assert np.array_equal(np.isnan(back), np.isnan(source))
        assert np.array_equal(back[np.isinf(source)], source[np.isinf(source)])
    else:
        assert path.stat().st_size * config.ratio <= source.nbytes
        assert np.array_equal(np.isnan(back), np.isnan(source))
        finite = source[np.isfinite(source)]
        if finite.size:
            assert finite.min() <= back[np.isfinite(back)].min()
            assert back[np.isfinite(back)].max() <= finite.max()
