"""The learnable codebook: a factorised residual vector quantiser.

Source: arXiv 2405.16850 (a learnable codebook for each branch). Reconstructed: residual layers,
each of which looks its codes up in few dimensions (Yu et al. 2022, Kumar et al. 2023), learned
by exponential moving averages (van den Oord et al. 2017, appendix).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.unicompress.implicit import fixed as fx
from MedEnhanceLib.unicompress.implicit.config import TokenConfig

_DECAY = 0.99
#: A code that was taken less often within the memory of its average, 100 steps, is replaced.
_LEAST_USE = 2.0
_REFRESH_EVERY = 20
_LLOYD_STEPS = 10


class Quantised(NamedTuple):
    """latents [N, latent] after quantising; codes [N, layers]; commitment: a loss."""

    latents: Tensor
    codes: Tensor
    commitment: Tensor


class ResidualQuantiser(nn.Module):
    """Layers of codebooks: each codes what those before it left over.

    A layer takes its input down to `code_size` numbers, finds the nearest code, and takes that
    up again; the rest goes to the next layer.
    """

    codebooks: Tensor
    uses: Tensor
    sums: Tensor
    steps: Tensor

    def __init__(self, config: TokenConfig, layers: int) -> None:
        super().__init__()
        self.config = config
        size = config.code_size
        self.down = nn.ModuleList(nn.Linear(config.latent, size) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(size, config.latent, bias=False) for _ in range(layers))
        self._start_projections()
        self.register_buffer("codebooks", torch.randn(layers, config.codes, size))
        self.register_buffer("uses", torch.ones(layers, config.codes))
        self.register_buffer("sums", self.codebooks.clone())
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def _start_projections(self) -> None:
        """Each layer looks at directions of its own and takes up what it took down."""
        size, latent = self.config.code_size, self.config.latent
        basis = torch.empty(max(len(self.down) * size, latent), latent)
        nn.init.orthogonal_(basis)
        for layer, (down, up) in enumerate(zip(self.down, self.up, strict=True)):
            assert isinstance(down, nn.Linear)
            assert isinstance(up, nn.Linear)
            rows = basis[layer * size : (layer + 1) * size]
            down.weight.copy_(rows)
            nn.init.zeros_(down.bias)
            up.weight.copy_(rows.T)

    def forward(
        self, latents: Tensor, used: Tensor, *, quantise: bool = True, learn: bool = False
    ) -> Quantised:
        """Quantise latents [N, latent], each with its first `used` [N] layers.

        quantise: False lets everything through the projections alone (before codebooks start, and
        for the ablation without them). learn: update the codebooks. Gradients pass straight on.
        """
        rest, total = latents, torch.zeros_like(latents)
        commitment = latents.new_zeros(())
        codes = []
        quantise = quantise and self.config.codebook != "off"
        for layer, (down, up) in enumerate(zip(self.down, self.up, strict=True)):
            taken = (used > layer)[:, None].to(latents.dtype)
            small = down(rest).float()
            if quantise:
                code = self.nearest(layer, small)
                found = self.codebooks[layer][code]
                commitment = commitment + (taken * (small - found.detach()) ** 2).mean()
                if learn and self.config.codebook == "learned":
                    self._learn(layer, small.detach(), code, taken[:, 0] > 0)
                codes.append(code)
                small = small + (found - small).detach()
            step = up(small.to(rest.dtype)).to(latents.dtype)
            total = total + taken * step
            rest = rest - step
        stacked = torch.stack(codes, dim=1) if codes else latents.new_zeros(len(latents), 0).long()
        return Quantised(total, stacked, commitment)

    @torch.no_grad()
    def nearest(self, layer: int, small: Tensor) -> Tensor:
        """Indices [N] of the codes nearest to [N, code_size]."""
        book = self.codebooks[layer]
        distances = (book**2).sum(dim=1) - 2 * small @ book.T
        return distances.argmin(dim=1)

    @torch.no_grad()
    def _learn(self, layer: int, small: Tensor, code: Tensor, taken: Tensor) -> None:
        small, code = small[taken], code[taken]
        hot = F.one_hot(code, self.config.codes).to(small.dtype)
        self.uses[layer].mul_(_DECAY).add_(hot.sum(dim=0), alpha=1 - _DECAY)
        self.sums[layer].mul_(_DECAY).add_(hot.T @ small, alpha=1 - _DECAY)
        uses = self.uses[layer].clamp_min(1e-5)
        seen = self.uses[layer] > 1e-4
        mean = self.sums[layer] / uses[:, None]
        self.codebooks[layer] = torch.where(seen[:, None], mean, self.codebooks[layer])
        if layer == 0:
            self.steps += 1
        if int(self.steps) % _REFRESH_EVERY == 0 and len(small):
            self._replace_dead(layer, small)

    def _replace_dead(self, layer: int, small: Tensor) -> None:
        """Dead codes become vectors that were just seen."""
        dead = self.uses[layer] < _LEAST_USE * (1 - _DECAY)
        count = int(dead.sum())
        if not count:
            return
        chosen = small[torch.randint(len(small), (count,), device=small.device)]
        self.codebooks[layer, dead] = chosen
        # As if taken just often enough to live through the next round.
        fresh = 2 * _LEAST_USE * (1 - _DECAY)
        self.uses[layer, dead] = fresh
        self.sums[layer, dead] = fresh * chosen

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        """Set all projections and codebooks by latents [N, latent].

        A layer looks at the directions in which most is left over, and its codes are k-means.
        """
        rest = latents
        for layer, (down, up) in enumerate(zip(self.down, self.up, strict=True)):
            assert isinstance(down, nn.Linear)
            assert isinstance(up, nn.Linear)
            rows = principal_axes(rest)[: self.config.code_size]
            down.weight.copy_(rows)
            nn.init.zeros_(down.bias)
            up.weight.copy_(rows.T)
            small = down(rest).float()
            if self.config.codebook == "off":
                rest = rest - up(small)
                continue
            if self.config.codebook == "learned":
                self.codebooks[layer] = _k_means(small, self.config.codes)
            else:  # of the right spread, and nothing else
                noise = torch.randn_like(self.codebooks[layer])
                self.codebooks[layer] = small.mean(dim=0) + small.std(dim=0) * noise
            # Few uses: averages follow the encoders from the first steps on.
            self.uses[layer] = 1.0
            self.sums[layer] = self.codebooks[layer]
            rest = rest - up(self.codebooks[layer][self.nearest(layer, small)])

    @torch.no_grad()
    def to_bytes(self) -> None:
        """Round codebooks and projections to what a byte holds; a second time changes nothing."""
        for layer, up in enumerate(self.up):
            assert isinstance(up, nn.Linear)
            up.weight.copy_(fx.on_weight_grid(up.weight, fixed=True))
            book = self.codebooks[layer].reshape(1, -1)
            self.codebooks[layer] = fx.on_weight_grid(book, fixed=True).view_as(
                self.codebooks[layer]
            )


def principal_axes(points: Tensor) -> Tensor:
    """Orthonormal rows [D, D] of points [N, D]: the one along which they are largest first."""
    _, axes = torch.linalg.eigh(points.T.double() @ points.double())
    # Signs of eigenvectors are arbitrary: this one is the same everywhere.
    axes = axes.flip(1).T
    signs = torch.where(axes.sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
    result: Tensor = (signs * axes).to(points.dtype)
    return result


def _k_means(points: Tensor, count: int) -> Tensor:
    """Lloyd's iterations from random points, [count, D]; centres without points stay."""
    chosen = torch.randperm(len(points), device=points.device)
    centres = points[chosen.repeat(-(-count // len(points)))[:count]].clone()
    for _ in range(_LLOYD_STEPS):
        nearest = ((centres**2).sum(dim=1) - 2 * points @ centres.T).argmin(dim=1)
        hot = F.one_hot(nearest, count).to(points.dtype)
        found = hot.sum(dim=0)
        means = (hot.T @ points) / found.clamp_min(1)[:, None]
        centres = torch.where(found[:, None] > 0, means, centres)
    return centres
