"""Looks: measured in tissue, transferred, left alone where they agree; another contrast refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from Library.hqg.conftest import sample

import MedEnhanceLib as me  # noqa: N813
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.image import gaussian_blur, rician_noise
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.appearance import Appearance, combine, measure_appearance
from MedEnhanceLib.hqg.contrast import Contrast, measure_contrast
from MedEnhanceLib.hqg.matching import match_appearance, plan_match
from MedEnhanceLib.io import load
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.resources import resource_folder

_SHAPE = (10, 128, 136)


def patient(seed: int, blur_mm: float = 0.0, *, pixel_mm: float = 1.0, noise: float = 12) -> Volume:
    """A CT of random organs and vessels with white noise, both blurred alike, int16."""
    rng = np.random.default_rng(seed)
    k, j, i = np.mgrid[tuple(slice(0, n) for n in _SHAPE)] * np.array([3, pixel_mm, pixel_mm])[
        :, None, None, None
    ].reshape(3, 1, 1, 1)
    image = np.full(_SHAPE, 40.0)
    for _ in range(60):
        center = rng.uniform(0, 1, 3) * (30, 128 * pixel_mm, 136 * pixel_mm)
        radius = rng.uniform(2, 14)
        distance = np.sqrt((k - center[0]) ** 2 + (j - center[1]) ** 2 + (i - center[2]) ** 2)
        image += rng.uniform(-80, 80) / (1 + np.exp((distance - radius) / 0.3))
    image = np.clip(image, -150, 200) + rng.normal(0, noise, _SHAPE)
    image = gaussian_blur(image, blur_mm / pixel_mm)
    geometry = Geometry((pixel_mm, pixel_mm, 3.0))
    return Volume(np.rint(image).astype(np.int16), geometry, modality="CT", source=f"p{seed}")


@pytest.fixture(scope="module")
def sharp() -> Appearance:
    return combine([measure_appearance(patient(seed)) for seed in (1, 2, 3)])


def _error(volume: Volume, truth: Volume) -> float:
    inner = np.s_[:, 12:-12, 12:-12]
    difference = volume.voxels[inner].astype(float) - truth.voxels[inner]
    return float(np.sqrt((difference**2).mean()))


@pytest.mark.parametrize(("blur_mm", "most"), [(0.6, 0.45), (-0.6, 0.2)])
def test_a_volume_becomes_as_sharp_or_soft_as_the_look(blur_mm: float, most: float) -> None:
    given, truth = patient(9, max(0.0, blur_mm)), patient(9, max(0.0, -blur_mm))
    looks = [measure_appearance(patient(seed, max(0.0, -blur_mm))) for seed in (1, 2, 3)]
    matched, match = match_appearance(given, combine(looks), monitor=Monitor())
    assert match.changes["in_plane"].blur_mm == pytest.approx(blur_mm, abs=0.12)
    assert _error(given.with_voxels(matched), truth) < most * _error(given, truth)
    assert matched.min() >= given.voxels.min()


def test_nothing_is_done_where_look_and_volume_agree(sharp: Appearance) -> None:
    given = patient(9)
    matched, match = match_appearance(given, sharp, monitor=Monitor())
    assert np.array_equal(matched, given.voxels)
    assert match.changes_nothing
    assert "left alone" in match.sentences()[0]


def test_frequencies_are_physical(sharp: Appearance) -> None:
    """A look with smaller pixels and the same blur in mm asks for nothing else."""
    finer = measure_appearance(patient(4, 0.6, pixel_mm=0.8, noise=18))
    match = plan_match(measure_appearance(patient(9)), finer)
    assert match.changes["in_plane"].blur_mm == pytest.approx(-0.6, abs=0.25)


def test_surplus_noise_is_reduced_only_by_the_given_function(sharp: Appearance) -> None:
    given = patient(9, noise=48)
    clean = patient(9, noise=0)
    unchanged, _ = match_appearance(given, sharp, monitor=Monitor())
    assert np.array_equal(unchanged, given.voxels)
    denoised = clean.voxels.astype(np.float32)
    matched, match = match_appearance(given, sharp, denoise=lambda: denoised, monitor=Monitor())
    assert match.keep_noise == pytest.approx(0.25, abs=0.08)
    left = _error(given.with_voxels(matched), clean)
    assert left == pytest.approx(match.keep_noise * _error(given, clean), rel=0.1)


def test_too_little_tissue_is_refused() -> None:
    with pytest.raises(InputError, match="blocks"):
        measure_appearance(patient(1).with_voxels(np.full(_SHAPE, -1000) + (np.arange(136) == 9)))


@pytest.mark.slow
def test_the_command_takes_a_file_and_a_list_is_of_several_patients(tmp_path: Path) -> None:
    from MedEnhanceLib.cli.main import main

    before, truth = patient(9, 0.6), patient(9)
    me.save(before, tmp_path / "in.nrrd")
    me.save(patient(1), tmp_path / "look.nrrd")
    names = [str(tmp_path / name) for name in ("in.nrrd", "out.nrrd", "look.nrrd")]
    options = ["--modality", "CT", "--device", "cpu"]
    assert main(["enhance", *names[:2], "--look", names[2], *options]) == 0
    volume, written = (me.load(name, modality="CT") for name in names[:2])
    alone = me.enhance(volume, look=patient(1), device="cpu")
    assert np.array_equal(written.voxels, alone.volume.voxels)
    result = me.enhance(volume, look=[patient(seed) for seed in (1, 2, 3)], device="cpu")
    assert result.report["inputs"]["look"] == "p1, p2, p3"
    assert _error(result.volume, truth) < _error(before, truth)


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
