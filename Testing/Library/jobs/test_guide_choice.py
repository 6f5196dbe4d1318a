"""Guides of a job: lists, the one that is chosen, its map."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Library.cli.stand_in import stand_in
from Library.conftest import MR, WarningRecorder

from MedEnhanceLib import io
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.manifest import file_sha256
from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import VolumeCache, choose_guide, guide_choice
from MedEnhanceLib.denoise.guide import AlignedGuide, Candidate
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.runtime.progress import Event, Monitor


def brain(seed: int, modality: str = "MR") -> Volume:
    voxels = np.random.default_rng(seed).integers(0, 900, (4, 12, 14)).astype(np.int16)
    return Volume(voxels, Geometry((1, 1, 2)), modality=modality)


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    io.save(brain(0), tmp_path / "t1.nii.gz")
    return tmp_path / "t1.nii.gz"


@pytest.fixture
def enhanced(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What enhancements are asked for; a stand-in uses every guide at a quarter."""
    return stand_in(monkeypatch)


def fitting(monkeypatch: pytest.MonkeyPatch, fits: Callable[[str], bool]) -> list[str]:
    """Replace the registration by a judgment of the file's name; returns the names in order."""
    tried: list[str] = []

    def align(other: Volume, *_: object) -> AlignedGuide:
        tried.append(Path(other.source).name)
        reason = "" if fits(tried[-1]) else "its anatomy does not match"
        return AlignedGuide(other.voxels, np.eye(4), reason, {"used": not reason})

    monkeypatch.setattr(guide_choice, "align", align)
    return tried


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return candidates for a guide, by description; the last one is taken, and fits."""
    seen: list[list[str]] = []
    fitting(monkeypatch, lambda _source: True)

    def suggest(volume: Candidate, candidates: list[Candidate]) -> tuple[Candidate, str] | None:
        if not candidates:
            return None
        seen.append([one.description for one in candidates])
        assert volume.key not in [one.key for one in candidates]
        return candidates[-1], "the last one"

    monkeypatch.setattr(guide_choice, "suggest", suggest)
    monkeypatch.setattr(guide_choice, "relative_noise", lambda _volume: 0.1)
    return seen


def run(scan: Path, listener: Callable[[Event], None] | None = None, **params: Any) -> Any:
    params = {"input": str(scan), "output": str(scan.with_name("out.nii.gz")), **params}
    return run_job(JobSpec("enhance", params), listener)


def test_the_map_of_the_use_is_written_where_it_is_requested(
    scan: Path, enhanced: list[dict[str, Any]]
) -> None:
    io.save(brain(1), scan.with_name("t2.nii.gz"))
    places = {"guide": [str(scan.with_name("t2.nii.gz"))], "guide_map": str(scan.parent / "u.nrrd")}
    result = run(scan, **places)
    assert result["outputs"]["guide_map"] == places["guide_map"]
    assert np.all(io.load(Path(places["guide_map"])).voxels == np.float32(0.25))
    assert result["measured"]["guide"] == {"used": 0.25}


def test_auto_and_files_are_refused(scan: Path) -> None:
    with pytest.raises(ConfigError, match="auto and names files"):
        run(scan, guide=["auto", "t2.nii.gz"])


def test_auto_takes_the_best_of_the_folder(
    scan: Path,
    enhanced: list[dict[str, Any]],
    offered: list[list[str]],
    recorder: WarningRecorder,
) -> None:
    """Neither results, nor labels, nor sequences, nor another modality, nor what is no volume."""
    io.save(brain(1), scan.with_name("t2.nii.gz"))
    io.save(brain(2), scan.with_name("flair.nrrd"))
    io.save(brain(3, "CT"), scan.with_name("ct.nrrd"))
    io.save(brain(0).with_voxels(brain(0).voxels, did="DERIVED: x"), scan.with_name("old.nrrd"))
    io.save(brain(0).with_voxels(brain(0).voxels % 3), scan.with_name("lesions.nrrd"))
    io.save(replace(brain(0), voxels=np.stack([brain(0).voxels] * 2)), scan.with_name("four.nrrd"))
    scan.with_name("broken.nii.gz").write_bytes(b"\x1f\x8b no volume")
    alone = scan.with_name("alone")
    alone.mkdir()
    io.save(brain(0), alone / "t1.nii.gz")
    run(alone / "t1.nii.gz", recorder.listen, guide=["auto"])
    assert not enhanced.pop()["guide"]
    says = "no other series of this examination is suitable"
    assert any(says in warning for warning in recorder.warnings)
    result = run(scan, guide=["auto"])
    assert offered == [["flair.nrrd", "t2.nii.gz"]]
    assert [Path(one.source).name for one in enhanced[0]["guide"]] == ["t2.nii.gz"]
    digest = file_sha256(scan.with_name("t2.nii.gz"))
    assert digest in Path(result["manifest"]).read_text(encoding="utf-8")


def test_a_lossy_input_is_warned_of(
    scan: Path, enhanced: list[dict[str, Any]], recorder: WarningRecorder
) -> None:
    stored, ours = scan.with_name("small.ucv"), scan.with_name("old.nrrd")
    params = {"input": str(scan), "output": str(stored), "config": {"max_error": 40}}
    run_job(JobSpec("compress", params))
    io.save(replace(brain(0), lossy=(Lossy("ISO_10918_1", 10.0),)), ours)  # as of DICOM
    for path in (stored, ours):
        run(path, recorder.listen, overwrite=True)
        says = f"{path.name}: it was compressed with loss"
        assert any(warning.startswith(says) for warning in recorder.warnings)
    before = len(recorder.warnings)
    run(scan, recorder.listen, overwrite=True)
    assert not any("compressed" in warning for warning in recorder.warnings[before:])


@pytest.mark.parametrize("fits", ["L20_T1W", "X19_T1"])
def test_auto_goes_on_to_the_series_that_fits(
    fits: str,
    scan: Path,
    enhanced: list[dict[str, Any]],
    offered: list[list[str]],
    recorder: WarningRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Series of the same name first; messages, manifest and the guide agree."""
    tried = fitting(monkeypatch, lambda name: name.startswith(fits))
    volume = scan.rename(scan.with_name("L20_FLAIR.nii.gz"))
    for number, name in enumerate(("X19_PD", "X19_T1", "X19_T2", "L20_T1W", "L20_T2"), 1):
        io.save(brain(number), scan.with_name(f"{name}.nii.gz"))
    result = run(volume, recorder.listen, guide=["auto"])
    names = ["L20_T2.nii.gz", "L20_T1W.nii.gz", "X19_T2.nii.gz"]
    assert tried == names[: 2 if fits == "L20_T1W" else 3]
    used = [Path(each.source).name for each in enhanced[0]["guide"] or ()]
    assert used == ([tried[-1]] if fits == "L20_T1W" else [])
    kept = [each for each, _ in enhanced[0]["cache"].guides]  # not registered again
    assert kept == (enhanced[0]["guide"] or [])
    assert [Path(result["guide"]).name] == used if used else "guide" not in result.fields
    inputs = json.loads(Path(result["manifest"]).read_text(encoding="utf-8"))["inputs"]
    assert ("guide" in inputs) == bool(used)
    says = "no other series of this examination fits (3 tried): enhanced without a guide"
    assert (says in recorder.warnings) != bool(used)
    assert not any("is not used" in warning for warning in recorder.warnings)


def test_a_folder_of_many_patients_is_no_examination(scan: Path, offered: list[list[str]]) -> None:
    for number in range(21):
        io.save(brain(number), scan.with_name(f"patient-{number}.nrrd"))
    with pytest.raises(InputError, match="hardly be one examination"):
        choose_guide(scan, io.load(scan), VolumeCache(), Monitor())


def test_auto_takes_other_series_of_the_dicom_study(
    make_series: Callable[..., Path], tmp_path: Path, offered: list[list[str]]
) -> None:
    root = tmp_path / "study"
    for name, uid, study in (("t1", "1.9.0", "1"), ("t2", "1.9.1", "1"), ("other", "1.9.2", "2")):
        stated = MR | {"StudyInstanceUID": study, "SeriesDescription": name}
        make_series((4, 20, 24), folder=root / name, uid=uid, **stated)
    [chosen] = choose_guide(root / "t1", io.load(root / "t1"), VolumeCache(), Monitor())
    assert chosen.dicom_origin.series == "1.9.1"
    assert offered == [["t2"]]
