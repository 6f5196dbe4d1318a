"""Warnings where a model may not suit a volume: body part, length of the training; its card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from Library.conftest import WarningRecorder
from Library.scanner_model import write_scanner_model

from MedEnhanceLib.bundles.store import Bundle, read_bundle
from MedEnhanceLib.bundles.suitability import (
    anatomy_warning,
    training_length_limits,
    training_length_warning,
    verdict_warning,
)
from MedEnhanceLib.core.origin import DicomOrigin
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.errors import InputError, ModelError
from MedEnhanceLib.jobs.enhancing import enhance_volume
from MedEnhanceLib.runtime.resources import resource_folder


def _mr(body_part: str) -> Volume:
    voxels = np.random.default_rng(3).integers(0, 900, (2, 32, 32)).astype(np.int16)
    return Volume(
        voxels, modality="MR", dicom_origin=DicomOrigin("1.2", "1.3", (), body_part=body_part)
    )


@pytest.mark.parametrize("part", ["", "BRAIN", "Head", "HEADNECK", "SKULL", "WHOLEBODY"])
def test_images_of_the_brain_or_without_a_body_part_give_no_warning(
    part: str,
) -> None:
    head = read_bundle(resource_folder("models") / "brain")
    assert head.anatomy == "brain"
    assert anatomy_warning(head, part) is None


def test_an_enhanced_leg_carries_the_warning_about_the_model(
    tmp_path: Path, recorder: WarningRecorder
) -> None:
    """The scanner was measured in brains."""
    config = EnhanceConfig(model=write_scanner_model(tmp_path / "model", "MR", anatomy="brain"))
    done = enhance_volume(_mr("LEG"), config, monitor=recorder.monitor)
    recorded = done.record["results"]["warnings"]
    assert "LEG" in recorded[0]["message"]
    assert [f"{each['message']}: {each['hint']}" for each in recorded] == recorder.warnings
    assert "LEG" in done.volume.history[-1]


@pytest.mark.parametrize(
    ("over", "error", "is_worse"), [(-0.3, 0.1, True), (-0.3, 0.2, False), (0.3, 0.0, False)]
)
def test_a_model_that_was_measured_to_be_worse_warns(
    over: float, error: float, is_worse: bool
) -> None:
    validation = {"over_shipped_db": over, "over_shipped_error_db": error}
    warning = verdict_warning(trained({"validation": validation}))
    assert (warning is not None) == is_worse
    assert warning is None or "m is 0.30 dB worse than the shipped model" in str(warning.text)
    assert verdict_warning(trained(None)) is None


def trained(training: object) -> Bundle:
    metadata = {"name": "m", "kind": "enhancer", "modality": "MR", "training": training}
    return Bundle(Path("m"), metadata)


def test_a_training_of_a_few_steps_made_a_test_model() -> None:
    warning = training_length_warning(trained({"config": {"steps": 6}}))
    assert str(warning.text).startswith("m is a test model: it was trained for only 6 steps")
    assert training_length_limits(6) == [
        "Trained for 6 steps only, as a test model: use it for nothing else."
    ]


def test_a_named_model_decides_the_modality_where_its_values_fit(tmp_path: Path) -> None:
    voxels = np.arange(6 * 8 * 8, dtype=np.int16).reshape(6, 8, 8)
    models = {name: write_scanner_model(tmp_path / name, name.upper()) for name in ("mr", "ct")}
    unknown = Volume(voxels, modality="OT", modality_is_guess=True)
    done = enhance(unknown, EnhanceConfig(model=models["mr"]))
    assert (done.model["name"], done.volume.modality) == ("mr", "MR")
    with pytest.raises(InputError, match="the modality is unknown"):
        enhance(unknown, EnhanceConfig(model=models["ct"]))
    guessed = Volume(voxels, modality="MR", modality_is_guess=True)
    assert enhance(guessed).model["name"] == "block-matching"
    for volume in (guessed, replace(guessed, modality_is_guess=False)):
        with pytest.raises(ModelError, match="is for CT, the volume is MR") as caught:
            enhance(volume, EnhanceConfig(model=models["ct"]))
        assert "--modality" in caught.value.hint
