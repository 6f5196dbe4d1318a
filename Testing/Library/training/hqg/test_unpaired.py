"""Training without pairs: behind a measured scanner, inverted, and corrected by a network."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from Library.scanner.test_scanner import (
    NOISE,
    case,
    measured,
    measured_before,  # noqa: F401 - a fixture of each module that has it
    phantom,
    scanned,
)

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib import io, native
from MedEnhanceLib.bundles.export import load_tensors, record_fields
from MedEnhanceLib.bundles.store import details, list_bundles, read_bundle, set_default
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.imaging import gaussian_blur
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError, MedEnhanceError, ModelError
from MedEnhanceLib.runtime.progress import Event
from MedEnhanceLib.training.hqg import run as training
from MedEnhanceLib.training.hqg import scanned_slabs
from MedEnhanceLib.training.hqg.scanned_slabs import ScannedSlabMaker, put_behind

pytest.importorskip("SimpleITK")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes of both sources, named after patients, and their scanner."""
    folder = tmp_path_factory.mktemp("unpaired")
    for seed in (6, 7, 8):
        for name, volume in (("good", phantom(seed)), ("low", scanned(phantom(seed - 5), seed))):
            (folder / name).mkdir(exist_ok=True)
            io.save(volume, folder / name / f"doe{seed}.nii.gz")
    fields = json.dumps(measured().to_json()).replace(measured().low_quality.files[0], "doe")
    (folder / "scanner.json").write_text(fields)
    return folder


