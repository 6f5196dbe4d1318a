"""How a network is laid out on a device: where half the bits pay, and channels last."""

from __future__ import annotations

import torch
from torch import nn


def mixed_precision(device: str) -> torch.autocast:
    """For training: an autocast to bfloat16 where the device computes in it natively, else none.

    On a CPU without such instructions bfloat16 is emulated and slower than float32.
    """
    kind = device.partition(":")[0]
    if kind == "cuda":
        native = torch.cuda.is_bf16_supported()
    else:
        native = kind == "cpu" and _cpu_has_bfloat16()
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=native)


def inference_precision(device: str, *, half: bool = True) -> torch.autocast:
    """For use: float16 on CUDA, bfloat16 on a CPU that has it, else none.

    float16 has 10 bits of mantissa to bfloat16's 7, at the same speed: its errors are an eighth.
    Its range ends at 65504, which a caller has to look for; no CPU here computes in it.
    half: False for none.
    """
    kind = device.partition(":")[0]
    dtype = torch.float16 if kind == "cuda" else torch.bfloat16
    return torch.autocast(kind, dtype=dtype, enabled=half and computes_in_half(device))


def computes_in_half(device: str) -> bool:
    """Whether `inference_precision` halves the bits there."""
    kind = device.partition(":")[0]
    return kind == "cuda" or (kind == "cpu" and _cpu_has_bfloat16())


def _cpu_has_bfloat16() -> bool:
    """In hardware: oneDNN's own answer is yes wherever it can emulate it."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    tests = (getattr(torch.cpu, name, None) for name in _BFLOAT16)
    known = [bool(test()) for test in tests if test is not None]
    return any(known) if known else True


#: What newer versions of torch tell of x86 processors.
_BFLOAT16 = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def move(network: nn.Module, device: str) -> nn.Module:
    """The network on `device` with channels last, which convolutions there prefer."""
    # PyTorch's own stubs lack the overload with device and memory_format together.
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
