"""How a network is laid out on a device: where half the bits pay, and channels last."""

from __future__ import annotations

import torch
from torch import nn


def mixed_precision(device: str) -> torch.autocast:
    """An autocast to bfloat16 where the device computes in it natively, else one that does nothing.

    On a CPU without such instructions bfloat16 is emulated and slower than float32.
    """
    kind = device.partition(":")[0]
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported()
    elif kind == "cpu":
        native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    else:
        native = False
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=native)


def move(network: nn.Module, device: str) -> nn.Module:
    """The network on `device` with channels last, which convolutions there prefer."""
    # PyTorch's own stubs lack the overload with device and memory_format together.
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
