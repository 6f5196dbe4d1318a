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
#: A fit has converged where its loss fell by less than this share within so many seconds.
_STILL, _PATIENCE_S = 0.01, 60.0


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
    that is infinite, until it stands still.
    """
    torch.manual_seed(seed)
    values, low, high = _scaled(block)
    network = Siren(_hidden_for(8 * size // _BITS))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    coordinates, wanted = _coordinates(block.shape), torch.from_numpy(values.ravel())
    began = time.process_time()
    _descend(lambda some: network(coordinates[some]), wanted, optimiser, seconds)
    spent = time.process_time() - began
    _round(network)
    with torch.no_grad():
        found = torch.cat([network(part) for part in coordinates.split(_BATCH)])
    weights = sum(weight.numel() for weight in network.parameters())
    return _fitted(block, found.numpy(), low, high, weights * _BITS // 8, spent)


def meta_siren(
    blocks: list[Voxels], seconds: float, *, hidden: int = 64, latent: int = 64, seed: int = 0
) -> tuple[Siren, nn.Linear]:
    """A SIREN that blocks of one shape share, and the layer that makes shifts of a latent.

    Learned as functa and COIN++ (Dupont et al. 2022): three inner steps on a block's latent, then
    an outer one on the network (first order).
    """
    torch.manual_seed(seed)
    network = Siren(hidden)
    shifts = nn.Linear(latent, _LAYERS * hidden)
    parts = [*network.parameters(), *shifts.parameters()]
    optimiser = torch.optim.Adam(parts, lr=3e-4)
    rng = np.random.default_rng(seed)
    data = [torch.from_numpy(_scaled(block)[0].ravel()) for block in blocks]
    coordinates = _coordinates(blocks[0].shape)
    ends = time.process_time() + seconds
    while time.process_time() < ends:
        wanted = data[int(rng.integers(len(data)))]
        some = torch.randint(len(wanted), (2048,))
        latents = _inner(network, shifts, coordinates[some], wanted[some], steps=3)
        loss = _loss(network, shifts, latents, coordinates[some], wanted[some])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return network, shifts


def shared_inr(
    block: Voxels, shared: tuple[Siren, nn.Linear], *, steps: int = 10, bits: int = 8
) -> Fitted:
    """A block as the latent of a shared network, fitted by gradient steps and rounded to `bits`.

    size counts the latent and its two limits; the network is shared, as a model is.
    """
    network, shifts = shared
    values, low, high = _scaled(block)
    coordinates, wanted = _coordinates(block.shape), torch.from_numpy(values.ravel())
    began = time.process_time()
    latents = torch.zeros(shifts.in_features)
    for _ in range(steps):
        some = torch.randint(len(wanted), (2048,))
        latents = _inner(network, shifts, coordinates[some], wanted[some], steps=1, start=latents)
    spent = time.process_time() - began
    top = float(latents.abs().max()) or 1.0
    step = 2 * top / (2**bits - 1)
    latents = torch.round(latents / step) * step
    with torch.no_grad():
        modulation = shifts(latents).view(_LAYERS, -1)
        found = torch.cat([network(part, modulation) for part in coordinates.split(_BATCH)])
    size = latents.numel() * bits // 8 + 8
    return _fitted(block, found.numpy(), low, high, size, spent)


def _inner(
    network: Siren,
    shifts: nn.Linear,
    coordinates: Tensor,
    wanted: Tensor,
    *,
    steps: int,
    start: Tensor | None = None,
) -> Tensor:
    latents = torch.zeros(shifts.in_features) if start is None else start
    for _ in range(steps):
        latents = latents.detach().requires_grad_()
        loss = _loss(network, shifts, latents, coordinates, wanted)
        (slope,) = torch.autograd.grad(loss, latents)
        latents = latents - 1e-2 * len(latents) ** 0.5 * slope
    return latents.detach()


def _loss(
    network: Siren, shifts: nn.Linear, latents: Tensor, coordinates: Tensor, wanted: Tensor
) -> Tensor:
    modulation = shifts(latents).view(_LAYERS, -1)
    return torch.mean((network(coordinates, modulation) - wanted) ** 2)


def _descend(
    decode: Callable[[Tensor], Tensor],
    wanted: Tensor,
    optimiser: torch.optim.Optimizer,
    seconds: float,
) -> None:
    began = looked = time.process_time()
    best, mean = math.inf, math.inf
    while True:
        now = time.process_time()
        if now - began > seconds:
            return
        if math.isinf(seconds) and now - looked > _PATIENCE_S:
            if mean > (1 - _STILL) * best:
                return
            best, looked = min(best, mean), now
        some = torch.randint(len(wanted), (_BATCH,))
        loss = torch.mean((decode(some) - wanted[some]) ** 2)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        value = float(loss.detach())
        mean = value if math.isinf(mean) else 0.98 * mean + 0.02 * value


def _hidden_for(weights: int) -> int:
    """The widest SIREN with at most so many weights."""
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
