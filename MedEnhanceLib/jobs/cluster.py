"""Dask clusters: connecting to one, and distilling patients on its workers."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from MedEnhanceLib.errors import Cancelled, MedEnhanceError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.locks import hold
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pathlib import Path

    from MedEnhanceLib.spg.distill import PatientWork, Runner
    from MedEnhanceLib.spg.patient import PatientImages

T = TypeVar("T")
_POLL_SECONDS = 0.2
#: How long a scheduler may take to pass on a cancel, and as long to let go of the connection.
LEAVE_SECONDS = 0.5
#: How long workers may take to write their checkpoints after a cancel.
_CHECKPOINT_SECONDS = 10.0
#: Seconds between a worker's checks whether it should stop.
_ASK_SECONDS = 0.5
#: Workers that may be lost at a patient without progress; then the patient is taken for the cause.
_MOST_LOST = 3


def connect(address: str, purpose: str) -> Any:
    """Connect to a Dask scheduler.

    Args:
        address: of the scheduler, for example "tcp://host:8786".
        purpose: what needs dask.distributed, for the message if it is missing.
    Returns:
        A `distributed.Client`.
    Raises:
        DependencyError: dask.distributed is missing.
        MedEnhanceError: the scheduler does not answer.
    """
    distributed = require("dask.distributed", purpose=purpose)
    # A connection that is lost becomes an error of ours; Dask logs it too, with its traceback.
    for name in ("distributed.batched", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        return distributed.Client(address, timeout="15s", set_as_default=False)
    except (OSError, TimeoutError, ValueError) as cause:
        raise MedEnhanceError(
            f"the Dask scheduler {address} does not answer: {cause}",
            "Start one with: dask scheduler; and workers with: dask worker ADDRESS.",
        ) from cause


def distilling_on(address: str) -> Runner:
    """A runner of patients on the workers of a cluster, which must see the output folder.

    Each worker uses as many threads as this process would, because results depend on the number of
    threads in their last bits. A cancel is passed on to the workers, which write checkpoints; a
    scheduler that does not answer does not hold it up. A patient whose worker is lost is resumed on
    another one; a patient who cannot be distilled, or at whom worker after worker is lost, ends the
    run.
    """

    def run(
        works: Sequence[PatientWork], device: str, monitor: Monitor
    ) -> Iterator[tuple[int, PatientImages]]:
        if not works:
            return
        with connected(address, "distill --scheduler", monitor) as client:
            patients = _RemotePatients(client, works, device, monitor)
            try:
                yield from patients.results()
            finally:
                patients.stop()

    return run


@contextmanager
def connected(address: str, purpose: str, monitor: Monitor) -> Iterator[Any]:
    """As `connect`, until this ends; neither its beginning nor its end holds up a cancel."""
    connecting = in_thread(lambda: connect(address, purpose))
    try:
        client = answer_of(connecting, monitor)
    except Cancelled:
        connecting.add_done_callback(lambda late: late.exception() or late.result().close())
        raise
    try:
        yield client
    finally:
        wait([in_thread(client.close)], LEAVE_SECONDS)


def in_thread(call: Callable[[], T]) -> Future[T]:
    """Begin a call that a scheduler may never answer, without waiting even at the process's end."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised where the answer is awaited
            answer.set_exception(error)

    threading.Thread(target=run, name="dask call", daemon=True).start()
    return answer


def answer_of(answer: Future[T], monitor: Monitor) -> T:
    """Wait for the answer; raises what the call raised, and Cancelled."""
    while not wait([answer], _POLL_SECONDS).done:
        monitor.check()
    return answer.result()


