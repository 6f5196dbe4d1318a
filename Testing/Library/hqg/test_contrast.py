"""Contrasts of heads are distinguished without registration; a look of another is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from Library.hqg.conftest import sample

import MedEnhanceLib as me  # noqa: N813
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.image import rician_noise
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.contrast import Contrast, measure_contrast, show_the_same
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.resources import resource_folder


@cache
def t2() -> Volume:
    """The same head as T2 shows it: bright fluid, dark white matter."""
    tissue = load(resource_folder("samples") / "mni152_tissue.nii.gz").voxels
    image = np.array([0, 1000, 450, 300], np.int16)[tissue]
    return replace(sample().with_voxels(image), source="t2.nii.gz")


def noisy(volume: Volume, share: float) -> Volume:
    top = float(np.percentile(volume.voxels, 99.5))
    rng = np.random.default_rng(3)
    return volume.with_voxels(rician_noise(volume.voxels.astype(np.float32), share * top, rng))


def contrast(volume: Volume) -> Contrast:
    found = measure_contrast(volume)
    assert found is not None
    return found


def test_t1_and_t2_differ() -> None:
    assert (contrast(sample()).kind, contrast(t2()).kind) == ("T1", "T2")
    assert not show_the_same(sample(), t2())


def test_noise_scale_and_bias_field_count_little() -> None:
    plain, j = (
        contrast(sample()),
        np.linspace(0.75, 1.25, sample().shape[1], dtype=np.float32)[:, None],
    )
    for changed in (
        noisy(sample(), 0.1),
        sample().with_voxels(sample().voxels.astype(np.float32) * 40),
        sample().with_voxels(sample().voxels * j),
    ):
        found = contrast(changed)
        assert abs(found.tails - plain.tails) < 0.15
        assert abs(found.middle - plain.middle) < 0.15
        assert found.kind == plain.kind


def test_a_look_of_another_contrast_is_refused_by_name() -> None:
    look = replace(t2(), source="b.nii.gz")
    with pytest.raises(InputError, match=r"b\.nii\.gz: shows another contrast") as caught:
        me.enhance(noisy(sample(), 0.07), look=look, device="cpu", task="noise")
    assert "--guide" in caught.value.hint
