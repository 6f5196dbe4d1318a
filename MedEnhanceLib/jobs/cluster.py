"""Dask clusters: connecting to one, and distilling patients on its workers."""

from __future__ import annotations

import logging
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.errors import Cancelled, MedEnhanceError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.locks import hold
from MedEnhanceLib.runtime.progress import Monitor, attend

if TYPE_CHECKING:
    from MedEnhanceLib.spg.distill import PatientWork, Runner
    from MedEnhanceLib.spg.patient import PatientImages

_POLL_SECONDS = 0.2
#: How long a scheduler may take to pass on a cancel, and as long to let go of the connection.
_LEAVE_SECONDS = 0.5
#: How long workers may take to write their checkpoints after a cancel.
_CHECKPOINT_SECONDS = 10.0
#: Seconds between a worker's checks whether it should stop.
_ASK_SECONDS = 0.5


@contextmanager
def connected(address: str, purpose: str, monitor: Monitor) -> Iterator[Any]:
    """A connection to a Dask scheduler: a `distributed.Client`.

    Args:
        address: of the scheduler, for example "tcp://host:8786".
        purpose: what needs dask.distributed, for the message if it is missing.
        monitor: neither the beginning nor the end holds up its cancel.
    Raises:
        DependencyError: dask.distributed is missing.
        MedEnhanceError: the scheduler does not answer.
    """
    distributed = require("dask.distributed", purpose=purpose)
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


def distilling_on(address: str) -> Runner:
    """A runner of patients on the workers of a cluster, which must see the output folder.

    Each worker uses as many threads as this process would, because results depend on the number of
    threads in their last bits. A patient whose worker is lost is Dask's to give to another one,
    which resumes from the last checkpoint. A cancel is passed on to the workers, which write
    checkpoints. A patient who cannot be distilled, or at whom worker after worker is lost, ends the
    run.
    """

    def run(
        works: Sequence[PatientWork], device: str, monitor: Monitor
    ) -> Iterator[tuple[int, PatientImages]]:
        if works:
            with connected(address, "distill --scheduler", monitor) as client:
                yield from _distill_on(client, works, device, monitor)

    return run


def _distill_on(
    client: Any, works: Sequence[PatientWork], device: str, monitor: Monitor
) -> Iterator[tuple[int, PatientImages]]:
    """Places and images of patients as they finish; raises a patient's error, and Cancelled."""
    torch = require("torch", purpose="Distilling")
    distributed = require("dask.distributed", purpose="distill --scheduler")
    stop = distributed.Event(f"medenhance-stop-{secrets.token_hex(8)}", client=client)
    given = device, torch.get_num_threads(), stop.name
    places: dict[Any, int] = {}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            for place, work in enumerate(works):
                task = client.submit(_distill_there, work, *given, pure=False)
                places[task] = place
        while places:
            done = len(works) - len(places)
            monitor.progress(done / len(works), f"{done} of {len(works)} patients")
            if not attend(client.nthreads, monitor):
                monitor.warn(
                    "the Dask cluster has no worker; waiting for one (dask worker ADDRESS)"
                )
            for task in [task for task in places if task.done()]:
                number = works[places[task]].raw.number + 1
                yield places.pop(task), _images_of(task, number, monitor)
            time.sleep(_POLL_SECONDS)
    finally:
        _stop(stop, places, monitor)


def _images_of(task: Any, number: int, monitor: Monitor) -> PatientImages:
    """What became of a patient of this number."""
    try:
        images: PatientImages = attend(task.result, monitor)
    except MedEnhanceError:
        raise
    except Exception as error:
        raise MedEnhanceError(
            f"the Dask workers failed at patient {number}: {type(error).__name__}: {error}",
            "See their logs; memory may have run out. Run the same command again to resume.",
        ) from error
    return images


def _stop(stop: Any, tasks: Mapping[Any, int], monitor: Monitor) -> None:
    """Ask the workers to stop, and give them time to write their checkpoints."""
    if not soon(stop.set):
        monitor.warn(
            "the Dask scheduler does not answer: its workers may go on with their patients"
        )
        return
    deadline = time.monotonic() + _CHECKPOINT_SECONDS
    while any(task.status == "pending" for task in tasks) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


class _StopRequest:
    """Whether the sender of the work asks to stop, checked at intervals."""

    def __init__(self, name: str) -> None:
        distributed = require("dask.distributed", purpose="distill --scheduler")
        self._event = distributed.Event(name)
        self._checked, self._is_set = 0.0, False

    def __call__(self) -> bool:
        now = time.monotonic()
        if not self._is_set and now - self._checked > _ASK_SECONDS:
            self._checked, self._is_set = now, bool(self._event.is_set())
        return self._is_set


def _distill_there(work: PatientWork, device: str, threads: int, stop: str) -> PatientImages:
    """Distill one patient on a worker.

    A worker that the scheduler lost contact with may be busy in the patient's folder for a while.
    """
    torch = require("torch", purpose="Distilling")
    torch.set_num_threads(threads)
    monitor = Monitor(cancel=_StopRequest(stop))
    work.folder.mkdir(parents=True, exist_ok=True)
    while (lock := hold(work.folder)) is None:
        monitor.check()
        time.sleep(_POLL_SECONDS)
    try:
        return work.run(device, monitor)
    finally:
        lock.release()
