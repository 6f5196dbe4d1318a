"""A writer that is killed, or finds the disk full, leaves the old file or none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from . import killing

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
REPOSITORY = Path(__file__).resolve().parents[3]


def points(what: str, folder: Path, count: int) -> list[dict[str, Any]]:
    command = [sys.executable, killing.__file__, what, str(folder), str(count), "1"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_killed_writer_leaves_the_old_file_or_none(tmp_path: Path) -> None:
    rows = points("kill", tmp_path, 15)
    assert sum(row["killed"] for row in rows) >= 12
    assert {row["writer"] for row in rows} >= set(killing.MODES)
    for row in rows:
        assert row["target"] in ("old", "new", "none"), row
        assert row["temporary"] <= 1, row
        assert (row["litter"], row["source"]) == (0, "same"), row


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    rows = points("full", tmp_path, 15)
    for row in rows:
        assert not row["crashed"], row
        assert row["says"] == "written" or (
            row["says"].startswith("OutputError") and "no space left" in row["says"]
        ), row
        expected = "new" if row["says"] == "written" else "old" if row["exists"] else "none"
        assert row["target"] == expected, row
        assert (row["temporary"], row["litter"], row["source"]) == (0, 0, "same"), row
    assert sum(row["says"] != "written" for row in rows) >= 5
