"""The examples of docs/gradient-gate.md run as they stand, one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

PAGE = Path(__file__).resolve().parents[3] / "docs" / "gradient-gate.md"


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the examples leave behind."""
    text, found = PAGE.read_text(encoding="utf-8"), {}
    for match in re.finditer(r"```python\n(.*?)```", text, re.S):
        line = text.count("\n", 0, match.start(1))
        exec(compile("\n" * line + match.group(1), str(PAGE), "exec"), found)
    return found


def test_the_pair_of_the_example_learns(names: dict[str, Any]) -> None:
    """Both: noise of variance 0.09 is mostly gone, and spots are told."""
    torch.manual_seed(1)
    noisy, clean, spot = map(
        torch.cat, zip(*(names["draw_batch"]() for _ in range(8)), strict=True)
    )
    with torch.no_grad():
        enhanced = names["enhancer"](noisy)
        found = names["classifier"](enhanced).argmax(1)
    assert float((enhanced - clean).square().mean()) < 0.03
    assert float((found == spot).float().mean()) > 0.75


def test_the_gate_of_the_example_was_asked_in_each_step(names: dict[str, Any]) -> None:
    assert names["summary"].steps == 150 + 1 + 1
    assert list(names["summary"].layer_cosines) == ["0.weight", "2.weight"]
    assert 0 < names["summary"].open_fraction < 1


def test_the_slices_of_the_example_are_told_apart(names: dict[str, Any]) -> None:
    torch.manual_seed(1)
    noisy, clean, labels = names["draw_slabs"]()
    with torch.no_grad():
        enhanced = names["slices_of"](names["smoother"], noisy)
    assert float((enhanced - clean).square().mean()) < 0.03
    assert names["recognition"].metrics(enhanced, labels)["accuracy"] > 0.75
    assert names["task"].gate.diagnostics().steps == 60
