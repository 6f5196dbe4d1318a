"""Jobs around the container, from file to file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from MedEnhanceLib import io
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs import JobSpec, Result, run_job
from MedEnhanceLib.jobs.files import KeptVolumes


def _compress(scan: Path, kept: KeptVolumes | None = None, **params: Any) -> Result:
    given = {"input": str(scan), "output": str(scan.with_suffix(".ucv")), **params}
    config = {"max_error": 2, "threads": 1}
    return run_job(JobSpec("compress", {"config": config, **given}), kept=kept)


def test_compress_reports_what_it_kept_and_writes_it_down(scan: Path) -> None:
    result = _compress(scan)
    container = scan.with_suffix(".ucv")
    assert result["outputs"] == {"output": str(container)}
    assert result["file_bytes"] == container.stat().st_size
    assert result["verified"] is True
    assert 0 < result["max_error"] <= 2
    manifest = json.loads(Path(result["manifest"]).read_text(encoding="utf-8"))
    assert manifest["results"]["ratio"] == result["ratio"]
    assert manifest["config"]["max_error"] == 2


def test_a_container_is_an_input_like_any_other(scan: Path, tmp_path: Path) -> None:
    _compress(scan, config={"lossless": True})
    container = str(scan.with_suffix(".ucv"))
    run_job(JobSpec("convert", {"input": container, "output": str(tmp_path / "again.nrrd")}))
    assert io.load(tmp_path / "again.nrrd").is_equal(io.load(scan))
    card = run_job(JobSpec("inspect", {"input": container}))["card"]
    assert card["shape"] == [8, 48, 44]
    with pytest.raises(ConfigError, match="series"):
        params = {"input": container, "output": str(tmp_path / "x.nrrd"), "series": "1.2"}
        run_job(JobSpec("convert", params))


def test_an_estimate_states_what_compressing_gives(scan: Path, unread: Callable[[], None]) -> None:
    kept = KeptVolumes()
    params = {"input": str(scan), "config": {"max_error": 2, "threads": 1}}
    reported = run_job(JobSpec("estimate", params), kept=kept).fields
    unread()
    done = _compress(scan, kept)
    assert {"ratio", "file_bytes", "psnr", "blocks", "share", "lossless"} <= set(reported)
    assert reported["ratio"] == pytest.approx(done["ratio"], rel=0.1)
    assert reported["max_error"] == done["max_error"]
