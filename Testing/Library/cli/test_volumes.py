"""convert, inspect, degrade: tiny volumes from the command to the file."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from Library.denoise.conftest import brain

import MedEnhanceLib as me  # noqa: N813 - the name of the documentation
from MedEnhanceLib import io
from MedEnhanceLib.core.manifest import file_sha256
from MedEnhanceLib.core.volume import Volume, as_volume
from MedEnhanceLib.degradation.pipeline import Rician
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.jobs import JobSpec, enhancing


@pytest.mark.parametrize("make", ["missing", "empty", "text", "cut"])
def test_bad_input_is_status_three_names_the_file_and_writes_nothing(
    make: str, run: Callable, scan: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"{make}.nii.gz"
    if make == "empty":
        path.touch()
    elif make == "text":
        path.write_text("hello")
    elif make == "cut":
        path.write_bytes(scan.read_bytes()[:-100])
    before = sorted(tmp_path.iterdir())
    ran = run("convert", path, tmp_path / "out.nrrd")
    assert ran.status == 3
    assert path.name in ran.err
    assert len(ran.err.splitlines()) == 2
    assert sorted(tmp_path.iterdir()) == before


def test_card_is_readable(run: Callable, scan: Path) -> None:
    ran = run("inspect", scan)
    assert ran.status == 0
    assert "(MR)" in ran.out.splitlines()[0]
    assert "36 × 40 × 12 (columns × rows × slices)" in ran.out
    assert "0.7 × 0.9 × 3.3 mm" in ran.out
    assert "int16" in ran.out


def test_inspect_says_once_that_the_modality_is_guessed(run: Callable, tmp_path: Path) -> None:
    nibabel.save(brain().to_nibabel(), tmp_path / "a.nii.gz")
    ran = run("inspect", tmp_path / "a.nii.gz")
    assert "its values look like MR" in ran.err and "see above" in ran.out
    assert "modality" not in ran.out and "guessed" not in ran.out
    (said,) = me.inspect(tmp_path / "a.nii.gz")["warnings"]
    assert "no known modality is stated" in said


def test_a_bar_goes_to_stderr_on_a_terminal_alone(
    run: Callable, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = run("convert", scan, tmp_path / "a.nrrd")
    assert quiet.err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    reported = run("convert", scan, tmp_path / "b.nrrd", "--json")
    assert reported.err.lstrip("\r").startswith("loading:   0%")  # imports may take seconds
    assert reported.json["ok"]


def test_degradations_are_applied_in_the_order_given(
    run: Callable, scan: Path, tmp_path: Path
) -> None:
    ran = run(
        *("degrade", scan, tmp_path / "a.nrrd", "--blur", "1", "--scanner", "epi", "--bias", "0.3"),
        *("--rician", "0.05", "--json"),
    )
    steps = ran.json["steps"]
    assert [step["name"] for step in steps] == ["blur", "scanner", "bias", "rician"]
    assert steps[1]["kind"] == "epi"
    assert len({step["seed"] for step in steps}) == 4
    assert io.load(tmp_path / "a.nrrd").dtype == io.load(scan).dtype
    manifest = json.loads(Path(ran.json["manifest"]).read_text(encoding="utf-8"))
    assert manifest["config"]["steps"] == steps


def test_degrading_says_what_share_is_clipped(run: Callable, tmp_path: Path) -> None:
    io.save(Volume(np.full((4, 20, 20), 250, np.uint8), modality="MR"), tmp_path / "a.nrrd")
    ran = run("degrade", tmp_path / "a.nrrd", tmp_path / "b.nrrd", "--rician", "0.1")
    share = np.mean(io.load(tmp_path / "b.nrrd").voxels == 255)
    (said,) = re.findall(r"warning: (\S+)% of the voxels left the range of uint8", ran.err)
    assert share - 0.05 < float(said) / 100 <= share


def _odd_paths(folder: Path, ending: str) -> dict[str, Path]:
    """Paths that lead nowhere, by what is wrong with them."""
    plain, loop, pipe = folder / "plain", folder / f"loop{ending}", folder / f"pipe{ending}"
    plain.write_text("no folder")
    loop.symlink_to(loop)
    (folder / f"folder{ending}").mkdir()
    os.mkfifo(pipe)
    return {
        "link to itself": loop,
        "below a link to itself": loop / f"a{ending}",
        "file as folder": plain / f"a{ending}",
        "name too long": folder / f"{'n' * 300}{ending}",
        "path too long": folder / ("a/" * 3000) / f"a{ending}",
        "folder": folder / f"folder{ending}",
        "pipe": pipe,
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert", "PATH", "out.nii.gz"),
        ("inspect", "PATH"),
        ("enhance", "PATH", "out.nii.gz"),
        ("compress", "PATH", "out.ucv", "--lossless"),
        ("decompress", "PATH", "out.nii.gz"),
        ("convert", "scan.nii.gz", "PATH"),
        ("enhance", "scan.nii.gz", "PATH"),
        ("models", "show", "PATH"),
        ("enhance", "scan.nii.gz", "out.nii.gz", "--report", "PATH"),
        ("convert", "scan.nii.gz", "out", "--dicom", "--dicom-source", "PATH"),
        ("models", "import", "PATH"),
    ],
    ids=" ".join,
)
def test_paths_that_lead_nowhere_are_named_before_work_begins(
    run: Callable,
    scan: Path,
    tmp_path: Path,
    networks: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDENHANCE_MODELS", str(tmp_path / "models"))
    for what, path in _odd_paths(tmp_path, ".nii.gz").items():
        if what == "folder" and "--report" in arguments:
            continue
        before = {entry.name for entry in tmp_path.iterdir()}
        ran = run(*(path if one == "PATH" else one for one in arguments), "--json")
        error = ran.json["error"]
        assert error["code"] in ("input", "output", "config", "model"), (what, error)
        assert error["hint"], what
        assert {entry.name for entry in tmp_path.iterdir()} - before <= {"models"}, what
    assert not networks


def test_names_that_are_not_utf8_are_read(run: Callable, scan: Path, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"M\xfcller")
    try:
        folder.mkdir()
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes no such names")
    source, small = folder / "scan.nii.gz", folder / "small.ucv"
    assert run("convert", scan, source).status == 0
    assert run("compress", source, small, "--lossless").status == 0
    manifest = json.loads(small.with_name("small.ucv.json").read_text(encoding="utf-8"))
    assert file_sha256(source) in manifest["inputs"]["input"]
    assert r"M\xfcller" in run("inspect", source).out
    for name in ("scan.nrrd", "scan.mha"):
        assert run("convert", scan, folder / name).status == 0
        assert run("inspect", folder / name).status == 0


def test_inspect_and_enhance_state_the_same_limits_of_uncertain_noise(
    run: Callable, tmp_path: Path
) -> None:
    noisy = tmp_path / "noisy.nii.gz"
    io.save(Rician(0.006, 3).apply(brain()), noisy)
    card = run("inspect", noisy, "--modality", "MR").out
    found = run("enhance", noisy, tmp_path / "out.nii.gz", "--modality", "MR").out
    (limits,) = re.findall(r"±\S+ \(1 SD; likely ±\S+ to ±\S+\)", card)
    assert f"noise found: {limits}" in found


def test_noise_is_measured_in_even_tissue_and_used(run: Callable, tmp_path: Path) -> None:
    path = tmp_path / "ct.nrrd"
    even = brain()
    voxels = 300 + 20 * np.random.default_rng(0).standard_normal(even.shape)
    me.save(even.with_voxels(voxels.astype(np.float32)).as_modality("CT"), path)
    ran = run("noise", path, "--at", "6,20,20", "--json")
    assert ran.status == 0
    noise = json.loads(ran.out)["noise"]
    assert noise["sigma"] == pytest.approx(20, rel=0.15)
    assert noise["verdict"] == "noisy"  # nothing was removed yet
    verdict, remedy = run("noise", path, "--region", "4:8,10:30,10:30").out.splitlines()
    assert verdict.startswith("Noise ±")
    assert re.search(r"in the region; in the whole volume it is ±[\d.]+\.$", verdict)
    assert "--noise" in remedy
    for wrong in ("6,20", "6,20,x", "6,20,96"):
        assert run("noise", path, "--at", wrong).status == 2


def test_a_place_that_is_not_even_leads_to_one_that_is_by_the_commands_that_are_proposed(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "read only" / "my scan.nrrd"
    path.parent.mkdir()
    monkeypatch.chdir(tmp_path)
    voxels = 300 + 20 * np.random.default_rng(0).standard_normal((12, 48, 48))
    voxels[:, :, 21:] += 400
    voxels[:, :2] = 0
    me.save(me.Volume.from_array(voxels.astype(np.float32), spacing=(1, 1, 1)), path)

    def proposed_in(text: str, command: str) -> list[list[str]]:
        lines = [line.partition("medenhance ")[2] for line in text.splitlines()]
        return [shlex.split(line) for line in lines if line.startswith(command)]

    padding = ["--region", "0:4,0:2", "--modality", "mr"]
    assert "such as around the voxels" in run("noise", path, *padding).err
    uncertain = run("noise", path, "--modality", "mr", "--at", "6,24,24").out
    places = proposed_in(uncertain, "noise")
    assert len(places) == 3
    for place in places:
        assert run(*place, "--json").json["noise"]["sigma"] == pytest.approx(20, rel=0.15)
    (use,) = proposed_in(run(*places[0]).out, "enhance")
    ran = run(*use)
    assert ran.status == 0
    assert "wrote my scan-enhanced.nrrd" in ran.out  # not beside a scan elsewhere


def test_what_uses_a_measured_noise_has_the_form_of_its_input(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    voxels = 300 + 20 * np.random.default_rng(0).standard_normal((8, 40, 40))
    even = as_volume(voxels.astype(np.int16), modality="MR", spacing=(1, 1, 2))
    me.save(even, "even.nrrd")
    assert run("compress", "even.nrrd", "mr.ucv", "--lossless").status == 0
    assert run("convert", "even.nrrd", "series", "--dicom", "--patient-id", "1").status == 0
    for name, use in (("mr.ucv", "mr-enhanced.nii.gz"), ("series", "series-enhanced")):
        line = run("noise", name, "--at", "4,20,20").out.splitlines()[-1]
        command = shlex.split(line.partition("medenhance ")[2])
        assert command[:3] == ["enhance", name, use]
        assert ("--dicom" in command) is (name == "series")
        assert run(*command).status == 0


def test_a_run_with_uncertain_noise_repeats_its_command_with_what_even_tissue_agrees_on(
    run: Callable, tmp_path: Path
) -> None:
    path, out = tmp_path / "scan.nrrd", tmp_path / "better.nrrd"
    voxels = 60 + 5 * np.random.default_rng(0).standard_normal((16, 60, 60))
    me.save(as_volume(voxels.astype(np.float32), modality="CT", spacing=(2, 2, 3)), path)
    typed = ["enhance", path, out, "--modality", "CT", "--for-viewing", "--uncertainty"]
    verdict, remedy, *_ = run(*typed).out.splitlines()
    assert verdict.startswith("uncertain, removed ±")
    assert remedy.startswith("even regions agree on ±4.")
    command = shlex.split(remedy.partition("medenhance ")[2].partition(" (noise=")[0])
    assert command[: len(typed)] == [*map(str, typed)]
    report = tmp_path / "report"
    assert run(*typed, "--force", "--report", report).status == 0
    page = (report / "index.html").read_text(encoding="utf-8")
    # A page does not know what was typed, and names no command that would do something else.
    assert "the same command with --noise 4." in page and "OUTPUT" not in page
    ran = run(*command)
    assert ran.status == 0 and "of the stated ±4." in ran.out
    assert "stated as" not in ran.err
    assert f"even regions agree on {command[-1]}" not in ran.out


def test_uncertain_noise_names_the_command_that_goes_on_in_the_second_line(
    run: Callable, tmp_path: Path
) -> None:
    noisy = tmp_path / "noisy.nii.gz"
    io.save(Rician(0.006, 3).apply(brain()), noisy)
    ran = run("enhance", noisy, tmp_path / "out.nii.gz", "--modality", "MR")
    verdict, remedy, *_ = ran.out.splitlines()
    assert verdict.startswith("uncertain, removed ±")
    assert f"medenhance noise {noisy} --modality MR --at SLICE,ROW,COLUMN" in remedy


def test_the_region_in_which_noise_is_measured_is_drawn(
    run: Callable, scan: Path, tmp_path: Path, coarse_pictures: None
) -> None:
    picture = tmp_path / "region.png"
    command = ["noise", scan, "--modality", "MR", "--picture", picture]
    assert "none is given" in run(*command).err
    assert f"wrote {picture}" in run(*command, "--at", "4,20,20").out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "exists already" in run(*command, "--at", "4,20,20").err


@pytest.mark.parametrize(("strength", "change"), [("1", True), ("0.001", False), ("0", False)])
def test_output_and_report_agree_on_whether_anything_changed(
    strength: str, change: bool, run: Callable, tmp_path: Path, coarse_pictures: None
) -> None:
    noisy, page = tmp_path / "noisy.nii.gz", tmp_path / "report/index.html"
    io.save(Rician(0.1, 3).apply(brain(), keep_dtype=True), noisy)
    command = ["enhance", noisy, tmp_path / "out.nii.gz", "--modality", "MR", "--noise", "2000"]
    ran = run(*command[:-2], "--strength", strength, "--report", page.parent)
    assert ran.status == 0, ran.err
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert ("every voxel is that of the input" in text) is not change
    assert ("the result is the input" in ran.out) is not change
    assert "nearly the input" not in ran.out + text
    first = ran.out.splitlines()[0]
    assert first in text.replace("Removed", "removed").replace("Nothing removed", "nothing removed")
    assert first.startswith("removed ±" if change else "nothing removed")


def test_a_stated_noise_far_from_the_measured_one_is_warned_of(
    run: Callable, tmp_path: Path
) -> None:
    noisy = tmp_path / "noisy.nii.gz"
    io.save(Rician(0.1, 3).apply(brain()), noisy)
    sigma = run("noise", noisy, "--modality", "MR", "--json").json["noise"]["sigma"]
    for factor, is_far in ((4.0, True), (1.0, False), (0.2, True)):
        options = ["--noise", f"{factor * sigma:.4g}", "--modality", "MR", "--force"]
        ran = run("enhance", noisy, tmp_path / "out.nii.gz", *options)
        assert ("the noise is stated as" in ran.err) is is_far
        assert ran.out.startswith("removed ±")
        assert f"of the stated ±{float(options[1]):.3g}" in ran.out


@pytest.mark.parametrize(("modality", "near"), [("MRI", "MR"), ("pet", "PT")])
def test_a_modality_in_other_letters_is_recognized(
    modality: str, near: str, run: Callable, scan: Path, tmp_path: Path
) -> None:
    error = run("inspect", scan, "--modality", modality, "--json").json["error"]
    assert error["hint"] == f"Did you mean {near}? Use CT, MR, PT, EM, SEG or OT."
    with pytest.raises(me.MedEnhanceError, match="no modality") as caught:
        me.load(scan, modality=modality)
    assert f"Did you mean {near}?" in caught.value.hint
    with pytest.raises(me.ConfigError) as refused:
        JobSpec("inspect", {"input": str(scan), "modality": modality})
    assert f"Did you mean {near}?" in refused.value.hint


def test_a_missing_file_names_the_one_beside_it(run: Callable, scan: Path, tmp_path: Path) -> None:
    for given in ("scan.nii", "Scan.nii.gz", "scn.nii.gz"):
        for command in (["inspect"], ["enhance", "OUT"]):
            arguments = [tmp_path / "out.nii.gz" if each == "OUT" else each for each in command[1:]]
            ran = run(command[0], tmp_path / given, *arguments)
            assert ran.status == 3
            assert "Did you mean scan.nii.gz?" in ran.err, (given, command)
    for other in ("nothing.mha", "abd.nii.gz"):
        assert "Did you mean" not in run("inspect", tmp_path / other).err


def test_a_hint_for_degrade_names_what_each_modality_takes(run: Callable, scan: Path) -> None:
    hint = run("degrade", scan, scan.with_name("worse.nii.gz"), "--json").json["error"]["hint"]
    for modality, example in re.findall(r"of (MR|CT)(?: also)? (--\S+ [\w.]+)", hint):
        out = scan.with_name(f"{modality}.nii.gz")
        assert run("degrade", scan, out, "--modality", modality, *example.split()).status == 0
    assert hint.count("--") == 3


def test_choices_are_taken_in_any_case(run: Callable, scan: Path, tmp_path: Path) -> None:
    assert run("convert", scan, tmp_path / "a.nrrd", "--modality", "ct").status == 0
    assert me.load(tmp_path / "a.nrrd").modality == "CT"
    assert me.load(scan, modality="ct").units == "HU"
    assert (
        me.Volume.from_array(np.zeros((2, 2, 2)), spacing=(1, 1, 1), modality="pt").modality == "PT"
    )
    config = EnhanceConfig(task="Slices", slice_profile="BOX", slice_spacing="Half")
    assert (config.task, config.slice_profile, config.slice_spacing) == ("slices", "box", "half")
    assert run("models", "LIST").status == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--noise", "5%"], "neither a number nor a file"),
        (["--noise", "1e9"], "all values of the volume are between"),
        (["--task", "slices", "--denoiser", "bm4d"], "there is no"),
        (["--task", "slices", "--slice-spacing", "3.2"], "for each measured one"),
        (["--correct-bias-field", "--modality", "CT"], "no bias field"),
        (["--model", "missing"], "missing"),
    ],
)
def test_what_cannot_be_enhanced_is_refused_before_pytorch_is_loaded(
    options: list[str],
    reason: str,
    run: Callable,
    scan: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(enhancing, "load_packages", lambda *_, **__: pytest.fail("loads PyTorch"))
    ran = run("enhance", scan, tmp_path / "out.nrrd", *options)
    assert ran.status in (2, 3, 4), ran.err
    assert reason in ran.err
