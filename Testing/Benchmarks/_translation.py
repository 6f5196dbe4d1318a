"""Networks that others would train for a scanner: CUT and CycleGAN without pairs, one with pairs.

All are the residual U-Net of the library, in two dimensions, on one thread. Sources: arXiv
2007.15651 (CUT: adversary, and patches that stay at their place) and 1703.10593 (CycleGAN: there
and back again), with their weights of losses; without the pool of earlier images. Images are
[C, K, J, I]; 1 is the 99th percentile of tissue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain

import numpy as np
import torch
from _enhancement_data import Floats
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.learning.unet import ResidualUNet

_PATCH, _WIDTHS, _RATE = 96, (16, 32, 64), 2e-4
#: Of the contrastive loss: places of an image, features of each, temperature.
_PLACES, _FEATURES, _TEMPERATURE = 128, 64, 0.07
#: Weight of CycleGAN's cycles. Its optional loss of identity holds contrast as it is.
_CYCLE = 10.0
#: Patches of a step with pairs; weight of air.
_BATCH, _AIR = 4, 0.1
_TISSUE = 0.1


class Translator(ResidualUNet):
    """U-Net that changes the last of its channels; at first by nothing."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__(channels, _WIDTHS, depth=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the images, [B, 1, J, I]."""
        return x[:, -1:] + self.change(x)[:, None]

    def features(self, x: Tensor) -> list[Tensor]:
        """Return what each level on the way down sees of [B, C, J, I]."""
        found, x = [], self.first(x)
        for level, blocks in enumerate(self.down):
            x = blocks(x if level == 0 else self.shrink[level - 1](x))
            found.append(x)
        return found

    def applied(self, images: Floats) -> Floats:
        """Change a volume, slice by slice; returns [K, J, I], not negative."""
        slices = np.moveaxis(images, 1, 0).astype(np.float32)
        with torch.inference_mode():
            results = [self(torch.from_numpy(each[None].copy()))[0, 0].numpy() for each in slices]
        return np.maximum(np.stack(results), 0)


def _critic() -> nn.Module:
    """Make a discriminator of patches of 34 × 34 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 4, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(32, 64, 4, 2, 1), nn.InstanceNorm2d(64), nn.LeakyReLU(0.2),
        nn.Conv2d(64, 128, 4, 1, 1), nn.InstanceNorm2d(128), nn.LeakyReLU(0.2),
        nn.Conv2d(128, 1, 4, 1, 1),
    )  # fmt: skip


def train_cut(low: Sequence[Floats], good: Sequence[Floats], steps: int) -> Translator:
    """Train on pools without pairs, each image [1, K, J, I]."""
    torch.manual_seed(0)
    network, critic = Translator(), _critic()
    heads = nn.ModuleList(
        nn.Sequential(nn.Linear(width, _FEATURES), nn.ReLU(), nn.Linear(_FEATURES, _FEATURES))
        for width in _WIDTHS
    )

    def contrast(before: Tensor, after: Tensor) -> Tensor:
        """Tell each place of an image from the others, by its place in the source."""
        losses = []
        features = zip(heads, network.features(before), network.features(after), strict=True)
        for head, *both in features:
            at = torch.randperm(both[0][0, 0].numel())[:_PLACES]
            keys, queries = (F.normalize(head(each[0].flatten(1).T[at])) for each in both)
            logits = queries @ keys.detach().T / _TEMPERATURE
            losses.append(F.cross_entropy(logits, torch.arange(len(at))))
        return torch.stack(losses).mean()

    def losses(rng: np.random.Generator) -> Iterable[Tensor]:
        scan, other = _patches(low, rng), _patches(good, rng)
        made, same = network(scan), network(other)
        yield _is(critic(made), 1) + (contrast(scan, made) + contrast(other, same)) / 2
        yield (_is(critic(made.detach()), 0) + _is(critic(other), 1)) / 2

    _optimize((chain(network.parameters(), heads.parameters()), critic.parameters()), losses, steps)
    return network.eval()


def train_cyclegan(low: Sequence[Floats], good: Sequence[Floats], steps: int) -> Translator:
    """Train on pools without pairs, each image [1, K, J, I]."""
    torch.manual_seed(0)
    better, worse, of_good, of_low = Translator(), Translator(), _critic(), _critic()

    def losses(rng: np.random.Generator) -> Iterable[Tensor]:
        scan, other = _patches(low, rng), _patches(good, rng)
        made, scanned = better(scan), worse(other)
        cycle = F.l1_loss(worse(made), scan) + F.l1_loss(better(scanned), other)
        yield _is(of_good(made), 1) + _is(of_low(scanned), 1) + _CYCLE * cycle
        pairs = ((of_good, other, made), (of_low, scan, scanned))
        yield sum(_is(c(real), 1) + _is(c(fake.detach()), 0) for c, real, fake in pairs) / 2

    networks, critics = nn.ModuleList((better, worse)), nn.ModuleList((of_good, of_low))
    _optimize((networks.parameters(), critics.parameters()), losses, steps)
    return better.eval()


def train_paired(pairs: Sequence[Floats], steps: int) -> Translator:
    """Train on images whose last channel is the truth, for the one before it."""
    torch.manual_seed(0)
    network = Translator(len(pairs[0]) - 1)

    def losses(rng: np.random.Generator) -> Iterable[Tensor]:
        patches = torch.cat([_patches(pairs, rng) for _ in range(_BATCH)])
        truth = patches[:, -1:]
        weight = (truth > _TISSUE) + _AIR
        yield (weight * (network(patches[:, :-1]) - truth).square()).mean()

    _optimize((network.parameters(),), losses, steps)
    return network.eval()


def _patches(images: Sequence[Floats], rng: np.random.Generator) -> Tensor:
    """Draw the fullest of three patches of a volume, [1, C, J, I]."""
    image = images[rng.integers(len(images))]
    crops = []
    for _ in range(3):
        j, i = (int(rng.integers(max(1, side - _PATCH + 1))) for side in image.shape[2:])
        crops.append(image[:, rng.integers(image.shape[1]), j : j + _PATCH, i : i + _PATCH])
    crop = max(crops, key=lambda each: float((each[-1] > _TISSUE).mean()))
    rim = [(0, 0), *((0, _PATCH - side) for side in crop.shape[1:])]
    crop = np.pad(crop, rim, mode="symmetric")[..., :: rng.choice((-1, 1))]
    return torch.from_numpy(crop[None].astype(np.float32))


def _is(judged: Tensor, wanted: float) -> Tensor:
    return (judged - wanted).square().mean()


def _optimize(
    parameters: Sequence[Iterable[nn.Parameter]],
    losses: Callable[[np.random.Generator], Iterable[Tensor]],
    steps: int,
) -> None:
    """Take steps down the losses, each by parameters of its own; the rate ends at 0.

    losses: yields a loss of each; the next is asked for after the step down the one before.
    """
    rng, optimizers = np.random.default_rng(0), [
        torch.optim.Adam(each, _RATE, (0.5, 0.999)) for each in parameters
    ]  # fmt: skip
    for step in range(steps):
        for optimizer, loss in zip(optimizers, losses(rng), strict=True):
            optimizer.param_groups[0]["lr"] = _RATE * min(1, 2 * (1 - step / steps))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
