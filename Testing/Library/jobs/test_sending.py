"""Results at addresses: sent, then named; what was there stays until then."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError, OutputError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.kinds import volumes
from MedEnhanceLib.runtime.progress import Event

_SECRET = "w0rd"
_OUT = "memory://bucket/out.nii.gz"


class Rooms(MemoryFileSystem):
    """A store with a user in its addresses and with folders, as sftp:// has them."""

    protocol = "rooms"
    store: dict[str, Any] = {}  # noqa: RUF012 - as its parent
    pseudo_dirs = ["", "/host"]  # noqa: RUF012 - as its parent

    def _open(self, path: str, mode: str = "rb", *given: Any, **more: Any) -> Any:
        if mode == "wb" and self._parent(path) not in self.pseudo_dirs:
            raise FileNotFoundError(path)
        return super()._open(path, mode, *given, **more)

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return "/" + str(path).rpartition("://")[2].rpartition("@")[2].strip("/")


@pytest.fixture(autouse=True)
def store(temp_root: Path) -> Iterator[dict[str, Any]]:
    """Everything in the store, by its path."""
    fsspec.register_implementation("rooms", Rooms, clobber=True)
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    Rooms.store.clear()
    yield MemoryFileSystem.store
    MemoryFileSystem.store.clear()
    assert [*temp_root.iterdir()] == []


@pytest.fixture
def scan(tmp_path: Path, head: Volume) -> str:
    me.save(head, tmp_path / "scan.nii.gz")
    return str(tmp_path / "scan.nii.gz")


def convert(scan: str, out: str = _OUT, **params: Any) -> dict[str, Any]:
    job = JobSpec("convert", {"input": scan, "output": out, **params})
    return dict(run_job(job, params.pop("progress", None)).fields)


def put(name: str, data: bytes = b"of somebody else") -> None:
    with fsspec.open(f"memory://{name}", "wb") as stream:
        stream.write(data)


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
    assert json.loads(me_bytes(f"{_OUT}.json"))["action"] == "converted"


def me_bytes(address: str) -> bytes:
    with fsspec.open(address, "rb") as stream:
        return bytes(stream.read())


@pytest.mark.parametrize("taken", ["out.nii.gz", "out.nii.gz.json", "out.nii.gz/below"])
def test_what_is_there_is_refused_before_the_work(
    taken: str, scan: str, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"bucket/{taken}")
    monkeypatch.setattr(volumes, "run_convert", lambda *_: pytest.fail("it began"))
    words = "is a folder" if "/" in taken else f"memory://bucket/{taken} exists already"
    with pytest.raises(OutputError, match=words):
        convert(scan)
    assert [*store] == [f"/bucket/{taken}"]


@pytest.mark.parametrize(
    ("kind", "taken", "params"),
    [
        ("enhance", "out-segmentation.nii.gz", {"segment": True}),
        ("enhance", "noise.nii.gz", {"noise_output": "memory://bucket/noise.nii.gz"}),
        ("recover", "out-lost.nii.gz", {}),
    ],
)
def test_so_is_what_comes_with_a_result(
    kind: str, taken: str, params: dict[str, Any], scan: str
) -> None:
    put(f"bucket/{taken}")
    events: list[Event] = []
    with pytest.raises(OutputError, match=f"memory://bucket/{taken} exists already"):
        run_job(JobSpec(kind, {"input": scan, "output": _OUT, **params}), events.append)
    assert [event.kind for event in events] == ["started"]


def test_so_is_a_store_that_nothing_can_be_written_to(
    scan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: Any, **__: Any) -> None:
        raise PermissionError(_SECRET)

    monkeypatch.setattr(MemoryFileSystem, "open", opened)
    monkeypatch.setattr(volumes, "run_convert", lambda *_: pytest.fail("it began"))
    with pytest.raises(OutputError, match="memory://bucket cannot be written to: PermissionError"):
        convert(scan)


