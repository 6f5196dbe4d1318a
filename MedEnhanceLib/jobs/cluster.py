"""Connections to Dask clusters that hold up no cancel."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from MedEnhanceLib.errors import Cancelled, MedEnhanceError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend

#: How long a scheduler may take to pass on a cancel, and as long to let go of the connection.
_LEAVE_SECONDS = 0.5


@contextmanager
def connected(address: str, monitor: Monitor) -> Iterator[Any]:
    """A connection to a Dask scheduler: a `distributed.Client`.

    Args:
        address: of the scheduler, for example "tcp://host:8786".
        monitor: neither the beginning nor the end holds up its cancel.
    Raises:
        DependencyError: dask.distributed is missing.
        MedEnhanceError: the scheduler does not answer.
    """
    distributed = require("dask.distributed", purpose="batch --scheduler")
    # A connection that is lost becomes an error of ours; Dask logs it too, with its traceback.
    for name in ("distributed.batched", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def connect() -> Any:
        return distributed.Client(address, timeout="15s", set_as_default=False)

    try:
        client = attend(connect, monitor)
    except (OSError, TimeoutError, ValueError) as cause:
        raise MedEnhanceError(
            f"the Dask scheduler {address} does not answer: {cause}",
            "Start one with: dask scheduler; and workers with: dask worker ADDRESS.",
        ) from cause
    try:
        yield client
    finally:
        soon(client.close)


def soon(call: Callable[[], Any]) -> bool:
    """Make a call that a scheduler may never answer; whether it did so at once."""
    end = time.monotonic() + _LEAVE_SECONDS
    with suppress(Cancelled):
        attend(call, Monitor(cancel=lambda: time.monotonic() > end))
        return True
    return False
