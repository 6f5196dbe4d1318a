"""Runs a function over many items in threads; results come in order, whatever the threads do."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

_LOOK_SECONDS = 0.05
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
#: stopped: of the call that runs in a thread, the Event that says that nobody waits for it.
_call = threading.local()


def safe_point() -> None:
    """To be called now and then by work that takes long, in whichever thread it runs.

    Raises Cancelled in a call that `ordered_map` no longer waits for; else it does nothing. The
    user's own wish to stop is asked for in the user's own thread alone.
    """
    stopped = getattr(_call, "stopped", None)
    if stopped is not None and stopped.is_set():
        raise Cancelled("cancelled", "Nobody waits for this any more.")


def blas_on_one_thread() -> Any:
    """Let matrix products take one thread each, until `restore_original_limits` or `with` ends.

    They are small here, and many at a time: libraries that part each of them among all cores make
    their threads wait for each other (lossless encoding took twice as long, on two cores).
    """
    return require("threadpoolctl", purpose="Compression").threadpool_limits(1, user_api="blas")


def ordered_map(
    function: Callable[[Item], Outcome],
    items: Iterable[Item],
    *,
    threads: int,
    monitor: Monitor,
) -> Iterator[Outcome]:
    """Yield function(item) in the order of `items`; a few are under way at a time.

    Items are taken from `items` in the calling thread, so it may read a file.
    Stops at an exception once the calls under way are done. At a cancel they are not waited for:
    a block can take seconds, and what they give is dropped. Either way their next `safe_point`
    ends them. Matrix products take one thread each meanwhile.
    """
    stopped = threading.Event()

    def call(item: Item) -> Outcome:
        _call.stopped = stopped
        return function(item)

    waiting: deque[Future[Outcome]] = deque()
    limit = blas_on_one_thread()
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="medenhance")
    try:
        for item in items:
            monitor.check()
            waiting.append(pool.submit(call, item))
            if len(waiting) > 2 * threads:
                yield _outcome(waiting.popleft(), monitor)
        while waiting:
            yield _outcome(waiting.popleft(), monitor)
    finally:
        stopped.set()
        pool.shutdown(wait=not monitor.cancelled, cancel_futures=True)
        limit.restore_original_limits()


def _outcome(future: Future[Outcome], monitor: Monitor) -> Outcome:
    while True:
        monitor.check()
        try:
            return future.result(_LOOK_SECONDS if monitor.can_be_cancelled else None)
        except TimeoutError:
            if future.done():  # the call's own
                raise