def test_folders_are_made_but_not_where_nothing_is(scan: str) -> None:
    convert(scan, "rooms://host/some/where/out.nii.gz")
    assert "/host/some/where/out.nii.gz.json" in Rooms.store
    with pytest.raises(OutputError, match="there is nothing at that address, or in its bucket"):
        convert(scan, "rooms://misspelled/out.nii.gz")
    assert "/misspelled" not in Rooms.pseudo_dirs


def test_what_appears_during_the_work_is_kept(
    scan: str, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = volumes.run_convert
    monkeypatch.setattr(
        volumes, "run_convert", lambda *given: (put("bucket/out.nii.gz.json"), work(*given))[1]
    )
    with pytest.raises(OutputError, match=r"out\.nii\.gz\.json exists already"):
        convert(scan)
    assert [*store] == ["/bucket/out.nii.gz.json"]


def _cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    write = fsspec.implementations.memory.MemoryFile.write
    monkeypatch.setattr(
        fsspec.implementations.memory.MemoryFile,
        "write",
        lambda self, piece: write(self, piece[:1000]),
    )


def _ending_midway(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_: Any, piece: bytes) -> None:
        if len(piece) > 100:  # the probe before the work is shorter
            raise OSError(5, f"memory://x:{_SECRET}@bucket says no")

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFile, "write", write)


