"""The script for the day on which a device is there runs on the pretended one, in small."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from Library.hqg.conftest import training_data  # noqa: F401

_FOLDER = Path(__file__).parents[1] / "Benchmarks"
#: What these do is not what a pretended device has: kernels, other processes.
_LEFT_OUT = ("tests", "profile", "batches", "two processes")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(_FOLDER))
    yield importlib.import_module("cuda")
    for name in ("cuda", "speed", "_common"):
        sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.parametrize("part", [1, 2, 3])
def test_each_row_is_measured_and_kept(
    part: int, script: ModuleType, cards: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sizes = script.Sizes(side=32, slices=4, preset="smoke", steps=2, head=(10, 48, 56))
    rows = {name: row for name, row in script.PARTS[part].items() if name not in _LEFT_OUT}
    monkeypatch.setitem(script.PARTS, part, rows)
    results = tmp_path / "cuda.jsonl"
    assert script.run_part(script.Bench(sizes, "cuda:1"), part, results) == []
    found = [json.loads(line) for line in results.read_text().splitlines()]
    assert [row["row"] for row in found] == list(rows)
    assert not [row for row in found if "error" in row]
    script.run_part(script.Bench(sizes, "cuda:1"), part, results)
    assert len(results.read_text().splitlines()) == len(rows)  # none is measured twice


@pytest.mark.slow
def test_a_training_goes_on_where_its_last_piece_ended(
    script: ModuleType,
    training_data: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    recipe, results = tmp_path / "tiny.json", tmp_path / "cuda.jsonl"
    recipe.write_text(json.dumps({"preset": "cpu", "steps": 9000, "modality": "MR"}))
    bench = script.Bench(script.Sizes(preset="smoke"), "cpu")
    seconds = iter([0.0, 600.0])

    def piece(bench: object) -> dict[str, object]:
        return bench.trained(recipe, training_data, tmp_path / "tiny", next(seconds))

    monkeypatch.setitem(script.PARTS, 4, {"tiny": piece})
    assert script.run_part(bench, 4, results) == ["tiny"]
    assert script.run_part(bench, 4, results) == []
    first, last = map(json.loads, results.read_text().splitlines())
    assert (first["finished"], last["finished"]) == (False, True)
    assert Path(last["model"]).is_dir()
    assert script.run_part(bench, 4, results) == []  # which does nothing more
    assert len(results.read_text().splitlines()) == 2
