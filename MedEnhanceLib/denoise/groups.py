"""Groups of blocks as tensors: coefficients from volumes, and residuals back into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.denoise.bundle import SetWeights
from MedEnhanceLib.denoise.config import STEP, NetworkConfig
from MedEnhanceLib.denoise.network import Fit, GroupNetwork, Groups, GuidedCorrection, fit
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.filters.layers import TAPER, BlockGroups
from MedEnhanceLib.filters.torch_engine import COSINES, box, gather_blocks
from MedEnhanceLib.native import CELLS, SIDE

# Models learn with these (decision 0047). Measured as a whole by Benchmarks/guidance.py.
#: Limits of the logarithm of a block's weight.
_MOST_WEIGHT = 4.0
#: Least σ as a share of the range that the network receives.
_LEAST_LEVEL = 1e-4
#: Groups of a layer, in each direction, over which a guide's agreement is added up.
_REACH = 5


@dataclass(frozen=True, eq=False)
class Places:
    """Positions of the blocks of N groups in a slab of voxels.

    Attributes:
        index: [N, blocks], flat place of each block's first voxel, the reference's first.
        distance: [N, blocks], squared differences to the reference, summed over a block.
        sigma: [N], the noise's deviation at each reference, in the units of the voxels.
        root: [64], square root of the noise's relative variance in each frequency.
        shape: of the slab, (slices, rows, columns).
    """

    index: Tensor
    distance: Tensor
    sigma: Tensor
    root: Tensor
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, groups: BlockGroups, spectrum: Floats | Tensor, shape: tuple[int, ...]) -> Places:
        """Convert the groups that a search found in a slab.

        Args:
            groups: indices, distances and σ.
            spectrum: [64], relative variance of the noise in each frequency.
            shape: of the slab.
        """
        slices, rows, columns = shape
        return cls(
            torch.as_tensor(groups.index),
            torch.as_tensor(groups.distance),
            torch.as_tensor(groups.level),
            torch.as_tensor(spectrum).sqrt(),
            (slices, rows, columns),
        )

    def corners(self) -> Tensor:
        """Return slice, row and column of each block's first voxel, [N, blocks, 3]."""
        _, rows, columns = self.shape
        index = self.index.long()
        at = index // (rows * columns), index // columns % rows, index % columns
        return torch.stack(at, -1)

    def part(self, selection: slice | Tensor) -> Places:
        """Select some of the groups."""
        return replace(
            self,
            index=self.index[selection],
            distance=self.distance[selection],
            sigma=self.sigma[selection],
        )

    def voxels(self) -> Tensor:
        """Return the flat places of all voxels, [N, blocks, 64]."""
        _, rows, columns = self.shape
        index = self.index.long()
        return index[..., None] + box((SIDE, SIDE, SIDE), rows, columns, index.device)

    def scale(self) -> Tensor:
        """Return the deviation of the noise in each coefficient, [N, 1, 64]."""
        return (self.sigma[:, None] * self.root)[:, None]


def coefficients(blocks: Tensor, scale: Tensor, transform: Tensor) -> Tensor:
    """Compute coefficients of blocks over the noise's deviation, [N, blocks, 64].

    Args:
        blocks: [N, blocks, 64], voxels.
        scale: [N, 1, 64], from `Places.scale`.
        transform: [64, 64], voxels → coefficients.
    """
    return (blocks @ transform.T).div_(scale)


def regional(sums: Tensor, places: Places) -> Tensor:
    """Sum a guide's agreement over the groups around each group, [N, 12].

    Only groups of the same layer, so that slabs do not matter. sums: of each group, [N, 12].
    """
    slices, rows, columns = places.corners()[:, 0].T
    rows, columns = rows // STEP, columns // STEP
    layers, layer = torch.unique(slices, return_inverse=True)
    shape = (len(layers), int(rows.max()) + 1, int(columns.max()) + 1)
    grid = sums.new_zeros((*shape, sums.shape[-1]))
    grid.index_put_((layer, rows, columns), sums, accumulate=True)
    size = 2 * _REACH + 1
    around = F.avg_pool2d(grid.permute(0, 3, 1, 2), size, stride=1, padding=_REACH) * size**2
    return around.permute(0, 2, 3, 1)[layer, rows, columns]


@dataclass(frozen=True, eq=False)
class Residual:
    """Output of networks: corrections to the blocks of groups.

    Attributes:
        unguided: [N, blocks, 64], in coefficients over the noise's deviation.
        correction: the same, of the guides; None without.
        weight: [N, blocks], of each block where blocks overlap.
    """

    unguided: Tensor
    correction: Tensor | None
    weight: Tensor


