"""A whole distillation: equal bytes after any stop, no identifiers, and the share that is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - as everybody calls it
from Library.forked import rows_of

from MedEnhanceLib import io
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.manifest import RESEARCH_ONLY, file_sha256
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError, OutputError
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.runtime.text import without_commands
from MedEnhanceLib.training.spg import distillation as run_module
from MedEnhanceLib.training.spg.audit import copies
from MedEnhanceLib.training.spg.cohort import Cohort, Patient, count_patients
from MedEnhanceLib.training.spg.config import DistillConfig
from MedEnhanceLib.training.spg.dataset import load_distilled, order_of
from MedEnhanceLib.training.spg.folder import RunFolder
from MedEnhanceLib.training.spg.images import framed
from MedEnhanceLib.training.spg.matching import Raw
from MedEnhanceLib.training.spg.readme import NO_LICENSE, readme, sheet

from .conftest import PEOPLE, SMOKE, distill, hashes, phantom, write_cohort


def test_a_result_has_volumes_and_a_manifest(whole: Path, smoke: DistillConfig) -> None:
    result = load_distilled(whole)
    volumes = list(result.volumes())
    assert len(volumes) == len(PEOPLE)
    assert all(volume.shape == (12, 40, 40) for volume in volumes)
    assert all(volume.geometry.spacing == (3.0, 3.0, 5.0) for volume in volumes)
    reported = result.manifest
    assert (reported["modality"], reported["patients"], reported["volumes"]) == ("MR", 4, 4)
    assert reported["prior"]["kind"] == "synthetic"
    assert set(reported["measured"]) == {"alignment", "structure", "saturation", "change"}
    assert result.config.record() == smoke.record()
    assert not (whole / "work").exists()
    pictures = sorted((whole / "images").iterdir())
    for picture, volume in zip(pictures, volumes, strict=True):
        shown = sitk.GetArrayFromImage(sitk.ReadImage(str(picture)))
        assert np.array_equal(shown, np.rint(volume.voxels[6] / 10000 * 255))


def test_the_order_is_drawn_from_the_values_so_that_it_reveals_no_patient() -> None:
    volumes = np.random.default_rng(0).random((8, 2, 3, 3)).astype(np.float32)
    order = order_of(volumes).tolist()
    assert sorted(order) == list(range(8)) != order
    assert order != order_of(volumes + np.float32(1e-6)).tolist()


def test_the_pages_say_what_the_set_is_and_not_to_share_a_leak(
    whole: Path,
) -> None:
    manifest = load_distilled(whole).manifest
    page = (whole / "README.md").read_text(encoding="utf-8")
    for words in (RESEARCH_ONLY, "not anatomy", "4 patients"):
        assert words in page
    assert file_sha256(whole / "manifest.json") in (whole / "PRIVACY.md").read_text("utf-8")
    for write in (readme, sheet):
        alarm = {"audit": {"alarm": True, "verdict": "ALARM: it leaks."}}
        assert "**ALARM: it leaks.**" in write(manifest | alarm).partition("##")[0]
    assert "- Do not share the set. Nor one of a further run" in sheet(manifest | alarm)


@pytest.mark.slow
def test_a_raw_slice_in_the_set_raises_the_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the whole distillation: a patient's slice gets into a volume, and is found."""
    monkeypatch.setattr(copies, "PLANTS", 1)
    names = tuple(f"P{number}" for number in range(6))
    cohort = Cohort.from_folder(write_cohort(tmp_path / "people", people=names))
    config = replace(SMOKE, held_out=0.4, loop=replace(SMOKE.loop, inner=1, teaching=0))
    patient_of = run_module.distill_patient

    def leaking(raw: Raw, *args: object, **options: object) -> tuple[Floats, dict[str, float]]:
        made = patient_of(raw, *args, **options)  # type: ignore[arg-type]
        if raw.number == 1:
            made[0][0, 5] = framed(raw.volumes[0].voxels[3:4], 40)[0]
        return made

    calm = distill(cohort, tmp_path / "calm", config)
    assert load_distilled(calm).manifest["audit"]["alarm"] is False
    monkeypatch.setattr(run_module, "distill_patient", leaking)
    leaks = distill(cohort, tmp_path / "leaks", config)
    assert load_distilled(leaks).manifest["audit"]["alarm"] is True
    assert "Do not share the set" in (leaks / "PRIVACY.md").read_text(encoding="utf-8")
    assert load_distilled(leaks).alarm


@pytest.mark.slow
def test_without_a_license_nobody_may_use_it_until_one_is_stated(
    whole: Path, cohort: Cohort, smoke: DistillConfig, tmp_path: Path
) -> None:
    def warnings(out: Path, config: DistillConfig) -> list[str]:
        events: list[Event] = []
        distill(cohort, out, config, Monitor(events.append))
        messages = [event.fields["message"] for event in events if event.kind == "warning"]
        return [message for message in messages if "icense" in message]

    out = Path(shutil.copytree(whole, tmp_path / "out"))
    (message,) = warnings(out, smoke)
    assert message.startswith(NO_LICENSE)
    assert "--license" in message
    for name in ("README.md", "manifest.json"):
        assert NO_LICENSE in (out / name).read_text(encoding="utf-8")
    assert load_distilled(out).entry()["license"] == "not stated"

    stated = replace(smoke, license="CC BY 4.0")
    assert not warnings(out, stated)
    assert load_distilled(out).entry()["license"] == "CC BY 4.0"
    assert hashes(distill(cohort, tmp_path / "stated", stated)) == hashes(out)
    before = hashes(out)
    assert not warnings(out, smoke)
    assert hashes(out) == before, "a license is not taken back by leaving it out"


