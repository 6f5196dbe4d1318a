"""A pretended CUDA device of two cards, for machines without one.

Tensors claim to be on `cuda:0` or `cuda:1`; the CPU computes their values. What a real device
punishes raises here or shows in the values:

- tensors of two devices in one operation, and a generator of another device, raise;
- the target of a copy that does not block holds NaN (integers: 77) until the host, or for copies
  to the device the computing stream, has waited for the stream of the copy;
- what such a copy reads is read when it arrives: who overwrites it before is found out;
- memory that one stream made and another one uses without `record_stream` raises;
- a convolution or product of float32 while TF32 is allowed raises: nothing here is meant to use it;
- so does float64 where the cards are to have none, as Apple's GPUs.

Waits of the host and copies are counted with their place in MedEnhanceLib. Not shown: kernels, what
half precision gives on a GPU, the memory that is needed, NCCL, races between processes; see
docs/decisions/0009-slicer-stand-ins.md.

guard.py has to be loaded before the first `import torch` of the process.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
#: Operations whose result the host has to know before it goes on.
_WAITING = {
    aten._local_scalar_dense.default, aten.item.default, aten.is_nonzero.default,
    aten.equal.default, aten.nonzero.default, aten.masked_select.default,
    aten._unique2.default, aten.unique_consecutive.default,
}  # fmt: skip
_PRODUCTS = {
    aten.convolution.default, aten.convolution_backward.default, aten.mm.default,
    aten.addmm.default, aten.bmm.default, aten.baddbmm.default,
}  # fmt: skip
_INDEXING = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default,
}  # fmt: skip


@dataclass
class Counts:
    """What the host waited for and what it copied, by place in MedEnhanceLib.

    waits: of the host for a card. up, down: copies to and from cards. launches: operations on a
    card that are not views.
    """

    waits: Counter[str] = field(default_factory=Counter)
    up: Counter[str] = field(default_factory=Counter)
    down: Counter[str] = field(default_factory=Counter)
    bytes_up: int = 0
    bytes_down: int = 0
    launches: int = 0


class _Cards:
    """State of the pretended driver."""

    def __init__(self) -> None:
        self.current = 0
        # As on a real card, its first stream lasts as long as the process: what is kept from one
        # test to the next, such as tables of the code, stays of this stream.
        self.streams: dict[int, Stream] = getattr(self, "streams", {})
        for stream in self.streams.values():
            stream.coming.clear()
        self.pinned: set[int] = set()
        self.counts = Counts()
        self.free = [MEMORY] * CARDS
        self.released = 0
        self.without_kernels: set[int] = set()
        self.capability = (9, 0)
        self.has_double = True

    def index(self, device: Any) -> int:
        if device is None:
            return self.current
        if isinstance(device, int):
            return device
        index = torch.device(device).index
        return self.current if index is None else index

    def stream(self, device: Any = None) -> Stream:
        """The current stream of a card."""
        index = self.index(device)
        if index not in self.streams:
            self.streams[index] = Stream(index)
        return self.streams[index]


cards = _Cards()


class Stream:
    """Work on a card in order. All but copies that do not block is done at once."""

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        self.device = torch.device("cuda", cards.index(device))
        # (whether to the host, deliver): copies that have not arrived
        self.coming: list[tuple[bool, Callable[[], None]]] = []

    def arrive(self, copies: list[tuple[bool, Callable[[], None]]], *, on_host: bool) -> None:
        """Deliver those of the copies that are still coming; those to the host if it waits."""
        for copy in [copy for copy in copies if copy in self.coming]:
            is_to_host, deliver = copy
            if on_host or not is_to_host:
                deliver()
                self.coming.remove(copy)

    def wait_stream(self, other: Stream) -> None:
        other.arrive(list(other.coming), on_host=False)

    def wait_event(self, event: Event) -> None:
        event.arrive(on_host=False)

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        _count_wait("Stream.synchronize")
        self.arrive(list(self.coming), on_host=True)

    def query(self) -> bool:
        return not self.coming

    def __deepcopy__(self, _: Any) -> Stream:  # a copied tensor is of the same stream
        return self


class Event:
    """A point in the work of a stream: of the current card's, where none is named."""

    def __init__(self, **_: Any) -> None:
        self._stream: Stream | None = None
        self._before: list[tuple[bool, Callable[[], None]]] = []

    def record(self, stream: Stream | None = None) -> None:
        self._stream = stream or cards.stream()
        self._before = list(self._stream.coming)

    def arrive(self, *, on_host: bool) -> None:
        if self._stream is not None:
            self._stream.arrive(self._before, on_host=on_host)

    def synchronize(self) -> None:
        _count_wait("Event.synchronize")
        self.arrive(on_host=True)

    def query(self) -> bool:
        return self._stream is None or not any(c in self._stream.coming for c in self._before)

    def elapsed_time(self, _: Event) -> float:
        return 1.0