class GuidedNetwork(torch.nn.Module):
    """The set network with its correction by a guide, as a bundle contains it.

    Attributes:
        transform, taper: tables that are moved to a device with the weights.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.network, self.correction = GroupNetwork(config), GuidedCorrection(config)
        self.register_buffer("transform", COSINES, persistent=False)
        self.register_buffer("taper", torch.from_numpy(TAPER), persistent=False)

    def groups(
        self,
        places: Places,
        voxels: Tensor,
        noisy: Tensor,
        pilot: Tensor,
        estimate: Tensor,
        top: float,
    ) -> Groups:
        """Compute coefficients of groups from slabs.

        Args:
            places: of the blocks.
            voxels: [N, blocks, 64], their indices in the slab.
            noisy: slab of the input.
            pilot: slab after the filter's next to last round.
            estimate: slab after its last round, in which the groups were found.
            top: intensity of bright tissue in all slabs.
        """
        scale, transform = places.scale(), self.get_buffer("transform")
        sigma = places.sigma
        blocks, noisy_blocks, pilot_blocks = (
            gather_blocks(each, voxels) for each in (estimate, noisy, pilot)
        )
        return Groups(
            from_noisy=coefficients(noisy_blocks - blocks, scale, transform),
            from_pilot=coefficients(pilot_blocks - blocks, scale, transform),
            estimate=coefficients(blocks, scale, transform),
            distance=places.distance / (CELLS * sigma[:, None].square()),
            level=(sigma / top).clamp_min(_LEAST_LEVEL),
        )

    def fit(self, groups: Groups, places: Places, voxels: Tensor, guide: Tensor) -> Fit:
        """Fit a guide to the groups; blocks outside its field of view have no effect.

        Args:
            groups: of the volume.
            places: of their blocks.
            voxels: [N, blocks, 64], their indices in the slab.
            guide: slab with bright tissue at 1, NaN outside its field of view.
        """
        scale = (places.root * groups.level[:, None])[:, None]
        blocks = coefficients(gather_blocks(guide, voxels), scale, self.get_buffer("transform"))
        # One NaN voxel makes all coefficients of its block NaN.
        is_seen = ~blocks[..., 0].isnan().any(-1)
        blocks = blocks.masked_fill(~is_seen[:, None, None], 0)
        fitted = fit(groups, blocks, self.correction.get_buffer("band"))
        seen = is_seen.to(fitted.sums.dtype)
        sums = fitted.sums * seen[:, None, None]
        return replace(fitted, shows=fitted.shows * seen, sums=sums, region=sums.sum(1))

    def forward(self, groups: Groups, guides: Sequence[Fit]) -> Residual:
        """Compute the residuals of groups; guides: fitted to them, with sums over their region."""
        unguided, log_weight, features = self.network(groups)
        weight = torch.exp(log_weight.float().clamp(-_MOST_WEIGHT, _MOST_WEIGHT))
        unguided = unguided.float()
        if not guides:
            return Residual(unguided, None, weight)
        parts = [self.correction(features, groups, guide) for guide in guides]
        if len(parts) == 1:
            return Residual(unguided, parts[0][0].float(), weight)
        # Guides count by how far their gates are open.
        gates = torch.stack([gate.float() for _, gate in parts])
        shares = gates / gates.sum(0).clamp_min(1e-6)
        corrections = torch.stack([correction.float() for correction, _ in parts])
        return Residual(unguided, (shares[..., None] * corrections).sum(0), weight)

    def blocks(self, residual: Tensor, weight: Tensor, places: Places) -> Tensor:
        """Compute the voxels of weighted and tapered blocks, [N, blocks, 64].

        Args:
            residual: [N, blocks, 64], in coefficients.
            weight: [N, blocks].
            places: of the blocks.
        """
        table = places.root[:, None] * self.get_buffer("transform") * self.get_buffer("taper")
        return (residual * (weight * places.sigma[:, None])[..., None]) @ table

    def aggregated(
        self, residual: Tensor, weight: Tensor, places: Places, voxels: Tensor
    ) -> Tensor:
        """Average `blocks` over each voxel of a slab, differentiable.

        Args:
            residual: [N, blocks, 64], in coefficients.
            weight: [N, blocks].
            places: of the blocks.
            voxels: [N, blocks, 64], their indices in the slab.
        """
        blocks = self.blocks(residual, weight, places)
        share = weight[..., None] * self.get_buffer("taper")
        size = int(np.prod(places.shape))
        flat = voxels.reshape(-1)
        total = blocks.new_zeros(size).scatter_add(0, flat, blocks.reshape(-1))
        over = blocks.new_full((size,), 1e-6).scatter_add(0, flat, share.reshape(-1))
        mean: Tensor = total / over
        return mean.reshape(places.shape)


@lru_cache(maxsize=4)
def network_of(weights: SetWeights) -> GuidedNetwork:
    """Build the network with some weights; those that they lack, of guides, are new."""
    network = GuidedNetwork(weights.config)
    try:
        network.load_state_dict(network.state_dict() | tensors_of(weights))
    except RuntimeError as cause:
        raise ModelError("the model's weights for guides do not fit", "Import it again.") from cause
    return network.eval().requires_grad_(False)


def tensors_of(weights: SetWeights) -> dict[str, Tensor]:
    """Return weights as tensors, by the names in a bundle."""
    return {name: torch.from_numpy(values) for name, values in weights.tensors.items()}
