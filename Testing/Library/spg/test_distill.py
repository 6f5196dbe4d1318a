"""A whole distillation: equal bytes after any stop, no identifiers, and the share that is kept."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - as everybody calls it
from Library.forked import rows_of

from MedEnhanceLib import io
from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError, OutputError
from MedEnhanceLib.io.cohort import Cohort, Patient
from MedEnhanceLib.runtime.progress import Event, Monitor
from MedEnhanceLib.spg import distill as run_module
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.dataset import load_distilled, order_of
from MedEnhanceLib.spg.distill import distill_cohort
from MedEnhanceLib.spg.folder import RunFolder
from MedEnhanceLib.spg.readme import METHOD, NO_LICENSE, readme

from .conftest import PEOPLE, hashes, write_cohort


def test_a_result_has_images_and_a_manifest(whole: Path, smoke: DistillConfig) -> None:
    result = load_distilled(whole)
    assert result.images.shape == (len(PEOPLE) * smoke.images_per_patient, 32, 32)
    assert 0 <= result.images.min() < result.images.max() <= 1
    reported = result.manifest
    assert (reported["task"], reported["modality"], reported["patients"]) == ("denoise", "MR", 4)
    assert reported["prior"]["in_cohort"] is False
    assert set(reported["measured"]) == {"alignment", "structure", "saturation"}
    assert result.config.record() == smoke.record()
    # The order is drawn from the images, so that it does not reveal which belong to one patient.
    order = order_of(result.images).tolist()
    assert sorted(order) == list(range(8)) != order
    assert order != order_of(result.images + np.float32(1e-6)).tolist()
    assert not (whole / "work").exists()
    pictures = sorted((whole / "images").iterdir())
    for picture, image in zip(pictures, np.load(whole / "images.npy"), strict=True):
        assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(picture))), image)


def test_the_readme_says_what_who_gets_the_folder_has_to_know(whole: Path) -> None:
    page = (whole / "README.md").read_text(encoding="utf-8")
    manifest = load_distilled(whole).manifest
    said = (RESEARCH_ONLY, "not anatomy", METHOD, manifest["audit"]["summary"], "4 patients")
    said += ("manifest.json", "ICBM 152", "Louis Collins, McConnell Brain")
    for words in said:
        assert words in page
    alarm = {"audit": {"alarm": True, "summary": "ALARM: it leaks.\n\nMore."}}
    before_loading = readme(manifest | alarm).partition("## Load them")[0]
    assert "**ALARM: it leaks.**" in before_loading
    blind = {"audit": {"alarm": False, "summary": "Inconclusive: 2 patients.\n\nMore."}}
    assert "**Inconclusive: 2 patients.**" in readme(manifest | blind).partition("## License")[0]
    own = {"prior": {"kind": "file", "description": "a volume"}}
    assert "ICBM" not in readme(manifest | own)


@pytest.mark.slow
def test_without_a_license_nobody_may_use_it_until_one_is_stated(
    whole: Path, cohort: Cohort, smoke: DistillConfig, tmp_path: Path
) -> None:
    def warnings(out: Path, config: DistillConfig) -> list[str]:
        events: list[Event] = []
        distill_cohort(cohort, out, config, Monitor(events.append))
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
    assert hashes(distill_cohort(cohort, tmp_path / "stated", stated)) == hashes(out)
    before = hashes(out)
    assert not warnings(out, smoke)
    assert hashes(out) == before, "a license is not taken back by leaving it out"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the program forks")
def test_a_distillation_ended_by_sigkill_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """Two of the points of Testing/Benchmarks/distillation_kills.py."""
    program = Path(__file__).with_name("killing.py")
    rows = rows_of(program, str(tmp_path), "2", "1", "2", "0")
    assert [(row["killed"], row["went_on"], row["same"]) for row in rows] == [(True,) * 3] * 2


@pytest.mark.slow
def test_a_cancel_leaves_a_checkpoint_and_the_same_line_goes_on_unless_data_changed(
    whole: Path, smoke: DistillConfig, tmp_path: Path
) -> None:
    folder, out = write_cohort(tmp_path / "people"), tmp_path / "out"
    steps = 0

    def listen(event: Event) -> None:
        nonlocal steps
        steps += event.kind == "progress" and "step " in event.fields["stage"]

    with pytest.raises(Cancelled, match="checkpoint is written"):
        monitor = Monitor(listen, lambda: steps > 20)
        distill_cohort(Cohort.from_folder(folder), out, smoke, monitor)
    assert list(out.rglob("checkpoint.safetensors"))
    path = next((folder / PEOPLE[3]).iterdir())
    original, volume = path.read_bytes(), io.load(path)
    voxels = volume.voxels.copy()
    voxels[4, 17, 15] += 1
    io.save(volume.with_voxels(voxels), path, overwrite=True)
    with pytest.raises(InputError, match="started with other images"):
        distill_cohort(Cohort.from_folder(folder), out, smoke)
    path.write_bytes(original)
    assert hashes(distill_cohort(Cohort.from_folder(folder), out, smoke)) == hashes(whole)


@pytest.mark.slow
def test_other_options_are_refused_by_name(
    whole: Path, cohort: Cohort, smoke: DistillConfig, tmp_path: Path
) -> None:
    other = replace(smoke, seed=5, loop=replace(smoke.loop, inner=3))
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"loop\.inner, seed"):
        distill_cohort(cohort, out, other)
    distill_cohort(cohort, out, other, overwrite=True)
    assert load_distilled(out).config.seed == 5


def test_a_folder_in_use_or_of_something_else_is_left_alone(
    cohort: Cohort, smoke: DistillConfig, tmp_path: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    with RunFolder(out).owned(overwrite=False), pytest.raises(OutputError, match="another process"):
        distill_cohort(cohort, out, smoke)
    assert not (out / "work").exists()
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"thesis\.tex"):
            distill_cohort(cohort, other, smoke, overwrite=overwrite)
    assert [path.name for path in other.iterdir()] == ["thesis.tex"]


def test_patients_who_cannot_be_distilled_are_named(
    people: Path, smoke: DistillConfig, tmp_path: Path
) -> None:
    many = replace(smoke, images_per_patient=9)
    with pytest.raises(InputError, match=r"MILLER_1961|GARCIA_1975"):
        distill_cohort(Cohort.from_folder(people), tmp_path / "out", many)
    assert not (tmp_path / "out" / "work").exists()
    one = Cohort.from_folder(people).patients[0]
    twice = Cohort((one, Patient("OTHER", (shutil.copy(one.paths[0], tmp_path / "x.nii.gz"),))))
    with pytest.raises(InputError, match=r"MILLER_1961|GARCIA_1975"):
        distill_cohort(twice, tmp_path / "out", smoke)


@pytest.mark.slow
def test_held_out_patients_leave_no_trace(
    cohort: Cohort, smoke: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they look like, the distilled images are the same."""
    config = replace(smoke, held_out=0.2)
    prepared = run_module.prepare(cohort, config, Monitor())
    assert len(prepared.held_out) == 2  # one is no comparison
    first = distill_cohort(cohort, tmp_path / "first", config)

    original = run_module.prepare
    monkeypatch.setattr(run_module, "prepare", lambda *a: _swapped(original(*a)))
    second = distill_cohort(cohort, tmp_path / "second", config)
    assert hashes(first)["images.npy"] == hashes(second)["images.npy"]
    assert hashes(first)["manifest.json"] != hashes(second)["manifest.json"]


def _swapped(prepared: run_module.Prepared) -> run_module.Prepared:
    return replace(prepared, held_out={n: 1 - x for n, x in prepared.held_out.items()})
