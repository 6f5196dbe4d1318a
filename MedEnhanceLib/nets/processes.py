"""Several processes started by torchrun that train one model, each on batches of its own."""

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

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.device import DeviceChoice, choose_device

#: Timeout: the first process validates, calibrates and writes while the others wait.
_LONGEST_WAIT = timedelta(hours=2)


@dataclass(frozen=True)
class Processes:
    """One of the processes of a training. With a single process all methods are no-ops.

    rank: number of this process. count: number of processes. Every method is collective: all
    processes call it.
    """

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over all processes."""
        if self.count == 1:
            return
        gradients = [w.grad for w in parameters if w.grad is not None]
        flat = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def mean(self, values: Tensor) -> Tensor:
        """The mean of the values over all processes; not finite where any of them is not."""
        if self.count > 1:
            distributed.all_reduce(values)
            values = values / self.count
        return values

    def any(self, flags: Sequence[bool]) -> Sequence[bool]:
        """Which of the flags are set in any process."""
        if self.count == 1:
            return flags
        counts = torch.tensor([float(flag) for flag in flags], device=self.device)
        distributed.all_reduce(counts)
        return [count > 0 for count in counts.tolist()]

    def gather(self, state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """The states of all processes, in order."""
        mine = {name: tensor.cpu() for name, tensor in state.items()}
        if self.count == 1:
            return [mine]
        states: list[Any] = [None] * self.count
        distributed.all_gather_object(states, mine)
        return states


def own_device(name: str) -> str:
    """The device of this process: of several on CUDA each has the card of its number.

    Raises ConfigError where there are more processes on this machine than cards.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or not name.startswith("cuda"):
        return name
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise ConfigError(
            f"process {number + 1} has no card: {count} on this machine",
            f"Start at most {count} processes on it (--nproc-per-node), or choose the CPU.",
        )
    return f"cuda:{number}"


@contextmanager
def join_processes(requested: str) -> Iterator[tuple[Processes, DeviceChoice]]:
    """Join the other processes of this training, where torchrun started several.

    requested: a device, for `choose_device`; each process takes a GPU of its own.
    """
    choice = choose_device(requested)
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(device=choice.name), choice
        return
    choice = DeviceChoice(own_device(choice.name), choice.reason)
    if choice.name.startswith("cuda"):
        torch.cuda.set_device(choice.name)
    # Imported before the group exists, as its functions bind the group as a default at import. Else
    # an optimizer imports it later, the group stays alive, and its threads can abort the exit.
    importlib.import_module("torch.distributed.nn")
    backend = "nccl" if choice.name.startswith("cuda") else "gloo"
    distributed.init_process_group(backend, timeout=_LONGEST_WAIT)
    try:
        yield Processes(distributed.get_rank(), count, choice.name), choice
    finally:
        distributed.destroy_process_group()
