"""The implicit network as a module of PyTorch, with rate and distortion as CompressAI has them.

    codec = ImplicitCodec("MR")
    out = codec(x)                                    # x_hat, likelihoods
    loss = RateDistortion(lmbda=50)(out, x)["loss"]   # bits per voxel + lmbda · squared error
    coded = codec.compress(x)                         # strings, shape
    x_hat = codec.decompress(**coded)["x_hat"]

What learns are the encoders. Codebooks, entropy model and decoder are those that every reader has,
so that what is coded after a training is read by all of them. The verbs are those of CompressAI
(Bégaint et al. 2020); no code of it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.errors import CodecError, InputError, ModelError
from MedEnhanceLib.unicompress.codecs.implicit.codec import (
    ROLE,
    WRITER_ROLE,
    grid_of,
    padded_extents,
    values_of,
)
from MedEnhanceLib.unicompress.codecs.implicit.decoder import OUT_BITS, positions_of
from MedEnhanceLib.unicompress.codecs.implicit.entropy import (
    contexts_of,
    decode_codes,
    encode_codes,
    phases,
)
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import layers_of
from MedEnhanceLib.unicompress.codecs.implicit.writer import Writer
from MedEnhanceLib.unicompress.models import shipped_model

#: Voxels that the decoder computes at once.
_VOXELS = 16_384
#: How fast a code's share falls with its distance, for the gradient of the rate.
_SHARPNESS = 1.0


class ImplicitCodec(nn.Module):
    """Encoders that learn, in front of a codec that stays as it is.

    Args:
        modality: "CT", "MR" or "EM": whose shipped models.
        thick: whether slices are more than three pixels apart; each counts twice then.
        layers: how many layers of codes are used; None: all.
    Raises:
        ModelError: there are no models for the modality, or no such layers.
    """

    def __init__(self, modality: str, *, thick: bool = False, layers: int | None = None) -> None:
        super().__init__()
        reader, encoder = (shipped_model(role, modality) for role in (ROLE, WRITER_ROLE))
        if reader is None or encoder is None:
            raise ModelError(f"there is no implicit network for {modality!r}", "Use CT, MR or EM.")
        writer = Writer(reader, encoder)  # of its own: what learns here is nobody else's
        self._reader, self.thick = writer.reader, thick
        self.layers = layers or self._reader.layers
        if not 1 <= self.layers <= self._reader.layers:
            raise ModelError(f"{layers} layers", f"Use 1 to {self._reader.layers}.")
        self.tokeniser, self.student = writer.tokeniser, writer.student
        self.student.fixed = True  # as the integers of every reader, with gradients
        self.requires_grad_(False)
        self.tokeniser.encoders.requires_grad_(True)
        self.float()  # as the weights are, whatever the default type was while it was made

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Code and decode blocks, differentiably.

        x: [B, 1, K, J, I] on the network's scale: nearly all values from −1 to 1.
        Returns x_hat [B, 1, K, J, I]; likelihoods {"codes": [B, layers, k, j, i]}, of the codes
        that were taken, as the entropy coder has them; commitment, a loss that keeps the encoders
        near the codes.
        """
        shape = _shape_of(x)
        latents = self.tokeniser.encoders(self._padded(x), thick=self.thick)
        used = torch.full((len(x),), self.layers, device=x.device)
        tokens = self.tokeniser.quantize(latents, used)
        found = [
            self._decoded(low, high, shape)
            for low, high in zip(tokens.low[:, None], tokens.high[:, None], strict=True)
        ]
        codes = tokens.codes[:, : self.layers]
        return {
            "x_hat": torch.stack(found)[:, None],
            "likelihoods": {"codes": self._likelihoods(latents, codes)},
            "commitment": tokens.commitment,
        }

    @torch.no_grad()
    def compress(self, x: Tensor) -> dict[str, Any]:
        """The bytes of blocks [B, 1, K, J, I]: strings, of each block one for each layer; shape."""
        shape = _shape_of(x)
        latents = self.tokeniser.encoders(self._padded(x), thick=self.thick)
        used = torch.full((len(x),), self.layers, device=x.device)
        codes = self.tokeniser.quantize(latents, used).codes[:, : self.layers].cpu().numpy()
        strings = [encode_codes(self._reader.entropy, one) for one in codes]
        return {"strings": strings, "shape": shape}

    @torch.no_grad()
    def decompress(
        self, strings: Sequence[Sequence[bytes]], shape: Sequence[int]
    ) -> dict[str, Tensor]:
        """x_hat [B, 1, K, J, I] of what `compress` gave, or of the first layers of it.

        Computed in integers: the same on every machine. Raises CodecError for bytes that cannot be.
        """
        extents = (int(shape[0]), int(shape[1]), int(shape[2]))
        grid = grid_of(extents, thick=self.thick)
        blocks = []
        for datas in strings:
            try:
                codes = decode_codes(self._reader.entropy, list(datas), grid)
            except ValueError as cause:
                raise CodecError(f"the codes cannot be read: {cause}", "Code it again.") from cause
            values = values_of(self._reader, codes, len(datas), extents, thick=self.thick)
            blocks.append(torch.from_numpy(values.astype(np.float32)) / 2**OUT_BITS)
        return {"x_hat": torch.stack(blocks)[:, None]}

    def _padded(self, x: Tensor) -> Tensor:
        wanted = padded_extents(_shape_of(x), thick=self.thick)
        k, j, i = (m - n for n, m in zip(_shape_of(x), wanted, strict=True))
        return F.pad(x.float(), (0, i, 0, j, 0, k), mode="replicate")

    def _decoded(self, low: Tensor, high: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Values [K, J, I] of the latents [1, latent, k, j, i] of a block."""
        axes = [torch.arange(side, device=low.device) for side in shape]
        voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
        places = positions_of(voxels, thick=self.thick)
        parts = [
            self.student(low, high, places[None, start : start + _VOXELS]).values[0]
            for start in range(0, len(places), _VOXELS)
        ]
        return torch.cat(parts).view(shape)

    def _likelihoods(self, latents: tuple[Tensor, Tensor], codes: Tensor) -> Tensor:
        """What the entropy model gives the codes, [B, layers, k, j, i].

        Their value is the coder's. The gradient goes through the distances to all codes: latents
        move towards codes that are cheaper.
        """
        grids = [grid.float().movedim(1, -1) for grid in latents]  # what is still to be coded
        found = []
        for layer, (quantizer, at) in enumerate(layers_of(self.tokeniser)):
            if layer == self.layers:
                break
            branch = self.tokeniser.config.branches[layer]
            small = quantizer.down[at](grids[branch])
            book, code = quantizer.codebooks[at], codes[:, layer]
            share = (-_SHARPNESS * torch.cdist(small.flatten(0, -2), book) ** 2).softmax(dim=1)
            bits = torch.stack([self._bits(one, layer) for one in codes]).to(small).flatten(0, -2)
            taken = F.one_hot(code.flatten(), len(book)).to(small)
            cost = ((taken + share - share.detach()) * bits).sum(dim=1)
            found.append(torch.exp2(-cost).view(code.shape))
            grids[branch] = grids[branch] - quantizer.up[at](small + (book[code] - small).detach())
        return torch.stack(found, dim=1)

    @torch.no_grad()
    def _bits(self, codes: Tensor, layer: int) -> Tensor:
        """What each code would take at each cell, in bits, [k, j, i, codes]; codes: of a block."""
        model, known = self._reader.entropy, codes.cpu().numpy()
        table = np.empty((*known.shape[1:], model.books.shape[1]), np.float32)
        for phase in phases(known.shape[1:]):
            weights = model.weights(layer, contexts_of(model, known, layer, phase))
            bits = np.log2(weights.sum(axis=1, keepdims=True) / weights)
            table[phase] = bits.reshape(*table[phase].shape)
        return torch.from_numpy(table)


class RateDistortion(nn.Module):
    """bits per voxel + lmbda · mean squared error on the network's scale + commitment.

    Args:
        lmbda: bits per voxel that an error of one, half of the scale, is worth.
        commitment: weight of the distance to the codes.
    """

    def __init__(self, lmbda: float, commitment: float = 0.25) -> None:
        super().__init__()
        self.lmbda, self.commitment = lmbda, commitment

    def forward(self, output: Mapping[str, Any], target: Tensor) -> dict[str, Tensor]:
        """bpv_loss, mse_loss and loss of what a codec gave for `target`."""
        bits = sum(-torch.log2(one).sum() for one in output["likelihoods"].values())
        rate = torch.as_tensor(bits) / target.numel()
        error = F.mse_loss(output["x_hat"], target)
        loss = self.lmbda * error + rate + self.commitment * output["commitment"]
        return {"bpv_loss": rate, "mse_loss": error, "loss": loss}


def _shape_of(x: Tensor) -> tuple[int, int, int]:
    if x.ndim != 5 or x.shape[1] != 1 or not x.is_floating_point():
        raise InputError(
            f"a tensor {list(x.shape)} of {x.dtype}", "Give blocks [B, 1, K, J, I] of floats."
        )
    return x.shape[2], x.shape[3], x.shape[4]
