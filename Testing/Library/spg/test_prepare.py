"""A cohort is prepared: axial images of one size and window, and a prior, public by default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from Library.conftest import WarningRecorder

from MedEnhanceLib import io
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.config import DistillConfig, ImageConfig
from MedEnhanceLib.spg.images import axial_slices
from MedEnhanceLib.spg.prepare import Prepared, prepare, representative

from .conftest import PEOPLE, phantom, write_cohort

SCALING = ImageConfig(size=32, spacing_mm=3.0)


def test_pixels_of_the_right_size_are_not_touched() -> None:
    volume = phantom(2)
    images = axial_slices(volume, SCALING)
    assert images.shape == (8, 32, 32)
    top = np.percentile(volume.voxels[volume.voxels > volume.voxels.mean()], 99.5)
    wanted = np.clip(volume.voxels[:, 1:33, :] / top, 0, 1)
    assert np.allclose(images[:, :, 1:31], wanted, atol=1e-6)
    assert np.array_equal(images[:, :, [0, 31]], images[:, :, [1, 30]])


@pytest.mark.parametrize("shape", [(32, 20), (7, 5)])
def test_a_small_field_of_view_leaves_no_edge_where_it_ends(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    voxels = (rng.random((2, *shape)) * 100 + 900).astype(np.float32)
    images = axial_slices(Volume(voxels, Geometry((3.0, 3.0, 5.0)), "MR"), SCALING)
    assert images.shape == (2, 32, 32)
    assert images.min() >= images.max() * 0.85
    assert images.mean() == pytest.approx(voxels.mean() / voxels.max(), rel=0.02)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_other_pixels_are_resampled_around_the_same_middle(factor: float) -> None:
    spacing = SCALING.spacing_mm * factor
    size = int(32 / factor)
    images = axial_slices(phantom(3), SCALING)
    others = axial_slices(phantom(3), replace(SCALING, size=size, spacing_mm=spacing))
    assert others.shape == (len(images), size, size)
    for image, other in zip(images, others, strict=True):
        # An odd number of pixels cannot lie in the middle of an even one: half a pixel is lost.
        assert np.abs(centroid(image) * 3.0 - centroid(other) * spacing).max() < 0.6 * max(
            spacing, 3
        )
        assert other.sum() * spacing**2 == pytest.approx(image.sum() * 9, rel=0.05)


def centroid(image: np.ndarray) -> np.ndarray:
    """In pixels from the middle of the frame."""
    places = np.indices(image.shape) - (np.array(image.shape) - 1)[:, None, None] / 2
    return (places * image).sum(axis=(1, 2)) / image.sum()


def test_slices_become_axial_and_go_from_foot_to_head() -> None:
    volume = phantom(4)
    wanted = axial_slices(volume, SCALING)
    upside_down = Volume(
        volume.voxels[::-1],
        Geometry((3.0, 3.0, 5.0), direction=((1, 0, 0), (0, 1, 0), (0, 0, -1))),
        "MR",
    )
    assert np.allclose(axial_slices(upside_down, SCALING), wanted, atol=1e-6)
    # Stored as sagittal slices: k along x, j along z, i along y.
    sagittal = Volume(
        volume.voxels.transpose(2, 0, 1),
        Geometry((3.0, 5.0, 3.0), direction=((0, 0, 1), (1, 0, 0), (0, 1, 0))),
        "MR",
    )
    assert np.allclose(axial_slices(sagittal, SCALING), wanted, atol=1e-6)


def test_slices_that_show_nothing_are_left_out() -> None:
    volume = phantom(5)
    voxels = volume.voxels.copy()
    voxels[[0, 7]] = 0
    assert len(axial_slices(volume.with_voxels(voxels), SCALING)) == 6
    empty = Volume(np.zeros((4, 30, 30), np.int16), modality="MR", source="empty.nii")
    with pytest.raises(InputError, match=r"empty\.nii"):
        axial_slices(empty, SCALING)


def prepared(cohort: Cohort, config: DistillConfig) -> tuple[Prepared, str]:
    recorder = WarningRecorder()
    found = prepare(cohort, config, recorder.monitor)
    return found, " ".join(recorder.warnings)


@pytest.mark.parametrize("requested", ["representative", f"patient:{PEOPLE[1]}"])
def test_a_patient_as_prior_is_named_as_exposed_and_never_held_out(
    requested: str, cohort: Cohort, smoke: DistillConfig
) -> None:
    found, said = prepared(cohort, replace(smoke, prior=requested, held_out=0.7))
    assert found.prior.patient in found.training
    assert set(found.training) | set(found.held_out) == set(PEOPLE)
    assert not set(found.training) & set(found.held_out)
    assert f"the prior is patient {found.prior.patient}" in said
    assert "can recognize it" in said
    own = found.training[found.prior.patient]
    assert all(any(np.array_equal(image, one) for one in own) for image in found.public)


def test_the_file_of_a_patient_is_no_public_prior(
    cohort: Cohort, people: Path, smoke: DistillConfig, tmp_path: Path
) -> None:
    io.save(phantom(50), tmp_path / "mine.nii.gz")
    found, said = prepared(cohort, replace(smoke, prior=str(tmp_path / "mine.nii.gz")))
    assert found.prior.kind == "file"
    assert "mine.nii.gz" in said
    copy = tmp_path / "public.nii.gz"
    copy.write_bytes(next((people / PEOPLE[2]).iterdir()).read_bytes())
    with pytest.raises(ConfigError, match=f"is of patient {PEOPLE[2]}") as caught:
        prepared(cohort, replace(smoke, prior=str(copy)))
    assert f"patient:{PEOPLE[2]}" in caught.value.hint


def test_ct_has_no_template_and_the_error_says_what_is_possible(
    smoke: DistillConfig, tmp_path: Path
) -> None:
    cohort = Cohort.from_folder(write_cohort(tmp_path / "ct", "CT"))
    with pytest.raises(ConfigError, match="no public CT template") as caught:
        prepare(cohort, smoke, Monitor())
    assert "--prior" in caught.value.hint
    found, _ = prepared(cohort, replace(smoke, prior="representative"))
    assert found.modality == "CT"


def test_the_representative_is_in_the_middle() -> None:
    k = np.linspace(0, 1, 12, dtype=np.float32)[:, None, None] * np.ones((12, 16, 16), np.float32)
    volumes = {name: k * scale for name, scale in zip("abcde", (0.2, 0.4, 0.5, 0.55, 1.0))}  # noqa: B905
    assert representative(volumes) == "c"
    assert representative({"only": k}) == "only"


def test_what_cannot_be_prepared_is_refused(
    cohort: Cohort, smoke: DistillConfig, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    io.save(replace(phantom(1), modality="PT"), tmp_path / "a" / "x.nrrd")
    with pytest.raises(ConfigError, match="the cohort is PT"):
        prepare(Cohort.from_folder(tmp_path), smoke, Monitor())
    with pytest.raises(InputError, match="empty"):
        prepare(Cohort(()), smoke, Monitor())
    for requested in ("nowhere.nii.gz", "patient:NOBODY"):
        with pytest.raises(ConfigError, match=r"nowhere|NOBODY"):
            prepare(cohort, replace(smoke, prior=requested), Monitor())
    with pytest.raises(ConfigError, match="not named"):
        replace(smoke, prior="patient:")