def _moving_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def mv(*_: Any) -> None:
        raise PermissionError(f"{_SECRET} may not")

    monkeypatch.setattr(MemoryFileSystem, "mv", mv)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_cut_short, "has "),
        (_ending_midway, "cannot be written: Input/output error"),
        (_moving_nothing, "cannot be given its name: PermissionError"),
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
    assert me_bytes(_OUT) == b"of somebody else"


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
    ("address", "words"),
    [
        ("https://host/out.nii.gz?key=w0rd", "no general way to write to a web server"),
        ("memory://bucket/out.nii.gz?key=w0rd", "has '?' in it"),
        ("zip://out.nii.gz::memory://bucket/a.zip", "has '::' in it"),
        ("memory://out.nii.gz", "names no file or folder"),
        ("memory://bucket/a/../out.nii.gz", "has '..' in it"),
        ("memory://bucket/out.png", "no volume is written with this ending"),
    ],
)
def test_addresses_that_take_no_results_are_refused(
    address: str,
    words: str,
    scan: str,
    store: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["convert", scan, address]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert _SECRET not in err
    assert not store


def test_folders_that_grow_stay_on_this_machine() -> None:
    with pytest.raises(ConfigError, match="has to lie on this machine") as caught:
        run_job(JobSpec("demo", {"out": "s3://bucket/demo"}))
    assert "copy it there afterwards" in caught.value.hint


def test_a_result_is_not_its_own_input(scan: str, store: dict[str, Any]) -> None:
    put("bucket/out.nii.gz", Path(scan).read_bytes())
    with pytest.raises(OutputError, match="is the input itself"):
        convert("memory:///bucket/out.nii.gz", overwrite=True)
    assert me_bytes(_OUT) == Path(scan).read_bytes()


def test_credentials_of_an_address_are_not_repeated(
    scan: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    address = f"rooms://doe:{_SECRET}@host/out.nii.gz"
    assert main(["convert", scan, address, "--json", "--debug"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["outputs"] == {"output": "rooms://host/out.nii.gz"}
    assert main(["convert", scan, address, "--debug"]) == 1
    refused = capsys.readouterr()
    assert "rooms://host/out.nii.gz exists already" in refused.err
    written = "".join(repr(file.getvalue()) for file in Rooms.store.values())
    assert _SECRET not in f"{said}{refused}{written}"
    batch = ["batch", "compress", scan, "--lossless", "--ledger", str(tmp_path / "here")]
    assert main([*batch, "--out", f"rooms://doe:{_SECRET}@host/small", "--json"]) == 0
    rows = (tmp_path / "here" / "batch.jsonl").read_text()
    assert "rooms://host/small/scan.ucv" in rows
    assert _SECRET not in f"{capsys.readouterr()}{rows}{(tmp_path / 'here/batch.csv').read_text()}"


def test_calls_of_python_write_to_addresses(head: Volume, store: dict[str, Any]) -> None:
    me.save(head, "memory://bucket/below/a.mha")
    done = me.compress(head, "memory://bucket/a.ucv", lossless=True)
    assert done.path == "memory://bucket/a.ucv"
    assert me.decompress("memory://bucket/a.ucv").is_equal(head)
    assert sorted(store) == ["/bucket/a.ucv", "/bucket/below/a.mha"]
    with pytest.raises(OutputError, match=r"memory://bucket/a\.ucv exists already"):
        me.compress(head, "memory://bucket/a.ucv", lossless=True)
    with pytest.raises(ConfigError, match="has to lie on this machine"):
        me.train("hqg", "cpu", "here", out="memory://bucket/run")


class TestDicom:
    """A folder at an address: all files below it."""

    _FOLDER = "memory://bucket/series"

    def write(self, scan: str, **more: Any) -> dict[str, Any]:
        return convert(scan, self._FOLDER, dicom=True, patient_id="P1", modality="MR", **more)

    def test_a_folder_is_sent_whole_and_has_to_be_new(
        self, scan: str, head: Volume, store: dict[str, Any]
    ) -> None:
        put("bucket/series/.medenhance-of-one-that-was-killed")
        done = self.write(scan)
        files = [name for name in store if name.endswith(".dcm")]
        assert sorted(done["files"]) == sorted(f"memory:/{name}" for name in files)
        assert len(files) == head.shape[0]
        assert done["manifest"] == f"{self._FOLDER}.json"
        before = dict(store)
        for overwrite in (False, True):
            with pytest.raises(OutputError, match=f"{self._FOLDER} holds files already"):
                self.write(scan, overwrite=overwrite)
        assert store == before


class TestBatch:
    """The ledger stays here; what is there is looked up at once."""

    @pytest.fixture
    def command(self, scan: str, tmp_path: Path) -> list[str]:
        for name in ("a", "below/b", "below/.hidden", "small/c"):
            put(f"bucket/{name}.nii.gz", Path(scan).read_bytes())
        put("bucket/notes.txt")
        command = ["batch", "compress", "memory://bucket/", "--lossless", "--json"]
        return [*command, "--out", "memory://bucket/small", "--ledger", str(tmp_path / "here")]

    def test_every_volume_below_an_address_and_on_from_where_it_stopped(
        self,
        command: list[str],
        store: dict[str, Any],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert main(command) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        assert [row["output"] for row in rows] == [
            "memory://bucket/small/a.ucv",
            "memory://bucket/small/below/b.ucv",
        ]
        assert sorted(path.name for path in (tmp_path / "here").iterdir()) == [
            "batch.csv",
            "batch.jsonl",
        ]
        assert not [name for name in store if ".medenhance" in name]
        del store["/bucket/small/below/b.ucv"]
        assert main(command) == 0
        assert json.loads(capsys.readouterr().out)["already_done"] == 1
        assert "/bucket/small/below/b.ucv" in store
        put("bucket/a.nii.gz", store["/bucket/below/b.nii.gz"].getvalue()[:-1])
        assert main(command) == 1  # the source is another one, and cut short
        assert json.loads(capsys.readouterr().out)["failed"] == 1

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"--ledger": None}, "--ledger DIR"),
            ({"--ledger": "memory://bucket/rows"}, "has to lie on this machine"),
            ({"--out": "https://host/small"}, "no general way to write"),
            ({"memory://bucket/": "https://host/scans/"}, "does not list what it has"),
            ({"memory://bucket/": "memory://bucket/none/"}, "no volumes found"),
        ],
    )
    def test_what_cannot_be_is_refused_before_the_work(
        self,
        changed: dict[str, str | None],
        words: str,
        command: list[str],
        store: dict[str, Any],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for name, value in changed.items():
            place = command.index(name)
            if value is None:
                del command[place : place + 2]
            else:
                command[place + name.startswith("--")] = value
        command.remove("--json")
        assert main(command) in (2, 3)
        assert words in capsys.readouterr().err
        assert not [name for name in store if name.endswith(".ucv")]
