"""Results whose earlier files are links to shared objects, as DataLad and git-annex keep them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from MedEnhanceLib import io
from MedEnhanceLib.errors import ConfigError, OutputError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.files import check_outputs


def keep(path: Path, annex: Path) -> Path:
    """Move a file into a folder of objects, and leave a link in its place."""
    annex.mkdir(exist_ok=True)
    key = annex / f"key-{path.name}"
    path.rename(key)
    path.symlink_to(key)
    return key


@pytest.mark.parametrize(
    ("kind", "name", "params"),
    [
        ("convert", "a.nrrd", {"modality": "MR"}),
        ("compress", "a.ucv", {"config": {"lossless": True}}),
        ("degrade", "a.mha", {"steps": [{"name": "rician", "level": 0.1, "seed": 7}]}),
    ],
)
def test_force_replaces_the_links_of_result_and_manifest_and_no_object(
    scan: Path, tmp_path: Path, kind: str, name: str, params: dict[str, Any]
) -> None:
    out = tmp_path / "dataset"
    out.mkdir()
    spec = {"input": str(scan), "output": str(out / name), **params}
    run_job(JobSpec(kind, spec))
    files = sorted(out.iterdir())
    keys = {keep(path, tmp_path / "annex"): path for path in files}
    before = {key: key.read_bytes() for key in keys}
    with pytest.raises(OutputError, match="exists already"):
        run_job(JobSpec(kind, spec))
    run_job(JobSpec(kind, {**spec, "overwrite": True}))
    assert sorted(out.iterdir()) == files
    assert not any(path.is_symlink() for path in files)
    assert {key: key.read_bytes() for key in keys} == before
    assert files[0].read_bytes() == before[tmp_path / "annex" / f"key-{name}"]


def test_a_batch_goes_on_from_a_record_that_is_a_link(scan: Path, tmp_path: Path) -> None:
    out, params = tmp_path / "out", {"config": {"lossless": True}}
    spec = {"task": "compress", "inputs": [str(scan)], "output": str(out), "params": params}
    run_job(JobSpec("batch", spec))
    keys = [keep(path, tmp_path / "annex") for path in sorted(out.iterdir())]
    before = [key.read_bytes() for key in keys]
    assert run_job(JobSpec("batch", spec))["already_done"] == 1
    assert run_job(JobSpec("batch", {**spec, "overwrite": True}))["done"] == 1
    assert [key.read_bytes() for key in keys] == before
    rows = (out / "batch.jsonl").read_bytes()
    assert rows.startswith(before[1])
    assert rows.count(b'"done"') == 2


def test_results_with_the_same_content_are_two_links_to_one_object(tmp_path: Path) -> None:
    links = {name: tmp_path / f"{name}.nrrd" for name in ("output", "segmentation")}
    for link in links.values():
        link.symlink_to(tmp_path / "object")
    check_outputs(links, overwrite=True)
    links["segmentation"] = tmp_path / "again" / "output.nrrd"
    links["segmentation"].parent.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="two outputs share one path"):
        check_outputs(links, overwrite=True)


@pytest.mark.parametrize("names", [("scan", "link"), ("link", "scan"), ("link", "link")])
def test_an_output_that_is_the_input_by_a_link_is_refused(
    scan: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    (tmp_path / "link.nii.gz").symlink_to(scan)
    source, output = (tmp_path / f"{name}.nii.gz" for name in names)
    params = {"input": str(source), "output": str(output), "overwrite": True}
    before = io.load(scan)
    with pytest.raises(OutputError, match="the input itself"):
        run_job(JobSpec("convert", params))
    assert (tmp_path / "link.nii.gz").is_symlink()
    assert io.load(scan).is_equal(before)
