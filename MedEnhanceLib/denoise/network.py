"""The set network over groups of similar blocks, and its correction by a guide.

The last round of the block-matching filter gives an estimate E of the noisy Y, the round before a
pilot P. A group is a reference block of 4 × 4 × 4 voxels and the blocks most similar to it in E.
The network takes the blocks of a group as a set, in cosine coefficients over the deviation of the
noise, and computes the residual to add to each block of E. Its last layers begin at zero:
untrained it adds nothing.

    Y − E, P − E, E − mean of the group → three layers of mixing → residual, weight of each block

A guide is another series of the same examination. Its blocks at the same places are fitted to E
within the group. The cue is how far the guide agrees with Y − E: it is added to the features, and
opens or closes a gate for each block.

Sources: features of a high-quality image inserted, He et al., IEEE TNNLS 35 (2024), arXiv
2307.07829 (the idea; details are ours); sets of blocks, Zaheer et al., NeurIPS 2017; the filter,
see `filters.block_matching`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.denoise.bundle import changed_shares, orders
from MedEnhanceLib.denoise.config import NetworkConfig
from MedEnhanceLib.native import CELLS

# Models learn with these (decision 0047). Measured as a whole by Benchmarks/guidance.py.
#: Frequency bands in which a guide is compared with the noisy blocks.
BANDS = 4
#: Numbers of a guide's agreement: correlation, regression and energy in each band.
_EVIDENCE = 3 * BANDS
#: Evidence of the block, its group and its region; quality of the fit; level of the noise.
_FACTS = 3 * _EVIDENCE + 3 + 1
#: Share of the range below which a guide's variation counts as none.
_FLAT = 0.02
#: Factor on the part of a residual that is no multiple of an input: small steps at first.
_FREE_SHARE = 0.3


def bands() -> Tensor:
    """Return each frequency's band, [64, 4], 0 or 1: constant, sum of orders to 2, to 4, above."""
    order = orders()
    limits = [order == 0, (order > 0) & (order <= 2), (order > 2) & (order <= 4), order > 4]
    return torch.from_numpy(np.stack(limits, 1)).float()


def compressed(values: Tensor) -> Tensor:
    """Compress coefficients to sign(x) log(1 + |x|)."""
    return torch.log1p(values.abs()).copysign(values)


def gelu(values: Tensor) -> Tensor:
    """Compute GELU by tanh; in half precision exactly, which is thrice as fast on a CPU.

    The two differ by less than the rounding of half precision.
    """
    is_single = values.dtype == torch.float32
    return F.gelu(values, approximate="tanh" if is_single else "none")


class Mixing(nn.Module):
    """Layer that mixes the blocks of a group, ordered by distance, then each block's features."""

    def __init__(self, width: int, blocks: int, hidden: int) -> None:
        super().__init__()
        self.norm_of_set, self.norm_of_block = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix = nn.Parameter(torch.randn(blocks, blocks) * 0.02)
        self.after_mix = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        with torch.no_grad():
            self.after_mix.weight *= 0.3
            self.down.weight *= 0.5

    def forward(self, features: Tensor) -> Tensor:
        """Mix features, [N, blocks, width]."""
        # The mean of the group is mixed in by the same product.
        mix = self.mix + 1 / len(self.mix)
        features = features + self.after_mix(mix @ self.norm_of_set(features))
        inside = gelu(self.up(self.norm_of_block(features)))
        changed: Tensor = features + self.down(inside)
        return changed


@dataclass(frozen=True, eq=False)
class Groups:
    """Coefficients of N groups, [N, blocks, 64] each, over the noise's deviation in each frequency.

    Attributes:
        from_noisy: of the input minus the estimate.
        from_pilot: of the filter's next to last round minus the estimate.
        estimate: of its last round.
        distance: [N, blocks], mean squared difference to the reference in the estimate, in σ².
        level: [N], σ as a share of the range.
    """

    from_noisy: Tensor
    from_pilot: Tensor
    estimate: Tensor
    distance: Tensor
    level: Tensor


