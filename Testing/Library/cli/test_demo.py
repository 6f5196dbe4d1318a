"""The demo, from the command to the page, on a small piece of the sample."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib import io
from MedEnhanceLib.degradation.pipeline import standard_composite
from MedEnhanceLib.jobs.kinds import demo, demo_scan
from MedEnhanceLib.runtime.text import size_text
from MedEnhanceLib.unicompress import decompress


@pytest.fixture
def small_and_quick(monkeypatch: pytest.MonkeyPatch, networks: list[dict[str, Any]]) -> None:
    """A block out of the middle of the brain and no networks, so that a demo takes a second."""
    place = slice(70, 94), slice(60, 124), slice(50, 110)
    parts = [volume.crop(*place) for volume in demo.load_sample()]
    monkeypatch.setattr(demo, "load_sample", lambda: parts)


@pytest.mark.slow
def test_the_default_demo_lowers_the_error_of_a_real_scan(
    run: Callable, tmp_path: Path, coarse_pictures: None
) -> None:
    ran = run("demo", tmp_path / "out", "--device", "cpu")
    assert ran.status == 0, ran.err
    assert ran.out.startswith("removed ±")
    record = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    before, after, *peers = record["results"]["quality"]
    assert (before["name"], after["name"]) == ("scan", "enhanced")
    assert after["error"] < 0.65 * before["error"]
    assert all(after["error"] < peer["error"] < before["error"] for peer in peers)
    # What the verdict says is what the further measurements show.
    said = int(record["results"]["verdict"].split("about ")[1].split(" %")[0]) / 100
    assert after["removed"] == pytest.approx(said, abs=0.1)
    assert (tmp_path / "out" / demo_scan.LICENSE).exists()
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "nothing was simulated" in page
    assert "the first with b = 1000 s/mm²" in page
    assert page.index("comparison.png") < page.index("reference.png")
    assert (tmp_path / "out/reference.png").exists()


@pytest.mark.usefixtures("small_and_quick")
def test_what_the_demo_leaves_and_prints(run: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    ran = run("demo", folder, "--sample", "template", "--device", "cpu")
    assert ran.status == 0, ran.err
    assert "largest error" in ran.out
    assert f"Look at it: {folder / 'index.html'}" in ran.out
    record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in record["results"]["quality"]] == ["damaged", "enhanced"]
    lossless, bounded, small = record["results"]["compression"]
    assert lossless["max_error"] == 0
    assert bounded["max_error"] <= 2
    assert small["ratio"] >= 64
    assert record["notice"].startswith("Research software")
    page = " ".join((folder / "index.html").read_text(encoding="utf-8").split())
    assert "not a medical device" in page
    for row in record["results"]["quality"]:
        for figure in (row["psnr_db"], row["ssim"], *row["dice"].values()):
            assert f"<td>{figure:.4g}</td>" in page
            assert f"{figure:.4g}" in ran.out
    for file in record["results"]["compression"]:
        for text in (size_text(file["raw_bytes"]), size_text(file["file_bytes"])):
            assert f"<td>{text}</td>" in page
            assert text in ran.out
    assert "only a stand-in" in page  # the warnings of the run
    undamaged, damaged, enhanced = (
        io.load(folder / f"{name}.nii.gz") for name in ("undamaged", "damaged", "enhanced")
    )
    back = decompress(folder / "enhanced-max-error-2.ucv")
    damage = standard_composite(demo.SEED)
    assert damaged.is_equal(damage.apply(undamaged, keep_dtype=True))
    assert enhanced.geometry == damaged.geometry
    assert np.abs(back.voxels.astype(int) - enhanced.voxels).max() <= 2
    assert (folder / demo.LICENCE).exists()


@pytest.mark.usefixtures("small_and_quick")
def test_force_replaces_the_demos_own_files_only(run: Callable, tmp_path: Path) -> None:
    for name in ("mine.txt", "damaged.nii.gz", "index.html"):
        (tmp_path / name).write_text("mine")
    command = ["demo", tmp_path, "--sample", "template"]
    refused = run(*command)
    assert refused.status == 1
    assert "not empty" in refused.err
    assert (tmp_path / "damaged.nii.gz").read_text() == "mine"
    assert run(*command, "--force").status == 0
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert io.load(tmp_path / "damaged.nii.gz").shape
