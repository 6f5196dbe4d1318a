"""The page of budgets when one task is measured again: the other one's figures stay."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture
def budget(scripts_on_the_path: None) -> ModuleType:
    return import_module("budget")


def rows_of(budget: ModuleType, task: str) -> list[dict[str, Any]]:
    """Two patients of each seed; every arm is a little better, and costs a little."""
    arms = [budget.TWIN, *(arm.name for arm in budget.ARMS)]
    return [
        {
            "case": task,
            "subject": f"{seed}-{number}",
            "seed": seed,
            "arm": arm,
            "psnr": 30 - 0.001 * place + number,
            "dice": 0.8 + 0.001 * place,
        }
        for seed in range(3)
        for number in range(2)
        for place, arm in enumerate(arms)
    ]


@pytest.fixture
def earlier(budget: ModuleType, tmp_path: Path) -> Path:
    """What an earlier run of both tasks left, without commits in its rows."""
    rows = [row for task in ("MR", "CT") for row in rows_of(budget, task)]
    path = tmp_path / "budget.json"
    path.write_text(json.dumps({"commit": "abc", "seeds": [0, 1, 2], "rows": rows}))
    return path


def test_rows_of_the_other_task_are_kept_with_their_commit(
    budget: ModuleType, earlier: Path
) -> None:
    kept = budget.kept_rows(earlier, ["CT"], [0, 1, 2], 300)
    assert [
        {name: row[name] for name in row if name not in ("commit", "steps")} for row in kept
    ] == (rows_of(budget, "CT"))
    assert {row["commit"] for row in kept} == {"abc"}


def test_nothing_is_kept_where_there_are_no_results(budget: ModuleType, tmp_path: Path) -> None:
    assert budget.kept_rows(tmp_path / "budget.json", ["CT"], [0], 6) == []


@pytest.mark.parametrize(("seeds", "steps"), [([0], 300), ([0, 1, 2], 6)])
def test_rows_of_another_run_do_not_come_into_one_file(
    budget: ModuleType, earlier: Path, seeds: list[int], steps: int
) -> None:
    with pytest.raises(SystemExit, match="other seeds or steps"):
        budget.kept_rows(earlier, ["CT"], seeds, steps)
    assert budget.kept_rows(earlier, [], seeds, steps) == []


def test_another_head_is_measured_anew(budget: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are kept by what they depend on, the weights of the segmenter among it."""
    brains = next(task for task in budget.TASKS if task.name == "MR")
    keys = set()
    for weights in ("one", "another", "another"):
        monkeypatch.setattr("_budget_tasks._shipped_weights", lambda weights=weights: weights)
        keys.add(budget._key(brains, 0, 300, False))
    assert len(keys) == 2