class Claimed(torch.Tensor):
    """A tensor that claims to be on a card.

    held: its values, on the CPU. stream: that made its memory; None once others may use it too.
    """

    held: torch.Tensor
    made_on: Stream | None
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor, device: torch.device) -> Claimed:
        claimed = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device=device, requires_grad=False,
        )  # fmt: skip
        claimed.held, claimed.made_on = inner, cards.stream(device)
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

    def record_stream(self, stream: Stream) -> None:
        self.made_on = None

    def tolist(self) -> Any:
        _count_wait("tolist")
        return self.held.tolist()

    def __repr__(self) -> str:
        return f"Claimed({self.device}, {tuple(self.shape)}, {self.dtype})"


class _Mode(TorchDispatchMode):
    """Sees operations that make tensors on a card or copy to one: no argument is on it yet."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatched(func, args, kwargs or {}, self)


def _dispatched(func: Any, args: Any, kwargs: Any, mode: Any = None) -> Any:
    """Take an operation apart as far as PyTorch does, then do it."""
    is_composite = torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), "CompositeImplicitAutograd"
    )
    if func is not _SHALLOW and is_composite:
        with mode or contextlib.nullcontext():
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
    return _done(func, args, kwargs)


def _done(func: Any, args: Any, kwargs: Any) -> Any:
    if func is _SHALLOW:
        return False
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    target = _target(func, args, kwargs, tensors)
    on_cards = [tensor for tensor in tensors if isinstance(tensor, Claimed)]
    if func is aten._pin_memory.default:
        return _pinned(args[0].clone())
    if func is aten.is_pinned.default:
        return args[0].untyped_storage().data_ptr() in cards.pinned
    if on_cards or target.type == "cuda":
        _refuse_what_fails(func, kwargs, target, on_cards)
        if func in _WAITING or (func in _INDEXING and _has_mask(args[1])):
            _count_wait(str(func))
        for tensor in on_cards:  # work on the same stream is in order
            here = cards.stream(tensor.device)
            here.arrive(list(here.coming), on_host=False)
    if func in _COPIES and on_cards and target.type == "cpu":
        return _copied_down(func, args, kwargs)
    if target.type == "cpu":
        wants_pinned = kwargs.get("pin_memory")
        with _disable_current_modes():
            made = func(*args, **{**kwargs, **({"pin_memory": False} if wants_pinned else {})})
        return _pinned(made) if wants_pinned else made
    if func in _COPIES and tensors[-1].device.type == "cpu":
        return _copied_up(func, args, kwargs, target)
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
            raise RuntimeError(f"indices on a card for a tensor on the CPU at {place()}")
        for index in indices:
            if not isinstance(index, Claimed) and any(isinstance(t, Claimed) for t in rest):
                _count_copy("up", index)
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
        found = ", ".join(sorted(map(str, devices)))
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {found}: {func} at {place()}"
        )
    return devices.pop() if devices else torch.device("cpu")


def _refuse_what_fails(
    func: Any, kwargs: Any, target: torch.device, on_cards: list[Claimed]
) -> None:
    if target.type == "cuda" and target.index >= CARDS:
        raise RuntimeError(f"CUDA error: invalid device ordinal at {place()}")
    if target.type == "cuda" and target.index in cards.without_kernels:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")
    if func in _PRODUCTS and on_cards[0].dtype == torch.float32:
        allowed: Any = torch.backends.cudnn if "conv" in func.name() else torch.backends.cuda.matmul
        if allowed.allow_tf32:
            raise RuntimeError(f"float32 is rounded to TF32 by {func} at {place()}")
    types = (kwargs.get("dtype"), *(tensor.dtype for tensor in on_cards))
    if not cards.has_double and torch.float64 in types:
        raise TypeError(f"no float64 on this device: {func} at {place()}")
    generator = kwargs.get("generator")
    if generator is not None and generator.device != target:
        raise RuntimeError(
            f"Expected a '{target}' generator but found '{generator.device}' at {place()}"
        )
    for tensor in on_cards:
        maker = tensor.made_on
        if maker is not None and maker is not cards.stream(tensor.device):
            raise RuntimeError(
                f"memory of another stream is used without record_stream by {func} at {place()}"
            )


def _has_mask(indices: Any) -> bool:
    return any(
        isinstance(index, Claimed) and index.dtype in (torch.bool, torch.uint8)
        for index in tree_leaves(indices)
    )


def _copied_down(func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    """From a card to the CPU: without blocking if asked to, into pinned memory."""
    if func is aten.copy_.default:
        into, source = args[0], args[1]
        is_async = bool(args[2]) if len(args) > 2 else bool(kwargs.get("non_blocking"))
        values = source.held.to(into.dtype)
    else:
        source, is_async = args[0], False  # its memory is not pinned
        rest = {key: value for key, value in kwargs.items() if key != "device"}
        values = into = func(source.held, **rest)
        if into is source.held:
            values = into = into.clone()
    _count_copy("down", into)
    if is_async and into.untyped_storage().data_ptr() in cards.pinned:
        values = values.clone()  # the device goes on with its memory after the copy
        _spoil(into)
        cards.stream(source.device).coming.append((True, lambda: into.copy_(values)))
        return into
    _count_wait("copy to the CPU")
    if func is aten.copy_.default:
        with _disable_current_modes():
            into.copy_(values)
    return into


def _copied_up(func: Any, args: Any, kwargs: Any, target: torch.device) -> torch.Tensor:
    """From the CPU to a card: without blocking out of pinned memory if asked to."""
    is_into = func is aten.copy_.default
    source: torch.Tensor = args[1] if is_into else args[0]
    is_async = bool(kwargs.get("non_blocking")) or (is_into and len(args) > 2 and bool(args[2]))
    is_pinned = source.untyped_storage().data_ptr() in cards.pinned
    _count_copy("up", source)
    if is_into:
        result = args[0]
    else:
        rest = {**kwargs, "device": torch.device("cpu")}
        with _disable_current_modes():
            inner = func(source, **rest)
            result = Claimed(inner.clone() if inner is source else inner, target)
    inner = result.held

    def deliver() -> None:
        with _disable_current_modes():
            inner.copy_(source)

    if is_async and is_pinned:
        _spoil(inner)
        cards.stream(target).coming.append((False, deliver))
    else:
        deliver()
    return result


def _computed(
    func: Any, args: Any, kwargs: Any, target: torch.device, on_cards: list[Claimed]
) -> Any:
    is_between_cards = func is aten.copy_.default or len({t.device for t in on_cards}) > 1
    if func is aten._to_copy.default and on_cards[0].device != target:
        is_between_cards = True
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    unwrap = lambda x: x.held if isinstance(x, Claimed) else x  # noqa: E731
    with _disable_current_modes():
        result = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    wrapped = tree_map(lambda x: Claimed(x, target) if isinstance(x, torch.Tensor) else x, result)
    is_view = func.is_view
    if not is_view:
        cards.counts.launches += 1
    if not on_cards or (is_between_cards and func is aten._to_copy.default):
        return wrapped
    if func._schema.is_mutable:
        return _same(func, args, kwargs, wrapped)
    if is_view:
        made = return_and_correct_aliasing(func, args, kwargs, wrapped)
        for leaf in tree_leaves(made):
            if isinstance(leaf, Claimed):
                leaf.made_on = on_cards[0].made_on
        return made
    return wrapped


def _same(func: Any, args: Any, kwargs: Any, wrapped: Any) -> Any:
    """What an operation in place returns: the tensors that it wrote to."""
    try:
        return return_and_correct_aliasing(func, args, kwargs, wrapped)
    except RuntimeError:  # of operations that write to some of several results
        return args[0]


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    cards.pinned.add(tensor.untyped_storage().data_ptr())
    return tensor


def _spoil(values: torch.Tensor) -> None:
    with _disable_current_modes():
        values.fill_(float("nan") if values.is_floating_point() else 77)


def _count_wait(why: str) -> None:
    cards.counts.waits[f"{place()} {why}"] += 1


def _count_copy(kind: str, tensor: torch.Tensor) -> None:
    counts = cards.counts
    size = tensor.numel() * tensor.element_size()
    if kind == "up":
        counts.up[place()] += 1
        counts.bytes_up += size
    else:
        counts.down[place()] += 1
        counts.bytes_down += size


def place() -> str:
    """Where in MedEnhanceLib this is called from."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        _, found, path = frame.f_code.co_filename.rpartition("MedEnhanceLib/")
        if found:
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return "the test"


