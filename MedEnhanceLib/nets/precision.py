"""Precision and memory layout of networks on a device: half precision, channels last."""

from __future__ import annotations

import torch
from torch import nn


def mixed_precision(device: str) -> torch.autocast:
    """Autocast for training: bfloat16 where the device supports it natively, else disabled.

    On a CPU without such instructions bfloat16 is emulated and slower than float32.
    """
    kind = device.partition(":")[0]
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported()
    else:
        native = kind == "cpu" and _cpu_has_bfloat16()
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=native)


def inference_precision(device: str, *, half: bool = True) -> torch.autocast:
    """Autocast for inference: float16 on CUDA, bfloat16 on a CPU that has it, else disabled.

    float16 has 10 bits of mantissa, bfloat16 has 7: errors are an eighth at the same speed. Values
    beyond 65504 overflow, which the caller has to check. half: False disables it.
    """
    kind = device.partition(":")[0]
    dtype = torch.float16 if kind == "cuda" else torch.bfloat16
    return torch.autocast(kind, dtype=dtype, enabled=half and computes_in_half(device))


def computes_in_half(device: str) -> bool:
    """Whether `inference_precision` uses half precision on the device."""
    kind = device.partition(":")[0]
    return kind == "cuda" or (kind == "cpu" and _cpu_has_bfloat16())


def _cpu_has_bfloat16() -> bool:
    """In hardware: oneDNN also answers yes where it emulates it."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # Newer versions of torch report these properties of x86 processors.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    known = [bool(getattr(torch.cpu, name)()) for name in names if hasattr(torch.cpu, name)]
    return any(known) if known else True


def move(network: nn.Module, device: str) -> nn.Module:
    """The network on `device` in the memory format channels last, which is faster there."""
    # PyTorch's own stubs lack the overload with device and memory_format together.
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
