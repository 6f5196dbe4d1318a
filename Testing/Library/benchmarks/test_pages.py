"""What scripts write into pages, and what they compare at equal bytes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text("# A\n<!-- x -->\nold\n<!-- end -->\nB\n<!-- y -->\n<!-- end -->\nC\n")
    return path


def test_a_table_is_written_into_its_place_alone(page: Path) -> None:
    import_module("_common").fill(page, "x", "new\n")
    import_module("_common").fill(page, "y", "| 1 |")
    written = page.read_text()
    assert written == "# A\n<!-- x -->\nnew\n<!-- end -->\nB\n<!-- y -->\n| 1 |\n<!-- end -->\nC\n"


def test_a_place_that_is_not_there_is_an_error(page: Path) -> None:
    before = page.read_text()
    with pytest.raises(ValueError, match="no place for 'z'"):
        import_module("_common").fill(page, "z", "new")
    assert page.read_text() == before


@pytest.fixture
def gates() -> Any:
    return import_module("_compression_gates")


def _point(codec: str, size: float, psnr: float | None, setting: float | None = None) -> Any:
    row = {"volume": "CT STS_013", "mode": "ratio", "setting": setting, "codec": codec}
    return row | {"bytes": size, "psnr_db": psnr, "ratio": 64000 / size}


def test_ours_is_held_against_the_better_peer_at_its_own_bytes(gates: Any) -> None:
    rows = [
        _point("HEVC 12 bit, slow", 500, 40.0),
        _point("HEVC 12 bit, slow", 2000, 46.0),
        _point("JPEG 2000", 500, 38.0),
        _point("JPEG 2000", 2000, 45.0),
    ]
    ours = _point("ours", 1000, 43.6, 64)
    peers = ("HEVC 12 bit, slow", "JPEG 2000")
    assert gates.gain_over(rows, ours, peers) == pytest.approx(0.6)
    assert gates.gain_over(rows, _point("ours", 400, 43.6, 160), peers) is None


def test_a_gate_takes_the_worst_ratio_and_volume(gates: Any) -> None:
    rows = [
        _point("HEVC 12 bit, slow", 500, 40.0),
        _point("HEVC 12 bit, slow", 2000, 46.0),
        _point("ours", 1000, 43.6, 64),
        _point("ours", 2000, 46.1, 32),
    ]
    found = {gate["name"]: gate for gate in gates.all_gates(rows)}
    (gate,) = (g for name, g in found.items() if name.startswith("CT: PSNR above"))
    assert gate["value"] == pytest.approx(0.1)
    assert not gate["pass"]


def test_what_was_not_measured_does_not_pass(gates: Any) -> None:
    assert not any(gate["pass"] for gate in gates.all_gates([]) if gate["value"] is None)