@pytest.mark.parametrize("read", [Cohort.from_folder, count_patients])
def test_a_set_is_no_cohort(whole: Path, read: Callable[[Path], object]) -> None:
    """Its pictures lie in folders as patients' files do."""
    with pytest.raises(InputError, match="distilled set, which holds no patients"):
        read(whole)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the program forks")
def test_a_distillation_ended_by_sigkill_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """One point of many that the program can try: killing.py says how."""
    program = Path(__file__).with_name("killing.py")
    (row,) = rows_of(program, str(tmp_path), "1", "1", "1", "0")
    assert row["killed"] and row["went_on"] and row["same"]


@pytest.mark.slow
def test_a_canceled_training_resumes_unless_its_data_changed(
    whole: Path, smoke: DistillConfig, tmp_path: Path
) -> None:
    folder, out = write_cohort(tmp_path / "people"), tmp_path / "out"
    steps = 0

    def listen(event: Event) -> None:
        nonlocal steps
        steps += event.kind == "progress" and "step " in event.fields["stage"]

    with pytest.raises(Cancelled, match="checkpoint is written"):
        monitor = Monitor(listen, lambda: steps > 6)
        distill(Cohort.from_folder(folder), out, smoke, monitor)
    assert list(out.rglob("checkpoint.safetensors"))
    path = next((folder / PEOPLE[3]).iterdir())
    original, volume = path.read_bytes(), io.load(path)
    voxels = volume.voxels.copy()
    voxels[4, 17, 15] += 1
    io.save(volume.with_voxels(voxels), path, overwrite=True)
    with pytest.raises(InputError, match="started with other images"):
        distill(Cohort.from_folder(folder), out, smoke)
    path.write_bytes(original)
    assert hashes(distill(Cohort.from_folder(folder), out, smoke)) == hashes(whole)


@pytest.mark.slow
def test_other_options_are_refused_by_name(
    whole: Path, cohort: Cohort, smoke: DistillConfig, tmp_path: Path
) -> None:
    other = replace(smoke, seed=5, loop=replace(smoke.loop, pool=2))
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"loop\.pool, seed") as refused:
        distill(cohort, out, other)
    remedy = "Use the same options, or start a new run."
    assert without_commands(refused.value.hint) == remedy, "a page has no field for a folder"
    distill(cohort, out, replace(other, method="statistics"), overwrite=True)
    assert load_distilled(out).config.seed == 5


def test_a_folder_in_use_or_of_something_else_is_left_alone(
    cohort: Cohort, smoke: DistillConfig, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    with RunFolder(out).owned(overwrite=False), pytest.raises(OutputError, match="another process"):
        distill(cohort, out, smoke)
    assert not (out / "work").exists()
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"thesis\.tex"):
            distill(cohort, other, smoke, overwrite=overwrite)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_patients_who_cannot_be_distilled_are_named(
    people: Path, smoke: DistillConfig, tmp_path: Path
) -> None:
    thin = write_cohort(tmp_path / "thin", people=("A", "B"))
    volume = phantom(7)
    voxels = volume.voxels * (np.arange(8) < 3)[:, None, None]
    io.save(volume.with_voxels(voxels), next((thin / "B").iterdir()), overwrite=True)
    with pytest.raises(InputError, match="patient B: 3 slices contain tissue"):
        distill(Cohort.from_folder(thin), tmp_path / "out", smoke)
    assert not (tmp_path / "out" / "work").exists()
    one = Cohort.from_folder(people).patients[0]
    twice = Cohort((one, Patient("OTHER", (shutil.copy(one.paths[0], tmp_path / "x.nii.gz"),))))
    with pytest.raises(InputError, match=r"MILLER_1961|GARCIA_1975"):
        distill(twice, tmp_path / "out", smoke)


@pytest.mark.slow
def test_held_out_patients_leave_no_trace(
    cohort: Cohort, smoke: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they look like, the distilled images are the same."""
    config = replace(smoke, held_out=0.2)
    prepared = run_module.prepare(cohort, config, Monitor())
    assert len(prepared.held_out) == 2  # one is no comparison
    first = distill(cohort, tmp_path / "first", config)

    original = run_module.prepare
    monkeypatch.setattr(run_module, "prepare", lambda *a: _swapped(original(*a)))
    second = distill(cohort, tmp_path / "second", config)
    assert of_volumes(first) == of_volumes(second)
    assert hashes(first)["manifest.json"] != hashes(second)["manifest.json"]


def of_volumes(folder: Path) -> list[str]:
    return [digest for name, digest in sorted(hashes(folder).items()) if "volumes/" in name]


def _swapped(prepared: run_module.Prepared) -> run_module.Prepared:
    held_out = {n: replace(x, slices=1 - x.slices) for n, x in prepared.held_out.items()}
    return replace(prepared, held_out=held_out)
