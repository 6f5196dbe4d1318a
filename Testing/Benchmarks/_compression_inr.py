"""What the implicit network is measured against: a network for each block, and a shared one.

Both are float networks whose weights are counted at the bits that they are rounded to; what they
decode to is computed after rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Voxels = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_OMEGA = 30.0
_BITS = 16
_BATCH = 16_384
_LAYERS = 4
#: Patches of the shared network; how many a step of its learning has, and places in each.
_PATCH = (8, 16, 16)
_AT_ONCE, _PLACES, _INNER_RATE, _LATENT_RATE = 32, 256, 1e-1, 3e-2
#: A fit has converged where its loss fell by less than this share within this time, s.
_STILL, _PATIENCE_S = 0.01, 60.0
#: No fit takes longer: some go on falling by a little more for a quarter of an hour.
_MOST_S = 160.0


@dataclass(frozen=True)
class Fitted:
    """decoded: [K, J, I]; size: bytes of the weights; seconds: of the fit; psnr_db: full range."""

    decoded: Voxels
    size: int
    seconds: float
    psnr_db: float


class Siren(nn.Module):
    """Sitzmann et al. 2020: `layers` of `hidden` sines; shifts [layers, hidden] modulate them."""

    def __init__(self, hidden: int, layers: int = _LAYERS) -> None:
        super().__init__()
        sizes = [3, *([hidden] * (layers - 1))]
        self.hidden = nn.ModuleList(nn.Linear(size, hidden) for size in sizes)
        self.out = nn.Linear(hidden, 1)
        with torch.no_grad():
            for number, layer in enumerate([*self.hidden, self.out]):
                size = layer.in_features
                reach = 1 / size if number == 0 else math.sqrt(6 / size) / _OMEGA
                layer.weight.uniform_(-reach, reach)

    def forward(self, x: Tensor, shifts: Tensor | None = None) -> Tensor:
        """Values [..., N] at coordinates [..., N, 3] in −1 … 1."""
        for number, layer in enumerate(self.hidden):
            phase = layer(x)
            if shifts is not None:
                phase = phase + shifts[..., number, None, :]
            x = torch.sin(_OMEGA * phase)
        values: Tensor = self.out(x)[..., 0]
        return values


def siren_per_block(block: Voxels, size: int, seconds: float, *, seed: int = 0) -> Fitted:
    """Fit a SIREN whose weights take at most `size` bytes to one block, for `seconds` or, where
    that is infinite, until it stands still, or for `_MOST_S`.
    """
    torch.manual_seed(seed)
    values, low, high = _scaled(block)
    network = Siren(_hidden_for(8 * size // _BITS))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    coordinates, wanted = _coordinates(block.shape), torch.from_numpy(values.ravel())
    began = time.process_time()
    _descend(lambda some: network(coordinates[some]), wanted, optimizer, seconds)
    spent = time.process_time() - began
    _round(network)
    with torch.no_grad():
        found = torch.cat([network(part) for part in coordinates.split(_BATCH)])
    weights = sum(weight.numel() for weight in network.parameters())
    return _fitted(block, found.numpy(), low, high, weights * _BITS // 8, spent)


@dataclass(frozen=True)
class Shared:
    """A SIREN that all patches share, and the layer that makes shifts of a patch's latent."""

    network: Siren
    shifts: nn.Linear

    def __call__(self, coordinates: Tensor, latents: Tensor) -> Tensor:
        """Values [P, N] of patches at coordinates [P, N, 3], of latents [P, latent]."""
        found: Tensor = self.network(coordinates, self.shifts(latents).view(*self._shape(latents)))
        return found

    @staticmethod
    def _shape(latents: Tensor) -> tuple[int, ...]:
        return len(latents), _LAYERS, -1

    def adapted(self, coordinates: Tensor, wanted: Tensor, steps: int) -> Tensor:
        """Latents of patches after `steps` steps of gradient descent, from zero."""
        latents = torch.zeros(len(wanted), self.shifts.in_features)
        for _ in range(steps):
            latents = latents.detach().requires_grad_()
            loss = ((self(coordinates, latents) - wanted) ** 2).mean(dim=1).sum()
            (slope,) = torch.autograd.grad(loss, latents)
            latents = latents - _INNER_RATE * slope
        return latents.detach()


def meta_siren(
    blocks: list[Voxels], seconds: float, *, latent: int, hidden: int = 64, seed: int = 0
) -> Shared:
    """Learned as functa and COIN++ (Dupont et al. 2022) on patches of blocks of one shape: three
    inner steps on the patches' latents, then an outer one on the network (first order).
    """
    torch.manual_seed(seed)
    shared = Shared(Siren(hidden), nn.Linear(latent, _LAYERS * hidden))
    parts = [*shared.network.parameters(), *shared.shifts.parameters()]
    optimizer = torch.optim.Adam(parts, lr=3e-4)
    patches = torch.cat([_patches(_scaled(block)[0]) for block in blocks])
    coordinates = _coordinates(_PATCH)
    ends = time.process_time() + seconds
    while time.process_time() < ends:
        few = torch.randint(len(patches), (_AT_ONCE,))
        places = torch.randint(len(coordinates), (_AT_ONCE, _PLACES))
        wanted, where = patches[few].gather(1, places), coordinates[places]
        latents = shared.adapted(where, wanted, 3)
        loss = ((shared(where, latents) - wanted) ** 2).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return shared


