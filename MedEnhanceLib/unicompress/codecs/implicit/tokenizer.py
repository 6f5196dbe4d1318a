"""Tokenizer of blocks: a wavelet, an encoder for each band, learnable codebooks.

Source: arXiv 2405.16850 (a wavelet prior splits low from high frequencies; a codebook for each
branch). Reconstructed: Haar, in the plane alone for thick slices; residual layers of codebooks
that look codes up in few dimensions (Yu et al. 2022, Kumar et al. 2023), learned by exponential
moving averages (van den Oord et al. 2017, appendix).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.learning.precision import in_double
from MedEnhanceLib.unicompress.codecs.implicit.decoder import Decoder, cosines
from MedEnhanceLib.unicompress.codecs.implicit.settings import CELL, DecoderConfig, TokenConfig

# Chosen in trials on CT, MR and EM; no table isolates them.
_DECAY = 0.99
#: A code that was taken less often within the memory of its average, 100 steps, is replaced.
_LEAST_USE = 2.0
_LLOYD_STEPS = 10
#: Details of a block; of thick slices there are three, the others stay zero.
_DETAILS = 7
#: Details are small; this brings them to the order of the low band.
_DETAIL_GAIN = 4.0
#: Standard deviation of the largest component when learning begins.
_SPREAD = 2.0
_RESIDUALS = 3
#: Extent of a cell in the bands, along each axis.
_STRIDE = 4


def haar(block: Tensor, *, thick: bool = False) -> tuple[Tensor, Tensor]:
    """Split a block into its low band and its details.

    block: [B, 1, K, J, I], extents even (K too, unless thick).
    Returns [B, 1, …] and [B, 7, …] at half the extents; of thick slices [B, 3, …] at all of K.
    """
    kernel = _kernel(thick=thick).to(block)
    bands = F.conv3d(block, kernel, stride=tuple(kernel.shape[2:]))
    return bands[:, :1], bands[:, 1:]


def inverse_haar(low: Tensor, high: Tensor) -> Tensor:
    """Undo `haar` of thin slices, but for rounding of the last bit."""
    kernel = _kernel(thick=False).to(low)
    bands = torch.cat([low, high], dim=1)
    return F.conv_transpose3d(bands, kernel, stride=tuple(kernel.shape[2:]))


def _kernel(*, thick: bool) -> Tensor:
    """Make the orthonormal kernel, [bands, 1, 2 or 1, 2, 2]; the first band is the low one."""
    pair = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) / 2**0.5
    along_slices = torch.ones(1, 1, dtype=torch.float64) if thick else pair
    kernel = torch.einsum("ak,bj,ci->abckji", along_slices, pair, pair)
    return kernel.flatten(0, 2)[:, None]


class ResidualQuantizer(nn.Module):
    """Layers of codebooks of a branch: each codes the residual of those before it.

    A layer projects its input to `code_size` numbers, finds the nearest code, and projects that
    back; the residual goes to the next layer.
    """

    codebooks: Tensor
    uses: Tensor
    sums: Tensor
    #: Layers; PyTorch's own types say no more than modules.
    down: Any
    up: Any

    def __init__(self, config: TokenConfig, layers: int) -> None:
        super().__init__()
        self.config = config
        size = config.code_size
        self.down = nn.ModuleList(nn.Linear(config.latent, size) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(size, config.latent, bias=False) for _ in range(layers))
        self.register_buffer("codebooks", torch.zeros(layers, config.codes, size))
        self.register_buffer("uses", torch.ones(layers, config.codes))
        self.register_buffer("sums", self.codebooks.clone())

    def forward(
        self, layer: int, rest: Tensor, taken: Tensor, *, learn: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Quantize the residual of latents by one layer: reduce it, take the nearest code, expand.

        In training, gradients pass as if the nearest code were the reduced latent itself.

        Args:
            layer: its number in this branch.
            rest: the latents less what the layers before made of them, [N, latent].
            taken: [N] of 0 and 1; a latent with 0 does not have this layer, and does not count in
                loss and codebook.
            learn: whether the codebook moves toward the reduced latents that chose its codes.
        Returns what the layer adds to the latents, [N, latent], the numbers of the codes, [N], and
        the mean squared distance of reduced latents to their codes, as a loss.
        """
        small = self.down[layer](rest).float()
        code = self.nearest(layer, small)
        entries = self.codebooks[layer][code]
        commitment = (taken[:, None] * (small - entries.detach()) ** 2).mean()
        if learn:
            self._learn(layer, small.detach(), code, taken)
        quantized = small + (entries - small).detach()
        step: Tensor = self.up[layer](quantized.to(rest.dtype)).to(rest.dtype)
        return step, code, commitment

    @torch.no_grad()
    def nearest(self, layer: int, small: Tensor) -> Tensor:
        """Find the indices [N] of the codes nearest to [N, code_size]."""
        book = self.codebooks[layer]
        distances = (book**2).sum(dim=1) - 2 * small @ book.T
        return distances.argmin(dim=1)

    @torch.no_grad()
    def _learn(self, layer: int, small: Tensor, code: Tensor, taken: Tensor) -> None:
        """Update a codebook by moving averages; dead codes become vectors of this batch.

        Without conditions, which would make the host wait for the device.
        """
        hot = F.one_hot(code, self.config.codes).to(small.dtype) * taken[:, None]
        uses, sums = self.uses[layer], self.sums[layer]
        uses.mul_(_DECAY).add_(hot.sum(dim=0), alpha=1 - _DECAY)
        sums.mul_(_DECAY).add_(hot.T @ small, alpha=1 - _DECAY)
        dead = uses < _LEAST_USE * (1 - _DECAY)
        recent = small[torch.randint(len(small), (len(dead),), device=small.device)]
        # New codes get just enough uses to stay for some time.
        uses.copy_(torch.where(dead, 2 * _LEAST_USE * (1 - _DECAY), uses))
        sums.copy_(torch.where(dead[:, None], recent * uses[:, None], sums))
        self.codebooks[layer] = sums / uses[:, None]

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        """Initialize all projections and codebooks from latents [N, latent].

        A layer projects to the principal axes of the residual; its codes are k-means centers.
        """
        rest = latents
        for layer, (down, up) in enumerate(zip(self.down, self.up, strict=True)):
            rows = principal_axes(rest)[: self.config.code_size]
            down.weight.copy_(rows)
            nn.init.zeros_(down.bias)
            up.weight.copy_(rows.T)
            small = down(rest).float()
            self.codebooks[layer] = _k_means(small, self.config.codes)
            # Few uses: averages follow the encoders from the first steps on.
            self.uses[layer] = 1.0
            self.sums[layer] = self.codebooks[layer]
            rest = rest - up(self.codebooks[layer][self.nearest(layer, small)])


