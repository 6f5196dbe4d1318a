"""How good the averaged networks are meanwhile, on slabs that stay the same."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.network import Enhancer, GuidanceEncoder
from MedEnhanceLib.hqg.pools import Pools

Floats = npt.NDArray[np.float32]
_SLABS = 6
#: Apart from the seeds of training.
_SEED = 7_000_000


@dataclass(frozen=True)
class Validated:
    """psnr_db, input_psnr_db: means over the slabs, after and before; peak 1, the network's scale.

    Middle slices, [N, P, P] each: degraded, enhanced, target; error: the expected one.
    """

    psnr_db: float
    input_psnr_db: float
    degraded: Floats
    enhanced: Floats
    target: Floats
    error: Floats


class Validation:
    """Slabs degraded with a fixed seed: of held-out volumes, where the configuration has some."""

    def __init__(self, pools: Pools, config: TrainConfig, device: str) -> None:
        self.is_held_out = bool(pools.held_out)
        self._device = device
        fixed = replace(config, batch=1, appearance=0.0)
        drawn = Pools(fixed, pools.held_out or pools.high, ())
        batches = [drawn.cycle_batch(np.random.default_rng(_SEED + n)) for n in range(_SLABS)]
        self._degraded, self._target, self._guide, self._deblur = (
            np.concatenate([getattr(batch, name) for batch in batches])
            for name in ("degraded", "target", "guide", "deblur")
        )

    def measure(self, enhancer: Enhancer, guide: GuidanceEncoder) -> Validated:
        """Enhance the slabs, one by one; nothing random in it."""
        middle = self._target.shape[1] // 2
        enhanced, errors = np.empty_like(self._target), np.empty_like(self._target)
        with torch.inference_mode():
            for index in range(len(self._target)):
                slab, guiding, deblur = (
                    torch.from_numpy(part[index : index + 1]).to(self._device)
                    for part in (self._degraded, self._guide, self._deblur)
                )
                image, error = enhancer.estimate(slab, guide.asking(guide(guiding).mean, deblur))
                enhanced[index], errors[index] = image[0].cpu(), error[0].cpu()
        return Validated(
            _mean_psnr(enhanced, self._target),
            _mean_psnr(self._degraded, self._target),
            *(part[:, middle] for part in (self._degraded, enhanced, self._target, errors)),
        )


def _mean_psnr(images: Floats, targets: Floats) -> float:
    squares = np.square(images - targets, dtype=np.float64).mean(axis=(1, 2, 3))
    return float(np.mean(-10 * np.log10(np.maximum(squares, 1e-12))))
