"""Addresses: read by a copy, written by sending; nothing secret is repeated, nothing is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError, OutputError
from MedEnhanceLib.jobs import JobSpec, addresses, run_job
from MedEnhanceLib.jobs.kinds import volumes
from MedEnhanceLib.runtime.progress import Event

_SECRET = "X-Signature=s3cr3t"
_OUT = "memory://bucket/out.nii.gz"


@pytest.fixture(autouse=True)
def store(temp_root: Path) -> Iterator[dict[str, Any]]:
    """Everything in the store, by its path."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield MemoryFileSystem.store
    MemoryFileSystem.store.clear()
    assert [*temp_root.iterdir()] == []


@pytest.fixture
def scan(tmp_path: Path, head: Volume) -> str:
    me.save(head, tmp_path / "doe-john.nii.gz")
    return str(tmp_path / "doe-john.nii.gz")


@pytest.fixture
def server(scan: str) -> Iterator[str]:
    content = Path(scan).read_bytes()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/missing"):
                self.send_error(404, self.path)
                return
            self.send_response(200)
            if not path.startswith("/unstated"):
                # A server that says less than it sends is not believed either.
                said = {"/cut": len(content) + 9}.get(path[:4], len(content))
                self.send_header("Content-Length", str(said))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=served.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def convert(scan: str, out: str = _OUT, **params: Any) -> dict[str, Any]:
    return dict(run_job(JobSpec("convert", {"input": scan, "output": out, **params})).fields)


def put(name: str, data: bytes = b"of somebody else") -> None:
    with fsspec.open(f"memory://{name}", "wb") as stream:
        stream.write(data)


def bytes_at(address: str) -> bytes:
    with fsspec.open(address, "rb") as stream:
        return bytes(stream.read())


def test_every_scheme_of_fsspec_is_read(
    scan: str, head: Volume, temp_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = "memory://bucket/doe-john.nii.gz"
    put("bucket/doe-john.nii.gz", Path(scan).read_bytes())
    assert np.array_equal(me.load(address).voxels, head.voxels)
    assert (me.inspect(address)["shape"], me.inspect(address)["source"]) == (
        list(head.shape),
        address,
    )
    assert main(["inspect", address]) == 0
    assert capsys.readouterr().out.startswith(f"{address} (")
    for path in ("sub-01::T1w.nii", "C://scan.nii", "scans//a.nii", Path("https://host/a.nii")):
        assert not addresses.is_remote(path)


def test_a_command_reads_an_address_and_repeats_no_secret(
    server: str, scan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"{server}/unstated/doe-john.nii.gz?{_SECRET}#{_SECRET}"
    assert main(["convert", address, str(tmp_path / "out.nrrd"), "--debug"]) == 0
    said = "".join(capsys.readouterr()) + (tmp_path / "out.nrrd.json").read_text()
    assert "s3cr3t" not in said
    assert "doe" not in said
    assert np.array_equal(me.load(tmp_path / "out.nrrd").voxels, me.load(scan).voxels)


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("SERVER/missing/a.nii.gz", 3, "answers 404"),
        ("SERVER/cut/a.nii.gz", 3, "bytes too early"),
        ("nowhere://bucket/a.nii.gz", 2, "fsspec knows no addresses"),
        ("https://user:s3cr3t@127.0.0.1/a.nii.gz", 3, "https://127.0.0.1/a.nii.gz"),
        ("memory://bucket/none.nii.gz", 3, "nothing at that address"),
    ],
)
def test_what_cannot_be_read_is_a_sentence_without_the_signature(
    server: str, address: str, status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address = address.replace("SERVER", server)
    assert main(["inspect", f"{address}?{_SECRET}", "--debug"]) == status
    err = capsys.readouterr().err
    assert words in err
    assert "s3cr3t" not in err


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://TOKEN@host/a.nii", "https://host/a.nii"),
        ("https://us@er:TOKEN@host/b@c.nii", "https://host/b@c.nii"),
        ("s3://KEY:TOKEN@bucket/a.nii", "s3://bucket/a.nii"),
        ("abfs://container@account/a.nii", "abfs://container@account/a.nii"),
        ("s3://bucket/sub@1/a.nii", "s3://bucket/sub@1/a.nii"),
        ("C:/TOKEN@a.nii", "C:/TOKEN@a.nii"),
    ],
)
def test_what_is_shown_of_an_address_has_no_secret_and_all_else(
    address: str, expected: str
) -> None:
    assert addresses.shown(address) == expected


