"""A worker on another machine: what travels, what is refused, and that nothing stays there."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.api import enhance, segment
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.origin import DicomOrigin
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError, MedEnhanceError
from MedEnhanceLib.io import load, save
from MedEnhanceLib.jobs import JobSpec, Result, run_job
from MedEnhanceLib.jobs.failures import WorkerError
from MedEnhanceLib.jobs.job import JOBS, JobKind
from MedEnhanceLib.jobs.kinds.enhance import EnhanceParams
from MedEnhanceLib.jobs.remote import client, places, server, wire
from MedEnhanceLib.jobs.remote.places import Place, add_place, fingerprint, hash_of, own_certificate
from MedEnhanceLib.jobs.remote.server import Server, Turns, server_context
from MedEnhanceLib.runtime.device import choose_device
from MedEnhanceLib.runtime.progress import Cancel, Event, Listener, Monitor

_TOKEN = "t" * 43
_MOST = 1_000_000


@dataclass
class _InThisProcess:
    """In place of the server's worker process; `specs` are the jobs that it was given."""

    specs: list[JobSpec] = field(default_factory=list)

    def run(self, spec: JobSpec, progress: Listener, cancel: Cancel) -> Result:
        self.specs.append(spec)
        return run_job(spec, progress, cancel)

    def close(self, grace_seconds: float) -> None:
        pass


@dataclass
class _Elsewhere:
    """A listening server."""

    server: Server
    jobs: _InThisProcess
    said: list[str]

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    @contextmanager
    def connected(self, token: str = _TOKEN) -> Iterator[wire.Wire]:
        """A client that has greeted."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as stream:
            greeted = wire.Wire(stream)
            greeted.send(token=token)
            yield greeted

    def leftovers(self) -> list[Path]:
        """What jobs left in the server's folder, once it had time to clean up."""
        deadline = time.monotonic() + 5
        while True:
            found = [path for path in self.server.workspace.folder.iterdir() if path.is_dir()]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.02)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDENHANCE_REMOTE", str(tmp_path / "remote"))
    monkeypatch.setattr(server, "_REFUSAL_SECONDS", 0.3)


@pytest.fixture
def start() -> Iterator[Callable[..., _Elsewhere]]:
    """Start servers on this machine; all are ended after the test."""
    running: list[Server] = []

    def begin(*, tls: bool = False) -> _Elsewhere:
        jobs, said = _InThisProcess(), []
        certificate, key = own_certificate() if tls else (None, None)
        new = Server(
            ("127.0.0.1", 0),
            secret=hash_of(_TOKEN),
            tls=server_context(certificate, key) if certificate and key else None,
            most_bytes=_MOST,
            client=jobs,  # type: ignore[arg-type]
            say=said.append,
        )
        threading.Thread(target=new.serve_forever, args=(0.01,), daemon=True).start()
        running.append(new)
        sha256 = fingerprint(certificate) if certificate else ""
        there = _Elsewhere(new, jobs, said)
        add_place("lab", Place("127.0.0.1", there.port, _TOKEN, sha256))
        return there

    yield begin
    for one in running:
        one.stop()


def _double(params: EnhanceParams, monitor: Monitor) -> Result:
    """In place of an enhancement: twice the voxels."""
    monitor.progress(0.5, "doubling")
    monitor.warn(f"{params.input}: doubled")
    volume = load_container(Path(params.input))
    save(volume.with_voxels(2 * volume.voxels, did="DERIVED: doubled"), params.output)
    return Result(
        {
            "outputs": {"output": params.output},
            "manifest": "private.json",
            "device": "cpu",
            "seconds": 1.0,
            "model": {"name": "double", "sha256": "0"},
            "measured": {"noise": {"sigma": 1.0}},
        }
    )


def load_container(path: Path) -> Volume:
    from MedEnhanceLib.unicompress import decompress

    return decompress(path)


def _until_cancelled(params: EnhanceParams, monitor: Monitor) -> Result:
    while True:
        monitor.check()
        time.sleep(0.01)


@pytest.fixture
def doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(JOBS, "enhance", JobKind(EnhanceParams, _double))


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(JOBS, "enhance", JobKind(EnhanceParams, _until_cancelled))


