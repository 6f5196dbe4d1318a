"""Several processes that train one model, each on batches of its own, as torchrun starts them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from MedEnhanceLib.runtime.device import DeviceChoice, choose_device

#: For each other: the first one validates, calibrates and writes while the others wait.
_LONGEST_WAIT = timedelta(hours=2)


@dataclass(frozen=True)
class Processes:
    """One process among those of a training; alone, nothing here does anything.

    rank: its number; count: how many there are. All methods are called by all of them alike.
    """

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and tells of the training."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Make every gradient the mean of all processes'."""
        if self.count == 1:
            return
        gradients = [w.grad for w in parameters if w.grad is not None]
        flat = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def mean(self, values: Tensor) -> Tensor:
        """The mean of all processes' values; not finite where any of them is not."""
        if self.count > 1:
            distributed.all_reduce(values)
            values = values / self.count
        return values

    def any(self, wishes: Sequence[bool]) -> Sequence[bool]:
        """Which of the wishes any process has."""
        if self.count == 1:
            return wishes
        said = torch.tensor([float(wish) for wish in wishes], device=self.device)
        distributed.all_reduce(said)
        return [value > 0 for value in said.tolist()]

    def gather(self, state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """The states of all processes, in order."""
        mine = {name: tensor.cpu() for name, tensor in state.items()}
        if self.count == 1:
            return [mine]
        states: list[Any] = [None] * self.count
        distributed.all_gather_object(states, mine)
        return states


@contextmanager
def join_processes(wish: str) -> Iterator[tuple[Processes, DeviceChoice]]:
    """Meet the other processes of this training, where torchrun started several.

    wish: of a device, as `choose_device` takes it; each process takes a GPU of its own.
    """
    choice = choose_device(wish)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(device=choice.name), choice
        return
    if choice.name == "cuda":
        choice = DeviceChoice(f"cuda:{os.environ.get('LOCAL_RANK', '0')}", choice.reason)
        torch.cuda.set_device(choice.name)
    # Its functions take the group as default at import, which an optimizer does later: it would
    # then outlive its destruction, and its threads now and then abort the process that ends.
    importlib.import_module("torch.distributed.nn")
    backend = "nccl" if choice.name.startswith("cuda") else "gloo"
    distributed.init_process_group(backend, timeout=_LONGEST_WAIT)
    try:
        yield Processes(distributed.get_rank(), count, choice.name), choice
    finally:
        distributed.destroy_process_group()
