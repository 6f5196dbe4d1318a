"""Trained peers, written from their publications: CycleGAN, CUT, Noise2Void and a paired U-Net.

All share the Enhancer's network, unguided. The low-quality domain of the two adversarial peers is
that of the test: volumes degraded by the recipe's mixture. See `Domains`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from _trained_common import Data, Peer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.hqg.config import TrainConfig
from MedEnhanceLib.hqg.network import make_discriminator
from MedEnhanceLib.hqg.train import losses
from MedEnhanceLib.hqg.train.pools import Pools

_CRITIC_RATE = 2e-4
_HISTORY = 50


class PairedUNet(Peer):
    """Upper bound: sees every degraded patch with its clean original, and nothing else.

    Its loss is that of the recipe's cycle: L1, gradient and structure at the recipe's weights.
    """

    shrinkage = True

    def loss_terms(self, number: int) -> dict[str, Tensor]:
        batch = self.pools.cycle_batch(self.rng)
        target = batch.target
        output = self.run(self.enhancer, batch.degraded)
        structure = losses.structure_loss(1.0 if self.config.modality == "MR" else 0.5)
        similarity = structure(as_slices(output[:, 1::4]), as_slices(target[:, 1::4]))
        return {
            "l1": F.l1_loss(output, target),
            "gradient": self.config.loss.gradient * losses.gradient_loss(output, target),
            "structure": self.config.loss.structure * similarity,
        }


class Noise2Void(Peer):
    """Blind spots: a pixel is predicted from its neighborhood in noisy slices alone.

    Source: Krull et al., CVPR 2019, arXiv 1811.10980. One pixel of each 8 × 8 cell is replaced by
    a random neighbor (5 × 5, its own slice) and has to be found again, mean squared error; the
    neighboring slices are seen whole, because their noise is independent. What comes out is the
    mean of noisy values, whose Rician bias is undone in use, as for the classical peers.
    """

    cell = 8
    radius = 2

    def loss_terms(self, number: int) -> dict[str, Tensor]:
        noisy = self.pools.cycle_batch(self.rng).degraded
        masked, where = self._blinded(noisy)
        predicted = self.run(self.enhancer, masked)
        return {"blind": 10 * (predicted - noisy)[where].square().mean()}

    def _blinded(self, noisy: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        slabs, depth, rows, columns = noisy.shape
        grid = np.indices((slabs, depth, rows // self.cell, columns // self.cell)).reshape(4, -1)
        count = grid.shape[1]
        corner = self.rng.integers(self.cell, size=(2, count))
        spot = grid[2:] * self.cell + corner
        # Never the pixel itself: of the 25 offsets the middle one is skipped.
        side = 2 * self.radius + 1
        offset = self.rng.integers(side * side - 1, size=count)
        offset += offset >= side * side // 2
        beside = np.stack(np.divmod(offset, side)) - self.radius + spot
        beside = np.where((beside < 0) | (beside >= rows), 2 * spot - beside, beside)
        where = tuple(torch.from_numpy(axis) for axis in (*grid[:2], *spot))
        source = tuple(torch.from_numpy(axis) for axis in (*grid[:2], *beside))
        masked = noisy.clone()
        masked[where] = noisy[source]
        return masked, where


class Domains:
    """Slabs of a low- and of a high-quality domain that do not belong together.

    The low-quality domain is made of the high-quality pool's subjects, degraded by the recipe's
    mixture; the two slabs of a step are of different subjects, and nothing shows which belong
    together. This is in the peers' favor: the recipe's only other subjects, its real
    low-quality scans, are of another contrast (spin echo, dark brain under bright fat), and
    what the adversary would teach from them is to change contrast, not to remove noise.
    """

    def __init__(self, config: TrainConfig, data: Data) -> None:
        clean = replace(config, degradations={"clean": 1.0})
        self.low = [Pools(config, volumes, ()) for volumes in data.high.values()]
        self.high = [Pools(clean, volumes, ()) for volumes in data.high.values()]

    def draw(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Degraded and clean slabs, [B, D, P, P] each, of different subjects."""
        second = int(rng.integers(len(self.high)))
        first = (second + int(rng.integers(1, max(2, len(self.low))))) % len(self.low)
        low = self.low[first].cycle_batch(rng).degraded
        high = self.high[second].cycle_batch(rng).target
        return low, high