class GroupNetwork(nn.Module):
    """Network for residual and weight of each block; about 170,000 weights at the default size."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.width
        self.token = nn.Linear(3 * CELLS + 2, width)
        self.group = nn.Linear(3 * CELLS + 2, width)
        self.layers = nn.ModuleList(
            Mixing(width, config.blocks, config.hidden) for _ in range(config.layers)
        )
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 4 * CELLS + 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.leaves_some = config.least_order > 0
        changes = torch.from_numpy(changed_shares(config))
        self.register_buffer("changes", changes, persistent=False)

    def forward(self, groups: Groups) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the residual to add to the estimate.

        Returns residual [N, blocks, 64]; logarithm of each block's weight [N, blocks]; the last
        features [N, blocks, width].
        """
        from_noisy, from_pilot = groups.from_noisy, groups.from_pilot
        mean = groups.estimate.mean(1)
        deviation = 2 * (groups.estimate - mean[:, None])
        mean_residual = from_noisy.mean(1)
        far = torch.log1p(groups.distance)
        level = torch.log(10 * groups.level)[:, None]
        facts = torch.stack([far, level.expand_as(far)], -1)
        token = [from_noisy, 2 * from_pilot, compressed(deviation), facts]
        features = self.token(torch.cat(token, -1))
        # Without the constant coefficient, the brightness of the group, which must not matter.
        shape = torch.cat([torch.zeros_like(mean[:, :1]), mean[:, 1:]], -1)
        spread = torch.log1p(deviation.square().mean(1))
        group = [compressed(2 * shape), 2 * mean_residual, spread, far[:, -1:], level]
        features = features + self.group(torch.cat(group, -1))[:, None]
        for layer in self.layers:
            features = layer(features)
        features = self.norm(features)
        if features.device.type == "cpu":
            # Products with an even number of columns are faster: the weight is computed separately.
            gains = F.linear(features, self.out.weight[:-1], self.out.bias[:-1])
            log_weight = F.linear(features, self.out.weight[-1:], self.out.bias[-1:])
        else:
            output = self.out(features)
            gains, log_weight = output[..., :-1], output[..., -1:]
        free, noisy_gain, pilot_gain, mean_gain = gains.chunk(4, -1)
        residual = torch.addcmul(_FREE_SHARE * free, noisy_gain, from_noisy)
        residual = torch.addcmul(residual, pilot_gain, from_pilot)
        residual = torch.addcmul(residual, mean_gain, mean_residual[:, None])
        if self.leaves_some:
            residual = residual * self.get_buffer("changes")
        return residual, log_weight[..., 0], features


@dataclass(frozen=True, eq=False)
class Fit:
    """A guide's blocks, fitted to the estimate by one gain in each group.

    Attributes:
        difference: the fitted guide minus the estimate, both without the group's level, [N, blocks,
            64].
        scaled: the guide's blocks at unit power.
        quality: [N, 3]: correlation, correlation of detail, power of the guide.
        shows: [N], 0 to 1: whether the guide varies at all in this group.
        sums: of its agreement with each block, [N, blocks, 12].
        region: the same, added over the groups around each group, [N, 12].
    """

    difference: Tensor
    scaled: Tensor
    quality: Tensor
    shows: Tensor
    sums: Tensor
    region: Tensor


