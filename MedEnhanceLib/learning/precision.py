"""Networks and tensors on a device: half precision, TF32, memory layout, moving."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from MedEnhanceLib.runtime.shared_setting import SharedSetting

T = TypeVar("T")
#: Least compute capability of NVIDIA GPUs with bfloat16; on older ones PyTorch emulates it.
_BFLOAT16_SINCE = (8, 0)
#: Kinds of devices that do not compute in float64.
WITHOUT_DOUBLE = ("mps",)


def mixed_precision(device: str) -> torch.autocast:
    """Return autocast to bfloat16, disabled where not `computes_in_half`."""
    kind = device.partition(":")[0]
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=computes_in_half(device))


def computes_in_half(device: str) -> bool:
    """Test whether a device computes in bfloat16 natively; where emulated, float32 is faster."""
    kind = device.partition(":")[0]
    if kind == "cuda":
        return torch.cuda.get_device_capability(device) >= _BFLOAT16_SINCE
    return kind == "cpu" and cpu_has_bfloat16()


def allow_tf32(convolutions: Any, products: Any) -> tuple[Any, Any]:
    """Switch TF32 on or off; returns the earlier settings."""
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    try:  # the older names, which raise where another program used the newer ones
        before = cudnn.allow_tf32, matmul.allow_tf32
        cudnn.allow_tf32, matmul.allow_tf32 = bool(convolutions), bool(products)
    except RuntimeError:
        before = cudnn.conv.fp32_precision, matmul.fp32_precision
        cudnn.conv.fp32_precision = convolutions or "ieee"
        matmul.fp32_precision = products or "ieee"
    return before


#: TF32 off on NVIDIA GPUs, as a context or a decorator. cuDNN's default for convolutions is TF32,
#: with a mantissa of 10 bits. Distances between blocks, finite differences of losses and matched
#: gradients need more, in the backward pass too: whole runs are decorated.
without_tf32 = SharedSetting(lambda: partial(allow_tf32, *allow_tf32(False, False)))


def in_double(values: Tensor) -> Tensor:
    """Convert to float64 on the values' device, or on the CPU if it has none (Apple's GPUs)."""
    return (values.cpu() if values.device.type in WITHOUT_DOUBLE else values).double()


def cpu_has_bfloat16() -> bool:
    """Test for hardware support of bfloat16: oneDNN's own test is also true where it emulates."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # Newer versions of torch report these properties of x86 processors.
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    known = [bool(getattr(torch.cpu, name)()) for name in names if hasattr(torch.cpu, name)]
    return any(known) if known else True


def move(network: nn.Module, device: str) -> nn.Module:
    """Move the network to `device`; one over slices as channels last, which is faster."""
    if any(weights.dim() > 4 for weights in network.parameters()):  # in three dimensions
        return network.to(device)
    # PyTorch's own stubs lack the overload with device and memory_format together.
    return network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def on_device(value: T, device: str) -> T:
    """Move a dataclass of tensors to a device; on the CPU nothing is moved."""
    if device == "cpu":
        return value
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)  # type: ignore[return-value]
    if is_dataclass(value):
        moved = {each.name: on_device(getattr(value, each.name), device) for each in fields(value)}
        return replace(value, **moved)  # type: ignore[type-var]
    return value


def as_tensor(values: Any, device: str) -> Tensor:
    """Return an array or a tensor as float32 on a device; on the CPU its memory may be shared."""
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(np.require(values, np.float32, ["C", "W"]))
    return values.to(device)  # type: ignore[no-any-return]
