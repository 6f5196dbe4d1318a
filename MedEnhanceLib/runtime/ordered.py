"""Runs over items in threads, with the results in the items' order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.runtime.machine import Pool
from MedEnhanceLib.runtime.progress import LOOK_SECONDS, Monitor

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
#: Per thread: `stopped`, the Event by which the running call learns that nobody waits for it.
_call = threading.local()


def safe_point() -> None:
    """Raise Cancelled in a call that `ordered_map` no longer waits for.

    Long work calls this now and then, in any thread. Whether the user cancelled is checked in the
    calling thread only.
    """
    stopped = getattr(_call, "stopped", None)
    if stopped is not None and stopped.is_set():
        raise Cancelled("cancelled", "Nobody waits for this any more.")


def ordered_map(
    function: Callable[[Item], Outcome],
    items: Iterable[Item],
    *,
    threads: int,
    monitor: Monitor,
) -> Iterator[Outcome]:
    """Call a function for items in several threads; yield the results in the items' order.

    An exception of a call is raised when its turn comes, after the calls under way have ended. A
    cancel waits for none, as a block can take seconds: their results are dropped. Either way
    their next `safe_point` ends them.

    Args:
        function: called in threads.
        items: taken in the calling thread, so that they may be read from a file.
        threads: calls at once; up to twice as many items are taken before one is yielded.
        monitor: may cancel, before each item.
    """
    stopped = threading.Event()

    def call(item: Item) -> Outcome:
        _call.stopped = stopped
        return function(item)

    waiting: deque[Future[Outcome]] = deque()
    pool = Pool(threads, "medenhance")
    is_left = False
    try:
        for item in items:
            monitor.check()
            waiting.append(pool.submit(call, item))
            if len(waiting) > 2 * threads:
                yield _outcome(waiting.popleft(), monitor)
        while waiting:
            yield _outcome(waiting.popleft(), monitor)
    except GeneratorExit:
        is_left = True  # perhaps by the garbage collector, which must not wait for threads
        raise
    finally:
        stopped.set()
        pool.shutdown(wait=not (is_left or monitor.cancelled), cancel_futures=True)


def ahead(items: Iterator[Item], count: int) -> Iterator[Item]:
    """Yield items that a thread takes from an iterator, up to `count` before they are asked for.

    An exception is raised at its turn. Whoever stops early waits for the item that is being made.
    """
    end = object()
    pool = Pool(1, "medenhance-ahead")
    try:
        waiting = deque(pool.submit(next, items, end) for _ in range(count))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(future: Future[Outcome], monitor: Monitor) -> Outcome:
    while True:
        monitor.check()
        try:
            return future.result(LOOK_SECONDS if monitor.can_be_cancelled else None)
        except TimeoutError:
            if future.done():  # the call's own
                raise