def train(data: Path, out: Path, **fields: Any) -> Path:
    given = {"scanner": data / "scanner.json", "device": "cpu", "validated": 1} | fields
    return me.train("hqg", "smoke", high_quality=data / "good", out=out, **given)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a short training, whose network counts as better."""
    with pytest.MonkeyPatch.context() as patch:
        keep_last(patch)
        return train(data, tmp_path_factory.mktemp("out"), name="mine", learning_rate=0.01)


#: All parts of the paper at once, with scans of low quality.
PARTS = {"code": 0.01, "adversary": 0.1, "content": 1.0, "style": 0.1}


def keep_last(patch: pytest.MonkeyPatch) -> None:
    """Let a training keep its last weights, as if they had gained."""
    patch.setattr(training, "_is_better", lambda *_: True)
    patch.setattr(training, "gain_on", lambda *_, **__: (1.0, 1.0))
    patch.setattr(training, "_VALIDATIONS", 1)


def test_a_clean_volume_is_put_behind_the_measured_scanner() -> None:
    clean, rng = phantom(21), np.random.default_rng(0)
    scans = [
        put_behind(measured(), clean.voxels / np.float32(1000), clean.geometry.spacing, rng)
        for _ in range(2)
    ]
    corner = scans[0][:, :8, :8]  # of air, where Rayleigh noise has .655 of σ
    assert np.std(corner) == pytest.approx(0.655 * NOISE, rel=0.25)
    again = me.enhance(clean.with_voxels(1000 * scans[0]), scanner=measured(), device="cpu")
    # The measured scanner explains what it made, and undoes it.
    assert again.measured["scanner"]["inconsistent"] < 0.02
    tissue = clean.voxels > 60
    alike = [np.corrcoef(each[tissue], clean.voxels[tissue])[0, 1] for each in
             (scans[0], again.volume.voxels)]  # fmt: skip
    assert alike[1] > alike[0] + 0.02
    assert not np.allclose(*scans, atol=NOISE)  # field and noise are drawn anew


def test_a_slab_is_what_users_get_from_the_inversion_and_repeats_with_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scanned_slabs, "MOST", (8, 60, 64))
    maker = ScannedSlabMaker([phantom(21)], measured(), seed=0)
    first, again = (maker.make(3) for _ in range(2))
    assert np.array_equal(first.filtered, again.filtered)
    assert not np.array_equal(first.filtered, maker.make(4).filtered)
    error, before = (
        np.std((each - first.clean.astype(np.float32))[first.is_tissue])
        for each in (first.filtered, first.noisy)
    )
    assert error < before
    assert first.weight.max() > 2 * 16  # planted lesions
    # Rests of field and curve are no part of the target.
    whole = replace(maker, slow_changes=True).make(3)
    assert np.array_equal(whole.filtered, first.filtered)
    slow, none = (
        gaussian_blur((slab.filtered.astype(np.float32) - slab.clean)[:, :60, :64], 16.0)
        for slab in (whole, first)
    )
    assert np.abs(none).mean() < 0.3 * np.abs(slow).mean()
    assert not first.weight[:, -1].any()  # beyond the volume, up to a patch


def test_a_model_inverts_and_corrects_and_says_so(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = case()[1]
    alone = me.enhance(scan, scanner=measured(), device="cpu")
    result = me.enhance(scan, model=str(trained), device="cpu")
    assert any("a network that learned from these volumes" in line for line in result.findings)
    assert any("intensities are not those measured" in line for line in result.findings)
    assert "network" not in alone.measured["scanner"]
    change = np.abs(result.volume.voxels.astype(float) - alone.volume.voxels)
    assert change.max() > 3
    monkeypatch.setattr(native, "load", lambda *_, **__: None)
    by_torch = me.enhance(scan, model=str(trained), device="cpu")
    difference = np.abs(result.volume.voxels.astype(float) - by_torch.volume.voxels)
    assert difference.max() < 0.5 * change.max()


def test_a_network_that_does_not_gain_is_left_out(data: Path, tmp_path: Path) -> None:
    folder = train(data, tmp_path, steps=1, learning_rate=1e-9)
    assert not any(name.startswith("unpaired.") for name in load_tensors(read_bundle(folder)))
    assert "the inversion alone is used" in (folder / "docs" / "README.md").read_text()
    scan = case()[1]
    result = me.enhance(scan, model=str(folder), device="cpu")
    alone = me.enhance(scan, scanner=measured(), device="cpu")
    assert np.array_equal(result.volume.voxels, alone.volume.voxels)


def test_a_bundle_names_no_patient_and_no_folder(trained: Path, data: Path) -> None:
    for name in ("configs/metadata.json", "docs/README.md"):
        text = (trained / name).read_text()
        assert "doe" not in text and str(data) not in text
    assert all(name.startswith("unpaired.") for name in load_tensors(read_bundle(trained)))


def test_such_a_model_acts_only_where_it_is_named(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDENHANCE_MODELS", str(tmp_path))
    assert main(["models", "import", str(trained)]) == 0
    (mine,) = (bundle for bundle in list_bundles() if bundle.name == "mine")
    assert not details(mine)["default"]
    with pytest.raises(ModelError, match="cannot be a default"):
        set_default("mine")
    assert "scanner" not in me.enhance(case()[1], device="cpu").measured


@pytest.mark.parametrize(
    "options",
    [{"scanner": True}, {"uncertainty": True}, {"correct_bias_field": True}, {"task": "slices"}],
)
def test_what_such_a_model_does_not_take_is_refused(trained: Path, options: Any) -> None:
    given = options | ({"scanner": measured()} if "scanner" in options else {})
    with pytest.raises(MedEnhanceError, match=r"inverts a scanner of|thin slices"):
        me.enhance(case()[1], model=str(trained), **given)


def test_a_hostile_scanner_in_a_bundle_is_refused(trained: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(trained, tmp_path / "hostile")
    scanner = read_bundle(folder).metadata["scanner"]
    for wrong in ({"run": "rm"}, {"spectrum": [1e9] * 64}, {"rows": 3}):
        record_fields(folder, {"scanner": scanner | wrong})
        with pytest.raises(ModelError, match="do not fit"):
            me.enhance(case()[1], model=str(folder))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"low_quality": "low"}, ConfigError),
        ({"unpaired": {"adversary": 1}}, ConfigError),
        ({"scanner": ""}, ConfigError),
        ({"low_quality": "low", "unpaired": {"style": 1}}, ConfigError),
        ({"held_out": ["better/*"]}, InputError),
        ({"modality": "CT"}, InputError),
        ({"leave_out": ["good/doe6*", "good/doe7*"]}, InputError),
    ],
)
def test_what_cannot_be_learned_is_refused(
    data: Path, tmp_path: Path, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        train(data, tmp_path / "out", **fields)


def test_a_model_is_measured_behind_its_scanner_beside_the_inversion(
    trained: Path, data: Path
) -> None:
    (row,) = me.evaluate(trained, data / "good" / "doe7.nii.gz", device="cpu")["results"]["rows"]
    assert row["inversion_psnr_db"] > row["input_psnr_db"]
    gain = row["enhanced_psnr_db"] - row["inversion_psnr_db"]
    assert row["gain_over_inversion_db"] == pytest.approx(gain)


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_last(monkeypatch)
    given: Any = {"learning_rate": 0.01, "low_quality": data / "low", "unpaired": PARTS}
    given["network"] = {"widths": [8]}
    whole = load_tensors(read_bundle(train(data, tmp_path / "whole", **given)))
    shown: list[str] = []

    def listen(event: Event) -> None:
        shown.append(str(event.fields.get("stage", "")))

    with pytest.raises(Cancelled):
        train(
            data, tmp_path / "parts", **given,
            progress=listen, cancel=lambda: any("step 2 of" in stage for stage in shown),
        )  # fmt: skip
    assert (tmp_path / "parts" / "checkpoint.safetensors").exists()
    again = load_tensors(read_bundle(train(data, tmp_path / "parts", **given)))
    assert whole["unpaired.last.weight"].any()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


@pytest.mark.slow
def test_the_command_trains_from_two_folders(data: Path, tmp_path: Path) -> None:
    folders = ["--low-quality", str(data / "low"), "--high-quality", str(data / "good")]
    words = ["train", "hqg", *folders, "--modality", "MR", "--preset", "smoke"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    scanner = read_bundle(tmp_path / "run" / "run").metadata["scanner"]
    assert scanner["low_quality"]["files"] == ["1", "2", "3"]
    assert main(["train", "slices", *folders, "--modality", "MR", "--out", str(tmp_path)]) == 2
