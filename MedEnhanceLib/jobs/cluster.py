"""Dask clusters: reaching one, and distilling patients on its workers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.owned import hold
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pathlib import Path

    from MedEnhanceLib.spg.patient import PatientImages
    from MedEnhanceLib.spg.run import PatientWork, Runner

_POLL_SECONDS = 0.2
#: How often a worker asks whether it should stop.
_ASK_SECONDS = 0.5
#: A patient who was sent again so often, and got no step further, is what workers die of.
_MOST_LOST = 3


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
    is in their checkpoints. A patient whose worker dies goes on from there on another one; a
    patient whose data are at fault, or who takes worker after worker along, ends the run.
    """

    def run(
        works: Sequence[PatientWork], device: str, monitor: Monitor
    ) -> Iterator[tuple[int, PatientImages]]:
        if not works:
            return
        with connect(address, "distill --scheduler") as client:
            errands = _Errands(client, works, device, monitor)
            try:
                yield from errands.results()
            finally:
                errands.stop()

    return run


class _Errands:
    """Patients who are out on a cluster, each until the images are here."""

    def __init__(
        self, client: Any, works: Sequence[PatientWork], device: str, monitor: Monitor
    ) -> None:
        torch = require("torch", purpose="Distilling")
        distributed = require("dask.distributed", purpose="distill --scheduler")
        self._client, self._works, self._monitor = client, works, monitor
        self._stop = distributed.Event(f"medenhance-stop-{secrets.token_hex(8)}", client=client)
        self._given = device, torch.get_num_threads(), self._stop.name
        self._lost_errors = distributed.CancelledError, distributed.scheduler.KilledWorker
        #: Task → the place of its work.
        self._out: dict[Any, int] = {}
        #: What each worker was busy with when it was last seen.
        self._busy: dict[str, set[int]] = {}
        #: Place → (the step of the last checkpoint, how often it was sent again since).
        self._lost = dict.fromkeys(range(len(works)), (-1, 0))

    def results(self) -> Iterator[tuple[int, PatientImages]]:
        """Places and images as they come.

        Raises the error of a patient that cannot be distilled, Cancelled.
        """
        for place in range(len(self._works)):
            self._send(place)
        while self._out:
            count = len(self._works)
            done = count - len(self._out)
            self._monitor.progress(done / count, f"{done} of {count} patients")
            self._look_after_workers()
            finished = [task for task in self._out if task.done()]
            for task in finished:
                place = self._out.pop(task)
                images = self._images_of(task, place)
                if images is not None:
                    yield place, images
            if not finished:
                time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """Ask those who are out to stop, and wait until they have written their checkpoints."""
        self._stop.set()
        while any(task.status == "pending" for task in self._out) and self._client.nthreads():
            time.sleep(_POLL_SECONDS)

    def _send(self, place: int) -> None:
        self._wait_for_a_worker()
        # Sent apart from the task: Dask warns of tasks that carry megabytes.
        sent = self._client.scatter(self._works[place], direct=False, hash=False)
        task = self._client.submit(_distil_there, sent, *self._given, pure=False)
        self._out[task] = place

    def _wait_for_a_worker(self) -> None:
        while not self._client.nthreads():
            self._tell_of_no_worker()
            self._monitor.check()
            time.sleep(_POLL_SECONDS)

    def _look_after_workers(self) -> None:
        """Tell of those that are gone; Dask gives what they were busy with to others itself."""
        places = {task.key: place for task, place in self._out.items()}
        busy = {
            worker: {places[key] for key in keys if key in places}
            for worker, keys in self._client.processing().items()
        }
        for worker in self._busy.keys() - busy.keys():
            left = sorted(
                self._number(place) for place in self._busy[worker] & set(places.values())
            )
            if left:
                who = "patient" if len(left) == 1 else "patients"
                self._monitor.warn(
                    f"the Dask worker {worker} was lost; {who} {', '.join(map(str, left))} "
                    "will go on from the last checkpoint on another"
                )
        self._busy = busy
        if not busy:
            self._tell_of_no_worker()

    def _tell_of_no_worker(self) -> None:
        self._monitor.warn("the Dask cluster has no worker; waiting for one (dask worker ADDRESS)")

    def _images_of(self, task: Any, place: int) -> PatientImages | None:
        """A patient's images; None where the worker was lost and the patient was sent again."""
        try:
            found: PatientImages = task.result()
        except self._lost_errors as error:
            # Dask gave up: too many workers died under it, or what was sent died with one of them.
            self._send_again(place, error)
            return None
        except MedEnhanceError:
            raise
        except Exception as error:
            raise MedEnhanceError(
                f"the Dask worker failed at patient {self._number(place)}: "
                f"{type(error).__name__}: {error}",
                "See the worker's log; start again with the same line to go on.",
            ) from error
        return found

    def _send_again(self, place: int, error: BaseException) -> None:
        step, lost = self._lost[place]
        reached = latest_step(self._works[place].folder)
        lost = lost + 1 if reached <= step else 1
        number = self._number(place)
        if lost > _MOST_LOST:
            raise MedEnhanceError(
                f"patient {number} takes worker after worker along: {error}",
                "See the workers' logs; memory may have run out. Start again with the same line to "
                "go on.",
            ) from error
        self._lost[place] = max(reached, step), lost
        self._monitor.log(f"patient {number} is sent to another Dask worker")
        self._send(place)

    def _number(self, place: int) -> int:
        """What people call a patient."""
        return self._works[place].raw.number + 1


def latest_step(folder: Path) -> int:
    """The step of a patient's last checkpoint, -1 without one."""
    from MedEnhanceLib.spg.folder import latest_header

    header = latest_header(folder)
    return -1 if header is None else int(header["step"])


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
    monitor = Monitor(cancel=_Wish(stop))
    with _alone_in(work.folder, monitor):
        return work.run(device, monitor)


@contextmanager
def _alone_in(folder: Path, monitor: Monitor) -> Iterator[None]:
    """Wait until nobody else works in a patient's folder.

    A worker that the scheduler has given up, for the net was cut, may be busy there for a while.
    """
    folder.mkdir(parents=True, exist_ok=True)
    while (lock := hold(folder)) is None:
        monitor.check()
        time.sleep(_POLL_SECONDS)
    with lock:
        yield
