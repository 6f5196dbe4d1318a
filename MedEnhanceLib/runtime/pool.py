"""Threads of MedEnhance's own, and the one rule for all of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from MedEnhanceLib.runtime.machine import blas_on_one_thread, openmp_on_one_thread

Outcome = TypeVar("Outcome")


class Pool(ThreadPoolExecutor):
    """Threads that compute: libraries that they call add no threads of their own.

    BLAS is limited in the whole process, but only while a call runs: between calls, and after the
    last one, a user's code has its threads again. OpenMP is limited in the pool's threads alone.
    """

    def __init__(self, threads: int, name: str) -> None:
        """Take the number of threads, and the start of their names."""
        super().__init__(threads, name, openmp_on_one_thread)

    def submit(
        self, function: Callable[..., Outcome], /, *args: Any, **options: Any
    ) -> Future[Outcome]:
        """Have a thread call the function."""
        return super().submit(blas_on_one_thread(function), *args, **options)