@contextlib.contextmanager
def _on_stream(stream: Stream | None) -> Iterator[None]:
    if stream is None:
        yield
        return
    index, current = stream.device.index, cards.current
    before = cards.stream(index)
    cards.streams[index], cards.current = stream, index
    try:
        yield
    finally:
        cards.streams[index], cards.current = before, current


def _properties(device: Any = None) -> SimpleNamespace:
    return SimpleNamespace(
        name="Pretended", total_memory=MEMORY, uuid=f"0000{cards.index(device)}",
        major=9, minor=0, multi_processor_count=132,
    )  # fmt: skip


def _release() -> None:
    cards.released += 1


def _set_device(device: Any) -> None:
    cards.current = cards.index(device)


_PATCHES: dict[str, Any] = {
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "_is_compiled": lambda: True,
    "_lazy_init": lambda: None,
    "device_count": lambda: CARDS,
    "current_device": lambda: cards.current,
    "set_device": _set_device,
    "get_device_name": lambda device=None: "Pretended",
    "get_device_properties": _properties,
    "get_device_capability": lambda device=None: cards.capability,
    "get_arch_list": lambda: ["sm_90"],
    "mem_get_info": lambda device=None: (cards.free[cards.index(device)], MEMORY),
    "memory_allocated": lambda device=None: 0,
    "max_memory_allocated": lambda device=None: 0,
    "reset_peak_memory_stats": lambda device=None: None,
    "set_per_process_memory_fraction": lambda fraction, device=None: None,
    "memory_reserved": lambda device=None: 0,
    "empty_cache": _release,
    "synchronize": lambda device=None: cards.stream(device).synchronize(),
    "Stream": Stream,
    "Event": Event,
    "stream": _on_stream,
    "current_stream": cards.stream,
    "is_bf16_supported": lambda including_emulation=True: True,
    "manual_seed": lambda seed: None,
    "manual_seed_all": lambda seed: None,
    "get_rng_state": lambda device="cuda": torch.zeros(16, dtype=torch.uint8),
    "set_rng_state": lambda state, device="cuda": None,
}


@contextlib.contextmanager
def pretended() -> Iterator[_Cards]:
    """Within it, PyTorch has two CUDA cards; gives their state, fresh."""
    kept = {name: getattr(torch.cuda, name) for name in _PATCHES}
    inference, pin, run = torch.inference_mode, torch.Tensor.pin_memory, threading.Thread.run

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
    torch.Tensor.pin_memory = lambda self, *_: _pinned(self.clone())  # type: ignore[method-assign, assignment]
    threading.Thread.run = run_with_mode  # type: ignore[method-assign]
    try:
        with _Mode():
            yield cards
    finally:
        threading.Thread.run = run  # type: ignore[method-assign]
        torch.inference_mode, torch.Tensor.pin_memory = inference, pin  # type: ignore[misc, method-assign]
        for name, value in kept.items():
            setattr(torch.cuda, name, value)
        torch._C._set_only_lift_cpu_tensors(False)