def shared_inr(block: Voxels, shared: Shared, *, steps: int = 100, bits: int = 8) -> Fitted:
    """A block as the latents of its patches, fitted by Adam and rounded to `bits`.

    (Ten steps of plain descent, as COIN++ takes them, came half a decibel lower.)
    size counts the latents, their step and two limits; the network is shared, as a model is.
    """
    torch.manual_seed(0)
    values, low, high = _scaled(block)
    wanted = _patches(values)
    coordinates = _coordinates(_PATCH)
    began = time.process_time()
    latents = torch.zeros(len(wanted), shared.shifts.in_features, requires_grad=True)
    optimizer = torch.optim.Adam([latents], lr=_LATENT_RATE)
    for _ in range(steps):
        places = torch.randint(len(coordinates), (len(wanted), _PLACES))
        errors = shared(coordinates[places], latents) - wanted.gather(1, places)
        optimizer.zero_grad(set_to_none=True)
        (errors**2).mean(dim=1).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    spent = time.process_time() - began
    with torch.no_grad():
        top = float(latents.abs().max()) or 1.0
        step = 2 * top / (2**bits - 1)
        rounded = torch.round(latents / step) * step
        found = shared(coordinates.expand(len(wanted), -1, -1), rounded)
    decoded = _joined(found.numpy(), block.shape)
    return _fitted(block, decoded, low, high, latents.numel() * bits // 8 + 12, spent)


def patches_of(shape: tuple[int, ...]) -> int:
    """How many a block of that shape has."""
    return math.prod(extent // side for extent, side in zip(shape, _PATCH, strict=True))


def _patches(values: Floats) -> Tensor:
    """[K, J, I] → [P, voxels of a patch]."""
    (k, a), (j, b), (i, c) = (
        (n // side, side) for n, side in zip(values.shape, _PATCH, strict=True)
    )
    parts = values.reshape(k, a, j, b, i, c).transpose(0, 2, 4, 1, 3, 5)
    return torch.from_numpy(np.ascontiguousarray(parts.reshape(-1, a * b * c)))


def _joined(found: Floats, shape: tuple[int, ...]) -> Floats:
    counts = [n // side for n, side in zip(shape, _PATCH, strict=True)]
    parts = found.reshape(*counts, *_PATCH).transpose(0, 3, 1, 4, 2, 5)
    joined: Floats = parts.reshape(shape)
    return joined


def _descend(
    decode: Callable[[Tensor], Tensor],
    wanted: Tensor,
    optimizer: torch.optim.Optimizer,
    seconds: float,
) -> None:
    began = looked = time.process_time()
    best, mean = math.inf, math.inf
    while True:
        now = time.process_time()
        if now - began > min(seconds, _MOST_S):
            return
        if math.isinf(seconds) and now - looked > _PATIENCE_S:
            if mean > (1 - _STILL) * best:
                return
            best, looked = min(best, mean), now
        some = torch.randint(len(wanted), (_BATCH,))
        loss = torch.mean((decode(some) - wanted[some]) ** 2)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        value = float(loss.detach())
        mean = value if math.isinf(mean) else 0.98 * mean + 0.02 * value


def _hidden_for(weights: int) -> int:
    """The widest SIREN with at most this number of weights."""
    hidden = 1
    while _weights_of(hidden + 1) <= weights:
        hidden += 1
    return hidden


def _weights_of(hidden: int) -> int:
    return 4 * hidden + (_LAYERS - 1) * (hidden + 1) * hidden + hidden + 1


@torch.no_grad()
def _round(network: nn.Module) -> None:
    for weight in network.parameters():
        weight.copy_(weight.half().float())


def _coordinates(shape: tuple[int, ...]) -> Tensor:
    axes = [torch.linspace(-1, 1, n) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


def _scaled(block: Voxels) -> tuple[Floats, float, float]:
    low, high = float(block.min()), float(block.max())
    scale = max(high - low, 1.0) / 2
    return ((block.astype(np.float32) - low) / scale - 1).astype(np.float32), low, high


def _fitted(
    block: Voxels, found: Floats, low: float, high: float, size: int, seconds: float
) -> Fitted:
    scale = max(high - low, 1.0) / 2
    decoded = np.clip(np.rint((found.reshape(block.shape) + 1) * scale + low), low, high)
    error = float(np.mean((decoded - block) ** 2))
    psnr = 10 * math.log10((high - low) ** 2 / error) if error and high > low else math.inf
    return Fitted(decoded.astype(block.dtype), size, seconds, psnr)
