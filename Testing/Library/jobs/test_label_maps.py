"""Label maps that are given as images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from Library.hqg.conftest import brain

import MedEnhanceLib as me  # noqa: N813 - the name of the documentation
from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError, ModelError
from MedEnhanceLib.io import save
from MedEnhanceLib.jobs import JobSpec, run_job


def _labels(count: int) -> Voxels:
    """Label blocks of 5 × 5 × 5 voxels, with a background around them."""
    blocks = np.random.default_rng(0).integers(1, count + 1, (2, 5, 6))
    return np.pad(np.kron(blocks, np.ones((5, 5, 5))), 2).astype(np.int16)


def _grays(levels: int) -> Voxels:
    voxels = brain().voxels[4:8].astype(np.float32)
    return np.floor(voxels / (voxels.max() + 1) * levels).astype(np.uint8)


@pytest.mark.parametrize(
    ("voxels", "is_label_map"),
    [
        (_labels(1), True),
        (_labels(3), True),
        (_labels(200), True),
        (_labels(7).astype(np.float32), True),
        (_grays(8), False),
        (_grays(32), False),
        (_grays(256), False),
        (_labels(7) + np.float32(0.5), False),
    ],
)
def test_label_maps_are_refused_and_images_of_few_grays_are_not(
    voxels: Voxels, is_label_map: bool
) -> None:
    volume = Volume(voxels, Geometry(), modality="MR")
    if not is_label_map:
        assert "noise found" in me.enhance(volume, device="cpu").findings[1]
        return
    with pytest.raises(InputError, match="looks like a label map") as caught:
        me.enhance(volume, device="cpu")
    assert "the image that it was drawn on" in caught.value.hint
    with pytest.raises(InputError, match="looks like a label map"):
        me.segment(volume)


def test_a_job_refuses_them_or_records_the_request(
    tmp_path: Path,
) -> None:
    save(Volume(_labels(3), Geometry()), tmp_path / "in.nii")
    params = {"input": str(tmp_path / "in.nii"), "output": str(tmp_path / "out.nii")}
    with pytest.raises(InputError, match="looks like a label map"):
        run_job(JobSpec("enhance", params))
    params |= {"config": {"as_intensity": True}}
    with pytest.raises(ModelError, match="the modality is unknown") as caught:
        run_job(JobSpec("enhance", params))
    assert caught.value.hint == "State it: --modality MR or CT (modality= in Python)."
    result = run_job(JobSpec("enhance", params | {"modality": "MR"}))
    assert "looks like a label map, taken" in Path(result["manifest"]).read_text("utf-8")
