"""Encoders, codebooks and decoders together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from MedEnhanceLib.unicompress.implicit.config import DecoderConfig, TokenConfig
from MedEnhanceLib.unicompress.implicit.encoders import Encoders
from MedEnhanceLib.unicompress.implicit.quantiser import ResidualQuantiser
from MedEnhanceLib.unicompress.implicit.siren import Decoder


class Tokens(NamedTuple):
    """What a decoder gets: latents of both branches [B, latent, k, j, i].

    codes: [B, layers, k, j, i], in the order of a file; commitment: a loss.
    """

    low: Tensor
    high: Tensor
    codes: Tensor
    commitment: Tensor


class Tokeniser(nn.Module):
    """From blocks to tokens. Teacher and student share it."""

    def __init__(self, config: TokenConfig) -> None:
        super().__init__()
        self.config = config
        self.encoders = Encoders(config)
        self.quantisers = nn.ModuleList(
            ResidualQuantiser(config, config.branches.count(branch)) for branch in range(2)
        )

    @property
    def refinements(self) -> int:
        """Layers of a file: those of both branches."""
        return len(self.config.order)

    def forward(
        self,
        blocks: Tensor,
        refinements: Tensor,
        *,
        thick: bool,
        quantise: bool = True,
        learn: bool = False,
    ) -> Tokens:
        """Tokens of blocks [B, 1, K, J, I], each with its first `refinements` [B] layers."""
        latents = self.encoders(blocks, thick=thick)
        return self.quantise(latents, refinements, quantise=quantise, learn=learn)

    def quantise(
        self,
        latents: tuple[Tensor, Tensor],
        refinements: Tensor,
        *,
        quantise: bool = True,
        learn: bool = False,
    ) -> Tokens:
        """Tokens of the encoders' latents."""
        grids, codes = [], []
        branches = torch.tensor(self.config.branches, device=refinements.device)
        numbers = torch.arange(1, len(branches) + 1, device=refinements.device)
        commitment = latents[0].new_zeros((), dtype=torch.float32)
        for branch, (grid, quantiser) in enumerate(zip(latents, self.quantisers, strict=True)):
            used = ((branches == branch) & (numbers <= refinements[:, None])).sum(dim=1)
            cells = grid.float().flatten(2).transpose(1, 2)
            found = quantiser(
                cells.flatten(0, 1),
                used.repeat_interleave(cells.shape[1]),
                quantise=quantise,
                learn=learn,
            )
            commitment = commitment + found.commitment
            grids.append(found.latents.view_as(cells).transpose(1, 2).reshape(grid.shape))
            layers = found.codes.view(len(grid), cells.shape[1], -1).transpose(1, 2)
            codes.append(layers.reshape(len(grid), layers.shape[1], *grid.shape[2:]))
        joined = torch.cat(codes, dim=1)
        if joined.shape[1]:
            # Codes are branch by branch; a stable sort by branch, undone, is the file's order.
            joined = joined[:, torch.argsort(torch.argsort(branches, stable=True))]
        return Tokens(grids[0], grids[1], joined, commitment)


def layers_of(tokeniser: Tokeniser) -> Iterator[tuple[ResidualQuantiser, int]]:
    """For each layer of a file its quantiser, and its number there."""
    branches = tokeniser.config.branches
    for layer, branch in enumerate(branches):
        quantiser = tokeniser.quantisers[branch]
        assert isinstance(quantiser, ResidualQuantiser)
        yield quantiser, branches[:layer].count(branch)


class Networks(nn.Module):
    """All that a training learns."""

    def __init__(self, token: TokenConfig, teacher: DecoderConfig, student: DecoderConfig) -> None:
        super().__init__()
        self.tokeniser = Tokeniser(token)
        self.teacher = Decoder(teacher, token.latent)
        self.student = Decoder(student, token.latent)
        #: Lifts the student's last sines to the teacher's, to be compared.
        self.lift = nn.Linear(student.hidden, teacher.hidden)

    @torch.no_grad()
    def start_values(self) -> None:
        """Decoders begin by undoing the linear transform that the encoders begin as."""
        for branch in range(2):
            amplitudes = 2 * self.tokeniser.encoders.amplitudes(branch)
            for decoder in (self.teacher, self.student):
                layer = decoder.fusion.values[branch]
                assert isinstance(layer, nn.Linear)
                assert layer.bias is not None
                layer.weight.copy_(amplitudes)
                layer.bias.zero_()

    @torch.no_grad()
    def start_student(self) -> None:
        """The student's fusion begins as the teacher's, where it has the same sizes."""
        mine, theirs = self.student.fusion.state_dict(), self.teacher.fusion.state_dict()
        if {n: t.shape for n, t in mine.items()} == {n: t.shape for n, t in theirs.items()}:
            self.student.fusion.load_state_dict(theirs)
