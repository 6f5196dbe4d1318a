"""One image laid on one slice as well as shifts and rotations allow, and their SSIM there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.metrics import ssim
from MedEnhanceLib.spg.audit.similarity import Floats, blur, details, match, rotate

#: Degrees around the rotation that the search found.
_FINER_DEG = (-2.0, 0.0, 2.0)
#: Contrast, of a range of [0, 1], above which a place shows something; SSIM of two empty grounds
#: is 1 and says nothing.
_SHOWS_SOMETHING = 0.01
#: SSIM's window.
_SMALLEST = 11


@dataclass(frozen=True)
class Laid:
    """An image on a slice: moved, and scaled to its brightness.

    image: [H, W], 0 where nothing of it lies. score: correlation of details, at single pixels.
    ssim: of what both show; 0 where that is nothing.
    """

    image: Floats
    score: float
    ssim: float


def lay_on(image: Floats, onto: Floats, angle_deg: float) -> Laid:
    """Move an image [H, W] onto a slice [H, W], rotated by about angle_deg."""
    angles = tuple(angle_deg + finer for finer in _FINER_DEG)
    matches = match(details(image[None]), details(onto[None]), angles_deg=angles, pixels=1)
    angle, move = float(matches.angle_deg[0, 0]), matches.shift[0, 0]
    shared = shifted(rotate(np.ones_like(image)[None], angle)[0], move) > 0.999
    moved = shifted(rotate(image[None], angle)[0], move)
    shown = shared & (_shows(onto) | _shows(moved))
    moved = np.where(shared, _as_bright(moved, onto, shown), 0).astype(np.float32)
    return Laid(moved, float(matches.score[0, 0]), _ssim(onto, moved, shown))


def shifted(image: Floats, move: npt.NDArray[np.int32]) -> Floats:
    """An image [H, W] moved by whole pixels (rows, columns); 0 comes in."""
    down, right = int(move[0]), int(move[1])
    height, width = image.shape
    result = np.zeros_like(image)
    result[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = image[
        max(0, -down) : height + min(0, -down), max(0, -right) : width + min(0, -right)
    ]
    return result


def _as_bright(image: Floats, onto: Floats, where: npt.NDArray[np.bool_]) -> Floats:
    """Scaled to fit best where both show something: a window is no disguise."""
    ours, theirs = image[where].astype(np.float64), onto[where].astype(np.float64)
    if ours.size == 0 or ours.var() == 0:
        return image
    # Never turned into its negative, which no window does.
    gain = max(0.0, float(np.mean((ours - ours.mean()) * (theirs - theirs.mean())) / ours.var()))
    scaled: Floats = (gain * (image - ours.mean()) + theirs.mean()).astype(np.float32)
    return scaled


def _shows(image: Floats) -> npt.NDArray[np.bool_]:
    finer = image[None] - blur(image[None], 4.0)
    shows: npt.NDArray[np.bool_] = (blur(finer * finer, 4.0) > _SHOWS_SOMETHING**2)[0]
    return shows


def _ssim(onto: Floats, image: Floats, where: npt.NDArray[np.bool_]) -> float:
    inner = where.copy()
    margin = _SMALLEST // 2
    inner[:margin] = inner[-margin:] = False
    inner[:, :margin] = inner[:, -margin:] = False
    return ssim(onto, image, 1.0, mask=where) if inner.any() else 0.0