@pytest.mark.parametrize("tls", [True, False])
def test_voxels_travel_and_names_stay(
    start: Callable[..., _Elsewhere], head: Volume, doubling: None, tls: bool
) -> None:
    there = start(tls=tls)
    origin = DicomOrigin("1.2.3", "1.2.3.4", (), on_grid=False)
    named = replace(head, source="/home/Smith.nii", history=("seen by Smith",), origin=origin)
    events: list[Event] = []
    kept: list[bytes] = []
    run = there.jobs.run

    def looking(spec: JobSpec, *others: Any, **more: Any) -> Result:
        kept.append(Path(spec.params["input"]).read_bytes())
        return run(spec, *others, **more)

    there.jobs.run = looking  # type: ignore[method-assign]
    done = enhance(named, device="remote:lab", progress=events.append)
    assert np.array_equal(done.volume.voxels, 2 * head.voxels)
    assert done.volume.dtype == head.dtype and done.volume.geometry == head.geometry
    assert (done.volume.source, done.volume.origin) == (named.source, named.origin)
    assert done.volume.history == ("seen by Smith", "DERIVED: doubled")
    assert b"Smith" not in kept[0] and b"1.2.3" not in kept[0]
    sent = done.report["results"]["elsewhere"]["sent"]["input"]
    assert sent["bytes"] == len(kept[0])
    logs = [str(event.fields["message"]) for event in events if event.kind == "log"]
    assert any(sent["sha256"] in line and "without names" in line for line in logs)
    warnings = [event.fields["message"] for event in events if event.kind == "warning"]
    assert warnings == ["input.ucv: doubled"]  # not where it lay there
    assert any(event.fields.get("stage") == "doubling" for event in events)
    assert done.report["device"] == "remote:lab (cpu)"
    assert there.leftovers() == []


def test_a_wrong_token_waits_and_learns_nothing(start: Callable[..., _Elsewhere]) -> None:
    there = start()
    began = time.monotonic()
    with there.connected("w" * 43) as stranger:
        answer = stranger.read()
    assert time.monotonic() - began >= 0.3
    assert answer == {
        "v": 1, "job": None, "event": "error", "code": "refused", "message": "refused", "hint": "",
    }  # fmt: skip
    add_place("lab", Place("127.0.0.1", there.port, "w" * 43))
    with pytest.raises(WorkerError, match="lab refused the token"):
        segment(np.ones((4, 4, 4)), spacing=(1, 1, 1), device="remote:lab")


def test_another_certificate_is_sent_nothing(
    start: Callable[..., _Elsewhere], head: Volume
) -> None:
    there = start(tls=True)
    add_place("lab", Place("127.0.0.1", there.port, _TOKEN, "0" * 64))
    with pytest.raises(WorkerError, match="another certificate"):
        enhance(head, device="remote:lab")
    assert there.jobs.specs == []


def test_nothing_but_this_machine_is_listened_to_without_tls() -> None:
    with pytest.raises(ConfigError, match=r"listening on 0\.0\.0\.0 without a certificate"):
        Server(("0.0.0.0", 0), secret=b"", tls=None, most_bytes=1)
    with pytest.raises(ConfigError, match="a worker on gpu"):
        Place.from_line(f"medenhance://gpu:8790?token={_TOKEN}")


@pytest.mark.parametrize(
    "line",
    ["", "http://h:1?token=" + _TOKEN, "medenhance://h?token=" + _TOKEN, "medenhance://[::1?token",
     f"medenhance://localhost:1?token={_TOKEN}&x=1", "medenhance://localhost:1?token=short",
     f"medenhance://h:99999999?token={_TOKEN}", f"medenhance://h:1?token={_TOKEN}&sha256=12"],
)  # fmt: skip
def test_a_line_that_no_worker_printed_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match="not the set-up line"):
        Place.from_line(line)


def test_a_line_is_read_as_it_was_written() -> None:
    for place in (Place("::1", 1, _TOKEN), Place("gpu.example", 65_535, _TOKEN, "a" * 64)):
        assert Place.from_line(place.line) == place


def test_a_client_that_breaks_off_leaves_nothing(
    start: Callable[..., _Elsewhere], endless: None, head: Volume
) -> None:
    there = start()
    with there.connected() as halfway:
        halfway.send(id="a", kind="enhance", params={}, files={"input": 1000})
        while halfway.read()["event"] != "ready":
            pass
        halfway._send(b"half of it")
    assert there.leftovers() == []

    with pytest.raises(Cancelled):  # in the middle of the job
        enhance(head, device="remote:lab", cancel=lambda: bool(there.jobs.specs))
    assert there.leftovers() == []


