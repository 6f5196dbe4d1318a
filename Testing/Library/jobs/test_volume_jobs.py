"""Jobs on files that need no trained model: convert, degrade, inspect, and all refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib import io
from MedEnhanceLib.core.manifest import file_sha256
from MedEnhanceLib.degradation.pipeline import degradation_from_json
from MedEnhanceLib.errors import ConfigError, InputError, OutputError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.runtime.progress import Event

_RICIAN = {"name": "rician", "level": 0.1, "seed": 7}


def _convert(scan: Path, output: Path, **params: Any) -> JobSpec:
    return JobSpec("convert", {"input": str(scan), "output": str(output), **params})


def test_convert_keeps_voxels_and_geometry_and_writes_a_manifest(
    scan: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    result = run_job(_convert(scan, tmp_path / "scan.nrrd", modality="MR"), events.append)
    assert io.load(tmp_path / "scan.nrrd").is_equal(io.load(scan))
    assert result["outputs"] == {"output": str(tmp_path / "scan.nrrd")}
    assert result["shape"] == [8, 48, 44]
    assert [event.kind for event in events][:1] == ["started"]
    assert events[-1] == Event("result", result.fields)
    assert result["manifest"] == str(tmp_path / "scan.nrrd.json")
    manifest = json.loads((tmp_path / "scan.nrrd.json").read_text(encoding="utf-8"))
    assert (manifest["action"], manifest["config"]) == ("converted", {"modality": "MR"})
    assert manifest["inputs"] == {"input": f"a file (.nii.gz), SHA-256 {file_sha256(scan)}"}
    assert manifest["seconds"] == result["seconds"]
    assert manifest["software"]["numpy"]


def test_a_manifest_is_refused_by_what_it_is(scan: Path, tmp_path: Path) -> None:
    result = run_job(_convert(scan, tmp_path / "scan.nrrd", modality="MR"))
    with pytest.raises(InputError, match=r"scan\.nrrd\.json is the manifest of a result") as caught:
        run_job(_convert(Path(result["manifest"]), tmp_path / "again.nrrd"))
    assert caught.value.hint == "Give scan.nrrd, the result itself."
    for text, words in (
        ('{"format": "medenhance-distilled", "notice": ""}', "the manifest of a distilled set"),
        ('{"name": "table"}', "files that end in .json"),
        ("[", "files that end in .json"),
    ):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(InputError, match=words):
            run_job(_convert(tmp_path / "manifest.json", tmp_path / "again.nrrd"))


@pytest.mark.slow
def test_no_byte_of_a_result_but_its_page_holds_the_names_of_what_was_read(
    scan: Path, tmp_path: Path
) -> None:
    patient, first, out = b"QUIRRELL", b"Octavia", tmp_path / "out"
    named = tmp_path / "QUIRRELL_Octavia" / "QUIRRELL_Octavia_T1.nii.gz"
    named.parent.mkdir()
    shutil.copyfile(scan, named)
    out.mkdir()
    given = {"input": str(named)}
    enhanced = given | {"config": {"device": "cpu", "uncertainty": True}}
    enhanced |= {"report": str(out / "report")}
    noise = named.with_name("QUIRRELL_Octavia_noise.nii.gz")
    io.save(io.load(scan).with_voxels(np.full(io.load(scan).shape, 4, np.float32)), noise)
    by_map = given | {"config": {"device": "cpu", "noise": str(noise)}}
    for kind, ending, params in (
        ("convert", "nrrd", given),
        ("convert", "mha", given),
        ("degrade", "nii.gz", given | {"steps": [_RICIAN]}),
        ("compress", "ucv", given | {"config": {"lossless": True}}),
        ("enhance", "nii.gz", enhanced),
        ("enhance", "nrrd", by_map),
    ):
        run_job(JobSpec(kind, {**params, "output": str(out / f"{kind}.{ending}")}))
    manifest = json.loads((out / "enhance.nrrd.json").read_text())
    assert manifest["config"]["noise"] == "map"
    assert file_sha256(noise) in manifest["inputs"]["noise"]
    ucv = out / "compress.ucv"
    shutil.copyfile(ucv, named.with_suffix(".ucv"))
    again = {"input": str(named.with_suffix(".ucv")), "output": str(out / "again.nii")}
    run_job(JobSpec("decompress", again))
    found = []
    for path in sorted(file for file in out.rglob("*") if file.is_file()):
        data = path.read_bytes() + path.name.encode()
        if patient in data or first in data:
            found.append(path.relative_to(out).as_posix())
    assert found == ["report/index.html"]  # as the help of --report says


def test_degrade_can_be_replayed_from_its_manifest(scan: Path, tmp_path: Path) -> None:
    params = {"input": str(scan), "output": str(tmp_path / "worse.nii"), "steps": [_RICIAN]}
    run_job(JobSpec("degrade", params))
    manifest = json.loads((tmp_path / "worse.nii.json").read_text(encoding="utf-8"))
    step = degradation_from_json(manifest["config"]["steps"][0])
    replayed = step.apply(io.load(scan), keep_dtype=True)
    assert io.load(tmp_path / "worse.nii").is_equal(replayed)


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("out.xyz", "unsupported output extension"),
        ("compress out.nii.gz", "unsupported output extension"),
        ("out.ucv", "compress writes .ucv"),
        ("missing/out.nrrd", "missing"),
        ("scan.nii.gz", "input itself"),
        ("link.nii.gz", "input itself"),
    ],
)
def test_what_could_not_be_saved_is_refused_before_the_input_is_read(
    scan: Path,
    tmp_path: Path,
    unread: Callable[[], None],
    output: str,
    says: str,
) -> None:
    unread()
    (tmp_path / "link.nii.gz").symlink_to(scan)
    job = _convert(scan, tmp_path / output.removeprefix("compress "), overwrite=True)
    if output.startswith("compress"):
        job = JobSpec("compress", {**job.params, "config": {"lossless": True}})
    with pytest.raises(OutputError, match=says) as caught:
        run_job(job)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("steps", "says"), [([], "no steps"), ([{"name": "haze"}], "haze"), (["rician"], "step")]
)
def test_steps_that_are_none_are_refused(
    scan: Path, tmp_path: Path, steps: list[Any], says: str
) -> None:
    params = {"input": str(scan), "output": str(tmp_path / "out.nii"), "steps": steps}
    with pytest.raises(ConfigError, match=says):
        run_job(JobSpec("degrade", params))
