"""A cancel is heard inside a network too: large slices take seconds on a CPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from MedEnhanceLib.runtime.progress import Monitor


@contextmanager
def stoppable(network: nn.Module, monitor: Monitor) -> Iterator[None]:
    """Meanwhile every layer of `network` begins with a safe point of `monitor`.

    For runs in this thread alone: another one may run the same network for another job.
    """
    thread = threading.get_ident()

    def look(*_: object) -> None:
        if threading.get_ident() == thread:
            monitor.check()

    layers = [module for module in network.modules() if not list(module.children())]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