class Critic:
    """A PatchGAN with least squares and a history of past images, taught as it is asked."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.network = make_discriminator()
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=_CRITIC_RATE, betas=(0.5, 0.999), fused=True
        )
        self._rng = rng
        self._past: list[Tensor] = []

    def teach(self, fake: Tensor, real: Tensor) -> None:
        """fake, real: [N, 1, P, P]."""
        fake = torch.stack([self._swapped(image) for image in fake.detach()])
        loss = self.scores(fake).square().mean() + (self.scores(real) - 1).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def deceived(self, fake: Tensor) -> Tensor:
        """The generator's loss: how far its images are from being taken for real."""
        self.network.requires_grad_(False)
        loss = (self.scores(fake) - 1).square().mean()
        self.network.requires_grad_(True)
        return loss

    def scores(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(images)[-1].float()
        return scores

    def _swapped(self, image: Tensor) -> Tensor:
        if len(self._past) < _HISTORY:
            self._past.append(image.clone())
            return image
        if self._rng.random() < 0.5:
            return image
        place = int(self._rng.integers(_HISTORY))
        past, self._past[place] = self._past[place], image.clone()
        return past


class CycleGan(Peer):
    """Two generators and two critics; what went there and back has to be as it was.

    Source: Zhu et al., ICCV 2017, arXiv 1703.10593. Its weights are cycle 10, identity 5. Here
    the network starts as the identity, at which both are zero, and under these weights it stayed
    there (after 50 steps its output was its input to 100 dB); so they are a fifth and a tenth.
    """

    betas = (0.5, 0.999)
    cycle, identity = 2.0, 0.5

    def parts(self) -> Iterable[nn.Module]:
        self.worsener = self.generator()
        self.critics = {name: Critic(self.rng) for name in ("high", "low")}
        self.domains = Domains(self.config, self.data)
        return (self.worsener,)

    def loss_terms(self, number: int) -> dict[str, Tensor]:
        low, high = self.domains.draw(self.rng)
        enhanced, same_high = self.run(self.enhancer, torch.cat([low, high])).chunk(2)
        worsened, same_low = self.run(self.worsener, torch.cat([high, low])).chunk(2)
        high_again = self.run(self.enhancer, worsened)
        low_again = self.run(self.worsener, enhanced)
        self.critics["high"].teach(as_slices(enhanced), as_slices(high))
        self.critics["low"].teach(as_slices(worsened), as_slices(low))
        return {
            "adversarial": self.critics["high"].deceived(as_slices(enhanced))
            + self.critics["low"].deceived(as_slices(worsened)),
            "cycle": self.cycle * (F.l1_loss(low_again, low) + F.l1_loss(high_again, high)),
            "identity": self.identity * (F.l1_loss(same_high, high) + F.l1_loss(same_low, low)),
        }


class Cut(Peer):
    """One generator and one critic; a patch of the output has to know its own patch of the input.

    Source: Park et al., ECCV 2020, arXiv 2007.15651. Features of the enhancer's own four encoder
    stages, 64 places of each slice, a projection for each stage, temperature 0.07; contrastive
    weight 1 on the low-quality and 1 on the high-quality domain (identity), as published.
    """

    betas = (0.5, 0.999)
    places, projected, temperature = 64, 64, 0.07

    def parts(self) -> Iterable[nn.Module]:
        self.projections = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, self.projected),
                nn.ReLU(),
                nn.Linear(self.projected, self.projected),
            )
            for width in self.config.network.widths
        )
        self.critic = Critic(self.rng)
        self.domains = Domains(self.config, self.data)
        return (self.projections,)

    def loss_terms(self, number: int) -> dict[str, Tensor]:
        low, high = self.domains.draw(self.rng)
        both = torch.cat([low, high])
        output = self.run(self.enhancer, both)
        enhanced, _ = output.chunk(2)
        self.critic.teach(as_slices(enhanced), as_slices(high))
        return {
            "adversarial": self.critic.deceived(as_slices(enhanced)),
            "contrast": 2 * self._contrast(output, both),  # a mean over both domains
        }

    def _contrast(self, output: Tensor, source: Tensor) -> Tensor:
        with self.autocast:
            ours, theirs = self.enhancer.encode(output), self.enhancer.encode(source)
        total = torch.zeros(())
        for projection, query, key in zip(self.projections, ours, theirs, strict=True):
            pixels = query.shape[2] * query.shape[3]
            chosen = torch.from_numpy(self.rng.permutation(pixels)[: self.places])
            queries, keys = (
                F.normalize(projection(values.float().flatten(2)[..., chosen].mT), dim=2)
                for values in (query, key)
            )
            similarity = queries @ keys.detach().mT / self.temperature
            answer = torch.arange(len(chosen)).expand(len(similarity), -1)
            total = total + F.cross_entropy(similarity.flatten(0, 1), answer.flatten())
        return total / len(ours)


def as_slices(slabs: Tensor) -> Tensor:
    """[B, D, P, P] → [B·D, 1, P, P]."""
    return slabs.flatten(0, 1)[:, None]
