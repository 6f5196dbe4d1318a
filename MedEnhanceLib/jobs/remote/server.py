"""The worker on the machine with the card: connections come in, one job at a time runs.

A connection has a thread: greeting → order → its turn → files → job → results, then its folder is
gone. The job itself runs in a worker process (jobs/worker), where it can be stopped or killed.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import socket
import socketserver
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from MedEnhanceLib._version import __version__
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.errors import Cancelled, ConfigError, DeviceBusyError, MedEnhanceError
from MedEnhanceLib.jobs.failures import WorkerError, error_to_json
from MedEnhanceLib.jobs.job import JobSpec
from MedEnhanceLib.jobs.remote.places import hash_of, is_loopback
from MedEnhanceLib.jobs.remote.volumes import check_voxels, pack
from MedEnhanceLib.jobs.remote.wire import (
    INPUTS,
    LONGEST_GREETING,
    ORDERS,
    RESULTS,
    EnhanceOrder,
    SegmentOrder,
    Wire,
    check_sizes,
)
from MedEnhanceLib.jobs.worker.client import Client
from MedEnhanceLib.jobs.worker.workspace import Workspace, exchange_folder, remove_abandoned
from MedEnhanceLib.runtime import machine
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.runtime.text import Names

#: How long a stranger may take to say who it is, and how long a wrong token waits for its answer.
_GREETING_SECONDS = 10.0
_REFUSAL_SECONDS = 1.0
_MOST_CONNECTIONS = 32
_MOST_WAITING = 4
#: How long the worker process may take to stop at the end: SIGTERM ends all of it within 2 s.
_LAST_SECONDS = 0.5
_LOOK_SECONDS = 0.2
#: Of a result's fields, those that are about files of this machine.
_OURS = ("outputs", "manifest", "report")


class Server(socketserver.ThreadingTCPServer):
    """Listens on one address.

    secret: `hash_of` the token. tls: None for a way that is safe already, which is this machine's
    own address alone. most_bytes: of all files of a job, and of the voxels in each. device: of this
    machine, for all jobs. client: runs the jobs. say: gets a line for each connection.

    Raises ConfigError for another address without TLS, or one that cannot be listened on.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(
        self,
        address: tuple[str, int],
        *,
        secret: bytes,
        tls: ssl.SSLContext | None,
        most_bytes: int,
        device: str = "auto",
        client: Client | None = None,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        if tls is None and not is_loopback(address[0]):
            raise ConfigError(
                f"listening on {address[0]} without a certificate",
                "Add --tls; or listen on localhost and come through an SSH tunnel.",
            )
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, _Visit)
        except OSError as cause:
            where = f"{address[0]}, port {address[1]}"
            raise ConfigError(
                f"cannot listen on {where}: {cause.strerror}", "Choose another port or address."
            ) from cause
        remove_abandoned()
        self.secret, self.tls, self.most_bytes, self.device = secret, tls, most_bytes, device
        self.say = say
        self.client = client or Client()
        self.turns = Turns(_MOST_WAITING)
        self.workspace = Workspace()
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """As socketserver's, but those beyond the bound are closed at once."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As socketserver's."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def stop(self) -> None:
        """End what runs and remove every file; `serve_forever` runs in another thread."""
        self.shutdown()
        self.server_close()
        self.turns.stop()
        self.client.close(_LAST_SECONDS)
        self.workspace.remove()


class _Visit(socketserver.BaseRequestHandler):
    """One connection."""

    server: Server

    def handle(self) -> None:
        """Serve it; whatever goes wrong ends with it."""
        stream: socket.socket = self.request
        if self.server.tls is not None:
            stream = self.server.tls.wrap_socket(
                stream, server_side=True, do_handshake_on_connect=False
            )
        with stream:
            try:
                self._talk(stream)
            except OSError as cause:
                self.server.say(f"{self.client_address[0]}: the connection ended ({cause})")

    def _talk(self, stream: socket.socket) -> None:
        late = threading.Timer(_GREETING_SECONDS, _cut, (stream,))  # bytes may drip in
        late.daemon = True
        late.start()
        try:
            stream.settimeout(_GREETING_SECONDS)
            if isinstance(stream, ssl.SSLSocket):
                stream.do_handshake()
            wire = Wire(stream)
            is_known = self._is_known(wire)
        finally:
            late.cancel()
        if not is_known:
            self.server.say(f"{self.client_address[0]}: refused, a wrong token")
            return
        wire.send(job=None, event="hello", version=__version__, most_bytes=self.server.most_bytes)
        job = None
        try:
            order = wire.read()
            job = str(order.get("id"))[:200]
            self._obey(wire, job, order)
        except MedEnhanceError as error:
            if isinstance(error, Cancelled):  # a client that cancels is not there any more
                error = WorkerError("the worker was stopped", "Start the job again later.")
            fields = error_to_json(error)
            wire.send(job=job, event="error", **{**fields, "details": ""})
            is_fault = fields["code"] == "internal"
            self.server.say(
                f"{self.client_address[0]}: {fields['details' if is_fault else 'message']}"
            )

    def _is_known(self, wire: Wire) -> bool:
        try:
            token = wire.read(LONGEST_GREETING).get("token")
        except MedEnhanceError:
            token = None
        if hmac.compare_digest(hash_of(str(token)), self.server.secret):
            return True
        time.sleep(_REFUSAL_SECONDS)
        wire.send(job=None, event="error", code="refused", message="refused", hint="")
        return False

    def _obey(self, wire: Wire, job: str, order: Mapping[str, Any]) -> None:
        server, kind = self.server, str(order.get("kind"))
        if kind == "doctor":
            wire.send(job=job, event="result", **machine.compute(), files={})
            return
        if kind not in ORDERS:
            raise ConfigError(
                f"{kind[:40]!r} does not run on another machine", f"It takes: {', '.join(ORDERS)}."
            )
        wanted = config_from_json(ORDERS[kind], order.get("params") or {}, kind)
        sizes = check_sizes(order.get("files"), INPUTS[kind], server.most_bytes)
        if "input" not in sizes:
            raise ConfigError("the job has no input", "Send a volume.")
        began = time.monotonic()
        shown = 0

        def wait(before: int) -> None:
            nonlocal shown
            if wire.is_gone():
                raise Cancelled("cancelled before it began")
            if before != shown:
                shown = before
                stage = f"waiting for {before} other job{'s' * (before > 1)}"
                wire.send(job=job, event="progress", fraction=0, stage=stage, eta_s=None)

        with server.turns.turn(wait), exchange_folder(server.workspace.folder) as folder:
            server.say(f"{self.client_address[0]}: {kind}, {sum(sizes.values())} bytes")
            wire.send(job=job, event="ready")
            for name, size in sizes.items():
                path = _input_path(folder, name)
                wire.receive_file(path, size, lambda _count: None)
                check_voxels(path, server.most_bytes)
            self._run(wire, job, _spec(kind, wanted, sizes, folder, server.device), folder)
        server.say(f"{self.client_address[0]}: done in {time.monotonic() - began:.1f} s")

    def _run(self, wire: Wire, job: str, spec: JobSpec, folder: Path) -> None:
        nameless = Names({f"{folder}{os.sep}": "", str(folder): ""})

        def forward(event: Event) -> None:
            if event.kind in ("progress", "log", "warning"):
                wire.send(job=job, event=event.kind, **nameless.of(event.fields))

        with nameless.in_errors():
            result = self.server.client.run(spec, progress=forward, cancel=wire.is_gone)
            files = {
                name: _compressed(Path(path), Monitor(cancel=wire.is_gone))
                for name, path in result["outputs"].items()
                if name in RESULTS
            }
        fields = {name: value for name, value in result.fields.items() if name not in _OURS}
        sizes = {name: path.stat().st_size for name, path in files.items()}
        wire.send(job=job, event="result", **nameless.of(fields), files=sizes)
        for path in files.values():
            wire.send_file(path, lambda _count: None)


class Turns:
    """One job at a time, the others in the order in which they came; no more than `most` wait."""

    def __init__(self, most: int) -> None:
        self._changed = threading.Condition()
        self._line: deque[object] = deque()
        self._most, self._stopped = most, False

    @contextlib.contextmanager
    def turn(self, wait: Callable[[int], None]) -> Iterator[None]:
        """Have one's turn; `wait` is called meanwhile with the number of jobs before, may raise."""
        me = object()
        with self._changed:
            if self._stopped or len(self._line) > self._most:
                raise DeviceBusyError(
                    "too many jobs wait on the other machine", "Try again later, or work here."
                )
            self._line.append(me)
        try:
            while before := self._line.index(me):
                wait(before)
                with self._changed:
                    self._changed.wait(_LOOK_SECONDS)
            yield
        finally:
            with self._changed:
                self._line.remove(me)
                self._changed.notify_all()

    def stop(self) -> None:
        """Let no further job in."""
        self._stopped = True


