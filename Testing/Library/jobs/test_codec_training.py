"""What a recipe for the codec's models says, and what is said of a wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from MedEnhanceLib.config import check_types
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.codec_training import PARTS, CodecTraining

pytest.importorskip("torch")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("key", "meant"), [("modalty", "modality"), ("hold_out", "held_out"), ("lr", "learning_rate")]
)
def test_a_misspelt_key_of_any_part_is_answered_with_the_nearest(
    part: str, key: str, meant: str
) -> None:
    with pytest.raises(ConfigError, match=f"the codec's {part} has no option '{key}'") as caught:
        CodecTraining.from_json({"part": part, "preset": "smoke", key: "CT"})
    assert f"Did you mean {meant}?" in caught.value.hint
    for known in ("part", "preset", "modality", "files", "held_out", "seed"):
        assert known in caught.value.hint


def test_a_key_of_another_part_is_said_to_be_that() -> None:
    with pytest.raises(ConfigError) as caught:
        CodecTraining.from_json({"part": "predictor", "codings": 3})
    assert "The part restoration has it." in caught.value.hint


def test_a_key_inside_a_section_is_named() -> None:
    with pytest.raises(ConfigError, match="'hiden'") as caught:
        CodecTraining.from_json({"part": "implicit", "student": {"hiden": 8}})
    assert "Did you mean hidden?" in caught.value.hint


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"part": "predictor", "steps": "7000"}, "steps is '7000'"),
        ({"part": "predictor", "steps": 0.5}, "steps is 0.5"),
        ({"part": "predictor", "widths": 32}, "widths is 32"),
        ({"part": "predictor", "widths": [32]}, "widths"),
        ({"part": "predictor", "seed": True}, "seed is True"),
        ({"part": "predictor", "files": "ct/*.nii.gz"}, "files is"),
        ({"part": "predictor", "files": [3]}, "files is"),
        ({"part": "restoration", "steps": "many"}, "steps is 'many'"),
        ({"part": "restoration", "steps": 0}, "steps is 0"),
        ({"part": "restoration", "finest": 0.5, "coarsest": 0.1}, "coarsest is 0.1"),
        ({"part": "restoration", "preset": "huge"}, "preset is 'huge'"),
        ({"part": "predictor", "preset": ["cpu"]}, "preset is"),
        ({"part": "implicit", "preset": 7}, "preset"),
        ({"part": "implicit", "teacher": 7}, "teacher is 7"),
        ({"part": "implicit", "token": 7}, "token is 7"),
        ({"part": "implicit", "blocks": "x"}, "blocks is 'x'"),
        ({"part": "implicit", "student": {"hidden": "x"}}, "hidden is 'x'"),
        ({"part": "implicit", "data": ["x"]}, "data is"),
        ({"part": "prediction"}, "unknown part 'prediction'"),
        ({"part": ["predictor"]}, "unknown part"),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_named(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        CodecTraining.from_json(fields)
    assert caught.value.hint


def test_the_file_of_the_configuration_is_named(tmp_path: Path) -> None:
    params = {"method": "unicompress", "data": str(tmp_path), "out": str(tmp_path / "out")}
    params |= {"config": {"part": "predictor", "stepps": 3}, "config_name": "recipe.json"}
    with pytest.raises(ConfigError, match=r"^recipe\.json: .*'stepps'"):
        run_job(JobSpec("train", params))


def test_volumes_are_found_by_patterns_but_for_those_held_out(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.nii.gz").touch()
    part = CodecTraining.from_json({"part": "predictor", "held_out": ["b*"]})
    assert part.sources is not None
    assert [path.name for path in part.sources.found(tmp_path)] == ["a.nii.gz", "c.nii.gz"]


@pytest.mark.parametrize("part", PARTS)
def test_presets_are_of_their_types(part: str) -> None:
    for preset in ("smoke", "cpu", "full"):
        fields = json.loads(json.dumps({"part": part, "preset": preset, "modality": "MR"}))
        check_types(CodecTraining.from_json(fields).config)
