"""medenhance blend: another strength of a result that is there already."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.manifest import derived_note
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.strength import blend
from MedEnhanceLib.io import load, save


@pytest.fixture
def files(head: Volume, tmp_path: Path) -> list[str]:
    """Input, enhanced volume, and where the blend goes."""
    paths = [tmp_path / name for name in ("scan.nii.gz", "better.nrrd", "half.nii.gz")]
    save(head, paths[0])
    save(head.with_voxels(head.voxels + np.int16(40)), paths[1])
    return [str(path) for path in paths]


def test_a_share_of_the_correction_is_written_with_its_manifest(
    files: list[str], head: Volume
) -> None:
    assert main(["blend", *files, "--modality", "MR", "--strength", "0.25"]) == 0
    assert np.array_equal(load(Path(files[2]), modality="MR").voxels, head.voxels + 10)
    manifest = json.loads(Path(f"{files[2]}.json").read_text())
    assert manifest["derived"].startswith("DERIVED: blended")
    assert manifest["config"]["strength"] == 0.25
    assert set(manifest["inputs"]) == {"input", "enhanced"}
    assert manifest["model"] == {}
    assert len(manifest["results"]["history"]) == 1


def test_its_history_names_the_model_and_swapped_arguments_are_reported(
    files: list[str], head: Volume, capsys: pytest.CaptureFixture[str]
) -> None:
    did = derived_note("enhanced with mr 012345678901")
    save(head.with_voxels(head.voxels + np.int16(40), did=did), Path(files[1]), overwrite=True)
    swapped = [files[1], files[0], files[2]]
    assert main(["blend", *swapped, "--modality", "MR", "--strength", "0.25"]) == 3
    assert "are swapped: the first is the enhanced one" in capsys.readouterr().err
    assert not Path(files[2]).exists()
    assert main(["blend", *files, "--modality", "MR", "--strength", "0.25"]) == 0
    manifest = json.loads(Path(f"{files[2]}.json").read_text())
    assert "enhanced with mr" in manifest["results"]["history"][0]
    assert "blended" in manifest["results"]["history"][1]
    # One after the other: what was enhanced again had been enhanced before.
    again = head.with_voxels(head.voxels, did=did)
    twice = again.with_voxels(head.voxels + np.int16(4), did=derived_note("enhanced with ct 0"))
    assert blend(again, twice, 0.5).history[:2] == twice.history


def test_what_does_not_belong_together_is_refused(
    files: list[str], head: Volume, capsys: pytest.CaptureFixture[str]
) -> None:
    save(head.with_voxels(head.voxels), Path(files[2]))
    arguments = ["blend", *files, "--modality", "MR", "--strength", "0.25"]
    assert main(arguments) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["blend", *files, "--strength", "2", "--force"]) == 2
    assert "strength" in capsys.readouterr().err
