"""Runs in folders: made, found again, and what the audit of a distilled set comes to."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest

from MedEnhanceLib.errors import InputError, OutputError
from MedEnhanceLib.training.jobs.runs import LongRun


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"kind": "ping", "name": "a", "state": "done", "created": 0, "seconds": 0}',
        '{"kind": "train", "name": "a", "state": "done", "created": 0, "seconds": 0, '
        '"params": {"data": "x", "out": "y", "config": [1]}}',
    ],
)
def test_a_damaged_run_hides_no_other(tmp_path: Path, text: str) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "run.json").write_text(text)
    with pytest.raises(InputError, match="no readable run"):
        LongRun.open(tmp_path / "damaged")
    run = LongRun.create(tmp_path, "train", "../my run")
    run.save()
    assert run.folder.parent == tmp_path
    assert run.name == "my-run"
    assert not run.is_resumable  # it does not say yet what it works on
    run.record["params"] = {"data": "data", "out": "out"}
    run.save()
    newer = LongRun.create(tmp_path, "train", "done")
    newer.record |= {"state": "done", "created": run.record["created"] + 9}
    newer.save()
    assert [each.name for each in LongRun.below(tmp_path)] == ["my-run", "done"]
    assert [each.is_resumable for each in LongRun.below(tmp_path)] == [True, False]
    assert LongRun.create(tmp_path, "train", "../my run").folder != run.folder


def test_a_run_that_failed_is_resumed_only_from_a_checkpoint(tmp_path: Path) -> None:
    for kind, data, file in (
        ("train", "data", "checkpoint.safetensors"),
        ("distill", "cohort", "work/run.json"),
    ):
        run = LongRun.create(tmp_path, kind, "a")
        run.record |= {"state": "failed", "params": {data: "data", "out": "out"}}
        assert not run.is_resumable
        (run.out / file).parent.mkdir(exist_ok=True)
        (run.out / file).touch()
        assert run.is_resumable


def test_only_a_folder_of_a_run_is_removed(tmp_path: Path) -> None:
    run = LongRun.create(tmp_path, "train", "a")
    run.save()
    (run.folder / "thesis.txt").touch()
    with pytest.raises(OutputError, match=r"holds thesis.txt, which MedEnhance did not write"):
        deque(run.remove(), 0)
    (run.folder / "thesis.txt").unlink()
    (tmp_path / "link").symlink_to(run.folder)
    with pytest.raises(OutputError, match="is a link"):
        deque(LongRun.open(tmp_path / "link").remove(), 0)
    assert (run.folder / "run.json").is_file()
    with pytest.raises(InputError, match="no readable run"):
        LongRun.open(tmp_path)
