"""A pretended CUDA device of two cards, for machines without one.

Tensors claim to be on `cuda:0` or `cuda:1`; the CPU computes their values. What a real device
punishes raises here:

- tensors of two devices in one operation, and a generator of another device;
- a third card, and a card for which this PyTorch has no kernels;
- a convolution or product of float32 while TF32 is allowed: nothing here is meant to use it.

A copy to the CPU that does not wait gives NaN until an event after it is synchronized. Copies,
waits and other operations are counted.

Not shown: kernels, what half precision gives on a GPU, several streams, the memory that is needed,
NCCL,
races between processes; see docs/decisions/0009-slicer-stand-ins.md.

guard.cpp has to be loaded before the first `import torch` of the process: see conftest.py.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
import torch._dynamo  # which asks at its import what CUDA offers: before there is any
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _disable_current_modes,
    return_and_correct_aliasing,
)
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
CARDS = 2
MEMORY = 8 << 30
_SHALLOW = aten._has_compatible_shallow_copy_type.default
_COPIES = {aten.copy_.default, aten._to_copy.default}
_PRODUCTS = {
    aten.convolution.default, aten.convolution_backward.default, aten.mm.default,
    aten.addmm.default, aten.bmm.default, aten.baddbmm.default,
}  # fmt: skip
#: They give numbers, or as many values as a mask has.
_WAITING = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default,
    aten._unique2.default, aten.equal.default,
}  # fmt: skip
_INDEXING = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default,
}  # fmt: skip


class _Cards:
    """State of the pretended driver.

    free: memory of each card. launches: operations on a card that are not views. sent, fetched:
    bytes that were copied to and from cards. waits: how often the program waited for a card: for a
    copy, or for a size that depends on values. released: how often cached memory was given back.
    without_kernels: cards that this PyTorch was not built for.
    """

    def __init__(self) -> None:
        self.current = 0
        self.free = [MEMORY] * CARDS
        self.launches = self.sent = self.fetched = self.waits = 0
        self.arriving: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.released = 0
        self.without_kernels: set[int] = set()

    def index(self, device: Any) -> int:
        """The number of a card; of the current one where none is named."""
        if isinstance(device, int):
            return device
        index = None if device is None else torch.device(device).index
        return self.current if index is None else index


cards = _Cards()


class Claimed(torch.Tensor):
    """A tensor that claims to be on a card; held: its values, on the CPU."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device) -> Claimed:
        claimed = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device=device, requires_grad=False,
        )  # fmt: skip
        claimed.held = inner
        return claimed

    def __tensor_flatten__(self) -> tuple[list[str], torch.device]:
        return ["held"], self.device  # for `Module.to`, which then keeps its parameters

    @staticmethod
    def __tensor_unflatten__(
        inner: dict[str, torch.Tensor], device: torch.device, *_: Any
    ) -> Claimed:
        return Claimed(inner["held"], device)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatched(func, args, kwargs or {})

    def untyped_storage(self) -> Any:
        return self.held.untyped_storage()

    def tolist(self) -> Any:
        return self.held.tolist()


