"""Task pairs: an image and what the task's damage makes of it, the same for raw and distilled.

    drawn = task.draw(images, rng)  →  task.damage(images, drawn)

Numbers are drawn first, then applied, so that raw and distilled images can suffer the same ones.
`damage` can be differentiated by the image. Source: design, spg part 6.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.degrade import low_dose_noise
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.spg.config import DistillConfig

Floats = npt.NDArray[np.float32]
#: Views that `full_dose_photons` refers to.
_VIEWS = 360
#: Keeps roots away from 0, where they have no gradient; far below a 16-bit level.
_ROOT = 1e-12


class Task(ABC):
    """One kind of damage.

    on_patches: whether a patch is damaged as a whole image is. Elsewhere images are damaged whole
    and patches cut from them, and numbers are drawn once for each re-initialised network.
    """

    on_patches: ClassVar[bool] = True

    def draw(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """The random numbers of so many images [B, 1, H, W]; the first dimension is theirs."""
        return images.new_zeros(len(images), 0)

    @abstractmethod
    def damage(self, images: Tensor, drawn: Tensor) -> Tensor:
        """The low-quality images, [B, 1, H, W], float32."""

    @torch.no_grad()
    def damaged(self, images: Floats, seed: int) -> Floats:
        """Whole images [N, H, W] in [0, 1] → damaged ones; the same seed does the same."""
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
        """σ is uniform, one for each image."""
        count, _, *size = images.shape
        sigma = rng.uniform(self._low, self._high, (count, 1, 1, 1)).astype(np.float32)
        noise = rng.standard_normal((count, 2, *size), dtype=np.float32) * sigma
        return torch.from_numpy(noise).to(images.device)

    def damage(self, images: Tensor, drawn: Tensor) -> Tensor:
        """√((x + n₁)² + n₂²)."""
        real, imaginary = images + drawn[:, :1], drawn[:, 1:]
        return (real.square() + imaginary.square() + _ROOT).sqrt()


class LowDose(Task):
    """CT at a lower dose; drawn: the noise in units of the images, [B, 1, H, W].

    Noise is made in the projections of the images as they are when it is drawn, by
    `degrade.low_dose_noise`; how it changes with the image has no part in the gradient.
    """

    on_patches = False

    def __init__(self, config: DistillConfig) -> None:
        damage = config.damage
        self._low, high = config.images.ct_window
        self._span = high - self._low
        added = damage.full_dose_photons * damage.dose / (1 - damage.dose)
        self._photons, self._views = added * _VIEWS / damage.views, damage.views
        self._spacing = config.images.spacing_mm

    def draw(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """Each image has a seed of its own: the first ones are the same however many follow."""
        hu = images.detach()[:, 0].cpu().numpy() * np.float32(self._span) + np.float32(self._low)
        spacing = (self._spacing, self._spacing, 1.0)
        noise = low_dose_noise(hu, spacing, self._photons, 0.0, rng, views=self._views)
        return torch.from_numpy(noise / np.float32(self._span))[:, None].to(images.device)

    def damage(self, images: Tensor, drawn: Tensor) -> Tensor:
        """The image plus its noise."""
        return images + drawn


class Coarse(Task):
    """A smaller matrix, brought back to size by cubic interpolation; nothing is drawn."""

    def __init__(self, factor: int) -> None:
        self._factor = factor

    def damage(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Means over factor × factor pixels, interpolated."""
        small = F.avg_pool2d(images, self._factor)
        size = (images.shape[-2], images.shape[-1])
        return F.interpolate(small, size=size, mode="bicubic", align_corners=False)


class Undersampled(Task):
    """MR of which few lines of k-space were measured; drawn: which, [B, 1, H, 1], 1 or 0."""

    on_patches = False

    def __init__(self, acceleration: float, centre: float) -> None:
        self._acceleration, self._centre = acceleration, centre

    def draw(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        """The lines around the middle, and so many others at random."""
        count, _, rows, _ = images.shape
        kept = max(1, round(rows / self._acceleration))
        middle = min(kept, max(1, round(self._centre * rows)))
        distance = np.abs(np.fft.fftfreq(rows, 1 / rows))
        order = rng.random((count, rows))
        order[:, np.argsort(distance, kind="stable")[:middle]] = -1
        mask = np.zeros((count, rows), np.float32)
        np.put_along_axis(mask, np.argsort(order, axis=1)[:, :kept], 1, axis=1)
        return torch.from_numpy(mask)[:, None, :, None].to(images.device)

    def damage(self, images: Tensor, drawn: Tensor) -> Tensor:
        """The magnitude of what the measured lines give."""
        measured: Tensor = torch.fft.ifft2(torch.fft.fft2(images) * drawn)
        return (measured.real.square() + measured.imag.square() + _ROOT).sqrt()


def make_task(config: DistillConfig, modality: str) -> Task:
    """The task of a configuration for "CT" or "MR".

    Raises ConfigError for one that the modality does not have.
    """
    damage = config.damage
    if config.task in ("sr2", "sr4"):
        return Coarse(int(config.task[2:]))
    if config.task == "undersample":
        if modality != "MR":
            raise ConfigError(
                f"undersample is a task of MR; the cohort is {modality}",
                "Use denoise, sr2 or sr4.",
            )
        return Undersampled(damage.acceleration, damage.centre)
    return LowDose(config) if modality == "CT" else Rician(*damage.rician)


def psnr_db(errors: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of errors of images whose peak is 1."""
    return -10 * math.log10(max(float(errors.double().square().mean()), 1e-20))