def fit(groups: Groups, guide: Tensor, band: Tensor) -> Fit:
    """Fit the guide's blocks; the region is the group alone, until `regional` sums over others.

    Args:
        groups: of the input.
        guide: [N, blocks, 64], in the same units as the estimate.
        band: [64, 4], from `bands`.
    """
    size = groups.estimate.shape[1] * CELLS
    floor = 0.05 * size * (_FLAT / groups.level).square()
    g, e = _without_level(guide), _without_level(groups.estimate)
    # Sums by frequency; then over all of them, and over all but the constant one.
    sums = [g.square().sum(1), e.square().sum(1), (g * e).sum(1)]
    gg, ee, ge = (block_sums.sum(-1) for block_sums in sums)
    hh, ff, hf = (block_sums[:, 1:].sum(-1) for block_sums in sums)
    correlation = ge / torch.sqrt((gg + floor) * (ee + floor))
    detail_correlation = hf / torch.sqrt((hh + floor) * (ff + floor))
    power = torch.log1p(gg / size)
    difference = (ge / (gg + floor))[:, None, None] * g - e
    # Sums of products and squares in each band, which can be added up over blocks.
    product = (groups.from_noisy * difference) @ band
    squares = [difference.square() @ band, groups.from_noisy.square() @ band]
    agreement = torch.cat([product, *squares], -1)
    return Fit(
        difference=difference,
        scaled=g / torch.sqrt(gg / size + 1e-2)[:, None, None],
        quality=torch.stack([correlation, detail_correlation, power], -1),
        # A constant guide varies only by rounding, which counts as 0.
        shows=torch.where(gg > 1e-6 * floor, gg / (gg + 1e-3 * floor), 0),
        sums=agreement,
        region=agreement.sum(1),
    )


def _without_level(blocks: Tensor) -> Tensor:
    """Subtract the mean of the group's constant coefficients."""
    level = blocks[..., :1].mean(1, keepdim=True)
    return blocks - F.pad(level, (0, CELLS - 1))


def evidence(sums: Tensor) -> Tensor:
    """Convert sums of a fit to correlation, regression and energy in four bands, [..., 12]."""
    product, guide_energy, noisy_energy = sums.reshape(*sums.shape[:-1], 3, BANDS).unbind(-2)
    correlation = product / torch.sqrt((guide_energy + 0.1) * (noisy_energy + 1))
    regression = (product / (guide_energy + 0.5)).clamp(-1, 2)
    return torch.cat([correlation, regression, torch.log1p(guide_energy)], -1)


class GuidedCorrection(nn.Module):
    """Network for a guide's part of the residual; about 120,000 weights at the default size."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.width
        self.register_buffer("band", bands(), persistent=False)
        self.token = nn.Linear(3 * CELLS, width)
        self.of_features = nn.Linear(width, width)
        self.cue = nn.Linear(_FACTS, width)
        self.layers = nn.ModuleList(
            Mixing(width, config.blocks, config.hidden) for _ in range(config.guide_layers)
        )
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * CELLS)
        self.gate_in, self.gate_out = nn.Linear(_FACTS, 32), nn.Linear(32, 1)
        self.gate_of_features = nn.Linear(width, 1)
        for layer in (self.out, self.gate_of_features):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features: Tensor, groups: Groups, fitted: Fit) -> tuple[Tensor, Tensor]:
        """Compute the correction of each block.

        Args:
            features: of `GroupNetwork`, [N, blocks, width].
            groups: of the input.
            fitted: the guide, fitted to them.
        Returns correction [N, blocks, 64]; how far the gate is open [N, blocks].
        """
        blocks, from_noisy = features.shape[1], groups.from_noisy
        group_evidence = [evidence(fitted.sums.sum(1)), evidence(fitted.region), fitted.quality]
        level = torch.log(10 * groups.level)[:, None]
        group = torch.cat([*group_evidence, level], -1)
        facts = torch.cat([evidence(fitted.sums), group[:, None].expand(-1, blocks, -1)], -1)
        token = [compressed(fitted.difference), compressed(fitted.scaled), from_noisy]
        hidden = self.token(torch.cat(token, -1)) + self.of_features(features)
        hidden = hidden + self.cue(facts)
        for layer in self.layers:
            hidden = layer(hidden)
        hidden = self.norm(hidden)
        free, guide_gain, noisy_gain = self.out(hidden).split(CELLS, -1)
        opening = self.gate_out(gelu(self.gate_in(facts)))
        gate = torch.sigmoid(opening + self.gate_of_features(hidden))
        gate = gate * fitted.shows[:, None, None]
        correction = torch.addcmul(_FREE_SHARE * free, guide_gain, fitted.difference)
        correction = torch.addcmul(correction, noisy_gain, from_noisy)
        return gate * correction, gate[..., 0]