class _RemotePatients:
    """Patients who are being distilled on a cluster."""

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
        #: Worker → places of the works that it was busy with when last seen.
        self._busy: dict[str, set[int]] = {}
        #: Place → (step of the last checkpoint, how often it was sent again since).
        self._lost = dict.fromkeys(range(len(works)), (-1, 0))

    def results(self) -> Iterator[tuple[int, PatientImages]]:
        """Yield places and images as they finish; raises a patient's error, and Cancelled."""
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
        """Ask the workers to stop, and give them time to write their checkpoints."""
        asked = in_thread(self._stop.set)
        if not wait([asked], LEAVE_SECONDS).done:
            self._monitor.warn(
                "the Dask scheduler does not answer: its workers may go on with their patients"
            )
            return
        deadline = time.monotonic() + _CHECKPOINT_SECONDS
        while any(task.status == "pending" for task in self._out) and time.monotonic() < deadline:
            workers = in_thread(self._client.nthreads)
            is_answer = wait([workers], LEAVE_SECONDS).done and workers.exception() is None
            if not is_answer or not workers.result():
                return
            time.sleep(_POLL_SECONDS)

    def _ask(self, call: Callable[[], T]) -> T:
        return answer_of(in_thread(call), self._monitor)

    def _send(self, place: int) -> None:
        self._wait_for_a_worker()
        # Sent separately: Dask warns of tasks that contain megabytes.
        work = self._works[place]
        sent = self._ask(lambda: self._client.scatter(work, direct=False, hash=False))
        task = self._client.submit(_distill_there, sent, *self._given, pure=False)
        self._out[task] = place

    def _wait_for_a_worker(self) -> None:
        while not self._ask(self._client.nthreads):
            self._warn_of_no_worker()
            self._monitor.check()
            time.sleep(_POLL_SECONDS)

    def _look_after_workers(self) -> None:
        """Warn of lost workers; Dask itself gives their tasks to others."""
        places = {task.key: place for task, place in self._out.items()}
        busy = {
            worker: {places[key] for key in keys if key in places}
            for worker, keys in self._ask(self._client.processing).items()
        }
        for worker in self._busy.keys() - busy.keys():
            left = sorted(
                self._number(place) for place in self._busy[worker] & set(places.values())
            )
            if left:
                who = "patient" if len(left) == 1 else "patients"
                self._monitor.warn(
                    f"the Dask worker {worker} was lost; {who} {', '.join(map(str, left))} "
                    "will resume from the last checkpoint on another"
                )
        self._busy = busy
        if not busy:
            self._warn_of_no_worker()

    def _warn_of_no_worker(self) -> None:
        self._monitor.warn("the Dask cluster has no worker; waiting for one (dask worker ADDRESS)")

    def _images_of(self, task: Any, place: int) -> PatientImages | None:
        """A patient's images; None if the worker was lost and the patient was sent again."""
        try:
            found: PatientImages = self._ask(task.result)
        except self._lost_errors as error:
            # Dask gave up: too many workers were lost, or the sent data was lost with one of them.
            self._send_again(place, error)
            return None
        except MedEnhanceError:
            raise
        except Exception as error:
            raise MedEnhanceError(
                f"the Dask worker failed at patient {self._number(place)}: "
                f"{type(error).__name__}: {error}",
                "See the worker's log; run the same command again to resume.",
            ) from error
        return found

    def _send_again(self, place: int, error: BaseException) -> None:
        step, lost = self._lost[place]
        reached = latest_step(self._works[place].folder)
        lost = lost + 1 if reached <= step else 1
        number = self._number(place)
        if lost > _MOST_LOST:
            raise MedEnhanceError(
                f"worker after worker is lost at patient {number}: {error}",
                "See the workers' logs; memory may have run out. Run the same command again to "
                "resume.",
            ) from error
        self._lost[place] = max(reached, step), lost
        self._monitor.log(f"patient {number} is sent to another Dask worker")
        self._send(place)

    def _number(self, place: int) -> int:
        """The number of a patient in messages."""
        return self._works[place].raw.number + 1


def latest_step(folder: Path) -> int:
    """The step of a patient's last checkpoint, -1 without one."""
    from MedEnhanceLib.spg.folder import latest_header

    header = latest_header(folder)
    return -1 if header is None else int(header["step"])


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
    """Distill one patient on a worker."""
    torch = require("torch", purpose="Distilling")
    torch.set_num_threads(threads)
    monitor = Monitor(cancel=_StopRequest(stop))
    with _alone_in(work.folder, monitor):
        return work.run(device, monitor)


@contextmanager
def _alone_in(folder: Path, monitor: Monitor) -> Iterator[None]:
    """Wait until nobody else works in a patient's folder.

    A worker that the scheduler lost contact with may be busy there for a while.
    """
    folder.mkdir(parents=True, exist_ok=True)
    while (lock := hold(folder)) is None:
        monitor.check()
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()
