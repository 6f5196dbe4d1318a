"""The demo, from the command to the page, also on a small piece of its scan."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from MedEnhanceLib import io
from MedEnhanceLib.jobs.kinds import demo
from MedEnhanceLib.jobs.kinds.demo import REPEATED, SAMPLE
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.runtime.text import size_text
from MedEnhanceLib.unicompress import decompress

ROOT = Path(__file__).parents[3]


@pytest.fixture
def small_and_quick(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, coarse_pictures: None
) -> None:
    """A block out of the middle of the head, of three frames: a demo takes a second."""
    samples = tmp_path_factory.mktemp("samples")
    place = slice(4, 12), slice(20, 44), slice(20, 44)
    for name, volume in zip((SAMPLE, REPEATED), demo.load_scan(), strict=True):
        part = volume.crop(*place)
        part = replace(part, voxels=part.voxels[2:5], gradients=part.gradients[2:5])
        io.save(part, samples / f"{name}.nii.gz")
    for name in (demo.PEERS, demo.LICENSE):
        shutil.copy(resource_folder("samples") / name, samples)
    monkeypatch.setattr(demo, "resource_folder", lambda _: samples)


@pytest.mark.slow
def test_the_default_demo_lowers_the_error_of_a_real_scan(
    run: Callable, tmp_path: Path, coarse_pictures: None
) -> None:
    ran = run("demo", tmp_path / "out", "--device", "cpu")
    assert ran.status == 0, ran.err
    promised = re.search(r"It says `(.*)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert promised is not None and ran.out.startswith(promised[1])
    record = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    before, after, *peers = record["results"]["quality"]
    assert (before["name"], after["name"]) == ("scan", "enhanced")
    assert after["error"] < 0.65 * before["error"]
    assert all(after["error"] < peer["error"] < before["error"] for peer in peers)
    # What the verdict says is what the further measurements show.
    said = int(record["results"]["verdict"].split("about ")[1].split(" %")[0]) / 100
    assert after["removed"] == pytest.approx(said, abs=0.1)
    assert (tmp_path / "out" / demo.LICENSE).exists()
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "nothing was simulated" in page
    assert "the first with b = 1000 s/mm²" in page
    assert page.index("comparison.png") < page.index("reference.png")
    assert (tmp_path / "out/reference.png").exists()


@pytest.mark.usefixtures("small_and_quick")
def test_what_the_demo_leaves_and_prints(run: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    ran = run("demo", folder, "--device", "cpu")
    assert ran.status == 0, ran.err
    assert "largest error" in ran.out
    assert f"Look at it: {folder / 'index.html'}" in ran.out
    record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in record["results"]["quality"]][:2] == ["scan", "enhanced"]
    (lossless,) = record["results"]["compression"]
    assert lossless["max_error"] == 0
    assert record["notice"].startswith("Research software")
    page = " ".join((folder / "index.html").read_text(encoding="utf-8").split())
    assert "not a medical device" in page
    for row in record["results"]["quality"]:
        removed = f"{100 * row['removed']:.0f} %" if "removed" in row else "–"
        for text in (f"{row['error']:.4g}", removed):
            assert f"<td>{text}</td>" in page
            assert text in ran.out
    for file in record["results"]["compression"]:
        for text in (size_text(file["raw_bytes"]), size_text(file["file_bytes"])):
            assert f"<td>{text}</td>" in page
            assert text in ran.out
    scan, enhanced = (io.load(folder / f"{name}.nii.gz") for name in ("scan", "enhanced"))
    assert decompress(folder / lossless["file"]).voxels.tobytes() == scan.voxels.tobytes()
    assert enhanced.geometry == scan.geometry
    assert (folder / demo.LICENSE).exists()


@pytest.mark.usefixtures("small_and_quick")
def test_force_replaces_the_demos_own_files_only(run: Callable, tmp_path: Path) -> None:
    for name in ("mine.txt", "scan.nii.gz", "index.html"):
        (tmp_path / name).write_text("mine")
    command = ["demo", tmp_path]
    refused = run(*command)
    assert refused.status == 1
    assert "not empty" in refused.err
    assert (tmp_path / "scan.nii.gz").read_text() == "mine"
    assert run(*command, "--force").status == 0
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert io.load(tmp_path / "scan.nii.gz").shape
