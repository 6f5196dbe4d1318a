"""Checkpoints of a training: one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from MedEnhanceLib.bundles.export import write_tensors
from MedEnhanceLib.errors import ConfigError, ModelError
from MedEnhanceLib.io.voxels import utf8_name

#: What reading a damaged file raises, besides the error of safetensors itself.
_DAMAGE = (OSError, KeyError, TypeError, ValueError, RecursionError)
_TORCH_RANDOM, _CUDA_RANDOM = "random.torch", "random.cuda"


class Stateful(Protocol):
    """A network, or anything else whose state is tensors with names."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Everything needed to continue."""

    def load_state_dict(self, state: Mapping[str, Tensor], /) -> Any:
        """Continue from such a state."""


def save_checkpoint(
    path: Path,
    *,
    step: int,
    config: Mapping[str, Any],
    modules: Mapping[str, Stateful],
    optimizers: Mapping[str, Optimizer],
    generator: np.random.Generator | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write everything a training needs to continue as if it had not stopped.

    Args:
        path: of the file, replaced as a whole.
        step: the next step.
        config: JSON; `load_checkpoint` demands the same.
        modules: networks and other states, by name.
        optimizers: by name.
        generator: of random numbers besides torch's.
        notes: JSON that does not influence what is learned, such as the time spent.
    """
    tensors = {_TORCH_RANDOM: torch.get_rng_state()}
    for name, module in modules.items():
        tensors |= {f"{name}/{key}": value for key, value in module.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}/{index}/{key}": value for key, value in state.items()}
    card = _card_of(tensors)
    if card is not None:
        tensors[_CUDA_RANDOM] = torch.cuda.get_rng_state(card)
    header = {
        "step": step,
        "config": dict(config),
        "random": generator.bit_generator.state if generator else None,
        "notes": dict(notes or {}),
    }
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_tensors(path, contiguous, {"medenhance": json.dumps(header)})


def load_checkpoint(
    path: Path,
    *,
    config: Mapping[str, Any],
    modules: Mapping[str, Stateful],
    optimizers: Mapping[str, Optimizer],
    generator: np.random.Generator | None = None,
    notes: dict[str, Any] | None = None,
) -> int:
    """Restore what `save_checkpoint` wrote, in place; `notes` is filled too.

    Returns:
        The step to continue with.
    Raises:
        ConfigError: the training was configured differently.
        ModelError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with utf8_name(path) as name, safe_open(name, framework="pt") as stored:
            header = json.loads(stored.metadata()["medenhance"])
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, *_DAMAGE) as cause:
        raise ModelError(
            f"{path}: the checkpoint is damaged ({cause})",
            "Delete it to start again, or choose another output folder.",
        ) from cause
    expected = json.loads(json.dumps(dict(config)))
    if header["config"] != expected:
        keys = sorted(expected.keys() | header["config"].keys())
        changed = [key for key in keys if header["config"].get(key) != expected.get(key)]
        raise ConfigError(
            f"{path}: it was made with another configuration ({', '.join(changed)})",
            "Resume with the same configuration, or choose another output folder.",
        )
    for name, module in modules.items():
        module.load_state_dict(_below(tensors, name))
    for name, optimizer in optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in _below(tensors, name).items():
            index, _, field = key.partition("/")
            state.setdefault(int(index), {})[field] = tensor
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )
    torch.set_rng_state(tensors[_TORCH_RANDOM])
    card = _card_of({k: v for m in modules.values() for k, v in m.state_dict().items()})
    if _CUDA_RANDOM in tensors and card is not None:
        torch.cuda.set_rng_state(tensors[_CUDA_RANDOM], card)
    if generator is not None:
        generator.bit_generator.state = header["random"]
    if notes is not None:
        notes.update(header.get("notes", {}))
    return int(header["step"])


def _card_of(tensors: Mapping[str, Tensor]) -> torch.device | None:
    """The CUDA device that holds tensors of a training; None for one on the CPU.

    Asking PyTorch whether there is a card would take memory on it for trainings on the CPU too.
    """
    return next((tensor.device for tensor in tensors.values() if tensor.is_cuda), None)


def _below(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = name + "/"
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
