"""Training pairs: patches cut from images, and their degradation by the task.

    drawn = task.draw(images, rng)  →  task.damage(images, drawn)

Random numbers are drawn first, then applied, so that raw and distilled images can get the same
ones. `damage` can be differentiated by the image. Source: design, spg part 6.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.degradation.lowdose import low_dose_noise
from MedEnhanceLib.spg.config import CT_WINDOW, DAMAGE, DistillConfig
from MedEnhanceLib.spg.images import Floats

Indices = npt.NDArray[np.intp]
#: Views that the photons of the dose refer to, and those that are simulated, whose photons add up
#: to the same dose.
_VIEWS, _SIMULATED = 360, 120
#: Keeps roots away from 0, where they have no gradient; far below a 16-bit level.
_ROOT = 1e-12
#: Share of a patch that shows something, at least; else an image's fullest patches are taken.
_LEAST_SHOWN = 0.3


class Task(ABC):
    """Kind of degradation.

    on_patches: whether a patch is degraded like a whole image. Otherwise whole images are degraded
    and patches cut from them, and numbers are drawn once for each re-initialized network.
    """

    on_patches: ClassVar[bool] = True

    def draw(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Draw the random numbers for images [B, 1, H, W]: a tensor [B, …]."""
        return images.new_zeros(len(images), 0)

    @abstractmethod
    def damage(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Degrade images, float32 [B, 1, H, W]."""

    @torch.no_grad()
    def damaged(self, images: Floats, seed: int) -> Floats:
        """Degrade whole images [N, H, W] in [0, 1]; the same seed gives the same result."""
        whole = torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None]
        drawn = self.draw(whole, np.random.default_rng(seed))
        result: Floats = self.damage(whole, drawn)[:, 0].numpy()
        return result


class Rician(Task):
    """Noise of magnitude MR; drawn: σ · n of both channels, [B, 2, H, W].

    The same formula as `degrade.rician_noise`.
    """

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    def draw(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Draw σ uniformly, one for each image."""
        count, _, *size = images.shape
        sigma = rng.uniform(self._low, self._high, (count, 1, 1, 1)).astype(np.float32)
        noise = rng.standard_normal((count, 2, *size), dtype=np.float32) * sigma
        return torch.from_numpy(noise).to(images.device)

    def damage(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Compute √((x + n₁)² + n₂²)."""
        real, imaginary = images + drawn[:, :1], drawn[:, 1:]
        return (real.square() + imaginary.square() + _ROOT).sqrt()


class LowDose(Task):
    """CT at a lower dose; drawn: the noise in units of the images, [B, 1, H, W].

    `degrade.low_dose_noise` makes it in the projections of the images at the time of drawing; its
    dependence on the image has no part in the gradient.
    """

    on_patches = False

    def __init__(self, spacing_mm: float) -> None:
        self._low, high = CT_WINDOW
        self._span = high - self._low
        self._photons = float(DAMAGE["added_photons"]) * _VIEWS / _SIMULATED
        self._spacing = spacing_mm

    def draw(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Draw each image's noise by its own seed: the first do not depend on how many follow."""
        hu = images.detach()[:, 0].cpu().numpy() * np.float32(self._span) + np.float32(self._low)
        spacing = (self._spacing, self._spacing, 1.0)
        noise = low_dose_noise(hu, spacing, self._photons, 0.0, rng, views=_SIMULATED)
        return torch.from_numpy(noise / np.float32(self._span))[:, None].to(images.device)

    def damage(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Add its noise to the image."""
        return images + drawn


class Coarse(Task):
    """Loss of resolution: a smaller matrix, interpolated (cubic) back; nothing is drawn."""

    def __init__(self, factor: int) -> None:
        self._factor = factor

    def damage(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Average factor × factor pixels, and interpolate."""
        small = F.avg_pool2d(images, self._factor)
        size = (images.shape[-2], images.shape[-1])
        return F.interpolate(small, size=size, mode="bicubic", align_corners=False)


def make_task(config: DistillConfig, modality: str) -> Task:
    """Make the task of a configuration for "CT" or "MR"."""
    if config.task in ("sr2", "sr4"):
        return Coarse(int(config.task[2:]))
    return LowDose(config.images.spacing_mm) if modality == "CT" else Rician(*DAMAGE["rician"])


class Patches:
    """Patches that show something, by shown, bool [N, H, W]; side: in pixels, at most H and W."""

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

    def draw(
        self, images: Indices, rng: np.random.Generator, *, turned: bool, device: str
    ) -> tuple[Tensor, Tensor]:
        """Draw a patch of each of these images [B], mirrored at random.

        turned: whether rows and columns may be swapped, too. Returns row and column of each pixel,
        [B, P, P] each, on the device.
        """
        chosen = self._starts[images] + (rng.random(len(images)) * self._counts[images]).astype(int)
        top, left = np.divmod(self._corners[chosen], self._columns)
        kinds = rng.integers(8 if turned else 4, size=len(images))
        # Three numbers a patch go to the device; where its pixels are is computed there.
        numbers = torch.from_numpy(np.stack([top, left, kinds]).astype(np.int64)).to(device)
        row, column, kind = (part[:, None, None] for part in numbers)
        down = torch.arange(self._side, device=device)[:, None]
        right, last = down.T, self._side - 1
        down = torch.where((kind & 1) > 0, last - down, down)
        right = torch.where((kind & 2) > 0, last - right, right)
        is_swapped = (kind & 4) > 0
        rows = row + torch.where(is_swapped, right, down)
        return rows, column + torch.where(is_swapped, down, right)


def draw_pairs(
    task: Task,
    images: Tensor,
    patches: Patches,
    numbers: Indices,
    chosen: Indices,
    rng: np.random.Generator,
    *,
    seed: int = 0,
    drawn: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cut patches after and before degradation, [B, 1, P, P] each.

    Args:
        task: the degradation.
        images: [n, 1, H, W].
        patches: made of all images, to which these belong.
        numbers: [n], of these images among all.
        chosen: [B], places in `numbers`: the image of each patch.
        rng: draws where patches are.
        seed: of the degradation, where patches are degraded.
        drawn: where whole images are degraded, the random numbers of each.
    """
    device = str(images.device)
    rows, columns = patches.draw(numbers[chosen], rng, turned=task.on_patches, device=device)
    place = torch.from_numpy(chosen).to(device)[:, None, None]

    def cut(whole: Tensor) -> Tensor:
        return whole[place, 0, rows, columns][:, None]

    if drawn is not None:
        return cut(task.damage(images, drawn)), cut(images)
    high = cut(images)
    return task.damage(high, task.draw(high, np.random.default_rng(seed))), high
