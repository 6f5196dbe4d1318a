"""The demo, from the command to the page, on a small piece of the sample."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.cli.stand_in import stand_in

from MedEnhanceLib import io
from MedEnhanceLib.cli.volumes import demo_text
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.kinds import demo
from MedEnhanceLib.report import figures


@pytest.fixture(scope="module", autouse=True)
def calls() -> Iterator[list[dict[str, Any]]]:
    """A block out of the middle of the brain and no networks, so that a demo takes a second."""
    where = (slice(70, 94), slice(60, 124), slice(50, 110))
    brain, labels = (
        replace(
            volume,
            voxels=volume.voxels[where],
            geometry=volume.geometry.cropped((70, 60, 50)),
        )
        for volume in demo.load_sample()
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(demo, "load_sample", lambda: (brain, labels))
        monkeypatch.setattr(figures, "DPI", 40)
        yield stand_in(monkeypatch)


@dataclass(frozen=True)
class Made:
    """What a demo left and printed."""

    folder: Path
    fields: dict[str, Any]
    calls: list[dict[str, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, calls: list[dict[str, Any]]) -> Made:
    """One demo for all tests that only look at it."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    calls.clear()
    spec = JobSpec("demo", {"out": str(folder), "device": "cpu"})
    return Made(folder, dict(run_job(spec).fields), list(calls))


def test_demo_leaves_exactly_its_files(made: Made) -> None:
    assert {path.name for path in made.folder.iterdir()} == {*demo.FILES, "index.html"}


def test_tables_are_printed(made: Made) -> None:
    text = demo_text(made.fields)
    assert "Quality before and after" in text
    assert "every voxel equal" in text
    assert f"Look at it: {made.folder / 'index.html'}" in text


def test_page_links_to_files_that_are_there(made: Made) -> None:
    html = (made.folder / "index.html").read_text(encoding="utf-8")
    links = set(re.findall(r'(?:href|src)="\./([^"]+)"', html))
    assert links == set(demo.FILES)
    for what in ("Dice, white matter", "ratio 64", "mr", "not a medical device", "alt="):
        assert what in html


def test_numbers_are_those_of_the_file(made: Made) -> None:
    findings = made.fields["findings"]
    assert [row["name"] for row in findings["quality"]] == ["undamaged", "damaged", "enhanced"]
    lossless, bounded, small = findings["compression"]
    assert lossless["largest_error"] == 0
    assert bounded["largest_error"] <= 2
    assert small["ratio"] >= 64
    record = json.loads((made.folder / "results.json").read_text(encoding="utf-8"))
    assert record["results"]["compression"] == findings["compression"]
    assert record["notice"].startswith("Research software")


def test_volumes_are_what_they_are_called(made: Made) -> None:
    undamaged, damaged, enhanced, back = (
        io.load(made.folder / f"{name}.nii.gz")
        for name in ("undamaged", "damaged", "enhanced", "enhanced-read-back")
    )
    assert damaged.is_equal(demo.damage(undamaged))
    assert enhanced.geometry == damaged.geometry
    assert np.abs(back.voxels.astype(int) - enhanced.voxels).max() <= 2
    assert "DERIVED" in " ".join(damaged.history)


def test_networks_get_what_the_demo_describes(made: Made) -> None:
    enhance, *segments = made.calls
    assert enhance["config"].model == "mr"
    assert enhance["config"].bias_correction == "auto"
    assert enhance["config"].device == "cpu"
    assert [call["kind"] for call in segments] == ["segment"] * 3


def test_folder_that_holds_something_is_refused(
    run: Callable, calls: list[dict[str, Any]], tmp_path: Path
) -> None:
    calls.clear()
    (tmp_path / "mine.txt").write_text("mine")
    ran = run("demo", tmp_path)
    assert ran.status == 1
    assert "not empty" in ran.err
    assert "--force" in ran.err
    assert calls == []
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_force_replaces_the_demos_own_files_only(run: Callable, tmp_path: Path) -> None:
    for name in ("mine.txt", "index.html", "damaged.nii.gz"):
        (tmp_path / name).write_text("mine")
    ran = run("demo", tmp_path, "--force", "--json")
    assert ran.status == 0
    assert ran.json["findings"]["steps"]
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert "<title>" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert io.load(tmp_path / "damaged.nii.gz").shape == (24, 64, 60)
