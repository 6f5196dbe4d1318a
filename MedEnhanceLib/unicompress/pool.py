"""Runs a function over many items in threads; results come in order, whatever the threads do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from MedEnhanceLib.progress import Monitor

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def ordered_map(
    function: Callable[[Item], Outcome],
    items: Iterable[Item],
    *,
    threads: int,
    monitor: Monitor,
) -> Iterator[Outcome]:
    """Yield function(item) in the order of `items`; a few are under way at a time.

    Items are taken from `items` in the calling thread, so it may read a file.
    Stops at a cancel or an exception once the calls under way are done; none is left running.
    """
    waiting: deque[Future[Outcome]] = deque()
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="medenhance")
    try:
        for item in items:
            monitor.check()
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            monitor.check()
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