def _cut(stream: socket.socket) -> None:
    """End a connection that another thread reads; past TLS, which that thread may be in."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(stream, socket.SHUT_RDWR)


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS for a server; raises ConfigError where the two files cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as cause:
        raise ConfigError(
            f"{certificate} and {key} are no certificate and its key: {cause}",
            "Name two PEM files, the key without a password: --certificate FILE --key FILE.",
        ) from cause
    return context


def _input_path(folder: Path, name: str) -> Path:
    """Where a file goes whose name is in INPUTS; several guides share a folder."""
    if "-" not in name:
        return folder / f"{name}.ucv"
    (folder / "guides").mkdir(exist_ok=True)
    return folder / "guides" / f"{name}.ucv"


def _spec(
    kind: str,
    wanted: EnhanceOrder | SegmentOrder,
    sizes: Mapping[str, int],
    folder: Path,
    device: str,
) -> JobSpec:
    """The job, with paths of this machine alone."""
    config = replace(wanted.config, device=device)
    params: dict[str, Any] = {
        "input": str(folder / "input.ucv"),
        "output": str(folder / "output.nrrd"),
        "config": config.to_json(),
    }
    if isinstance(wanted, EnhanceOrder):
        if "guide" in sizes:
            params["guide"] = str(folder / "guide.ucv")
        elif (folder / "guides").exists():
            params["guide"] = str(folder / "guides")
        if wanted.segment:
            params |= {"segment": True, "segmentation_output": str(folder / "segmentation.nrrd")}
            params["head"] = wanted.head
        if wanted.config.uncertainty:
            params["uncertainty_output"] = str(folder / "uncertainty.nrrd")
        if wanted.noise:
            params["noise_output"] = str(folder / "noise.nrrd")
    return JobSpec(kind, params)


def _compressed(path: Path, monitor: Monitor) -> Path:
    """The volume in a container, lossless; the file itself is removed."""
    from MedEnhanceLib.io import load

    packed = path.with_suffix(".ucv")
    pack(load(path), packed, monitor)
    path.unlink()
    return packed
