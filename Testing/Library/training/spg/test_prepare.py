"""A cohort is prepared: measured, split, and a prior that is nobody's by default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from Library.conftest import WarningRecorder

from MedEnhanceLib import io
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.spg.cohort import Cohort
from MedEnhanceLib.training.spg.config import DistillConfig
from MedEnhanceLib.training.spg.images import framed, windowed, with_tissue
from MedEnhanceLib.training.spg.prepare import Prepared, plan_text, prepare
from MedEnhanceLib.training.spg.readme import NO_LICENSE

from .conftest import PEOPLE, phantom, write_cohort


def test_volumes_are_scaled_by_their_window() -> None:
    volume = phantom(2)
    top = np.percentile(volume.voxels[volume.voxels > volume.voxels.mean()], 99.5)
    assert np.allclose(windowed(volume), np.clip(volume.voxels / top, 0, 1), atol=1e-6)
    scaled = windowed(phantom(2, "CT"))
    assert np.allclose(scaled, (phantom(2, "CT").voxels.clip(-1000, 1000) + 1000) / 2000, atol=1e-6)
    empty = Volume(np.zeros((4, 30, 30), np.int16), modality="MR", source="empty.nii")
    with pytest.raises(InputError, match=r"empty\.nii"):
        windowed(empty)


@pytest.mark.parametrize("shape", [(60, 44), (32, 20), (7, 5)])
def test_slices_are_cut_and_mirrored_around_their_middle(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    images = rng.random((2, *shape)).astype(np.float32)
    found = framed(images, 40)
    assert found.shape == (2, 40, 40)
    middle = images[:, shape[0] // 2, shape[1] // 2]
    assert np.array_equal(found[:, 20, 20], middle) or shape[0] % 2 or shape[1] % 2
    assert found.min() >= images.min(), "no edge where it ends"


def test_slices_that_show_nothing_are_left_out() -> None:
    scaled = windowed(phantom(5))
    scaled[[0, 7]] = 0
    assert len(with_tissue(scaled, "MR")) == 6


def prepared(cohort: Cohort, config: DistillConfig) -> tuple[Prepared, str]:
    recorder = WarningRecorder()
    found = prepare(cohort, config, recorder.monitor)
    return found, " ".join(recorder.warnings)


def test_the_audit_of_matching_has_two_patients_that_statistics_use_too(
    cohort: Cohort, smoke: DistillConfig
) -> None:
    found, _ = prepared(cohort, replace(smoke, held_out=0.2))
    assert (len(found.training), len(found.held_out)) == (2, 2)
    assert set(found.training) | set(found.held_out) == set(PEOPLE)
    assert replace(smoke, held_out=0.9).count_held_out(4) == 2
    three = cohort.only(lambda patient: patient.id != PEOPLE[0])
    found, _ = prepared(three, replace(smoke, held_out=0.2))
    assert (len(found.training), len(found.held_out)) == (3, 0), "no audit is possible"
    found, _ = prepared(cohort, replace(smoke, held_out=0.2, method="statistics"))
    assert (len(found.training), len(found.held_out)) == (4, 0)
    assert found.prior.volumes.shape == (4, 12, 40, 40)
    assert found.prior.spacing_mm[0] == (5.0, 3.0)


def test_what_an_audit_can_find_is_said_before_a_distillation(
    smoke: DistillConfig,
) -> None:
    matched = replace(smoke, held_out=0.2)
    averaged = replace(matched, method="statistics")
    licensed = replace(averaged, license="CC BY 4.0")
    assert plan_text(7, licensed) == "Patients in the cohort: 7."
    assert plan_text(7, averaged) == f"Patients in the cohort: 7. {NO_LICENSE}"
    for patients, config, said in (
        (6, averaged, "cohort: 6. Averages over only 6 patients tell much about each"),
        (3, matched, "cohort: 3. Nobody is held out for an audit, which needs 4 patients or more"),
        (6, matched, "cohort: 6. Held out for the audit: 2. With so few, the audit can find copi"),
        (30, matched, "cohort: 30. Held out for the audit: 6."),
    ):
        assert said in plan_text(patients, config)
    assert "With so few" not in plan_text(30, matched)


def test_the_prior_shows_nobody_of_the_cohort(cohort: Cohort, smoke: DistillConfig) -> None:
    found, said = prepared(cohort, smoke)
    assert found.prior.kind == "synthetic"
    assert len(found.prior.volumes) == 1, "one for each of four patients"
    assert "the prior" not in said


def test_the_file_of_a_patient_is_no_public_prior(
    cohort: Cohort, people: Path, smoke: DistillConfig, tmp_path: Path
) -> None:
    io.save(phantom(50), tmp_path / "mine.nii.gz")
    found, said = prepared(cohort, replace(smoke, prior=str(tmp_path / "mine.nii.gz")))
    assert found.prior.kind == "file"
    assert "mine.nii.gz" in said
    copy = tmp_path / "public.nii.gz"
    copy.write_bytes(next((people / PEOPLE[2]).iterdir()).read_bytes())
    with pytest.raises(ConfigError, match=f"is of patient {PEOPLE[2]}"):
        prepared(cohort, replace(smoke, prior=str(copy)))


def test_a_cohort_of_ct_is_prepared(smoke: DistillConfig, tmp_path: Path) -> None:
    cohort = Cohort.from_folder(write_cohort(tmp_path / "ct", "CT"))
    assert prepared(cohort, smoke)[0].modality == "CT"


def test_what_cannot_be_prepared_is_refused(
    cohort: Cohort, smoke: DistillConfig, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    io.save(replace(phantom(1), modality="PT"), tmp_path / "a" / "x.nrrd")
    with pytest.raises(ConfigError, match="the cohort is PT"):
        prepare(Cohort.from_folder(tmp_path), smoke, Monitor())
    with pytest.raises(InputError, match="empty"):
        prepare(Cohort(()), smoke, Monitor())
    with pytest.raises(ConfigError, match="nowhere"):
        prepare(cohort, replace(smoke, prior="nowhere.nii.gz"), Monitor())
