"""batch: every volume once, one row each, going on after failures and interruptions."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from Library.cli.conftest import Ran
from Library.conftest import MR

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib import denoise, io
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs import batch_items, batch_runs
from MedEnhanceLib.jobs.batch_items import Item, Shard, gather
from MedEnhanceLib.jobs.batch_ledger import Ledger
from MedEnhanceLib.jobs.batch_runs import run_on_dask
from MedEnhanceLib.runtime.progress import Monitor


@pytest.fixture
def scans(tmp_path: Path, head: Volume) -> Path:
    """Three volumes, one of them in a folder below, and things that are none."""
    folder = tmp_path / "scans"
    (folder / "below").mkdir(parents=True)
    io.save(head, folder / "a.nii.gz")
    io.save(head.with_voxels(head.voxels + np.int16(1)), folder / "b.nrrd")
    io.save(head.with_voxels(head.voxels + np.int16(2)), folder / "below" / "c.mha")
    (folder / "notes.txt").write_text("no volume")
    (folder / ".hidden.nii").write_text("no volume")
    return folder


def rows_of(out: Path) -> list[dict[str, Any]]:
    text = (out / "batch.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def table_of(out: Path) -> dict[str, dict[str, str]]:
    """Rows of batch.csv by the name of their source."""
    with (out / "batch.csv").open(encoding="utf-8", newline="") as stream:
        return {Path(line["source"]).name: line for line in csv.DictReader(stream)}


def test_a_scheduler_names_its_extra_before_anything_is_looked_for(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    ran = run(*enhance(tmp_path / "out", tmp_path / "none"), "--scheduler", "tcp://h:1")
    assert ran.status == 4
    assert "batch --scheduler needs the package" in ran.err
    assert "pip install 'medenhance[batch]'" in ran.err
    assert not (tmp_path / "out").exists()


def enhance(out: Path, *inputs: Path) -> list[str | Path]:
    return ["batch", "enhance", *inputs, "--out", out]


@pytest.mark.parametrize("name", ["a.ucv", "a.ucv.json"])
def test_what_another_hand_put_there_is_never_replaced_without_force(
    run: Callable, scan: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "in").mkdir()
    scan.rename(tmp_path / "in" / "a.nii.gz")
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    batch = ("batch", "compress", tmp_path / "in", "--out", out, "--lossless")
    for _again in range(3):
        ran = run(*batch)
        assert ran.status == 1
        assert "--force" in ran.out
        assert (out / name).read_text() == "mine"
    assert [row["status"] for row in rows_of(out)] == ["failed"] * 3
    assert run(*batch, "--force").status == 0
    (out / "a.ucv").unlink()
    assert run(*batch).status == 0  # the manifest is this batch's own


def test_a_mistyped_or_empty_folder_makes_nothing(run: Callable, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    no, none = tmp_path / "no", tmp_path / "none"
    for places, why in (
        ((tmp_path / "empty",), "empty: no volumes found"),
        ((no,), f"{no} does not exist"),
        ((no, tmp_path / "empty", none), f"{no}, {none} do not exist"),
    ):
        ran = run(*enhance(tmp_path / "out", *places))
        assert (ran.status, why in ran.err) == (3, True)
    assert not (tmp_path / "out").exists()


def test_a_second_batch_is_refused_while_one_writes_to_the_folder(
    run: Callable, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_into_row, refused = batch_runs.run_into_row, list[Ran]()
    out = tmp_path / "out"
    batch = ("batch", "compress", scans, "--lossless", "--out", out)

    def run_meanwhile(*arguments: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(batch_runs, "run_into_row", run_into_row)
            refused.append(run(*batch, "--json"))
        return run_into_row(*arguments)

    monkeypatch.setattr(batch_runs, "run_into_row", run_meanwhile)
    assert "3 of 3 done" in run(*batch).out
    for ran in refused:
        assert (ran.status, ran.json["error"]["code"]) == (1, "output")
        assert f"another batch is writing to {out}" in ran.json["error"]["message"]
    assert len(refused) == 3
    assert not list(out.rglob(".*"))
    (out / ".medenhance-batch").mkdir()
    (out / ".medenhance-batch" / "owner.lock").touch()  # a batch was killed
    assert "3 of 3 done (3 of them before)" in run(*batch).out
    assert not list(out.rglob(".*"))


@pytest.mark.usefixtures("networks")
class TestEnhance:
    def test_every_volume_gets_a_result_and_a_row(
        self, run: Callable, scans: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        ran = run(*enhance(out, scans))
        assert ran.status == 0
        assert "3 of 3 done (0 of them before), 0 failed; see" in ran.out
        assert rows_of(out)[-1]["warnings"] == ["only a stand-in"]
        done = [Path(row["source"]).name for row in rows_of(out) if row["status"] == "done"]
        assert done == [*table_of(out)] == ["a.nii.gz", "b.nrrd", "c.mha"]
        assert {line["status"] for line in table_of(out).values()} == {"done"}
        for name in ("a.nii.gz", "b.nrrd", "below/c.mha"):
            before, after = io.load(scans / name), io.load(out / name)
            assert (after.voxels == before.voxels + 1).all()
            assert after.geometry == before.geometry
        again = run(*enhance(out, scans), "--json").json
        assert (again["done"], again["already_done"]) == (3, 3)
        assert "3 of 3 done (3 of them before), 0 failed; see" in run(*enhance(out, scans)).out

    def test_it_resumes_however_its_paths_are_written(
        self, run: Callable, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "link").symlink_to(scans)
        monkeypatch.chdir(tmp_path)
        assert run(*enhance(Path("out"), Path("scans"))).status == 0
        places = [
            (tmp_path / "out", scans),
            (Path("scans/../out"), Path("link")),
            (Path("../../out"), Path("..")),
        ]
        for out, place in places:
            if place.name == "..":
                monkeypatch.chdir(scans / "below")
            again = run(*enhance(out, place), "--json").json
            assert (again["total"], again["done"], again["already_done"]) == (3, 3, 3)
        (tmp_path / "moved").mkdir()
        for name in ("scans", "out"):
            (tmp_path / name).rename(tmp_path / "moved" / name)
        moved = tmp_path / "moved" / "out"
        again = run(*enhance(moved, tmp_path / "moved" / "scans"), "--json").json
        assert (again["done"], again["already_done"]) == (3, 3)
        table = (moved / "batch.csv").read_text(encoding="utf-8").splitlines()
        assert len(table) == 1 + 3
        assert len(rows_of(moved)) == 2 * 3
        assert all(Path(row["source"]).is_absolute() for row in rows_of(moved))

    @pytest.mark.parametrize("change", ["source", "task"])
    def test_a_result_of_another_source_or_task_is_not_replaced(
        self, run: Callable, scans: Path, tmp_path: Path, change: str
    ) -> None:
        """A long list becomes several runs; names in folders of patients are often the same."""
        out = tmp_path / "out"
        assert run(*enhance(out, scans / "a.nii.gz")).status == 0
        before = (out / "a.nii.gz").read_bytes()
        (tmp_path / "another").mkdir()
        shutil.copy(scans / "a.nii.gz", tmp_path / "another" / "a.nii.gz")
        other = enhance(out, tmp_path / "another" / "a.nii.gz")
        if change == "task":
            other = ["batch", "segment", scans / "a.nii.gz", "--out", out, "--model", "brain"]
        ran = run(*other)
        assert (ran.status, "--force" in ran.out) == (1, True)
        assert (out / "a.nii.gz").read_bytes() == before
        assert run(*enhance(out, scans / "a.nii.gz"), "--json").json["already_done"] == 1

    @pytest.mark.parametrize("place", ["scans", "scans/below/.."])
    def test_one_folder_for_volumes_and_results_is_refused(
        self, run: Callable, scans: Path, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        monkeypatch.chdir(scans)
        before = sorted(scans.rglob("*"))
        ran = run(*enhance(scans, scans.parent / place))
        assert (ran.status, "of the volumes and of the results" in ran.err) == (2, True)
        assert run(*enhance(Path(), Path())).err == ran.err
        assert sorted(scans.rglob("*")) == before

    def test_one_failure_does_not_stop_the_rest_and_is_tried_again(
        self, run: Callable, networks: list[Any], scans: Path, tmp_path: Path
    ) -> None:
        whole = (scans / "b.nrrd").read_bytes()
        (scans / "b.nrrd").write_bytes(whole[:300])
        out = tmp_path / "out"
        said = run(*enhance(tmp_path / "another", scans / "b.nrrd"))
        assert "0 of 1 done (0 of them before), 1 failed; see" in said.out.splitlines()[-1]
        assert "1 of 1 failed" in said.err
        assert "run the same command again" in said.err
        ran = run(*enhance(out, scans), "--json")
        assert ran.status == 1
        assert (ran.json["done"], ran.json["failed"]) == (2, 1)
        (failed,) = [row for row in ran.json["rows"] if row["status"] == "failed"]
        assert failed["code"] == "input"
        assert "b.nrrd" in failed["message"]
        (scans / "b.nrrd").write_bytes(whole)
        again = run(*enhance(out, scans))
        assert again.status == 0
        assert "3 of 3 done (2 of them before), 0 failed; see" in again.out
        assert len(networks) == 3

    def test_changed_source_or_options_and_what_was_deleted_are_done_again(
        self, run: Callable, networks: list[Any], scans: Path, tmp_path: Path, head: Volume
    ) -> None:
        out = tmp_path / "out"
        run(*enhance(out, scans))
        io.save(head.with_voxels(head.voxels * np.int16(2)), scans / "b.nrrd", overwrite=True)
        os.utime(scans / "b.nrrd", ns=(1, 1))
        assert run(*enhance(out, scans), "--json").json["already_done"] == 2
        (out / "b.nrrd").unlink()
        assert run(*enhance(out, scans), "--json").json["already_done"] == 2
        assert (out / "b.nrrd").exists()
        assert run(*enhance(out, scans), "--strength", "0.5", "--json").json["already_done"] == 0

    def test_a_changed_result_is_neither_done_nor_lost(
        self, run: Callable, scans: Path, tmp_path: Path
    ) -> None:
        """A size cannot tell damage from a user's work: both are kept, and reported."""
        out = tmp_path / "out"
        run(*enhance(out, scans))
        whole = (out / "b.nrrd").read_bytes()
        (out / "b.nrrd").write_text("mine")
        for options in ((), (), ("--strength", "0.5"), ()):  # other options replace results
            ran = run(*enhance(out, scans), *options)
            assert (ran.status, (out / "b.nrrd").read_text()) == (1, "mine")
            text = " ".join(ran.out.split())
            assert "changed after this batch left it. Move it away to make it alone again" in text
            assert "--force makes all results again" in text
        (out / "b.nrrd").rename(tmp_path / "b.nrrd")
        ran = run(*enhance(out, scans))
        assert "3 of 3 done (2 of them before), 0 failed" in ran.out
        assert (out / "b.nrrd").read_bytes() == whole
        (out / "b.nrrd").write_bytes(whole[:100])
        assert run(*enhance(out, scans), "--force").status == 0
        assert (out / "b.nrrd").read_bytes() == whole

    def test_kill_between_result_and_row_leaves_nothing_in_the_way(
        self, run: Callable, scans: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        run(*enhance(out, scans))
        lines = (out / "batch.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        # The last row was cut off while it was written: its "started" row is whole.
        (out / "batch.jsonl").write_text("".join(lines[:-1]) + lines[-1][:20], encoding="utf-8")
        ran = run(*enhance(out, scans), "--json")
        assert (ran.status, ran.json["done"], ran.json["already_done"]) == (0, 3, 2)
        after = (out / "batch.jsonl").read_text(encoding="utf-8").splitlines()
        assert after[len(lines) - 1] == lines[-1][:20]  # the new rows begin on a line of their own

    def test_interrupt_keeps_what_is_done(
        self, run: Callable, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run_into_row = batch_runs.run_into_row

        def interrupted(
            kind: str, params: Mapping[str, Any], cancel: Callable[[], bool], *besides: Any
        ) -> Any:
            if params["input"].endswith("b.nrrd"):
                os.kill(os.getpid(), signal.SIGINT)
                while not cancel():  # until the main thread has answered the signal
                    time.sleep(0.01)
            return run_into_row(kind, params, cancel, *besides)

        monkeypatch.setattr(batch_runs, "run_into_row", interrupted)
        (scans / "0.nrrd").write_bytes(b"")
        out = tmp_path / "out"
        ran = run(*enhance(out, scans), "--json")
        assert ran.status == 130
        assert ran.json["error"]["code"] == "cancelled"
        text = f"cancelled; 1 of 4 are done, 1 failed; see {out / 'batch.csv'}"
        assert ran.json["error"]["message"] == text


def test_every_volume_gets_labels_and_the_table_their_volumes(
    run: Callable, networks: list[Any], scans: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (scans / "b.nrrd").write_bytes(b"")
    arguments = ("batch", "segment", scans, "--out", out, "--model", "brain", "--json")
    ran = run(*arguments)
    assert (ran.status, ran.json["done"], ran.json["failed"]) == (1, 2, 1)
    labels = io.load(out / "below" / "c.mha")
    assert labels.modality == "SEG"
    assert labels.geometry == io.load(scans / "below" / "c.mha").geometry
    assert {call["config"].model for call in networks} == {"brain"}
    assert table_of(out)["a.nii.gz"]["gray matter ml"] == "1.5"
    assert table_of(out)["b.nrrd"]["code"] == "input"
    assert run(*arguments).json["already_done"] == 2
    assert len(networks) == 2


def test_the_summary_counts_unchanged_volumes_and_the_page_has_all_columns(
    run: Callable, networks: list[Any], scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule is that of the command for one volume: the change of tissue, not the share."""
    sigma = {
        "verdict": "removed",
        "snr": 12.5,
        "sigma": 31.4159265,
        "confidence": 1.0,
        "reason": "weak",
    }
    noises = [
        {"share_removed": 0.4, "ct_share": 0.5, "changed": 25.0},
        {"share_removed": 0.0, "changed": 0.0},
        {"share_removed": 0.9, "changed": 0.0},  # rounded away in a file of integers
        {"share_removed": 0.9, "changed": 4.2, "sigma_used": 9.1, "interval": [9.1, 80.0]},
    ]
    io.save(io.load(scans / "b.nrrd"), scans / "d.nrrd")
    stand_in, measured = denoise.enhance, itertools.cycle(sigma | noise for noise in noises)

    def enhanced(*arguments: Any, **options: Any) -> Any:
        done = stand_in(*arguments, **options)
        done.measured["noise"] = next(measured)
        return done

    monkeypatch.setattr(denoise, "enhance", enhanced)
    ran = run(*enhance(tmp_path / "enhance", scans), "--strength", "0.5")
    assert ran.out.splitlines()[-1].startswith(
        "4 of 4 done (0 of them before): 4 removed, 0 clean, 0 uncertain, 0 failed; 3 hardly "
        "changed (the result is the input, or nearly)"
    )
    rows = [row for row in rows_of(tmp_path / "enhance") if row["status"] == "done"]
    table = table_of(tmp_path / "enhance")
    assert table["a.nii.gz"]["noise (1 SD)"] == "31.42"
    assert (table["a.nii.gz"]["verdict"], table["a.nii.gz"]["SNR"]) == ("removed", "12.5")
    assert rows[0]["measured"]["noise"]["sigma"] == 31.4159265
    sentences = [table[Path(row["source"]).name]["sentence"] for row in rows]
    assert sentences == [row["sentence"] for row in rows]
    alone = [
        run("enhance", row["source"], tmp_path / f"{number}.nii", "--strength", "0.5").out
        for number, row in enumerate(rows)
    ]
    assert [text.splitlines()[0] for text in alone] == sentences
    assert ["the result is the input" in text for text in alone] == [False, True, True, False]
    assert ["nearly the input" in text for text in alone] == [False, False, False, True]
    changes = [table[Path(row["source"]).name]["tissue changed (1 SD)"] for row in rows]
    assert changes == ["12.5", "0.0", "0.0", "2.1"]
    assert f"removed ±{changes[0]}" in alone[0] and f"removed ±{changes[3]}" in alone[3]
    run("batch", "segment", scans, "--out", tmp_path / "segment")
    run("batch", "compress", scans, "--out", tmp_path / "compress", "--max-error", "2")
    page = (Path(__file__).parents[3] / "docs" / "batch.md").read_text(encoding="utf-8")
    for task in ("enhance", "segment", "compress"):
        header = (tmp_path / task / "batch.csv").read_text(encoding="utf-8").splitlines()[0]
        assert header.isascii()
        for column in header.split(","):
            name = "… ml" if column.endswith(" ml") else column
            assert re.search(rf"^\|[^|]*`{re.escape(name)}`", page, re.MULTILINE), column


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("where", ["--workers", "--scheduler"])
def test_workers_side_by_side_give_the_same_rows(
    run: Callable, scans: Path, tmp_path: Path, where: str
) -> None:
    (scans / "b.nrrd").write_bytes(b"")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.ucv").write_text("mine")
    arguments = ["batch", "compress", str(scans), "--lossless", "--out", str(out), "--json"]
    if where == "--workers":
        command = [sys.executable, "-m", "MedEnhanceLib", *arguments, "--workers", "2"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        ran = Ran(done.returncode, done.stdout, done.stderr)
        assert "Warning" not in ran.err
        assert "Traceback" not in ran.err
    else:
        distributed = pytest.importorskip("distributed", reason="dask is an optional package")
        with distributed.LocalCluster(n_workers=1, dashboard_address=":0") as cluster:
            ran = run(*arguments, "--scheduler", cluster.scheduler_address)
    assert (ran.status, ran.json["done"], ran.json["failed"]) == (1, 1, 2)
    assert (out / "a.ucv").read_text() == "mine"
    assert me.decompress(out / "below" / "c.ucv").is_equal(io.load(scans / "below" / "c.mha"))


@pytest.mark.parametrize("silent", ["nthreads", "gather"])
def test_a_cancel_is_not_held_up_by_a_dask_scheduler_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, silent: str
) -> None:
    never, cancel = threading.Event(), threading.Event()
    assert 2 * batch_runs._LEAVE_SECONDS <= 1  # for the jobs, and for the connection
    monkeypatch.setattr(batch_runs, "_LEAVE_SECONDS", 0.1)  # 2 s are then enough on a busy machine
    cancelled_at = []

    def wait_for_ever(*_: object, **__: object) -> None:
        cancelled_at.append(time.monotonic())
        cancel.set()
        never.wait()

    client = SimpleNamespace(
        status="running",
        nthreads=lambda: {"tcp://w:1": 1},
        map=lambda _, jobs, **__: [SimpleNamespace(done=lambda: True) for _ in jobs],
        cancel=lambda *_, **__: never.wait(),
        close=never.wait,
    )
    setattr(client, silent, wait_for_ever)
    distributed = SimpleNamespace(Client=lambda *_, **__: client)
    monkeypatch.setattr("MedEnhanceLib.jobs.batch_runs.require", lambda *_, **__: distributed)
    items = [Item("a.nii", str(tmp_path / "a.ucv"))]
    ledger = Ledger(tmp_path, items, "compress", {}, overwrite=False)
    run_on_dask(ledger, "tcp://s:1", Monitor(cancel=cancel))
    assert time.monotonic() - cancelled_at[0] < 2.0
    never.set()


def test_a_dask_scheduler_is_asked_for_its_threads_now_and_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(batch_runs, "_POLL_SECONDS", 0.0)
    asked, looks = list[int](), itertools.count()
    client = SimpleNamespace(
        status="running",
        nthreads=lambda: asked.append(1) or {"tcp://w:1": 1},
        map=lambda _, jobs, **__: [SimpleNamespace(done=lambda: next(looks) > 9) for _ in jobs],
        gather=lambda ready, **_: {item: {"status": "done"} for item in ready},
        close=lambda: None,
    )
    distributed = SimpleNamespace(Client=lambda *_, **__: client)
    monkeypatch.setattr("MedEnhanceLib.jobs.batch_runs.require", lambda *_, **__: distributed)
    items = [Item("a.nii", str(tmp_path / "a.ucv"))]
    run_on_dask(Ledger(tmp_path, items, "compress", {}, overwrite=False), "tcp://s:1", Monitor())
    assert (len(asked), next(looks)) == (1, 11)


def test_no_cell_of_the_table_is_a_formula_and_each_row_is_one_line(tmp_path: Path) -> None:
    """Whatever the names of labels and files are; a second run knows the volume again."""
    source, output = tmp_path / "=a.nii", tmp_path / "out.nii"
    items = [Item(str(source), str(output))]
    output.write_bytes(b"x")
    ledger = Ledger(tmp_path, items, "segment", {}, overwrite=False)
    labels = [{"label": "=1+1\n@a", "volume_ml": -3.25}]
    row = {"status": "done", "message": "-a\x1b[2J\n+b", "table": labels, "output_bytes": 1}
    ledger.end([(items[0], row)])
    ledger.finish()
    lines = (tmp_path / "batch.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    line = table_of(tmp_path)["=a.nii"]
    assert line["'=1+1\\n@a ml"] == "-3.25"
    assert line["message"] == "'-a\\x1b[2J\\n+b"
    assert Ledger(tmp_path, items, "segment", {}, overwrite=False).todo == []


def test_which_volumes_there_are_and_where_results_go(scans: Path) -> None:
    out = scans / "out"
    out.mkdir()
    shutil.copy(scans / "a.nii.gz", out / "a.nii.gz")  # a result is no source

    def gathered(*places: Path, ending: str | None = None) -> list[Item]:
        named = [str(place) for place in places]
        return gather(named, out, containers=False, ending=ending, monitor=Monitor())

    items = gathered(scans, scans / "a.nii.gz")
    assert [Path(item.source).name for item in items] == ["a.nii.gz", "b.nrrd", "c.mha"]
    assert items[2].output == str(out / "below" / "c.mha")
    shutil.copy(scans / "a.nii.gz", scans / "b.nii.gz")
    with pytest.raises(ConfigError, match="would both become"):
        gathered(scans, ending=".ucv")
    with pytest.raises(ConfigError, match="no volumes were named"):
        gathered()


def test_every_series_is_in_one_shard_which_alone_reads_its_folder(
    ward: Path, scans: Path, make_series: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_series((2, 8, 9), folder=ward / "a" / "1.2.840", uid="1.2.3.7", prefix="x", Modality="MR")
    choices, read = batch_items.choices, list[str]()

    def listed(folder: Path, monitor: Monitor) -> Any:
        read.append(folder.parent.name)
        return choices(folder, monitor)

    monkeypatch.setattr(batch_items, "choices", listed)

    def gathered(*places: Path, shard: Shard | None = None) -> list[Item]:
        named, out = [str(place) for place in places], ward / "out"
        return gather(named, out, containers=True, ending=None, monitor=Monitor(), shard=shard)

    whole = gathered(ward, scans)
    assert len(whole) == 6
    for count in (1, 2, 3, 9):
        read.clear()
        parts = [gathered(scans, ward, shard=Shard(n + 1, count)) for n in range(count)]
        assert sorted(repr(item) for part in parts for item in part) == sorted(map(repr, whole))
        assert sorted(read) == ["a", "b"]


def test_parts_of_a_bids_dataset_and_their_sizes(tmp_path: Path) -> None:
    names = [tmp_path / f"sub-{number:03}" / "anat" for number in range(300)]
    for name in names:
        name.mkdir(parents=True)
        (name / f"{name.parent.name}_T1w.nii.gz").touch()
    (tmp_path / "dataset_description.json").touch()
    parts = [
        batch_items.bids_items(tmp_path, tmp_path / "derivatives" / "a", "segment", Shard(n, 3))
        for n in (1, 2, 3)
    ]
    assert len({item.source for part in parts for item in part}) == sum(map(len, parts)) == 300
    assert all(75 < len(part) < 125 for part in parts)


@pytest.fixture
def shards(scans: Path) -> list[str]:
    """The shards of a.nii.gz, b.nrrd and below/c.mha, of three."""
    items = [Path("a.nii.gz"), Path("b.nrrd"), Path("below/c.mha")]
    return [next(str(Shard(n, 3)) for n in (1, 2, 3) if Shard(n, 3).has(item)) for item in items]


@pytest.mark.usefixtures("networks")
class TestShards:
    def test_their_rows_are_joined_and_what_is_missing_is_said(
        self, run: Callable, scans: Path, tmp_path: Path, shards: list[str]
    ) -> None:
        out, whole = tmp_path / "out", (scans / "b.nrrd").read_bytes()
        (scans / "b.nrrd").write_bytes(whole[:300])
        join = ("batch", "enhance", "--out", out, "--join")
        assert run(*join).status == 3
        first, *others = sorted(f"{n}/3" for n in (1, 2, 3) if f"{n}/3" != shards[1])
        ran = run(*enhance(out, scans), "--shard", shards[1])
        assert (ran.status, ran.out.splitlines()[-1].startswith(f"shard {shards[1]}: ")) == (
            1,
            True,
        )
        ran = run(*join)
        assert ran.status == 1
        assert f"shards to run (again): {first}, {others[0]}" in ran.out
        for shard in (first, *others):
            assert run(*enhance(out, scans), "--shard", shard).status == 0
        assert not (out / "batch.jsonl").exists()
        ran = run(*join)
        assert (ran.status, "2 of 3 done" in ran.out, "shards to run" in ran.out) == (
            1,
            True,
            False,
        )
        assert {name: row["status"] for name, row in table_of(out).items()} == {
            "a.nii.gz": "done", "b.nrrd": "failed", "c.mha": "done",
        }  # fmt: skip
        assert run(*enhance(out), "--retry-failed").status == 1  # in no shard, and fails again
        (scans / "b.nrrd").write_bytes(whole)
        for shard, count in ((first, 0), (shards[1], 1)):
            again = run(*enhance(out), "--retry-failed", "--shard", shard, "--json").json
            assert again["total"] == count
        assert run(*enhance(out, scans), "--shard", shards[1]).status == 0
        ran = run(*join, "--json")
        assert (ran.status, ran.json["done"], ran.json["open_shards"]) == (0, 3, [])
        for options in ((), ("--shard", "1/2"), ("--shard", "2/2")):  # divided otherwise
            again = run(*enhance(out, scans), *options, "--json").json
            assert again["already_done"] == again["done"] == again["total"]

    def test_a_killed_one_leaves_its_rest_to_the_next(
        self, run: Callable, scans: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        run(*enhance(out, scans), "--shard", "1/1")
        ledger = out / "shard-1-of-1.batch.jsonl"
        lines = ledger.read_text(encoding="utf-8").splitlines(keepends=True)
        # Three volumes wait, and one is started; of others there are no results.
        ledger.write_text("".join(lines[:4]) + lines[4][:9], encoding="utf-8")
        for left in (out / "b.nrrd", out / "b.nrrd.json", *(out / "below").iterdir()):
            left.unlink()
        ran = run("batch", "enhance", "--out", out, "--join")
        assert (ran.status, "0 of 3 done" in ran.out, "3 unfinished" in ran.out) == (1, True, True)
        assert "shards to run (again): 1/1" in ran.out
        status = [row["status"] for row in table_of(out).values()]
        assert sorted(status) == ["started", "waiting", "waiting"]
        again = run(*enhance(out), "--retry-failed", "--shard", "1/1", "--json").json
        assert (again["total"], again["done"]) == (1, 1)
        again = run(*enhance(out, scans), "--shard", "1/1", "--json").json
        assert (again["already_done"], again["done"]) == (1, 3)

    def test_another_division_is_refused_meanwhile(
        self, run: Callable, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        shards: list[str],
    ) -> None:  # fmt: skip
        sibling = next(f"{n}/3" for n in (1, 2, 3) if f"{n}/3" != shards[0])
        out, run_into_row = tmp_path / "out", batch_runs.run_into_row
        said: dict[str, Ran] = {}

        def run_meanwhile(*arguments: Any) -> Any:
            with monkeypatch.context() as patch:
                patch.setattr(batch_runs, "run_into_row", run_into_row)
                for other in (sibling, "1/2", shards[0]):
                    said[other] = run(*enhance(out, scans), "--shard", other)
                said["none"] = run(*enhance(out, scans))
            return run_into_row(*arguments)

        monkeypatch.setattr(batch_runs, "run_into_row", run_meanwhile)
        run(*enhance(out, scans), "--shard", shards[0])
        assert {other: ran.status for other, ran in said.items()} == {
            sibling: 0, "1/2": 1, shards[0]: 1, "none": 1,
        }  # fmt: skip
        assert "Only shards of one number run at the same time" in said["1/2"].err
        assert not list(out.rglob(".*"))

    @pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "-1/3"])
    def test_what_is_none_is_refused(self, run: Callable, tmp_path: Path, text: str) -> None:
        ran = run(*enhance(tmp_path / "out", tmp_path), f"--shard={text}")
        assert (ran.status, f"shard is {text}" in ran.err) == (2, True)


@pytest.mark.usefixtures("networks")
def test_what_failed_is_repeated_without_a_search(
    run: Callable, ward: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    make_series: Callable,
) -> None:  # fmt: skip
    make_series((2, 8, 9), folder=ward / "a" / "1.2.840", uid="1.2.3.7", prefix="x", Modality="MR")
    out, whole = tmp_path / "out", (scans / "b.nrrd").read_bytes()
    assert run(*enhance(out), "--retry-failed").status == 3
    (scans / "b.nrrd").write_bytes(b"")
    run_into_row = batch_runs.run_into_row
    failed = {"status": "failed", "code": "memory", "message": "", "hint": "", "output_bytes": 0}
    with monkeypatch.context() as patch:  # a series of a folder fails too
        patch.setattr(
            batch_runs,
            "run_into_row",
            lambda kind, params, *rest: (
                failed
                if "1.2.3.7" in params.get("series", "")
                else run_into_row(kind, params, *rest)
            ),
        )
        ran = run(*enhance(out, ward, scans), "--json")
    assert (ran.json["total"], ran.json["failed"]) == (6, 2)
    (scans / "b.nrrd").write_bytes(whole)
    monkeypatch.delattr(batch_items.os, "walk")
    ran = run(*enhance(out), "--retry-failed", "--json")
    assert (ran.status, ran.json["total"], ran.json["done"]) == (0, 2, 2), ran.err
    series = [row["series"] for row in ran.json["rows"] if "series" in row]
    assert series == ["1.2.3.7"]
    assert {row["status"] for row in table_of(out).values()} == {"done"}
    assert run(*enhance(out), "--retry-failed", "--json").json["total"] == 0
    monkeypatch.undo()
    assert run(*enhance(out, ward, scans), "--json").json["already_done"] == 6


@pytest.fixture
def ward(tmp_path: Path, make_series: Callable) -> Path:
    """Two patients' series as an archive exports them: files without endings, in folders."""
    for patient in ("a", "b"):
        folder = tmp_path / "ward" / patient / "1.2.840"
        make_series((3, 10, 12), folder=folder, uid=f"1.2.3.{ord(patient)}", Modality="MR")
        for number, path in enumerate(sorted(folder.iterdir())):
            path.rename(folder / f"IM{number}")
    (tmp_path / "ward" / "notes").mkdir()
    (tmp_path / "ward" / "notes" / "README").write_text("no volume")
    return tmp_path / "ward"


@pytest.mark.usefixtures("networks")
def test_series_become_series_with_dicom(run: Callable, ward: Path, tmp_path: Path) -> None:
    before = sorted(ward.rglob("*"))
    for out in (ward, ward / "derived"):
        ran = run("batch", "enhance", ward, "--out", out, "--dicom")
        assert (ran.status, "among the originals" in ran.err) == (1, True)
    assert sorted(ward.rglob("*")) == before
    arguments = ["batch", "enhance", ward, "--out", tmp_path / "out", "--dicom"]
    assert run(*arguments).status == 0
    for patient in ("a", "b"):
        derived = io.load(tmp_path / "out" / patient / "1.2.840")
        assert derived.history
        assert derived.dicom_origin
        assert derived.dicom_origin.series != f"1.2.3.{ord(patient)}"
    again = run(*arguments, "--json").json
    assert (again["done"], again["already_done"]) == (2, 2)


@pytest.mark.usefixtures("networks")
def test_every_series_of_a_folder_is_done_and_what_holds_none_is_left_out(
    run: Callable, ward: Path, tmp_path: Path, make_series: Callable
) -> None:
    mixed = ward / "a" / "1.2.840"
    make_series((2, 8, 9), folder=mixed, uid="1.2.3.7", number=7, prefix="x", Modality="MR")
    contours = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3", "Modality": "RTSTRUCT"}
    make_series((1, 8, 9), folder=ward / "plan", uid="1.2.3.8", **contours)
    out = tmp_path / "out"
    ran = run("batch", "enhance", ward, "--out", out, "--json")
    assert ran.status == 0, ran.err
    assert ran.json["total"] == 3
    shapes = sorted(io.load(path).shape for path in (out / "a").glob("1.2.840-*.nii.gz"))
    assert shapes == [(2, 8, 9), (3, 10, 12)]
    assert "left out, because they are not images: 1 × RT Structure" in ran.json["warnings"][1]
    assert not (out / "plan.nii.gz").exists()
    again = run("batch", "enhance", ward, "--out", out, "--json").json
    assert (again["done"], again["already_done"]) == (3, 3)


@pytest.fixture
def archive(tmp_path: Path, make_series: Callable) -> Path:
    """A flat folder, as a PACS exports it: three series, numbered 1, 2 and 7."""
    folder = tmp_path / "ARCHIVE"
    for number in (1, 2, 7):
        uid = f"1.2.3.{number}"
        make_series((4, 8, 9), folder=folder, uid=uid, number=number, prefix=f"{number}-", **MR)
    return folder


@pytest.mark.usefixtures("networks")
class TestFlatFolder:
    def test_only_a_series_whose_own_files_changed_is_done_again(
        self, run: Callable, archive: Path, tmp_path: Path, make_series: Callable
    ) -> None:
        def done_again() -> list[str]:
            before = len(rows_of(out)) if out.exists() else 0
            ran = run(*enhance(out, archive))
            assert ran.status == 0, ran.err
            done = (row["output"] for row in rows_of(out)[before:] if row["status"] == "done")
            return [Path(output).name.removesuffix(".nii.gz") for output in done]

        out = tmp_path / "out"
        assert done_again() == ["ARCHIVE-MR-1", "ARCHIVE-MR-2", "ARCHIVE-MR-7"]
        first, *_, last = sorted(archive.glob("2-*"))
        os.utime(first, ns=(1, 1))
        assert done_again() == ["ARCHIVE-MR-2"]
        removed = last.read_bytes()
        last.unlink()
        assert done_again() == ["ARCHIVE-MR-2"]
        (archive / "below").mkdir()
        (archive / "below" / "again").write_bytes(removed)
        assert done_again() == ["ARCHIVE-MR-2"]
        os.utime(archive / "below" / "again", ns=(1, 1))
        assert done_again() == ["ARCHIVE-MR-2"]
        contours = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3", "Modality": "RTSTRUCT"}
        make_series((1, 8, 9), folder=archive, uid="1.2.3.9", prefix="plan", **contours)
        make_series((2, 8, 9), folder=archive, uid="1.2.3.8", number=8, prefix="8-", **MR)
        assert done_again() == ["ARCHIVE-MR-8"]
        for path in [*archive.glob("8-*"), *archive.glob("plan*")]:
            path.unlink()
        assert done_again() == []

    def test_results_are_named_by_modality_and_number_and_keep_their_names(
        self, run: Callable, archive: Path, tmp_path: Path, make_series: Callable
    ) -> None:
        for path in [*archive.glob("2-*"), *archive.glob("7-*")]:
            path.unlink()
        out = tmp_path / "out"
        assert run(*enhance(out, archive)).status == 0
        assert sorted(path.name for path in out.glob("*.nii.gz")) == ["ARCHIVE.nii.gz"]
        for uid in ("1.2.3.4", "1.2.3.5"):  # of two patients whose series have one number
            about = {"SeriesDescription": "DOE JANE", **MR}
            make_series((2, 8, 9), folder=archive, uid=uid, number=1, prefix=uid, **about)
        make_series((2, 8, 9), folder=archive, uid="1.2.3.6", number=4, prefix="ct")
        ran = run(*enhance(out, archive), "--json").json
        assert (ran["done"], ran["already_done"]) == (4, 1)
        text = " ".join(sorted(path.name for path in out.glob("*.nii.gz")))
        same = "ARCHIVE-MR-1-[0-9a-f]{8}.nii.gz"
        assert re.fullmatch(f"ARCHIVE-CT-4.nii.gz {same} {same} ARCHIVE.nii.gz", text), text
        make_series((2, 8, 9), folder=archive, uid="1.2.3.7", number=4, prefix="other")
        assert run(*enhance(out, archive), "--json").json["already_done"] == 4
        assert len([*out.glob("ARCHIVE-CT-4-????????.nii.gz")]) == 1
        for path in [*archive.glob("1-*"), *archive.glob("other*"), *archive.glob("1.2.3.*")]:
            path.unlink()
        ran = run(*enhance(out, archive), "--json").json  # a single one is left
        assert (ran["total"], ran["already_done"]) == (1, 1)
        shutil.rmtree(archive)
        for number in (4, 5):  # the first takes the place of another
            uid = f"1.2.3.9{number}"
            make_series((2, 8, 9), folder=archive, uid=uid, number=number, prefix=uid)
            ran = run(*enhance(out, archive), "--json").json
            assert (ran["total"], ran["done"]) == (number - 3, number - 3)
        assert len([*out.glob("ARCHIVE-CT-4-????????.nii.gz")]) == 2
        assert (out / "ARCHIVE-CT-5.nii.gz").exists()

    def test_an_option_that_lets_one_series_in_does_not_repeat_the_others(
        self, run: Callable, archive: Path, tmp_path: Path, make_series: Callable
    ) -> None:
        derived = MR | {"ImageType": ["DERIVED", "PRIMARY", "ADC"]}
        make_series((2, 8, 9), folder=archive, uid="1.2.3.8", number=8, prefix="8-", **derived)
        out = tmp_path / "out"
        ran = run(*enhance(out, archive), "--json").json
        assert (ran["done"], ran["failed"]) == (3, 1)
        ran = run(*enhance(out, archive), "--as-intensity", "--json").json
        assert (ran["done"], ran["already_done"]) == (4, 3)
        more = ("--as-intensity", "--resample", "--complete-frames", "--json")
        assert run(*enhance(out, archive), *more).json["already_done"] == 4
        # The result of the derived map is not one of a run without the option.
        ran = run(*enhance(out, archive), "--json").json
        assert (ran["done"], ran["already_done"], ran["failed"]) == (3, 3, 1)

    def test_what_was_copied_because_it_looks_like_phase_is_done_again_on_request(
        self, run: Callable, head: Volume, tmp_path: Path
    ) -> None:
        values = np.random.default_rng(0).uniform(-np.pi, np.pi, head.shape).astype(np.float32)
        io.save(Volume(values, head.geometry, modality="MR"), tmp_path / "phase.nii.gz")
        command = (*enhance(tmp_path / "out", tmp_path / "phase.nii.gz"), "--modality", "MR")
        ran = run(*command, "--json").json
        assert ran["rows"][0]["measured"]["taken_as"]["left_alone"] == "phase"
        assert run(*command, "--resample", "--json").json["already_done"] == 0
        assert run(*command, "--as-intensity", "--json").json["already_done"] == 0

    def test_what_failed_is_named_as_inspect_names_it_in_lines_that_fit(
        self, run: Callable, archive: Path, tmp_path: Path, make_series: Callable
    ) -> None:
        derived = MR | {"ImageType": ["DERIVED", "PRIMARY", "ADC"]}
        make_series((2, 8, 9), folder=archive, uid="1.2.3.4", number=4, prefix="4-", **derived)
        make_series((1, 8, 9), folder=archive, uid="1.2.3.9", prefix="rgb", number=9,
                    PhotometricInterpretation="RGB")  # fmt: skip
        listed = run("inspect", archive).out
        assert "series 3 is a derived map (ADC), not intensities: enhance refuses it" in listed
        assert listed.splitlines()[4].split()[:4] == ["3", "MR", "4", "axial"]
        ran = run(*enhance(tmp_path / "out", archive))
        text, _, last = ran.out.rpartition("\n\n")
        assert "3 of 5 done (0 of them before)" in last
        assert "  ARCHIVE, series 3\n    it is a derived map (ADC), not intensities." in text
        assert max(map(len, text.splitlines())) <= 100
        assert "1.2.3.4" not in text
        assert "  rgb001.dcm\n    a color image" in text
        assert not (tmp_path / "out" / "ARCHIVE").exists()


@pytest.mark.usefixtures("networks")
def test_series_of_other_modalities_are_left_out_and_counted(
    run: Callable, ward: Path, tmp_path: Path, make_series: Callable
) -> None:
    for folder, uid in ((ward / "a" / "1.2.840", "1.2.3.7"), (ward / "pet", "1.2.3.8")):
        make_series((2, 8, 9), folder=folder, uid=uid, prefix="x", Modality="PT")
    batch = ("batch", "enhance", ward, "--out", tmp_path / "out", "--json")
    ran = run(*batch, "--only", "ct,MR")
    assert (ran.status, ran.json["total"], ran.json["failed"]) == (0, 2, 0), ran.err
    assert "left out, series that are not CT or MR: 2 × PT" in ran.json["warnings"]
    ran = run(*batch)  # all of them: the names of the results are the same
    assert (ran.json["total"], ran.json["already_done"]) == (4, 2)
    assert run(*batch, "--only", "CT,PET").status == 2


def test_a_batch_that_compresses_dicom_says_once_what_is_not_kept(
    run: Callable, ward: Path, scan: Path, tmp_path: Path, make_series: Callable
) -> None:
    axes = ((1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1))
    for number, axis in enumerate(axes):  # a localizer of two orientations
        make_series(
            (1, 8, 9), folder=ward / "scout", uid="1.2.3.7", orientation=axis, prefix=str(number),
            SOPInstanceUID=f"1.2.9.{number}", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        )  # fmt: skip
    assert (
        "scout is a localizer (scout views) of 2"
        in run("inspect", ward / "scout", "--series", "1.2.3.7").err
    )
    batch = ("batch", "compress", "--lossless", "--out", tmp_path / "out")
    ran = run(*batch, ward, scan)
    assert (ran.status, ran.err.count("keep the originals")) == (0, 1), ran.err
    assert "warning: scout, series 2 (sagittal 2): one slice has no neighbor" in ran.err
    assert (tmp_path / "out" / "scout-CT-1-sagittal-2.ucv").is_file()
    assert "keep the originals" not in (tmp_path / "out" / "batch.csv").read_text(encoding="utf-8")
    assert "keep the originals" not in run(*batch, scan, "--force").err
    single = run("compress", ward / "a", tmp_path / "a.ucv", "--lossless")
    assert single.err.count("keep the originals") == 1


@pytest.mark.usefixtures("networks")
def test_slices_that_a_result_lacks_are_in_its_row_and_in_the_exit_status(
    run: Callable, tmp_path: Path, make_series: Callable
) -> None:
    """One slice was made with another tube voltage: two results, and each says what it lacks."""
    folder = make_series(
        (6, 10, 12),
        folder=tmp_path / "scans" / "ct",
        slice_elements=lambda k: {"KVP": 80 if k == 0 else 120, "Modality": "MR"},
    )
    out = tmp_path / "out"
    for _ in range(2):  # also when all is done
        ran = run("batch", "enhance", tmp_path / "scans", "--out", out, "--json")
        assert ran.status == 7
        assert "leave slices of their series out" in ran.json["error"]["message"]
        assert (ran.json["done"], ran.json["failed"]) == (2, 0)
        left_out = sorted(row["left_out"] for row in ran.json["rows"])
        assert "kV 120 leaves out 1 slice" in left_out[0]
        assert "kV 80 leaves out 5 slices" in left_out[1]
    # A series whose files are damaged is a row that failed.
    make_series((6, 10, 12), folder=folder, uid="1.2.3.9", prefix="x", Rows=None)
    ran = run("batch", "enhance", tmp_path / "scans", "--out", out, "--json")
    assert (ran.status, ran.json["total"], ran.json["failed"]) == (1, 3, 1)


def test_volumes_beside_dicom_are_taken_and_other_files_named(
    run: Callable, tmp_path: Path, scan: Path, make_series: Callable
) -> None:
    folder = make_series((3, 8, 9), folder=tmp_path / "study", uid="1.2.3.5", Modality="MR")
    for name in ("000.nii.gz", "aaa.nii.gz", "aab.nii.gz", "deep/b.nii.gz", "deep/.tmp/c.nii.gz"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(scan, folder / name)
    no_volumes = ("deep/x.dcm.gz", "m.mgz", "notes.txt", "v.nii.bz2")
    for name in (*no_volumes, ".DS_Store", "aaa.json", "aaa.bval", "batch.csv"):
        (folder / name).write_text("no volume")
    batch = ("batch", "compress", folder, "--out", folder / "out", "--lossless", "--json")
    for done_before in (0, 5):
        ran = run(*batch)
        assert ran.status == 0, ran.err
        assert (ran.json["done"], ran.json["already_done"]) == (5, done_before)
        (warning,) = [text for text in ran.json["warnings"] if text.startswith("left out")]
        assert all(name in warning for name in no_volumes)
        assert "left out: 4 files that" in warning
    assert (folder / "out" / "study.ucv").is_file()
    assert (folder / "out" / "deep" / "b.ucv").is_file()


@pytest.mark.parametrize("kind", ["dose", "color", "deflated", "empty"])
def test_images_that_cannot_be_read_are_rows_that_failed_and_say_why(
    run: Callable, tmp_path: Path, make_series: Callable, kind: str
) -> None:
    from pydicom import dcmread
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    reasons = {"dose": "an RT dose", "color": "a color image", "deflated": "transfer syntax is not"}
    elements = {
        "dose": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2"},
        "color": {"PhotometricInterpretation": "RGB"},
    }
    folder = tmp_path / "scans" / "x"
    make_series((2, 8, 9), folder=folder, uid="1.2.3.6", **elements.get(kind, {}))
    for path in folder.iterdir():
        if kind == "deflated":
            dataset = dcmread(path)
            dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
            dataset.save_as(path)
        elif kind == "empty":
            path.write_bytes(b"")
    make_series((3, 8, 9), folder=tmp_path / "scans", uid="1.2.3.5", Modality="MR")
    batch = ("batch", "compress", tmp_path / "scans", "--out", tmp_path / "out", "--lossless")
    ran = run(*batch, "--json")
    assert ran.status == 1
    failed = [row for row in ran.json["rows"] if row["status"] == "failed"]
    assert failed
    assert all(reasons.get(kind, "empty") in row["message"] and row["hint"] for row in failed)
    assert ran.json["done"] == 1


def test_a_folder_for_results_that_cannot_be_made_is_an_output_error(
    run: Callable, scan: Path
) -> None:
    for command in (
        ("compress", scan, scan / "a.ucv"),
        ("batch", "compress", scan, "--out", scan / "o"),
    ):
        ran = run(*command, "--lossless", "--json")
        assert (ran.status, ran.json["error"]["code"]) == (1, "output")