def principal_axes(points: Tensor) -> Tensor:
    """Compute the principal axes of points [N, D], largest first, as orthonormal rows [D, D]."""
    wide = in_double(points)
    _, axes = torch.linalg.eigh(wide.T @ wide)
    # Signs of eigenvectors are arbitrary; these are the same on every machine.
    axes = axes.flip(1).T
    signs = torch.where(axes.sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
    result: Tensor = (signs * axes).to(points)
    return result


def _k_means(points: Tensor, count: int) -> Tensor:
    """Run Lloyd's iterations from random points, [count, D]; centers without points stay."""
    order = torch.randperm(len(points), device=points.device)
    centers = points[order.repeat(-(-count // len(points)))[:count]].clone()
    for _ in range(_LLOYD_STEPS):
        nearest = ((centers**2).sum(dim=1) - 2 * points @ centers.T).argmin(dim=1)
        hot = F.one_hot(nearest, count).to(points.dtype)
        counts = hot.sum(dim=0)
        means = (hot.T @ points) / counts.clamp_min(1)[:, None]
        centers = torch.where(counts[:, None] > 0, means, centers)
    return centers


class Encoders(nn.Module):
    """Encoders E_L and E_H. Reconstructed: the paper names two branches and no layers.

    No layer normalizes over the block: a cell's latents depend on its surroundings only, however
    blocks are cut.
    """

    layers: Any
    straight: Any

    def __init__(self, config: TokenConfig) -> None:
        super().__init__()
        self.latent = config.latent
        self.layers = nn.ModuleList(_encoder(channels, config) for channels in (1, _DETAILS))
        #: A linear transform of each cell beside the layers; it begins as principal components.
        self.straight = nn.ModuleList(
            nn.Conv3d(channels, config.latent, _STRIDE, stride=_STRIDE)
            for channels in (1, _DETAILS)
        )
        for layers in self.layers:  # at first they add nothing
            last = layers[-1]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    @torch.no_grad()
    def start(self, batches: Sequence[tuple[Tensor, bool]]) -> None:
        """Make latents the principal components of cells of blocks [B, 1, K, J, I], thick or not.

        The first layers of codes then hold what a linear transform would keep first.
        """
        for branch, straight in enumerate(self.straight):
            pairs = [self._bands(block, thick)[branch] for block, thick in batches]
            cells = torch.cat([_cells(bands) for bands in pairs])
            axes = principal_axes(cells)[: self.latent]
            rows = axes * (_SPREAD / (cells @ axes[0]).std())
            straight.weight.zero_()
            straight.weight[: len(rows)] = rows.view(-1, *straight.weight.shape[1:])
            straight.bias.zero_()

    def forward(self, block: Tensor, *, thick: bool) -> tuple[Tensor, Tensor]:
        """Compute latents of both branches, [B, latent, k, j, i]: a cell spans 8 × 8 × 8 units.

        block: [B, 1, K, J, I], extents multiples of 8 (K of 4 where slices are thick).
        """
        bands = self._bands(block, thick)
        low, high = (
            layers(band) + straight(band)
            for layers, straight, band in zip(self.layers, self.straight, bands, strict=True)
        )
        return low, high

    @torch.no_grad()
    def amplitudes(self, branch: int) -> Tensor:
        """Compute each latent's cosine amplitudes, [latent, latent], by the linear transform."""
        straight = self.straight[branch]
        rows = straight.weight.flatten(1)
        undone = torch.linalg.pinv(rows).T.view(-1, *straight.weight.shape[1:])
        gain = 8**-0.5 * (_DETAIL_GAIN if branch else 1.0)
        low = undone if not branch else torch.zeros_like(undone[:, :1])
        high = undone if branch else torch.zeros_like(undone).expand(-1, _DETAILS, -1, -1, -1)
        cells = inverse_haar(low / gain, high / gain)[:, 0]
        centers = (torch.arange(CELL, device=rows.device) + 0.5) / CELL - 0.5
        places = torch.stack(torch.meshgrid(centers, centers, centers, indexing="ij"), dim=-1)
        basis = cosines(places, self.latent)
        gains: Tensor = (cells.flatten(1) @ basis.flatten(0, 2)) / (basis**2).sum(dim=(0, 1, 2))
        return gains.T

    def _bands(self, block: Tensor, thick: bool) -> tuple[Tensor, Tensor]:
        low, high = haar(block, thick=thick)
        high = F.pad(high, (0, 0, 0, 0, 0, 0, 0, _DETAILS - high.shape[1]))
        # Orthonormal bands of a constant are its value times 2 or √8.
        gain = 0.5 if thick else 8**-0.5
        return gain * low, _DETAIL_GAIN * gain * high


def _encoder(channels: int, config: TokenConfig) -> nn.Sequential:
    """Make an encoder with a stride of one cell: layers at full size would take most of a step."""
    return nn.Sequential(
        nn.Conv3d(channels, config.width, _STRIDE, stride=_STRIDE),
        *(_Residual(config.width) for _ in range(_RESIDUALS)),
        nn.GELU(),
        nn.Conv3d(config.width, config.latent, 1),
    )


def _cells(bands: Tensor) -> Tensor:
    """Cut bands [B, C, K, J, I] into what each cell spans of them, [N, C · 64]."""
    batch, channels, *extents = bands.shape
    counts = [extent // _STRIDE for extent in extents]
    sides = [part for count in counts for part in (count, _STRIDE)]
    split = bands.view(batch, channels, *sides)
    return split.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(-1, channels * _STRIDE**3)


class _Residual(nn.Module):
    """Residual layer over neighboring cells, in few channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        few = max(1, width // 4)
        self.first = nn.Conv3d(width, few, 3, padding=1, padding_mode="replicate")
        self.second = nn.Conv3d(few, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(F.gelu(self.first(F.gelu(x))))
        return x + y


class Tokens(NamedTuple):
    """Input of a decoder.

    Attributes:
        low, high: latents of both branches, [B, latent, k, j, i].
        codes: [B, layers, k, j, i], in the order of a file.
        commitment: a loss.
    """

    low: Tensor
    high: Tensor
    codes: Tensor
    commitment: Tensor


class Tokenizer(nn.Module):
    """Network from blocks to tokens. Teacher and student share it."""

    quantisers: Any

    def __init__(self, config: TokenConfig) -> None:
        super().__init__()
        self.config = config
        self.encoders = Encoders(config)
        self.quantisers = nn.ModuleList(
            ResidualQuantizer(config, config.branches.count(branch)) for branch in range(2)
        )

    def layers(self) -> Iterator[tuple[int, ResidualQuantizer, int]]:
        """Yield for each layer its branch, the branch's quantizer, and its number in the branch."""
        branches = self.config.branches
        for layer, branch in enumerate(branches):
            quantizer = self.quantisers[branch]
            yield branch, quantizer, branches[:layer].count(branch)

    def forward(self, blocks: Tensor, refinements: Tensor, *, thick: bool) -> Tokens:
        """Compute the tokens of blocks.

        Args:
            blocks: [B, 1, K, J, I] on the scale of the network, of whole cells.
            refinements: [B], how many layers, from the first on, each block gets.
            thick: see `codec.is_thick`.
        """
        return self.quantize(self.encoders(blocks, thick=thick), refinements)

    def quantize(
        self, latents: tuple[Tensor, Tensor], refinements: Tensor, *, learn: bool = False
    ) -> Tokens:
        """Quantize the encoders' latents to tokens.

        Args:
            latents: of both branches, [B, latent, k, j, i].
            refinements: [B], how many layers, from the first on, each block gets.
            learn: whether the codebooks are updated.
        """
        extents = latents[0].shape[2:]
        rest = [grid.float().flatten(2).transpose(1, 2).flatten(0, 1) for grid in latents]
        totals = [torch.zeros_like(cells) for cells in rest]
        commitment, codes = rest[0].new_zeros(()), []
        for number, (branch, quantizer, layer) in enumerate(self.layers()):
            taken = (refinements > number).repeat_interleave(extents.numel()).to(rest[0].dtype)
            step, code, loss = quantizer(layer, rest[branch], taken, learn=learn)
            rest[branch] = rest[branch] - step
            totals[branch] = totals[branch] + taken[:, None] * step
            commitment = commitment + loss
            codes.append(code.view(-1, *extents))
        grids = [
            total.view(-1, extents.numel(), total.shape[1]).transpose(1, 2).reshape(grid.shape)
            for total, grid in zip(totals, latents, strict=True)
        ]
        return Tokens(grids[0], grids[1], torch.stack(codes, dim=1), commitment)


class Networks(nn.Module):
    """Networks of a training: tokenizer, teacher and student."""

    def __init__(self, token: TokenConfig, teacher: DecoderConfig, student: DecoderConfig) -> None:
        super().__init__()
        self.tokenizer = Tokenizer(token)
        self.teacher = Decoder(teacher, token.latent)
        self.student = Decoder(student, token.latent)
        #: Lifts the student's last sines to the teacher's, to be compared.
        self.lift = nn.Linear(student.hidden, teacher.hidden)

    @torch.no_grad()
    def start_values(self) -> None:
        """Start the decoders as inverses of the linear transform that the encoders begin with."""
        for branch in range(2):
            amplitudes = 2 * self.tokenizer.encoders.amplitudes(branch)
            for decoder in (self.teacher, self.student):
                layer = decoder.fusion.values[branch]
                layer.weight.copy_(amplitudes)
                layer.bias.zero_()

    @torch.no_grad()
    def start_student(self) -> None:
        """Start the student's fusion as the teacher's, which has the same sizes."""
        self.student.fusion.load_state_dict(self.teacher.fusion.state_dict())