def test_a_batch_takes_addresses_and_leaves_out_what_is_done(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [f"{server}/a/one.nii.gz?{_SECRET}", f"{server}/b/two.nii.gz"]
    command = ["batch", "compress", *named, "--lossless", "--json", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    done = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.ucv")) == ["one.ucv", "two.ucv"]
    assert done["rows"][0]["source"] == f"{server}/a/one.nii.gz"
    assert "s3cr3t" not in (tmp_path / "out" / "batch.jsonl").read_text()
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["already_done"] == 2


def test_a_job_writes_to_an_address_and_its_manifest_comes_last(
    scan: str, store: dict[str, Any], head: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[str] = []
    move = MemoryFileSystem.mv
    monkeypatch.setattr(
        MemoryFileSystem, "mv", lambda self, old, new: (named.append(new), move(self, old, new))
    )
    events: list[Event] = []
    done = run_job(JobSpec("convert", {"input": scan, "output": _OUT}), events.append).fields
    assert (done["outputs"], done["manifest"]) == ({"output": _OUT}, f"{_OUT}.json")
    assert named == ["/bucket/out.nii.gz", "/bucket/out.nii.gz.json"]
    assert sorted(store) == named
    assert np.array_equal(me.load(_OUT).voxels, head.voxels)
    stages = [event.fields["stage"] for event in events if event.kind == "progress"]
    assert stages[-1] == "upload"
    assert json.loads(bytes_at(f"{_OUT}.json"))["action"] == "converted"


@pytest.mark.parametrize("taken", ["out.nii.gz", "out.nii.gz.json", "out.nii.gz/below"])
def test_what_is_there_is_refused_before_the_work(
    taken: str, scan: str, store: dict[str, Any]
) -> None:
    put(f"bucket/{taken}")
    events: list[Event] = []
    words = "is a folder" if "below" in taken else f"memory://bucket/{taken} exists already"
    with pytest.raises(OutputError, match=words):
        run_job(JobSpec("convert", {"input": scan, "output": _OUT}), events.append)
    assert [event.kind for event in events] == ["started"]
    assert [*store] == [f"/bucket/{taken}"]


def test_what_appears_during_the_work_is_kept(
    scan: str, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = volumes.run_convert
    monkeypatch.setattr(
        volumes, "run_convert", lambda *given: (put("bucket/out.nii.gz"), work(*given))[1]
    )
    with pytest.raises(OutputError, match=r"out\.nii\.gz exists already"):
        convert(scan)
    assert [*store] == ["/bucket/out.nii.gz"]


def _cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    write = MemoryFile.write
    monkeypatch.setattr(
        MemoryFile,
        "write",
        lambda self, piece: write(self, piece[:1000]),
    )


def _ending_midway(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: Any) -> None:
        raise OSError(5, f"memory://x:{_SECRET}@bucket says no")

    monkeypatch.setattr(MemoryFile, "write", write)


def _moving_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def mv(*_: Any) -> None:
        raise PermissionError(f"{_SECRET} may not")

    monkeypatch.setattr(MemoryFileSystem, "mv", mv)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_cut_short, "has "),
        (_ending_midway, "cannot be written: Input/output error"),
        (_moving_nothing, "cannot be written: PermissionError"),
    ],
)
def test_a_store_that_fails_keeps_what_it_had_and_nothing_else(
    fault: Callable[[pytest.MonkeyPatch], None],
    words: str,
    scan: str,
    store: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put("bucket/out.nii.gz")
    fault(monkeypatch)
    assert main(["convert", scan, _OUT, "--force", "--debug"]) == 1
    err = capsys.readouterr().err
    assert f"{_OUT} {words}" in err
    assert _SECRET not in err
    assert [*store] == ["/bucket/out.nii.gz"]
    monkeypatch.undo()
    assert bytes_at(_OUT) == b"of somebody else"


def test_a_cancel_between_pieces_leaves_nothing(scan: str, store: dict[str, Any]) -> None:
    sending = False

    def listen(event: Event) -> None:
        nonlocal sending
        sending = sending or event.fields.get("stage") == "upload"

    with pytest.raises(Cancelled):
        run_job(JobSpec("convert", {"input": scan, "output": _OUT}), listen, lambda: sending)
    assert sending
    assert not store


@pytest.mark.parametrize(
    "address",
    [
        f"https://host/out.nii.gz?{_SECRET}",
        f"memory://bucket/out.nii.gz?{_SECRET}",
        "zip://out.nii.gz::memory://bucket/a.zip",
        "memory://out.nii.gz",
        "memory://bucket/a/../out.nii.gz",
    ],
)
def test_addresses_that_take_no_results_are_refused(
    address: str, scan: str, store: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", scan, address]) == 2
    err = capsys.readouterr().err
    assert "cannot take a result" in err
    assert "s3cr3t" not in err
    assert not store


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("demo", {"out": "s3://bucket/demo"}),
        ("convert", {"input": "a.nii", "output": "s3://bucket/series", "dicom": True}),
        ("enhance", {"input": "a.nii", "output": "b.nii", "report": "s3://bucket/page"}),
        ("enhance", {"input": "a.nii", "output": "b.nii", "noise_map": "s3://bucket/c.nii"}),
        ("enhance", {"input": "a.nii", "output": "s3://bucket/b.nii", "segment": True}),
    ],
)
def test_folders_and_further_files_stay_on_this_machine(kind: str, params: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="s3://bucket/") as caught:
        run_job(JobSpec(kind, params))
    assert "there afterwards" in caught.value.hint


def test_a_result_is_not_its_own_input(scan: str, store: dict[str, Any]) -> None:
    put("bucket/out.nii.gz", Path(scan).read_bytes())
    with pytest.raises(OutputError, match="is the input itself"):
        convert(_OUT, overwrite=True)
    assert bytes_at(_OUT) == Path(scan).read_bytes()


def test_calls_of_python_write_to_addresses(head: Volume, store: dict[str, Any]) -> None:
    me.save(head, "memory://bucket/below/a.mha")
    done = me.compress(head, "memory://bucket/a.ucv", lossless=True)
    assert done.path == "memory://bucket/a.ucv"
    assert me.decompress("memory://bucket/a.ucv").is_equal(head)
    assert sorted(store) == ["/bucket/a.ucv", "/bucket/below/a.mha"]
    with pytest.raises(OutputError, match=r"memory://bucket/a\.ucv exists already"):
        me.compress(head, "memory://bucket/a.ucv", lossless=True)
    for call in (
        lambda: me.train("hqg", "cpu", "here", out="memory://bucket/run"),
        lambda: me.open("memory://bucket/a.ucv"),
    ):
        with pytest.raises(ConfigError, match="has to be on this machine"):
            call()
