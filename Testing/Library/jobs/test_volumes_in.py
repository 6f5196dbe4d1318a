"""The volumes in a folder that a training learns from."""

from __future__ import annotations

from pathlib import Path

from MedEnhanceLib.jobs.kinds.train import volumes_in


def test_a_subfolder_says_which_volumes_are_of_high_quality(tmp_path: Path) -> None:
    for name in ("hq", "lq"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scan.nii.gz").touch()
    data, fields = volumes_in(str(tmp_path), "hqg")
    assert data == str(tmp_path)
    assert fields["high_quality"] == ["hq/**/*.nii.gz"]
    assert volumes_in(str(tmp_path), "slices")[1]["files"] == ["hq/**/*.nii.gz"]
    data, fields = volumes_in(str(tmp_path / "hq"), "hqg")
    assert (data, fields["high_quality"]) == (str(tmp_path), ["hq/**/*.nii.gz"])
