"""enhance and segment: what the methods are asked for, what is printed and written."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib import gradprom, io
from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io import load, save


def test_everything_else_is_written_where_requested(
    run: Callable, networks: list[dict[str, Any]], scan: Path, tmp_path: Path
) -> None:
    ran = run(
        *("enhance", scan, tmp_path / "out.nii.gz", "--segment", tmp_path / "labels.nrrd"),
        "--uncertainty",
        *("--report", tmp_path / "report", "--json"),
    )
    assert ran.status == 0
    reported = ran.json
    assert set(reported["outputs"]) == {"output", "segmentation", "uncertainty", "report"}
    assert reported["warnings"][-1] == "only a stand-in"
    assert "stripes: It sees stripes" in reported["warnings"][0]
    assert [row["label"] for row in reported["table"]] == ["gray matter", "white matter"]
    assert io.load(tmp_path / "labels.nrrd").voxels.max() == 2
    assert io.load(tmp_path / "out-uncertainty.nii.gz").dtype == "float32"
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "gray matter" in page and "stripes: It sees stripes" in page
    assert (tmp_path / "report" / "comparison.png").is_file()


def test_a_head_is_chosen_by_name(
    run: Callable, networks: list[dict[str, Any]], scan: Path, tmp_path: Path
) -> None:
    options = ("--segment", "--segmenter", "stripes")
    assert run("enhance", scan, tmp_path / "out.nii.gz", *options).status == 0
    assert [call["kind"] for call in networks] == ["enhance", "segment"]
    assert networks[1]["config"].model == "stripes"
    assert (networks[1]["image"].voxels == load(scan).voxels + 1).all()


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (("--segmenter", "stripes"), 2, "no segmentation is requested"),
        (("--segment", "--segmenter", "brain", "--modality", "CT"), 3, "is for MR"),
        (("--segment", "--modality", "CT"), 3, "segments CT\nModels are installed for MR."),
        (("--segment", "--segmenter", "mr-slices"), 3, "a model that segments is needed"),
    ],
)
def test_labels_that_cannot_be_are_refused_before_the_work(
    options: tuple[str, ...], status: int, says: str, run: Callable, networks: list, scan: Path
) -> None:
    ran = run("enhance", scan, scan.with_name("out.nii.gz"), *options)
    assert (ran.status, says in ran.err, networks) == (status, True, [])


@pytest.mark.usefixtures("networks")
def test_table_of_labels_is_printed_and_each_caveat_once(
    run: Callable, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in, warning = gradprom.segment, "h: little was shown to it"

    def with_caveats(*arguments: Any, **options: Any) -> Any:
        options["monitor"].warn(warning)
        labels = stand_in(*arguments, **options)
        labels.warning, labels.limits = warning, ("Of one scanner",)
        return labels

    monkeypatch.setattr(gradprom, "segment", with_caveats)
    ran = run("segment", scan, tmp_path / "labels.nii.gz")
    assert ran.status == 0
    assert "white matter" in ran.out
    assert ran.out.count("Of one scanner.") == 1
    assert (ran.out + ran.err).count(warning) == 1
    assert io.load(tmp_path / "labels.nii.gz").modality == "SEG"


@pytest.mark.usefixtures("networks")
def test_what_speaks_against_a_result_is_on_terminal_page_manifest_and_row(
    run: Callable, head: Volume, make_series: Callable, tmp_path: Path
) -> None:
    places = [(0.0, 0.0, 2.5 * k) for k in range(14) if k not in (4, 9)]
    make_series(head.voxels.astype(np.uint16), folder=tmp_path / "Doe", positions=places)
    save(head.with_voxels(2 * head.voxels - np.int16(1000)), tmp_path / "ct.mha")
    save(head.with_voxels(head.voxels, did=derived_note("enhanced with mr 0")), tmp_path / "b.nii")
    gaps = "2 of 14 slices (gaps: 5.00 of 32.50 mm) were not imaged but interpolated linearly"
    for name, options, words in (
        ("Doe", ["--resample"], gaps),
        ("ct.mha", ["--modality", "MR"], "its values look like CT, but it is taken as MR"),
        ("b.nii", [], "it was enhanced before; enhancing twice over-smooths"),
    ):
        out, folder = tmp_path / f"{name}-out.nii", tmp_path / f"{name}-report"
        ran = run("enhance", tmp_path / name, out, "--report", folder, *options)
        assert ran.status == 0 and f"{name}: " in ran.err and words in ran.err
        manifest = json.loads(Path(f"{out}.json").read_text(encoding="utf-8"))
        assert [text for text in manifest["warnings"] if words in text and name not in text]
        page = (folder / "index.html").read_text(encoding="utf-8")
        assert words in page.partition("<figure>")[0]
        (shown,) = re.findall("<pre>(.*?)</pre></details>\n<details><summary>History", page, re.S)
        assert json.loads(html.unescape(shown)) == manifest
        rows = run(*("batch", "enhance", tmp_path / name), "--out", folder, *options, "--json")
        assert words in " ".join(rows.json["rows"][0]["warnings"])


@pytest.mark.usefixtures("networks")
def test_a_ct_states_its_limit_and_a_strength_is_recorded_as_requested(
    run: Callable, head: Volume, tmp_path: Path
) -> None:
    save(replace(head, modality="CT"), tmp_path / "ct.nii")
    for strength, factor in (("auto", None), ("full", None), (0.5, 0.5)):
        out = tmp_path / f"{strength}.nii"
        ran = run("enhance", tmp_path / "ct.nii", out, "--strength", str(strength))
        assert "small faint lesions disappear in low-dose CT" in ran.out
        manifest = json.loads(Path(f"{out}.json").read_text(encoding="utf-8"))
        assert manifest["config"]["strength"] == strength
        assert manifest["results"].get("strength") == factor
