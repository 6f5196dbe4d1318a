"""What training loops share: saved steps, reports, ends, half precision where it is a gain."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from MedEnhanceLib.errors import Cancelled, ModelError
from MedEnhanceLib.learning import precision
from MedEnhanceLib.learning.checkpoint import Checkpoint
from MedEnhanceLib.learning.precision import mixed_precision
from MedEnhanceLib.learning.training import CHECKPOINT, Journal, run_steps, training_steps
from MedEnhanceLib.runtime.progress import Event, Monitor


@pytest.mark.parametrize(
    ("start", "stops_at", "saves", "says"),
    [
        (0, 0, [], "no checkpoint was written"),
        (4, 4, [], "unchanged"),
        (0, 4, [4], "after step 4 of 9; the checkpoint is written"),
    ],
)
def test_a_cancel_saves_what_was_learned_and_says_so(
    start: int, stops_at: int, saves: list[int], says: str
) -> None:
    saved: list[int] = []
    done = start
    monitor = Monitor(cancel=lambda: done >= stops_at)
    with pytest.raises(Cancelled, match=says):
        for number in training_steps(start, 9, saved.append, 1e9, monitor):
            done = number + 1
    assert saved == saves


def test_a_journal_forgets_what_is_done_anew(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    reported: list[Event] = []
    journal = Journal(path, 0, Monitor(reported.append))
    for step in range(0, 60, 20):
        journal.add({"loss": float(step)})
        journal.report(step)
    with path.open("a") as stream:
        stream.write('{"name": "lo')  # the process was killed here
    Journal(path, 40, Monitor())
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 20]
    values = [event.fields["value"] for event in reported]
    assert values[0] == 0
    assert 0 < values[1] < 20  # a running mean
    Journal(path, 0, Monitor())
    assert not path.read_text()


def test_a_loss_that_is_not_finite_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("MedEnhanceLib.learning.training._CHECKPOINT_S", 0)
    weights = torch.nn.Linear(1, 1)
    parts = {"config": {}, "modules": {"network": weights}, "optimizers": {}}
    losses = [{"loss": math.nan if number == 3 else 1.0} for number in range(9)]
    with pytest.raises(ModelError, match="diverged at step 3"):
        run_steps(losses.__getitem__, 9, tmp_path, parts, Monitor())
    assert Checkpoint(tmp_path / CHECKPOINT, **parts).load()[0] == 3


def test_a_cpu_without_bfloat16_keeps_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: False)
    with mixed_precision("cpu"):
        assert not torch.is_autocast_enabled("cpu")
    monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: True)
    with mixed_precision("cpu"):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")
