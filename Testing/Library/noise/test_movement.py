"""The movement of frames is found by their derivatives, whatever their contrasts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from MedEnhanceLib.core.arrays import Array
from MedEnhanceLib.noise.movement import typical_movement


def _frame(move: Sequence[float], contrasts: Sequence[float]) -> Array:
    """Make an ellipse with waves, shifted along j and i in voxels and turned by radians."""
    shift_j, shift_i, turn = move
    j, i = np.mgrid[:64, :64] - 31.5
    j, i = j - turn * i - shift_j, i + turn * j - shift_i
    waves = np.stack([np.sin(0.4 * j + 0.2 * i), np.cos(0.5 * i - 0.1 * j), np.sin(0.3 * i)])
    inside = 1 / (1 + np.exp(np.hypot(j / 26, i / 22) * 20 - 20))
    plane = 1000 * inside * (3 + np.tensordot(contrasts, waves, 1))
    return np.repeat(np.rint(plane)[None], 6, axis=0)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("turn", [0.0, 0.01])
def test_shifts_and_turns_are_told_apart_from_contrast(
    turn: float, dtype: type, rng: np.random.Generator
) -> None:
    moves = rng.choice([-1.0, 1.0], (60, 3)) * (0.2, 0.1, turn)
    contrasts = rng.uniform(-0.9, 0.9, (60, 3))
    still = [_frame((0, 0, 0), each).astype(dtype) for each in contrasts]
    moved = [_frame(*each).astype(dtype) for each in zip(moves, contrasts, strict=True)]
    assert typical_movement(still) < 0.01
    radius = np.sqrt(np.argwhere(still[0][0] > 1000).var(axis=0).sum())
    true = np.median(np.linalg.norm(moves * (1, 1, radius), axis=1))
    assert typical_movement(moved) == pytest.approx(true, rel=0.2)
    assert typical_movement(5 * still[:1]) < 1e-6
