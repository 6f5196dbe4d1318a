"""A whole distillation: equal bytes after any stop, no identifiers, and the share that is kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

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
from MedEnhanceLib.spg.readme import METHOD, NO_LICENCE, readme

from .conftest import PEOPLE, write_cohort


def hashes(folder: Path) -> dict[str, str]:
    """Every file below a folder with its hash."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a run that nothing interrupted."""
    config = replace(DistillConfig.preset("smoke"), method="matching", device="cpu", held_out=0.0)
    out = tmp_path_factory.mktemp("whole") / "out"
    return distill_cohort(Cohort.from_folder(people), out, config)


class Stop(BaseException):
    """As a kill: nothing below catches it."""


def test_a_result_has_images_manifest_and_card(whole: Path, smoke: DistillConfig) -> None:
    import SimpleITK as sitk  # noqa: N813 - its own name

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
    own = {"prior": {"kind": "file", "told": "a volume"}}
    assert "ICBM" not in readme(manifest | own)


def warned(events: list[Event]) -> list[str]:
    return [event.fields["message"] for event in events if event.kind == "warning"]


@pytest.mark.slow
def test_without_a_license_nobody_may_use_it_until_one_is_stated(
    whole: Path, cohort: Cohort, smoke: DistillConfig, tmp_path: Path
) -> None:
    out, events = tmp_path / "out", list[Event]()
    distill_cohort(cohort, out, smoke, Monitor(events.append))
    (message,) = [text for text in warned(events) if "icense" in text]
    assert message.startswith(NO_LICENCE)
    assert "--license" in message
    for name in ("README.md", "manifest.json"):
        assert NO_LICENCE in (out / name).read_text(encoding="utf-8")
    assert load_distilled(out).entry()["license"] == "not stated"

    events.clear()
    images = (out / "images.npy").stat().st_mtime_ns
    distill_cohort(cohort, out, replace(smoke, license="CC BY 4.0"), Monitor(events.append))
    assert not any("icense" in text for text in warned(events))
    for name in ("README.md", "manifest.json", "prior/manifest.json"):
        text = (out / name).read_text(encoding="utf-8")
        assert "CC BY 4.0" in text
        assert NO_LICENCE not in text
    assert load_distilled(out).entry()["license"] == "CC BY 4.0"
    assert (out / "images.npy").stat().st_mtime_ns == images
    stated = replace(smoke, license="CC BY 4.0")
    assert hashes(distill_cohort(cohort, tmp_path / "stated", stated)) == hashes(out)

    events.clear()
    before = hashes(out)
    distill_cohort(cohort, out, smoke, Monitor(events.append))
    assert hashes(out) == before, "a license is not taken back by leaving it out"
    assert not any("icense" in text for text in warned(events))


def at_step(count: int, action: Callable[[], None]) -> Callable[[Event], None]:
    """A listener that acts before the step of that number, counted over all patients from 0."""
    steps = 0

    def listen(event: Event) -> None:
        nonlocal steps
        if event.kind == "progress" and "step " in event.fields["stage"]:
            if steps == count:
                action()
            steps += 1

    return listen


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the program forks")
def test_a_distillation_ended_by_sigkill_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    """Two of the points of Testing/Benchmarks/distillation_kills.py."""
    program = Path(__file__).with_name("killing.py")
    path = os.pathsep.join([str(program.parents[3]), str(program.parents[2])])
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), "2", "1", "2", "0"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["killed"], row["went_on"], row["same"]) for row in rows] == [(True,) * 3] * 2


@pytest.mark.slow
def test_a_cancel_leaves_a_checkpoint_and_the_same_line_goes_on(
    whole: Path, cohort: Cohort, smoke: DistillConfig, tmp_path: Path
) -> None:
    requests: list[bool] = []
    listen = at_step(20, lambda: requests.append(True))
    with pytest.raises(Cancelled, match="checkpoint is written"):
        distill_cohort(cohort, tmp_path / "out", smoke, Monitor(listen, lambda: bool(requests)))
    assert list((tmp_path / "out").rglob("checkpoint-*"))
    assert hashes(distill_cohort(cohort, tmp_path / "out", smoke)) == hashes(whole)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_not_the_end(
    whole: Path, cohort: Cohort, smoke: DistillConfig, tmp_path: Path
) -> None:
    def kill() -> None:
        raise Stop

    often = replace(smoke, checkpoint_s=0.0)
    with pytest.raises(Stop):
        distill_cohort(cohort, tmp_path / "out", often, Monitor(at_step(20, kill)))
    found = sorted((tmp_path / "out").rglob("checkpoint-*"))
    assert len(found) == 2
    latest = max(found, key=lambda path: path.stat().st_mtime_ns)
    latest.write_bytes(latest.read_bytes()[:-100])
    received: list[str] = []
    monitor = Monitor(lambda event: received.append(str(event.fields.get("message"))))
    assert hashes(distill_cohort(cohort, tmp_path / "out", often, monitor)) == hashes(whole)
    assert any("is damaged" in message for message in received)


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


@pytest.mark.slow
def test_other_data_are_refused(smoke: DistillConfig, tmp_path: Path) -> None:
    folder = write_cohort(tmp_path / "people")
    requests: list[bool] = []
    listen = at_step(25, lambda: requests.append(True))
    with pytest.raises(Cancelled):
        distill_cohort(
            Cohort.from_folder(folder),
            tmp_path / "out",
            smoke,
            Monitor(listen, lambda: bool(requests)),
        )
    path = next((folder / PEOPLE[3]).iterdir())
    volume = io.load(path)
    voxels = volume.voxels.copy()
    voxels[4, 17, 15] += 1
    io.save(volume.with_voxels(voxels), path, overwrite=True)
    with pytest.raises(InputError, match="begun with other images"):
        distill_cohort(Cohort.from_folder(folder), tmp_path / "out", smoke)


def test_two_processes_do_not_share_a_folder(
    cohort: Cohort, smoke: DistillConfig, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "out")
    with folder.owned(overwrite=False), pytest.raises(OutputError, match="another process"):
        distill_cohort(cohort, tmp_path / "out", smoke)
    assert not (tmp_path / "out" / "work").exists()


def test_a_folder_of_something_else_is_left_alone(
    cohort: Cohort, smoke: DistillConfig, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"thesis\.tex"):
            distill_cohort(cohort, tmp_path, smoke, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


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