def test_a_worker_that_ends_is_a_sentence(
    start: Callable[..., _Elsewhere], endless: None, head: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = start()
    silent = socket.create_server(("127.0.0.1", 0))
    add_place("lab", Place("127.0.0.1", silent.getsockname()[1], _TOKEN))
    monkeypatch.setattr(client, "_CONNECT_SECONDS", 0.2)
    with pytest.raises(WorkerError, match="lab does not answer"):
        enhance(head, device="remote:lab")
    silent.close()
    with pytest.raises(WorkerError, match="cannot be reached"):
        enhance(head, device="remote:lab")
    there.server.stop()


@pytest.mark.parametrize(
    ("order", "why"),
    [
        ({"kind": "train"}, "does not run on another machine"),
        ({"params": {"input": "/etc/passwd"}}, "input"),
        ({"params": {"config": {"model": "../../secret"}}}, "does not travel"),
        ({"params": {"config": {"device": "cuda:1"}}}, "chooses its device itself"),
        ({"params": {"head": "/etc", "segment": True}}, "does not travel"),
        ({"params": {"config": {"uncertainty": 8}}}, "uncertainty"),
        ({"kind": "segment", "params": {"config": {"segmenter": "x.pt"}}}, "does not travel"),
        ({"files": {"../input": 1}}, "files that this job does not have"),
        ({"files": {"input": 1, "guide-00/../../x": 1}}, "files that this job does not have"),
        ({"files": {}}, "no input"),
        ({"files": {"input": -1}}, "without a size"),
        ({"files": {"input": 1.5}}, "without a size"),
        ({"files": {"input": _MOST + 1}}, "at most 1000000 are taken"),
        ({"files": {"input": 2**63}}, "are taken"),
        ({"files": ["input"]}, "files that this job does not have"),
    ],
)
def test_an_order_is_checked_before_anything_is_sent(
    start: Callable[..., _Elsewhere], order: dict[str, Any], why: str
) -> None:
    there = start()
    with there.connected() as client:
        assert client.read()["event"] == "hello"
        client.send(**{"id": "a", "kind": "enhance", "params": {}, "files": {"input": 9}, **order})
        answer = client.read()
    assert (answer["event"], answer["details"]) == ("error", "")
    assert why in answer["message"] + answer["hint"]
    assert there.leftovers() == [] and there.jobs.specs == []


def test_a_small_file_of_a_huge_volume_is_refused(
    start: Callable[..., _Elsewhere], doubling: None
) -> None:
    there = start()
    volume = Volume(np.zeros((100, 110, 100), np.uint8), modality="MR", units="")
    with pytest.raises(ConfigError, match="1100000 bytes, and at most 1000000"):
        enhance(volume, device="remote:lab")
    assert there.leftovers() == [] and there.jobs.specs == []


@pytest.mark.parametrize("tls", [True, False])
def test_strange_first_bytes_leave_the_server_well(
    start: Callable[..., _Elsewhere], tls: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_REFUSAL_SECONDS", 0.0)
    there = start(tls=tls)
    draw = random.Random(7)
    odd = [b"", b"\n", b"{}\n", b"[]\n", b"\0\n", b'{"token":NaN}\n', b'{"token":[1]}\n',
           b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"x" * 5000,
           b"[" * 4000 + b"\n", b'{"v":1,"token":"\\ud800"}\n']  # fmt: skip
    odd += [draw.randbytes(draw.randrange(1, 600)) + b"\n" for _ in range(30)]
    for said in odd:
        answer = b""
        stranger = socket.create_connection(("127.0.0.1", there.port), 5)
        with stranger, suppress(OSError):  # it may close before all was sent
            stranger.sendall(said)
            stranger.shutdown(socket.SHUT_WR)
            while piece := stranger.recv(4096):
                answer += piece
        assert b"hello" not in answer and b"Traceback" not in answer
    assert places_answer(there)


def places_answer(there: _Elsewhere) -> bool:
    """Whether the server still knows its client."""
    from MedEnhanceLib.jobs.remote.client import _connected, _greeted

    place = places.find_place("lab")
    with _connected("lab", place) as connection:
        return bool(_greeted(connection, "lab", place)["most_bytes"] == _MOST)


def test_strangers_who_drip_are_cut_off(
    start: Callable[..., _Elsewhere], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_GREETING_SECONDS", 0.2)
    monkeypatch.setattr(server, "_MOST_CONNECTIONS", 2)
    there = start()
    slow = [socket.create_connection(("127.0.0.1", there.port), 5) for _ in range(3)]
    assert slow[2].recv(1) == b""  # beyond the bound
    assert slow[0].recv(1) == slow[1].recv(1) == b""
    for one in slow:
        one.close()
    monkeypatch.setattr(server, "_GREETING_SECONDS", 10.0)
    while there.server._free._value < 2:  # its threads come to their ends
        time.sleep(0.01)
    assert places_answer(there)


def test_one_job_at_a_time_in_order_and_few_wait() -> None:
    turns, order, go = Turns(most=2), [], threading.Event()

    def job(number: int) -> None:
        with turns.turn(lambda _before: None):
            order.append(number)
            go.wait(5)

    threads = [threading.Thread(target=job, args=(number,)) for number in range(3)]
    for count, thread in enumerate(threads, 1):
        thread.start()
        while len(turns._line) < count:
            time.sleep(0.005)
    with pytest.raises(MedEnhanceError, match="too many jobs wait"), turns.turn(lambda _n: None):
        pass
    assert order == [0]
    go.set()
    for thread in threads:
        thread.join(5)
    assert order == [0, 1, 2]


def test_what_stays_here_says_so(head: Volume) -> None:
    with pytest.raises(ConfigError, match="a preview runs on this machine"):
        enhance(head, device="remote:lab", slices=(0, 2))
    with pytest.raises(ConfigError, match="does not travel"):
        enhance(head, device="remote:lab", model="/home/Smith/model")
    with pytest.raises(ConfigError, match="does not run on the remote machine lab"):
        choose_device("remote:lab")
    with pytest.raises(ConfigError, match="there is no remote machine 'lab'"):
        enhance(head, device="remote:lab")


def test_machines_are_added_listed_and_removed(
    start: Callable[..., _Elsewhere], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    there = start(tls=True)
    line = places.find_place("lab").line
    assert main(["remote", "add", "gpu", line]) == 0
    assert (tmp_path / "remote" / "machines.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "remote").stat().st_mode & 0o777 == 0o700
    there.server.stop()
    assert main(["remote", "list"]) == 0
    said = capsys.readouterr().out
    assert "remote:gpu" in said and "cannot be reached" in said and _TOKEN not in said
    assert main(["remote", "remove", "gpu"]) == 0
    assert main(["remote", "remove", "gpu"]) == 2
    assert main(["remote", "add", "a/b", line]) == 2
    assert main(["worker", "--tls"]) == 2


@pytest.fixture
def real_worker() -> Iterator[subprocess.Popen[str]]:
    """A worker that listens, in a process of its own, known as lab."""
    command = [sys.executable, "-m", "MedEnhanceLib", "worker", "--tls", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as worker:
        said = ""
        while "listening" not in said:
            said += _line_of(worker)
        add_place("lab", Place.from_line(said.partition("'")[2].partition("'")[0]))
        yield worker
        worker.kill()


def _line_of(worker: subprocess.Popen[str]) -> str:
    assert worker.stderr is not None
    return worker.stderr.readline()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_real_worker_gives_the_same_bits_and_ends_within_two_seconds(
    real_worker: subprocess.Popen[str],
    head: Volume,
    tmp_path: Path,
    temp_root: Path,
    rng: np.random.Generator,
) -> None:
    secret = tmp_path / "remote" / "token.sha256"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert places.find_place("lab").token not in secret.read_text()
    source, guide = tmp_path / "scan.nii.gz", tmp_path / "guide.nrrd"
    for path, noise in ((source, 30), (guide, 10)):
        textured = rng.normal(600, noise, (8, 96, 96)).astype(np.int16)
        save(Volume(textured, head.geometry, modality="MR"), path)
    found = {}
    for device in ("cpu", "remote:lab"):
        params = {
            "input": str(source),
            "output": str(tmp_path / f"{device[:3]}.nrrd"),
            "guide": str(guide),
            "noise_output": str(tmp_path / f"{device[:3]}-noise.nrrd"),
            "config": {"device": device, "uncertainty": True, "strength": 0.5},
            "segment": True,
        }
        found[device] = run_job(JobSpec("enhance", params))["outputs"]
    assert found["cpu"].keys() == found["remote:lab"].keys()
    for role in found["cpu"]:
        here, there = (load(found[device][role]) for device in found)
        assert here.is_equal(there), role
        assert here.history == there.history, role
    endless = threading.Thread(target=_endlessly, args=(head,), daemon=True)
    endless.start()
    for said in ("done in", "enhance,"):  # the first job, and the beginning of this one
        while said not in _line_of(real_worker):
            pass
    time.sleep(0.5)
    began = time.monotonic()
    real_worker.send_signal(signal.SIGTERM)
    assert real_worker.wait(10) == 130
    assert time.monotonic() - began < 2
    endless.join(10)
    assert list(temp_root.glob("medenhance-*/job-*")) == []


def _endlessly(head: Volume) -> None:
    large = replace(head, voxels=np.tile(head.voxels, (4, 4, 4)))
    with pytest.raises(WorkerError):
        enhance(large, device="remote:lab")
