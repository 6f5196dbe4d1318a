"""Checkpoints of a training: one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from MedEnhanceLib.bundles.export import write_tensors
from MedEnhanceLib.errors import ConfigError, ModelError

#: Errors that reading a damaged file raises, besides that of safetensors.
_DAMAGE = (OSError, KeyError, TypeError, ValueError, RecursionError)
_TORCH_RANDOM, _CUDA_RANDOM = "random.torch", "random.cuda"


class Stateful(Protocol):
    """A network, or anything else whose state is tensors with names."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return everything needed to continue."""

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> Any:
        """Continue from such a state."""


@dataclass(frozen=True)
class Checkpoint:
    """Everything a training needs to continue as if it had not stopped.

    Attributes:
        path: of the file, replaced as a whole.
        config: JSON; a file with another one is refused.
        modules: networks and other states, by name.
        generator: of random numbers besides torch's.
    """

    path: Path
    config: Mapping[str, Any]
    modules: Mapping[str, Stateful]
    optimizers: Mapping[str, Optimizer]
    generator: np.random.Generator | None = None

    def save(self, step: int, notes: Mapping[str, Any]) -> None:
        """Write the file. step: the next one. notes: JSON that does not influence the training."""
        tensors = self._states() | {_TORCH_RANDOM: torch.get_rng_state()}
        for name, optimizer in self.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{name}/{index}/{key}": value for key, value in state.items()}
        if (card := self._card()) is not None:
            tensors[_CUDA_RANDOM] = torch.cuda.get_rng_state(card)
        header = {
            "step": step,
            "config": dict(self.config),
            "random": self.generator.bit_generator.state if self.generator else None,
            "notes": dict(notes),
        }
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_tensors(self.path, contiguous, {"medenhance": json.dumps(header)})

    def load(self) -> tuple[int, dict[str, Any]]:
        """Restore all states in place; returns the step to continue with, and the notes.

        Raises ConfigError: the training was configured differently.
        Raises ModelError: the file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        path = self.path
        try:
            with safe_open(path, framework="pt") as stored:
                header = json.loads(stored.metadata()["medenhance"])
                step, config, notes = int(header["step"]), header["config"], header["notes"]
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        except (SafetensorError, *_DAMAGE) as cause:
            raise ModelError(
                f"{path}: the checkpoint is damaged ({cause})",
                "Delete it to start again, or choose another output folder.",
            ) from cause
        expected = json.loads(json.dumps(dict(self.config)))
        if config != expected:
            keys = sorted(expected.keys() | config.keys())
            changed = [key for key in keys if config.get(key) != expected.get(key)]
            raise ConfigError(
                f"{path}: it was made with another configuration ({', '.join(changed)})",
                "Resume with the same configuration, or choose another output folder.",
            )
        for name, module in self.modules.items():
            module.load_state_dict(_below(tensors, name))
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in _below(tensors, name).items():
                index, _, field = key.partition("/")
                state.setdefault(int(index), {})[field] = tensor
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        torch.set_rng_state(tensors[_TORCH_RANDOM])
        if _CUDA_RANDOM in tensors and (card := self._card()) is not None:
            torch.cuda.set_rng_state(tensors[_CUDA_RANDOM], card)
        if self.generator is not None:
            self.generator.bit_generator.state = header["random"]
        return step, notes

    def _states(self) -> dict[str, Tensor]:
        return {
            f"{name}/{key}": value
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }

    def _card(self) -> torch.device | None:
        """Return the CUDA device of the states, if any; to ask torch.cuda would allocate memory."""
        return next((state.device for state in self._states().values() if state.is_cuda), None)


def _below(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = name + "/"
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
