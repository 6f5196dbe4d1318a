"""Frames that the others do not explain are named; another contrast is none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.noise.odd_frames import odd_frames

_SHAPE, _SIGMA, _COUNT = (10, 48, 48), 30.0, 14


def _series(levels: np.ndarray | None = None) -> Floats:
    """Magnitudes of two tissues, whose ratio differs a little from frame to frame; in air."""
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in _SHAPE), indexing="ij")
    head = np.hypot(j, i) + 0.1 * k < 0.8
    fine = 1 + 0.4 * np.sin(9 * i + 4 * k) * np.cos(7 * j)
    rng = np.random.default_rng(3)
    levels = np.ones(_COUNT) if levels is None else levels
    other = (i > 0.3 * j) * rng.uniform(0, 0.1, _COUNT)[:, None, None, None]
    truth = 500 * levels[:, None, None, None] * head * (fine + other)
    noise = rng.normal(0, _SIGMA, (2, *truth.shape))
    return np.hypot(truth + noise[0], noise[1]).astype(np.float32)


def _louder(frames: Floats) -> None:
    frames[5] *= 10


def _moved(frames: Floats) -> None:
    for number in (2, 7, 12):
        frames[number] = np.roll(frames[number], 3, axis=1)


def _dropped(frames: Floats) -> None:
    frames[4, 3:7] *= 0.2


def _striped(frames: Floats) -> None:
    j, i = np.indices(_SHAPE[1:])
    frames[9, 6] = np.abs(frames[9, 6] + 250 * np.cos(0.9 * j + 1.3 * i))


def _striped_everywhere(frames: Floats) -> None:
    j, i = np.indices(_SHAPE[1:])
    frames[9] = np.abs(frames[9] + 250 * np.cos(0.9 * j + 1.3 * i))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_louder, ["frame 5: 10 times the level of the others"]),
        (_moved, [f"frame {n}: moved by about 3 voxels" for n in (2, 7, 12)]),
        (_dropped, ["frame 4, slice no. 3 to 6: signal lost (80 %)"]),
        (_striped, ["frame 9, slice no. 6: stripes"]),
        (_striped_everywhere, ["frame 9, slice no. 0 to 9: stripes"]),
        (lambda frames: None, []),
    ],
    ids=["level", "position", "signal", "stripes", "stripes everywhere", "undamaged"],
)
@pytest.mark.parametrize("levels", [None, [0.0] * _COUNT], ids=["any contrast", "one level"])
def test_what_is_odd_about_a_frame_is_named(
    damage: Callable[[Floats], None], said: list[str], levels: list[float] | None
) -> None:
    frames = _series()
    damage(frames)
    assert [str(each.text) for each in odd_frames(list(frames), levels)] == said


def test_frames_of_another_level_are_odd_only_where_one_level_is_stated() -> None:
    falling = _series(np.exp(-np.arange(_COUNT) / 4))
    assert odd_frames(list(falling)) == ()
    bright = _series(np.where(np.arange(_COUNT) == 0, 6.0, 1.0))  # as b = 0 before directions
    assert odd_frames(list(bright)) == ()
    assert odd_frames(list(bright), [0, *[1000] * (_COUNT - 1)]) == ()
    (odd,) = odd_frames(list(bright), [0] * _COUNT)
    assert (odd.number, odd.gain) == (0, pytest.approx(6, rel=0.1))
    assert odd_frames(list(bright[:5]), [0] * 5) == ()  # too few to tell


def test_where_most_frames_are_odd_none_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MedEnhanceLib.noise.odd_frames._LOST", -1.0)
    assert odd_frames(list(_series())) == ()  # a joint filter would have nothing left


def _diffusion() -> Floats:
    """Directions of weak contrast after a frame of another one, bright where they are dark."""
    frames = _series()
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, side) for side in _SHAPE), indexing="ij")
    head = np.hypot(j, i) + 0.1 * k < 0.8
    shape = 1 - 0.5 * np.sin(9 * i + 4 * k) * np.cos(7 * j) + (np.hypot(j, i) > 0.7)
    frames[0] = 900 * head * shape + np.random.default_rng(5).normal(0, _SIGMA, _SHAPE)
    return frames


@pytest.mark.parametrize("levels", [None, [0.0, *[1000.0] * (_COUNT - 1)]])
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_another_contrast_is_no_movement_and_moves_as_far_as_it_does(
    rows: int, levels: list[float] | None
) -> None:
    frames = _diffusion()
    frames[0] = np.roll(frames[0], rows, axis=1)
    said = [str(each.text) for each in odd_frames(list(frames), levels)]
    assert said == ([f"frame 0: moved by about {rows} voxels"] if rows else [])
