"""Asks a worker on another machine: connects, sends an order with its files, follows the job."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from MedEnhanceLib._version import __version__
from MedEnhanceLib.core.manifest import file_sha256
from MedEnhanceLib.errors import Cancelled, MedEnhanceError
from MedEnhanceLib.jobs.failures import WorkerError, error_from_json
from MedEnhanceLib.jobs.remote.places import Place, find_place, read_places
from MedEnhanceLib.jobs.remote.wire import RESULTS, SILENCE_SECONDS, Wire, check_sizes
from MedEnhanceLib.runtime.progress import Monitor

_CONNECT_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_NOTHING_LOST = "Nothing is lost here. Start it again, or choose a device of this machine."


def run_elsewhere(
    name: str,
    kind: str,
    params: Mapping[str, Any],
    files: Mapping[str, Path],
    folder: Path,
    monitor: Monitor,
    *,
    most_bytes: int = 0,
) -> dict[str, Any]:
    """Have a job done on another machine.

    Args:
        name: of the machine.
        kind: of the job.
        params: its order, see wire.ORDERS.
        files: what is sent, by the names in wire.INPUTS.
        folder: where the results are put, as `<name>.ucv`; the names are in wire.RESULTS.
        monitor: progress, warnings and log; a cancel closes the connection, which ends the job.
        most_bytes: that are taken back.

    Returns:
        The fields of the job's result, with "files", and "elsewhere": what was sent where.

    Raises:
        ConfigError: no such machine, or an order that it does not take.
        WorkerError: it cannot be reached, is another one than it was, refuses the token, or the
            connection broke.
        MedEnhanceError: what the job raised there.
    """
    place = find_place(name)
    with _connection_errors(name), _connected(name, place) as wire:
        hello = _greeted(wire, name, place)
        if hello.get("version") != __version__:
            monitor.warn(
                f"{name} runs MedEnhance {str(hello.get('version'))[:20]}, this is {__version__}: "
                "results may differ"
            )
        sizes = {file: path.stat().st_size for file, path in files.items()}
        wire.send(id="job", kind=kind, params=dict(params), files=sizes)
        sent: dict[str, Any] = {}
        while True:
            event = _next(wire, monitor)
            match event.get("event"):
                case "ready":
                    sent = _send(wire, name, files, monitor)
                case "progress":
                    part = monitor.part(0.1, 0.9) if sent else monitor
                    part.progress(_number(event.get("fraction")), str(event.get("stage"))[:200])
                case "log":
                    monitor.log(f"{name}: {event.get('message')}")
                case "warning":
                    monitor.warn(str(event.get("message")))
                case "error":
                    raise error_from_json(event)
                case "result":
                    known = check_sizes(event.get("files"), RESULTS, most_bytes)
                    _receive(wire, known, folder, monitor.part(0.9, 1.0))
                    fields = {key: event[key] for key in event if key not in ("v", "job", "event")}
                    about = {"machine": name, "medenhance": hello.get("version"), "sent": sent}
                    return fields | {"elsewhere": about}


def places_with_devices(monitor: Monitor) -> list[dict[str, Any]]:
    """Each machine that is known: `name` ("remote:NAME"), `host`, `ok`, `message`, and `what`,
    `total`, `free` and `needs` of the device that it takes, as `machine.compute` has them.
    """
    silent = Monitor(cancel=lambda: monitor.cancelled)
    return [_row(name, place, silent) for name, place in read_places().items()]


def _row(name: str, place: Place, monitor: Monitor) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": f"remote:{name}", "host": place.host, "ok": True, "message": "", "what": "",
        "total": None, "free": None, "needs": None,
    }  # fmt: skip
    try:
        found = run_elsewhere(name, "doctor", {}, {}, Path(), monitor)
        choice = str(found["choice"]["name"]).partition(":")[0]
        device = next(one for one in found["devices"] if str(one["name"]).startswith(choice))
        row |= {key: device.get(key) for key in ("what", "total", "free", "needs")}
    except Cancelled:
        raise
    except MedEnhanceError as error:
        row |= {"ok": False, "message": error.message}
    except (KeyError, TypeError, StopIteration):
        row |= {"ok": False, "message": f"{name} has no device that models run on"}
    return row


@contextlib.contextmanager
def _connection_errors(name: str) -> Iterator[None]:
    try:
        yield
    except TimeoutError as cause:
        raise WorkerError(f"{name} does not answer", _NOTHING_LOST) from cause
    except OSError as cause:
        if cause.filename is not None:  # a file of ours
            raise
        raise WorkerError(f"the connection to {name} broke: {cause}", _NOTHING_LOST) from cause


@contextlib.contextmanager
def _connected(name: str, place: Place) -> Iterator[Wire]:
    """A connection to the machine that the set-up line was from, before anything is sent."""
    try:
        stream = socket.create_connection((place.host, place.port), _CONNECT_SECONDS)
    except OSError as cause:
        way = "the address" if place.sha256 else "that the SSH tunnel stands"
        raise WorkerError(
            f"{name} ({place.host}, port {place.port}) cannot be reached: {cause}",
            f"Check that medenhance worker --listen runs there, and {way}.",
        ) from cause
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: stream.close())
        if place.sha256:
            # No authority knows this certificate: its hash came with the set-up line.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            stream = context.wrap_socket(stream)
            shown = hashlib.sha256(stream.getpeercert(binary_form=True) or b"").hexdigest()
            if not hmac.compare_digest(shown, place.sha256):
                raise WorkerError(
                    f"{name} shows another certificate than it did: it may be another machine",
                    "Nothing was sent. If its certificate was renewed, add it again: "
                    "medenhance remote add NAME 'LINE'.",
                )
        yield Wire(stream)


def _greeted(wire: Wire, name: str, place: Place) -> dict[str, Any]:
    wire.send(token=place.token)
    end = time.monotonic() + _CONNECT_SECONDS
    while (hello := wire.poll(_LOOK_SECONDS)) is None:
        if time.monotonic() > end:  # the port is open, and nobody is behind it
            raise TimeoutError("no greeting")
    if hello.get("event") != "hello":
        raise WorkerError(
            f"{name} refused the token",
            "Nothing was sent. Add the set-up line of today: medenhance remote add NAME 'LINE'.",
        )
    return hello


def _next(wire: Wire, monitor: Monitor) -> dict[str, Any]:
    """The next event; raises Cancelled meanwhile, and TimeoutError for a silence."""
    while (event := wire.poll(_LOOK_SECONDS)) is None:
        monitor.check()
        if time.monotonic() - wire.last_received > SILENCE_SECONDS:
            raise TimeoutError("no sign of life")
    return event


def _send(wire: Wire, name: str, files: Mapping[str, Path], monitor: Monitor) -> dict[str, Any]:
    """Send the files; what was sent, for log and manifest."""
    total, done = sum(path.stat().st_size for path in files.values()), 0

    def count(sent: int) -> None:
        nonlocal done
        done += sent
        monitor.progress(0.1 * done / max(total, 1), f"sending to {name}")

    for path in files.values():
        wire.send_file(path, count)
    sent = {
        file: {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for file, path in files.items()
    }
    for file, facts in sent.items():
        monitor.log(
            f"sent to {name}: the {file}, voxels and grid, without names: {facts['bytes']} bytes, "
            f"SHA-256 {facts['sha256']}"
        )
    return sent


def _receive(wire: Wire, sizes: Mapping[str, int], folder: Path, monitor: Monitor) -> None:
    total, done = sum(sizes.values()), 0

    def count(received: int) -> None:
        nonlocal done
        done += received
        monitor.progress(done / max(total, 1), "receiving the result")

    for file, size in sizes.items():
        wire.receive_file(folder / f"{file}.ucv", size, count)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
