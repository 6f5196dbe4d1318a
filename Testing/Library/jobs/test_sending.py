"""Results at addresses: sent, read back, then named; what was there stays until then."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib import io
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError, OutputError
from MedEnhanceLib.jobs import JobSpec, batch_runs, run_job
from MedEnhanceLib.jobs.batch_items import Item
from MedEnhanceLib.jobs.batch_runs import Plan
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
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies lie while a job runs."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(autouse=True)
def store(temporary: Path) -> Iterator[dict[str, Any]]:
    """Everything in the store, by its path."""
    fsspec.register_implementation("rooms", Rooms, clobber=True)
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    Rooms.store.clear()
    yield MemoryFileSystem.store
    MemoryFileSystem.store.clear()
    assert [*temporary.iterdir()] == []


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
        ("enhance", "page/index.html", {"report": "memory://bucket/page"}),
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
    def pipe_file(*_: Any) -> None:
        raise PermissionError(_SECRET)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)
    monkeypatch.setattr(volumes, "run_convert", lambda *_: pytest.fail("it began"))
    with pytest.raises(OutputError, match="memory://bucket cannot be written to: no permission"):
        convert(scan)


def test_folders_are_made_but_not_where_nothing_is(scan: str) -> None:
    convert(scan, "rooms://host/some/where/out.nii.gz")
    assert "/host/some/where/out.nii.gz.json" in Rooms.store
    with pytest.raises(OutputError, match="its bucket or folder is not there"):
        convert(scan, "rooms://misspelled/out.nii.gz")
    assert "/misspelled" not in Rooms.pseudo_dirs


def test_errors_name_the_address(scan: str, head: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as caught:
        run_job(JobSpec("enhance", {"input": scan, "output": _OUT, "noise_output": _OUT}))
    assert caught.value.message == f"two outputs share one path: {_OUT}, {_OUT}"

    def save(_volume: Volume, path: Path, **_: Any) -> None:
        raise OutputError(f"{path}: no space")

    monkeypatch.setattr(io, "save", save)
    with pytest.raises(OutputError, match=f"^{_OUT}: no space$"):
        me.save(head, _OUT)


def test_overwriting_replaces_what_is_there(scan: str, store: dict[str, Any]) -> None:
    put("bucket/out.nii.gz")
    convert(scan, overwrite=True)
    assert me.load(_OUT).shape == me.load(scan).shape
    assert sorted(store) == ["/bucket/out.nii.gz", "/bucket/out.nii.gz.json"]


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


def _damaging(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = fsspec.implementations.memory.MemoryFile.close

    def close(self: Any) -> None:
        if self.getbuffer().nbytes > 2000:
            self.getbuffer()[1000] ^= 1
        commit(self)

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFile, "close", close)


def _ending_midway(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: Any) -> None:
        raise OSError(5, f"memory://x:{_SECRET}@bucket says no")

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFile, "write", write)


def _moving_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def mv(*_: Any) -> None:
        raise PermissionError(f"{_SECRET} may not")

    monkeypatch.setattr(MemoryFileSystem, "mv", mv)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_damaging, "was changed on its way"),
        (_ending_midway, "cannot be written: Input/output error"),
        (_moving_nothing, "cannot be given its name: no permission"),
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
        ("memory://bucket/out.nii.gz?key=w0rd", "has a meaning of its own"),
        ("zip://out.nii.gz::memory://bucket/a.zip", "leads through another file"),
        ("memory://out.nii.gz", "names no file or folder"),
        ("memory://bucket/a/../out.nii.gz", ". and .. are no parts"),
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


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("distill", {"cohort": "here", "out": "s3://bucket/set"}),
        ("evaluate", {"bundle": "mr", "data": "here", "out": "s3://bucket/table.json"}),
        ("demo", {"out": "s3://bucket/demo"}),
    ],
)
def test_folders_that_grow_stay_on_this_machine(kind: str, params: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="has to lie on this machine") as caught:
        run_job(JobSpec(kind, params))
    assert "copy it there afterwards" in caught.value.hint


def test_a_result_is_not_its_own_input(scan: str, store: dict[str, Any]) -> None:
    put("bucket/out.nii.gz", Path(scan).read_bytes())
    with pytest.raises(OutputError, match="output is the input itself"):
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


def test_a_file_address_is_a_path(scan: str, tmp_path: Path, head: Volume) -> None:
    done = convert(scan, (tmp_path / "out.nrrd").as_uri())
    assert done["outputs"] == {"output": str(tmp_path / "out.nrrd")}
    me.save(head, (tmp_path / "saved.mha").as_uri())
    assert np.array_equal(me.load(tmp_path / "saved.mha").voxels, head.voxels)


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

    def test_a_folder_is_sent_whole_and_added_to_only_on_request(
        self, scan: str, head: Volume, store: dict[str, Any]
    ) -> None:
        put("bucket/series/.medenhance-of-one-that-was-killed")
        done = self.write(scan)
        files = [name for name in store if name.endswith(".dcm")]
        assert sorted(done["files"]) == sorted(f"memory:/{name}" for name in files)
        assert len(files) == head.shape[0]
        assert done["manifest"] == f"{self._FOLDER}.json"
        with pytest.raises(OutputError, match=f"{self._FOLDER} holds files already"):
            self.write(scan)
        before = dict(store)
        self.write(scan, overwrite=True)  # a study of its own, beside the first
        assert {name for name in before if name.endswith(".dcm")} < {*store}

    def test_a_series_that_is_made_again_leaves_nothing_of_the_first(
        self, make_series: Callable[..., Path], store: dict[str, Any]
    ) -> None:
        source = str(make_series(np.arange(192, dtype=np.int16).reshape(3, 8, 8)))
        me.compress(source, "memory://bucket/a.ucv", lossless=True)
        params = {"input": "memory://bucket/a.ucv", "output": self._FOLDER, "dicom": True}
        params |= {"like": {"path": source}, "overwrite": True}
        put("bucket/series/../../../out-of-the-folder.txt")
        for slices in (3, 2):
            run_job(JobSpec("decompress", params | {"region": [[0, slices], None, None]}))
            assert len([name for name in store if name.endswith(".dcm")]) == slices

    def test_a_result_of_python_is_sent_too(self, scan: str) -> None:
        volume = me.load(scan, modality="MR")
        files = me.save_dicom(volume, self._FOLDER, patient_id="P1")
        assert all(str(file).startswith(f"{self._FOLDER}/") for file in files)
        assert len(me_bytes(str(files[0]))) > 128


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
        monkeypatch: pytest.MonkeyPatch,
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
        listings: list[str] = []
        find = MemoryFileSystem.find
        monkeypatch.setattr(
            MemoryFileSystem,
            "find",
            lambda self, path, **more: (listings.append(path), find(self, path, **more))[1],
        )
        assert main(command) == 0
        assert json.loads(capsys.readouterr().out)["already_done"] == 1
        assert "/bucket/small/below/b.ucv" in store
        assert listings == ["/bucket", "/bucket/small"]
        put("bucket/a.nii.gz", store["/bucket/below/b.nii.gz"].getvalue()[:-1])
        assert main(command) == 1  # the source is another one, and cut short
        assert json.loads(capsys.readouterr().out)["failed"] == 1

    def test_the_job_of_this_name_does_the_same(self, command: list[str], tmp_path: Path) -> None:
        params = {"inputs": [command[2]], "output": "memory://bucket/small", "task": "compress"}
        params |= {"params": {"config": {"lossless": True}}}
        with pytest.raises(ConfigError, match="the ledger"):
            run_job(JobSpec("batch", params))
        done = run_job(JobSpec("batch", params | {"ledger": str(tmp_path / "here")}))
        assert done["done"] == 2

    def test_on_a_cluster_a_lost_jobs_own_result_is_replaced_and_no_other(
        self, tmp_path: Path
    ) -> None:
        put("bucket/out/a.ucv")
        items = [
            Item(Path(name), Path(f"{name}.ucv"), to=f"memory://bucket/out/{name}.ucv")
            for name in ("a", "b")
        ]
        plan = Plan(
            task="compress", items=items, out="memory://bucket/out", ledger=tmp_path / "here",
            config={}, stated={}, overwrite=False, repeats=True,
        )  # fmt: skip
        sent: list[Any] = []
        plan.work_through(
            lambda work, *_: sent.extend(batch_runs._sent(*one) for one in work), lambda *_: None
        )
        assert [params["overwrite"] for _, params in sent] == [False, True]

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"--ledger": None}, "--ledger DIR"),
            ({"--ledger": "memory://bucket/rows"}, "rows are added to it"),
            ({"--out": "https://host/small"}, "no general way to write"),
            ({"memory://bucket/": "https://host/scans/"}, "does not list what it has"),
            ({"memory://bucket/": "memory://bucket/none/"}, "nothing below that address"),
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

    def test_a_dataset_is_written_here(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "dataset").mkdir()
        out = ["--out", "memory://bucket/derived", "--ledger", str(tmp_path / "here")]
        assert main(["batch", "segment", str(tmp_path / "dataset"), "--bids", *out]) == 2
        assert "a dataset is written on this machine" in capsys.readouterr().err
