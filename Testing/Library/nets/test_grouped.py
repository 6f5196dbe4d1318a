"""The grouped filter: what it removes and keeps; that slabs, threads and engines agree."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from Library.conftest import WarningRecorder

from MedEnhanceLib import native
from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.nets import grouped_run
from MedEnhanceLib.nets.grouped import CT_ROUNDS, MR_ROUNDS, Round, denoised, window_for
from MedEnhanceLib.nets.grouped_torch import COSINES, TorchEngine
from MedEnhanceLib.runtime.progress import Event, Monitor

SIGMA = np.float32(0.1)
#: Largest difference between C and PyTorch, in σ: float32 rounding of sums of 32 blocks.
AGREE = 1e-4


def phantom(*shape: int) -> np.ndarray:
    """Rings around an axis that leans: edges in all directions, and much that repeats."""
    k, j, i = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")
    radius = np.hypot(j - shape[1] / 2 + 0.3 * k, i - shape[2] / 2)
    return (0.5 + 0.4 * np.sign(np.sin(radius / 3))).astype(np.float32)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, SIGMA, shape).astype(np.float32)


def flat(values: np.ndarray, sigma: float = SIGMA) -> np.ndarray:
    return np.full_like(values, sigma)


def error(image: np.ndarray, clean: np.ndarray) -> float:
    return float(np.sqrt(np.mean((image - clean) ** 2)))


@pytest.mark.parametrize(
    ("rounds", "spacing"),
    [
        (MR_ROUNDS[:1], (1, 1, 1)),
        (CT_ROUNDS, (1, 1, 1)),
        ((Round(step=3, keep=60),), (1, 1, 1)),
        ((Round(step=3, keep=7),), (1, 1, 4)),
        (MR_ROUNDS[:1], (1, 4, 1)),
        (MR_ROUNDS[:1], (4, 1, 1)),
    ],
    ids=str,
)
def test_c_and_pytorch_agree(library, rounds: tuple, spacing: tuple) -> None:
    clean = phantom(9, 22, 27)
    noisy, level = clean + noise(*clean.shape), flat(clean)
    level[:, :11] *= 0.5
    spectrum = np.linspace(0.2, 1.8, 64)
    ours, other = (
        denoised(noisy, level, spectrum, rounds=rounds, spacing=spacing, engine=engine, threads=1)
        for engine in (library, TorchEngine())
    )
    assert np.abs(ours - other).max() < AGREE * SIGMA


def test_every_width_of_vectors_gives_the_same_bits(library) -> None:
    noisy = phantom(8, 24, 30) + noise(8, 24, 30)
    results = [
        denoised(noisy, flat(noisy), engine=native.Library(library.path, width), threads=1)
        for width in library.widths
    ]
    for result in results[1:]:
        assert np.array_equal(result, results[0])


def test_threads_and_slabs_change_no_bit(engine, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = phantom(15, 16, 20) + noise(15, 16, 20)
    rounds = (Round(step=4, keep=8), Round(step=3, keep=8))
    monkeypatch.setattr(grouped_run, "_REFERENCES_IN_BAND", {"threshold": 30, "grouped": 7})
    one = denoised(noisy, flat(noisy), rounds=rounds, engine=engine, threads=1)
    monkeypatch.setattr(grouped_run, "_SLICES", 3)
    three = denoised(noisy, flat(noisy), rounds=rounds, engine=engine, threads=3)
    assert np.array_equal(one, three)


@pytest.mark.parametrize("shape", [(1, 24, 24), (2, 24, 24), (3, 24, 24), (12, 3, 24), (12, 24, 2),
                                   (4, 4, 4), (1, 1, 1), (5, 6, 70)])  # fmt: skip
def test_small_and_thin_volumes(engine, shape: tuple[int, ...]) -> None:
    noisy = 1 + noise(*shape)
    rounds = (Round(step=4),)
    result = denoised(noisy, flat(noisy), rounds=rounds, engine=engine, threads=1)
    assert result.shape == shape and np.isfinite(result).all()
    if noisy.size > 500:
        assert (result - 1).std() < 0.5 * SIGMA


def test_without_noise_nothing_changes(engine) -> None:
    noisy = phantom(6, 20, 20) + noise(6, 20, 20)
    level = flat(noisy)
    level[:, :, :9] = 0
    assert np.array_equal(denoised(noisy, flat(noisy, 0), engine=engine, threads=1), noisy)
    mixed = denoised(noisy, level, rounds=MR_ROUNDS[:1], engine=engine, threads=1)
    assert np.array_equal(mixed[:, :, :9], noisy[:, :, :9])
    assert not np.array_equal(mixed[:, :, 9:], noisy[:, :, 9:])


def test_a_known_spectrum_removes_more_than_white(library) -> None:
    clean = phantom(8, 32, 32)
    smooth = noise(8, 33, 33)
    smooth = (smooth[:, 1:, 1:] + smooth[:, :-1, 1:] + smooth[:, 1:, :-1] + smooth[:, :-1, :-1]) / 2
    blocks = np.lib.stride_tricks.sliding_window_view(smooth, (4, 4, 4)).reshape(-1, 64)
    atoms = COSINES.numpy()
    spectrum = ((blocks @ atoms.T) ** 2).mean(axis=0) / SIGMA**2
    known, white = (
        denoised(clean + smooth, flat(clean), s, rounds=CT_ROUNDS, engine=library, threads=1)
        for s in (spectrum, None)
    )
    assert error(known, clean) < 0.9 * error(white, clean)


def test_less_is_searched_along_thick_slices() -> None:
    assert window_for((1, 1, 1)) == native.MOST_WINDOW
    assert window_for((1, 1, 3.3)) == (3, 11, 16)
    assert window_for((0.5, 0.5, 5)) == (3, 11, 16)
    assert window_for((4, 1, 1)) == (7, 11, 6)


def test_a_missing_library_is_announced_once(
    monkeypatch: pytest.MonkeyPatch, recorder: WarningRecorder
) -> None:
    monkeypatch.setattr(native, "_found", lambda _folder: (None, "not compiled"))
    noisy = 1 + noise(4, 8, 8)
    for _ in range(2):
        denoised(noisy, flat(noisy), rounds=(), monitor=recorder.monitor)
    assert recorder.warnings == ["The compiled library is not used: not compiled"]


def test_a_run_can_be_cancelled(library) -> None:
    stop = threading.Event()
    seen: list[Event] = []

    def progress(event: Event) -> None:
        seen.append(event)
        stop.set()

    noisy = phantom(40, 12, 20) + noise(40, 12, 20)
    with pytest.raises(Cancelled):
        denoised(noisy, flat(noisy), engine=library, threads=2, monitor=Monitor(progress, stop))
    assert len(seen) == 1