class _Mode(TorchDispatchMode):
    """Sees operations that make tensors on a card or copy to one: no argument is on it yet."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatched(func, args, kwargs or {}, self)


def _dispatched(func: Any, args: Any, kwargs: Any, mode: Any = None) -> Any:
    """Take an operation apart as far as PyTorch does, then do it."""
    if func is _SHALLOW:
        return False
    if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        with mode or contextlib.nullcontext():
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    target = _target(func, args, kwargs, tensors)
    on_cards = [tensor for tensor in tensors if isinstance(tensor, Claimed)]
    if on_cards or target.type == "cuda":
        _refuse_what_fails(func, kwargs, target, on_cards)
    return _computed(func, args, kwargs, target, on_cards)


def _target(func: Any, args: Any, kwargs: Any, tensors: list[torch.Tensor]) -> torch.device:
    """Where the result is; raises where the arguments are on several devices."""
    rest = tensors
    if func in _INDEXING:  # indices on the CPU are copied
        indices = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, torch.Tensor)]
        rest = [tensor for tensor in tensors if all(tensor is not index for index in indices)]
        if not any(isinstance(tensor, Claimed) for tensor in rest) and any(
            isinstance(index, Claimed) for index in indices
        ):
            raise RuntimeError("indices on a card for a tensor on the CPU")
    asked = kwargs.get("device")
    if asked is not None:
        asked = torch.device(asked)
        return torch.device("cuda", cards.index(asked)) if asked.type == "cuda" else asked
    if func is aten.copy_.default:
        return tensors[0].device
    # A single number on the CPU is passed to the kernel by value.
    devices = {t.device for t in rest if t.dim() > 0 or isinstance(t, Claimed)}
    if len({d for d in devices if d.type == "cuda"}) > 1 or (
        func not in _COPIES and len(devices) > 1
    ):
        names = ", ".join(sorted(map(str, devices)))
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {names}: {func}"
        )
    return devices.pop() if devices else torch.device("cpu")


def _refuse_what_fails(
    func: Any, kwargs: Any, target: torch.device, on_cards: list[Claimed]
) -> None:
    if target.type == "cuda" and target.index >= CARDS:
        raise RuntimeError("CUDA error: invalid device ordinal")
    if target.type == "cuda" and target.index in cards.without_kernels:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
    if func in _PRODUCTS and on_cards[0].dtype == torch.float32:
        allowed: Any = torch.backends.cudnn if "conv" in func.name() else torch.backends.cuda.matmul
        if allowed.allow_tf32:
            raise RuntimeError(f"float32 is rounded to TF32 by {func}")
    generator = kwargs.get("generator")
    if generator is not None and generator.device != target:
        raise RuntimeError(f"Expected a '{target}' generator but found '{generator.device}'")


def _computed(
    func: Any, args: Any, kwargs: Any, target: torch.device, on_cards: list[Claimed]
) -> Any:
    """The result of an operation, which the CPU computes and the target claims."""
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    with _disable_current_modes():
        result = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        if func is aten._to_copy.default and result is _held(args[0]):
            result = result.clone()
        result = _counted(func, args, kwargs, result, target)
    if func is aten.copy_.default:
        return args[0]
    if target.type == "cpu":
        return result
    wrapped = tree_map(lambda x: Claimed(x, target) if isinstance(x, torch.Tensor) else x, result)
    cards.launches += not func.is_view
    is_moved = func is aten._to_copy.default and on_cards and on_cards[0].device != target
    if on_cards and not is_moved and (func._schema.is_mutable or func.is_view):
        return _aliased(func, args, kwargs, wrapped)
    return wrapped


def _counted(func: Any, args: Any, kwargs: Any, result: Any, target: torch.device) -> Any:
    """Count copies and waits; a copy to the CPU that does not wait arrives later."""
    source = args[1] if func is aten.copy_.default else args[0] if args else None
    is_from_card = isinstance(source, Claimed)
    if func not in _COPIES or is_from_card == (target.type == "cuda"):
        cards.waits += is_from_card and (func in _WAITING or _has_mask(func, args))
        return result
    is_async = kwargs.get("non_blocking", False) or (len(args) > 2 and args[2])
    if is_from_card:
        cards.fetched += result.nbytes
        cards.waits += not is_async
        if is_async:
            cards.arriving.append((result, result.clone()))
            result.fill_(torch.nan)
    else:
        cards.sent += result.nbytes
        cards.waits += not (is_async and getattr(source, "is_in_pinned_memory", False))
    return result


def _has_mask(func: Any, args: Any) -> bool:
    return func in _INDEXING and any(
        isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
    )


class _Event:
    """An event, before which copies to the CPU have no values."""

    def record(self, stream: Any = None) -> None:
        self._before, cards.arriving = cards.arriving, []

    def synchronize(self) -> None:
        for tensor, values in self._before:
            tensor.copy_(values)
        self._before = []


def _pinned(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
    copy = tensor.clone()
    copy.is_in_pinned_memory = True  # type: ignore[attr-defined]
    return copy


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Claimed) else value


def _aliased(func: Any, args: Any, kwargs: Any, wrapped: Any) -> Any:
    """A view, or what an operation in place returns: the tensors that it wrote to."""
    try:
        return return_and_correct_aliasing(func, args, kwargs, wrapped)
    except RuntimeError:  # of operations that write to some of several results
        return args[0]


def _release() -> None:
    cards.released += 1


def _set_device(device: Any) -> None:
    cards.current = cards.index(device)


_PATCHES: dict[str, Any] = {
    "Event": _Event,
    "current_stream": lambda device=None: None,
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "_is_compiled": lambda: True,
    "_lazy_init": lambda: None,
    "device_count": lambda: CARDS,
    "current_device": lambda: cards.current,
    "set_device": _set_device,
    "get_device_name": lambda device=None: "Pretended",
    "get_device_properties": lambda device=None: SimpleNamespace(
        uuid=f"0000{cards.index(device)}", major=9, name="Pretended"
    ),
    "get_device_capability": lambda device=None: (9, 0),
    "mem_get_info": lambda device=None: (cards.free[cards.index(device)], MEMORY),
    "empty_cache": _release,
    "reset_peak_memory_stats": lambda device=None: None,
    "max_memory_allocated": lambda device=None: 0,
    "synchronize": lambda device=None: None,
    "manual_seed": lambda seed: None,
    "manual_seed_all": lambda seed: None,
    "get_rng_state": lambda device="cuda": torch.zeros(16, dtype=torch.uint8),
    "set_rng_state": lambda state, device="cuda": None,
}  # fmt: skip


@contextlib.contextmanager
def pretended() -> Iterator[_Cards]:
    """Within it, PyTorch has two CUDA cards; gives their state, fresh."""
    kept = {name: getattr(torch.cuda, name) for name in _PATCHES}
    inference, run, pin = torch.inference_mode, threading.Thread.run, torch.Tensor.pin_memory

    def run_with_mode(thread: threading.Thread) -> None:
        torch._C._set_only_lift_cpu_tensors(True)  # this and modes belong to a thread
        with _Mode():
            run(thread)

    cards.__init__()  # type: ignore[misc]
    torch._C._ensureCUDADeviceGuardSet()
    torch._C._set_only_lift_cpu_tensors(True)
    for name, patch in _PATCHES.items():
        setattr(torch.cuda, name, patch)
    torch.inference_mode = lambda mode=True: torch.set_grad_enabled(not mode)  # type: ignore[assignment, misc]
    threading.Thread.run = run_with_mode  # type: ignore[method-assign]
    torch.Tensor.pin_memory = _pinned  # type: ignore[method-assign, assignment]
    try:
        with _Mode():
            yield cards
    finally:
        threading.Thread.run = run  # type: ignore[method-assign]
        torch.Tensor.pin_memory = pin  # type: ignore[method-assign]
        torch.inference_mode = inference  # type: ignore[misc]
        for name, value in kept.items():
            setattr(torch.cuda, name, value)
        torch._C._set_only_lift_cpu_tensors(False)
