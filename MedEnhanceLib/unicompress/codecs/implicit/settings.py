"""Options of the implicit network and of its training."""

from __future__ import annotations

from dataclasses import dataclass

#: Id of the block type.
IMPLICIT = 17
#: Units that a cell of codes spans along each axis. A unit is a voxel in the plane; along
#: slices it is a voxel, or half of one where slices are thick.
CELL = 8
#: Slices are thick where their spacing is more than this many times that of pixels.
THICK = 3.0
#: Fourier bands of a position: wavelengths of 64, 32 … 2 units.
BANDS = 6
FEATURES = 6 * BANDS


@dataclass(frozen=True)
class TokenConfig:
    """Encoders and codebooks, which teacher and student share.

    Attributes:
        width: channels of the encoders.
        latent: channels of their outputs.
        code_size: numbers of a code.
        codes: in each codebook, 256 at most.
        order: for each layer of codes the branch that it refines, 0 the low band, 1 the details.
    """

    width: int = 128
    latent: int = 64
    code_size: int = 8
    codes: int = 256
    order: str = "000000001"

    @property
    def branches(self) -> list[int]:
        """The branch of each layer of codes, 0 or 1; ValueError for anything else."""
        return [("0", "1").index(branch) for branch in self.order]


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the fusion and the network that gives a voxel for a position.

    Attributes:
        hidden: sines of a layer.
        depth: layers of sines.
        scaled: the first of them, whose phases are scaled as well as shifted.
        heads, key_size: of the attention.
    """

    hidden: int = 256
    depth: int = 6
    scaled: int = 6
    heads: int = 4
    key_size: int = 8
