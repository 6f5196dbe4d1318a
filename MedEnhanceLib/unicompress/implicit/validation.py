"""What the networks make of a few blocks that stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from MedEnhanceLib.unicompress.implicit.data import MODALITIES, Blocks, Source
from MedEnhanceLib.unicompress.implicit.losses import positions_of
from MedEnhanceLib.unicompress.implicit.model import Networks
from MedEnhanceLib.unicompress.implicit.siren import Decoder

_BLOCKS, _SEED = 2, 1_000_003
#: Slices of a block that are decoded: enough to judge, at once.
_SLICES = 1
#: The network's scale goes from −1 to 1, nearly.
PEAK = 2.0


@dataclass(frozen=True)
class Sample:
    """The middle slice of a block: what it is, and by name what was made of it, [J, I]."""

    modality: str
    target: npt.NDArray[np.float32]
    decoded: dict[str, npt.NDArray[np.float32]]


class Validation:
    """Fixed blocks of each modality."""

    def __init__(self, sources: Sequence[Source]) -> None:
        rng = np.random.default_rng(_SEED)
        self._batches = []
        for modality in MODALITIES:
            found = [source for source in sources if source.modality == modality]
            if found:
                self._batches.append((modality, *Blocks(found).draw(_BLOCKS, rng)))

    @torch.no_grad()
    def psnr(self, networks: Networks, decoder: Decoder, refinements: int) -> dict[str, float]:
        """PSNR in dB by modality, against a peak of 2 on the network's scale."""
        result = {}
        for modality, blocks, thick in self._batches:
            wanted, values = _decode_slices(networks, decoder, blocks, thick, refinements)
            error = float(torch.mean((values - wanted) ** 2))
            result[modality] = float(10 * np.log10(PEAK**2 / max(error, 1e-12)))
        return result

    @torch.no_grad()
    def samples(self, networks: Networks, ways: dict[str, tuple[Decoder, int]]) -> list[Sample]:
        """One of each modality. ways: name → decoder and number of layers."""
        found = []
        for modality, blocks, thick in self._batches:
            decoded = {}
            for name, (decoder, refinements) in ways.items():
                wanted, values = _decode_slices(networks, decoder, blocks[:1], thick, refinements)
                decoded[name] = values[0, 0].cpu().numpy()
            found.append(Sample(modality, wanted[0, 0].cpu().numpy(), decoded))
        return found


def _decode_slices(
    networks: Networks, decoder: Decoder, blocks: Tensor, thick: bool, refinements: int
) -> tuple[Tensor, Tensor]:
    """The middle slices of blocks, as they are and decoded: [B, slices, J, I] each."""
    device = next(decoder.parameters()).device
    blocks = blocks.to(device)
    used = torch.full((len(blocks),), refinements, device=device)
    tokens = networks.tokeniser(blocks, used, thick=thick)
    middle = blocks.shape[2] // 2
    extents = (range(middle, middle + _SLICES), range(blocks.shape[3]), range(blocks.shape[4]))
    axes = [torch.tensor(list(extent), device=device) for extent in extents]
    voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
    positions = positions_of(voxels, thick=thick)[None].expand(len(blocks), -1, -1)
    values = decoder(tokens.low, tokens.high, positions).values
    wanted = blocks[:, 0, middle : middle + _SLICES]
    return wanted, values.view_as(wanted)
