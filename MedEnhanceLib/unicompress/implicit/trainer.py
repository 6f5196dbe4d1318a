"""Networks and optimisers of one training, and what a step of it does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.nets.checkpoint import load_checkpoint, save_checkpoint
from MedEnhanceLib.nets.precision import mixed_precision
from MedEnhanceLib.nets.training import set_learning_rate
from MedEnhanceLib.unicompress.implicit.config import ImplicitConfig
from MedEnhanceLib.unicompress.implicit.data import Blocks
from MedEnhanceLib.unicompress.implicit.distill import (
    distillation_loss,
    in_fixed_point,
    learns_jointly,
)
from MedEnhanceLib.unicompress.implicit.losses import (
    CUBE,
    cube_voxels,
    draw_cubes,
    pick,
    positions_of,
    reconstruction_loss,
)
from MedEnhanceLib.unicompress.implicit.model import Networks, Tokens
from MedEnhanceLib.unicompress.implicit.siren import Decoder

#: Vectors of each branch that the codebooks start from, at least, for each code.
_START_VECTORS = 64
#: Batches whose cells the encoders start from.
_START_BATCHES = 24
_WEIGHT_DECAY = 1e-4


@dataclass(frozen=True)
class Batch:
    """Blocks [B, 1, K, J, I] and where they are looked at: indices [B, N, 3], their centres in
    units [B, N, 3], their values [B, N].
    """

    blocks: Tensor
    thick: bool
    positions: Tensor
    wanted: Tensor


class Trainer:
    """Two parts, one count of steps: the teacher with the codebooks, then the student."""

    def __init__(self, config: ImplicitConfig, blocks: Blocks, device: str) -> None:
        torch.manual_seed(config.seed)
        self.config, self.blocks, self.device = config, blocks, device
        self.networks = Networks(config.token, config.teacher, config.student).to(device)
        if config.start_from:
            self._start_from(Path(config.start_from))
        first = (self.networks.tokeniser, self.networks.teacher)
        second = (self.networks.student, self.networks.lift)
        third = (self.networks.tokeniser, self.networks.student)
        self.optimisers = [
            torch.optim.AdamW(
                (weight for module in modules for weight in module.parameters()),
                lr=config.learning_rate,
                weight_decay=_WEIGHT_DECAY,
            )
            for modules in (first, second, third)
        ]
        self.autocast = mixed_precision(device)

    @property
    def steps(self) -> int:
        """Of both parts."""
        return self.config.teacher_steps + self.config.student_steps

    def _start_from(self, folder: Path) -> None:
        """Cross-domain distillation: begin as teacher and student of another domain."""
        from safetensors.torch import load_file

        path = folder / "checkpoint.safetensors"
        if not path.is_file():
            raise ModelError(f"{path}: no checkpoint to start from", "Name a training's folder.")
        state = {
            name.removeprefix("networks/"): tensor
            for name, tensor in load_file(path).items()
            if name.startswith("networks/")
        }
        own = self.networks.state_dict()
        if {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in state.items()}:
            raise ModelError(f"{path}: its networks have other sizes", "Use the same sizes.")
        self.networks.load_state_dict(state)

    def step(self, number: int) -> dict[str, float]:
        """One optimiser step; its loss terms. The same number does the same, resumed or not."""
        config = self.config
        rng = np.random.default_rng([config.seed, number])
        torch.manual_seed(int(rng.integers(2**62)))
        if number < config.teacher_steps:
            return self._teach(number, rng)
        number -= config.teacher_steps
        if number == 0 and not self.config.start_from:
            self.networks.start_student()
        if in_fixed_point(number / self.config.student_steps, self.config):
            self._round_codebooks()
        return self._distill(number, rng)

    def _teach(self, number: int, rng: np.random.Generator) -> dict[str, float]:
        config, total = self.config, self.config.teacher_steps
        start = 0 if config.start_from else round(config.warm_up * total)
        if number == 0 and not config.start_from:
            self._start_encoders(rng)
        if number == start and not config.start_from:
            self._start_codebooks(rng)
        batch = self.draw(rng)
        tokens = self.tokens(batch, rng, quantise=number >= start, learn=True)
        decoded = self.networks.teacher(tokens.low, tokens.high, batch.positions)
        terms = {"data": reconstruction_loss(decoded.values, batch.wanted, config.bands_weight)}
        terms["commitment"] = config.commitment * tokens.commitment
        return self._descend(0, number, total, terms)

    def _distill(self, number: int, rng: np.random.Generator) -> dict[str, float]:
        config = self.config
        share = number / config.student_steps
        jointly = learns_jointly(share, config)
        batch = self.draw(rng)
        with torch.set_grad_enabled(jointly):
            tokens = self.tokens(batch, rng, learn=jointly)
        student = self.networks.student
        student.fixed = in_fixed_point(share, config)
        decoded = student(tokens.low, tokens.high, batch.positions)
        if share < 1 - config.fixed - config.joint:
            with torch.no_grad():
                wise = self.networks.teacher(tokens.low, tokens.high, batch.positions)
            terms = distillation_loss(self.networks, decoded, wise, batch.wanted, share, config)
        else:
            terms = {"data": reconstruction_loss(decoded.values, batch.wanted, config.bands_weight)}
        if jointly:
            terms["commitment"] = config.commitment * tokens.commitment
        return self._descend(2 if jointly else 1, number, config.student_steps, terms)

    def _descend(
        self, part: int, number: int, total: int, terms: dict[str, Tensor]
    ) -> dict[str, float]:
        optimiser = self.optimisers[part]
        set_learning_rate(optimiser, self.config.learning_rate, number, total)
        loss = torch.stack(list(terms.values())).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        weights = [w for group in optimiser.param_groups for w in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(weights, 1.0))
        if not math.isfinite(norm):
            raise ModelError(
                f"the training diverged at step {number}", "Resume with a lower learning_rate."
            )
        optimiser.step()
        name = ("teacher", "student", "joint")[part]
        return {f"{name} {term}": float(value.detach()) for term, value in terms.items()}

    def draw(self, rng: np.random.Generator) -> Batch:
        """Blocks and coordinates of a step."""
        blocks, thick = self.blocks.draw(self.config.blocks, rng)
        blocks = blocks.to(self.device)
        cubes = draw_cubes(blocks, self.config.coordinates // CUBE, self.config.gradient_share)
        _, _, *extents = blocks.shape
        voxels = cube_voxels(cubes, (extents[0], extents[1], extents[2]))
        return Batch(blocks, thick, positions_of(voxels, thick=thick), pick(blocks, voxels))

    def tokens(
        self, batch: Batch, rng: np.random.Generator, *, quantise: bool = True, learn: bool = False
    ) -> Tokens:
        """Tokens of a batch, each block with a random number of layers."""
        tokeniser = self.networks.tokeniser
        used = rng.integers(1, tokeniser.refinements + 1, size=len(batch.blocks))
        with self.autocast:
            latents = tokeniser.encoders(batch.blocks, thick=batch.thick)
        return tokeniser.quantise(
            latents, torch.from_numpy(used).to(self.device), quantise=quantise, learn=learn
        )

    def _start_encoders(self, rng: np.random.Generator) -> None:
        """Principal components of blocks of every kind."""
        drawn = (self.blocks.draw(self.config.blocks, rng) for _ in range(_START_BATCHES))
        batches = [(blocks.to(self.device), thick) for blocks, thick in drawn]
        self.networks.tokeniser.encoders.start(batches)
        self.networks.start_values()

    @torch.no_grad()
    def _start_codebooks(self, rng: np.random.Generator) -> None:
        """k-means of what the encoders give for blocks of every kind."""
        tokeniser = self.networks.tokeniser
        found: list[list[Tensor]] = [[], []]
        wanted = _START_VECTORS * self.config.token.codes
        while sum(len(cells) for cells in found[0]) < wanted:
            blocks, thick = self.blocks.draw(self.config.blocks, rng)
            with self.autocast:
                latents = tokeniser.encoders(blocks.to(self.device), thick=thick)
            for branch, grid in enumerate(latents):
                found[branch].append(grid.float().flatten(2).transpose(1, 2).flatten(0, 1))
        for quantiser, cells in zip(tokeniser.quantisers, found, strict=True):
            quantiser.start(torch.cat(cells))  # type: ignore[operator]

    def _round_codebooks(self) -> None:
        """From here on codebooks are what the file of the model holds; again changes nothing."""
        for quantiser in self.networks.tokeniser.quantisers:
            quantiser.to_bytes()  # type: ignore[operator]

    @property
    def decoder(self) -> Decoder:
        """For people to look at: the student once it has begun, before that the teacher."""
        return self.networks.student

    def _parts(self) -> dict[str, Any]:
        return {
            "config": self.config.learned,
            "modules": {"networks": self.networks},
            "optimisers": dict(zip(("teacher", "student", "joint"), self.optimisers, strict=True)),
        }

    def save(self, path: Path, step: int, seconds: float) -> None:
        """Write a checkpoint from which `resume` goes on to the same state."""
        save_checkpoint(path, step=step, notes={"seconds": seconds}, **self._parts())

    def resume(self, path: Path) -> tuple[int, float]:
        """Restore a checkpoint: the step to go on with, and the seconds that were spent."""
        notes: dict[str, Any] = {}
        step = load_checkpoint(path, notes=notes, **self._parts())
        return step, float(notes.get("seconds", 0.0))
