"""Dask clusters: reaching one, and distilling patients on its workers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.dependencies import require
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.spg.patient import PatientImages
    from MedEnhanceLib.spg.run import PatientWork, Runner

_POLL_SECONDS = 0.2
#: How often a worker asks whether it should stop.
_ASK_SECONDS = 0.5


def connect(address: str, purpose: str) -> Any:
    """A client of the scheduler at an address.

    Raises DependencyError without dask.distributed, MedEnhanceError for no answer.
    """
    distributed = require("dask.distributed", purpose=purpose)
    try:
        return distributed.Client(address, timeout="15s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as cause:
        raise MedEnhanceError(
            f"the Dask scheduler {address} does not answer: {cause}",
            "Start one with: dask scheduler; and workers with: dask worker ADDRESS.",
        ) from cause


def distilling_on(address: str) -> Runner:
    """Runs patients on the workers of a cluster, which must see the output folder.

    Each works with as many threads as this process would, because sums of another number of
    threads differ in their last bits. A cancel is passed on; what the workers have done until then
    is in their checkpoints.
    """

    def run(
        works: Sequence[PatientWork], device: str, monitor: Monitor
    ) -> Iterator[tuple[int, PatientImages]]:
        if not works:
            return
        torch = require("torch", purpose="Distilling")
        distributed = require("dask.distributed", purpose="distill --scheduler")
        with connect(address, "distill --scheduler") as client:
            stop = distributed.Event(f"medenhance-stop-{secrets.token_hex(8)}", client=client)
            futures = {}
            for place, work in enumerate(works):
                # Sent apart from the task: Dask warns of tasks that carry megabytes.
                sent = client.scatter(work, direct=False, hash=False)
                task = client.submit(
                    _distil_there,
                    sent,
                    device,
                    torch.get_num_threads(),
                    stop.name,
                    pure=False,
                    retries=0,
                )
                futures[task] = place
            try:
                yield from _as_they_come(futures, len(works), monitor)
            finally:
                stop.set()
                _wait_for(futures)

    return run


def _as_they_come(
    futures: dict[Any, int], count: int, monitor: Monitor
) -> Iterator[tuple[int, PatientImages]]:
    waiting = set(futures)
    while waiting:
        monitor.progress(1 - len(waiting) / count, f"{count - len(waiting)} of {count} patients")
        finished = {future for future in waiting if future.done()}
        for future in finished:
            yield futures[future], _result(future)
        waiting -= finished
        if not finished:
            time.sleep(_POLL_SECONDS)


def _result(future: Any) -> PatientImages:
    error = future.exception()
    if error is None:
        found: PatientImages = future.result()
        return found
    if isinstance(error, MedEnhanceError):
        raise error
    raise MedEnhanceError(
        f"the Dask worker lost a patient: {type(error).__name__}: {error}",
        "See the worker's log; start again with the same line to go on.",
    ) from error


def _wait_for(futures: dict[Any, int]) -> None:
    """Until the workers have written their checkpoints: who is asked to stop does so at once."""
    while any(future.status == "pending" for future in futures):
        time.sleep(_POLL_SECONDS)


class _Wish:
    """Whether the one who sent the work wants it to stop, asked for now and then."""

    def __init__(self, name: str) -> None:
        distributed = require("dask.distributed", purpose="distill --scheduler")
        self._event = distributed.Event(name)
        self._asked, self._wanted = 0.0, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._wanted and now - self._asked > _ASK_SECONDS:
            self._asked, self._wanted = now, bool(self._event.is_set())
        return self._wanted


def _distil_there(work: PatientWork, device: str, threads: int, stop: str) -> PatientImages:
    """On a worker: one patient."""
    torch = require("torch", purpose="Distilling")
    torch.set_num_threads(threads)
    return work.run(device, Monitor(cancel=_Wish(stop)))
