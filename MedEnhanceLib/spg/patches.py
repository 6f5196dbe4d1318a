"""Where patches that show something can be cut, and their cutting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Indices = npt.NDArray[np.intp]
#: A patch shows something where so much of it does; else an image's fullest patches are taken.
_LEAST_SHOWN = 0.3


@dataclass(frozen=True)
class Places:
    """Patches of images [N, 1, H, W]: image [B], rows and columns [B, P, P] of their pixels."""

    image: Tensor
    rows: Tensor
    columns: Tensor

    def cut(self, images: Tensor) -> Tensor:
        """[N, 1, H, W] → [B, 1, P, P]; the gradient goes back to where they were cut."""
        patches: Tensor = images[self.image[:, None, None], 0, self.rows, self.columns]
        return patches[:, None]


class Patches:
    """Draws patches from images by what they show.

    shown: bool [N, H, W]. side: of a patch, pixels, at most H and W.
    """

    def __init__(self, shown: npt.NDArray[np.bool_], side: int) -> None:
        self._side = side
        sums = np.zeros((len(shown), shown.shape[1] + 1, shown.shape[2] + 1), np.int32)
        sums[:, 1:, 1:] = shown.cumsum(axis=1, dtype=np.int32).cumsum(axis=2)
        inside = (
            sums[:, side:, side:]
            - sums[:, :-side, side:]
            - sums[:, side:, :-side]
            + sums[:, :-side, :-side]
        )
        self._columns = inside.shape[2]
        flat = inside.reshape(len(shown), -1)
        enough = np.minimum(flat.max(axis=1), int(_LEAST_SHOWN * side**2))
        images, self._corners = np.nonzero(flat >= enough[:, None])
        self._counts = np.bincount(images, minlength=len(shown))
        self._starts = np.cumsum(self._counts) - self._counts

    def corners(self, images: Indices, rng: np.random.Generator) -> tuple[Indices, Indices]:
        """The first row and column of a patch of each of the images [B]."""
        chosen = self._starts[images] + (rng.random(len(images)) * self._counts[images]).astype(int)
        top, left = np.divmod(self._corners[chosen], self._columns)
        return top, left

    def draw(
        self, images: Indices, rng: np.random.Generator, *, turned: bool, device: str
    ) -> Places:
        """A patch of each of the images [B], mirrored at random.

        turned: whether rows may become columns, too.
        """
        top, left = self.corners(images, rng)
        kinds = rng.integers(8 if turned else 4, size=len(images))
        down, right = np.mgrid[: self._side, : self._side][:, None]
        last = self._side - 1
        down = np.where((kinds & 1)[:, None, None], last - down, down)
        right = np.where((kinds & 2)[:, None, None], last - right, right)
        swapped = (kinds & 4)[:, None, None] > 0
        rows = top[:, None, None] + np.where(swapped, right, down)
        columns = left[:, None, None] + np.where(swapped, down, right)
        found = (torch.from_numpy(part).to(device) for part in (images, rows, columns))
        return Places(*found)
