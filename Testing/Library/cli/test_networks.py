"""enhance and segment: what is asked of the methods, and what is printed and written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from MedEnhanceLib import io


def test_enhance_writes_a_volume_on_the_same_grid(
    run: Callable, networks: list[dict[str, Any]], scan: Path, tmp_path: Path
) -> None:
    ran = run("enhance", scan, tmp_path / "out.nii.gz")
    assert ran.status == 0
    assert f"wrote {tmp_path / 'out.nii.gz'}" in ran.out
    before, after = io.load(scan), io.load(tmp_path / "out.nii.gz")
    assert after.geometry == before.geometry
    assert (after.voxels == before.voxels + 1).all()
    assert [call["kind"] for call in networks] == ["enhance"]


def test_options_of_enhance_reach_the_method(
    run: Callable, networks: list[dict[str, Any]], scan: Path, tmp_path: Path
) -> None:
    ran = run(
        *("enhance", scan, tmp_path / "out.nii.gz", "--model", "mine", "--strength", "0.5"),
        *("--bias-correction", "n4", "--device", "cpu", "--uncertainty", "--look", scan),
        *("--guide", scan, scan),
    )
    assert ran.status == 0
    call = networks[0]
    config = call["config"]
    assert (config.model, config.strength, config.uncertainty) == ("mine", 0.5, True)
    assert (config.bias_correction, config.device) == ("n4", "cpu")
    assert [guide.shape for guide in call["guide"]] == [(12, 40, 36)] * 2
    assert call["look"].shape == (12, 40, 36)


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
    assert reported["warnings"] == ["only a stand-in"]
    assert [row["label"] for row in reported["table"]] == ["gray matter", "white matter"]
    assert io.load(tmp_path / "labels.nrrd").voxels.max() == 2
    assert io.load(tmp_path / "out-uncertainty.nii.gz").dtype == "float32"
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "gray matter" in page
    assert (tmp_path / "report" / "comparison.png").is_file()


def test_a_head_is_chosen_by_name_also_one_on_request(
    run: Callable, networks: list[dict[str, Any]], scan: Path, tmp_path: Path
) -> None:
    as_ct = ("enhance", scan, tmp_path / "out.nii.gz", "--modality", "CT", "--segment")
    ran = run(*as_ct)
    assert ran.status == 4
    assert "--head NAME" in ran.err and "sarcoma-ct (CT)" in ran.err
    assert networks == []
    assert run(*as_ct, "--head", "sarcoma-ct").status == 0
    assert [call["kind"] for call in networks] == ["enhance", "segment"]
    assert networks[1]["config"].model == "sarcoma-ct"


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (("--head", "brain-tissue"), 2, "no segmentation is asked for"),
        (("--segment", "--head", "no-such-head"), 4, "no-such-head"),
        (("--segment", "--head", "sarcoma-ct"), 4, "is for CT"),
        (("--segment", "--head", "mr"), 4, "a model that segments is needed"),
    ],
)
def test_a_head_that_cannot_be_used_is_refused_before_the_work(
    options: tuple[str, ...],
    status: int,
    says: str,
    run: Callable,
    networks: list[dict[str, Any]],
    scan: Path,
    tmp_path: Path,
) -> None:
    ran = run("enhance", scan, tmp_path / "out.nii.gz", *options)
    assert ran.status == status
    assert says in ran.err
    assert networks == []


def test_table_of_labels_is_printed(
    run: Callable, networks: list[dict[str, Any]], scan: Path, tmp_path: Path
) -> None:
    ran = run("segment", scan, tmp_path / "labels.nii.gz")
    assert ran.status == 0
    assert "white matter" in ran.out
    assert "mm² of surface" in ran.out
    assert "2,346" in ran.out
    assert io.load(tmp_path / "labels.nii.gz").modality == "SEG"
