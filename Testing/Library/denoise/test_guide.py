"""Guides: registered, left as they are in place, refused; suggested; what thin slices refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import SimpleITK
from Library.denoise.conftest import sample

import MedEnhanceLib as me  # noqa: N813
from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.denoise.guide import Candidate, align, suggest
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.runtime.progress import Monitor


@pytest.fixture(scope="module")
def brain() -> Volume:
    """The template at 3 mm, with 5 % noise."""
    voxels = sample().voxels[:189, :231, :195].astype(np.float32)
    coarse = voxels.reshape(63, 3, 77, 3, 65, 3).mean((1, 3, 5))
    noise = np.random.default_rng(1).normal(0, 10, (2, *coarse.shape))
    noisy = np.hypot(coarse + noise[0], noise[1]).astype(np.float32)
    geometry = Geometry((3.0, 3.0, 3.0), (-96.0, 132.0, -70.0), ((1, 0, 0), (0, -1, 0), (0, 0, 1)))
    return Volume(noisy, geometry, modality="MR", source="noisy")


@pytest.fixture(scope="module")
def other_contrast(brain: Volume) -> Volume:
    """The same brain with dark white matter and bright fluid, and other noise."""
    bright = np.clip(brain.voxels, 0, 255) / 255
    mask = bright > 0.15
    inverted = mask * (1.1 - bright) * 800
    noise = np.random.default_rng(2).normal(0, 8, inverted.shape)
    return replace(brain, voxels=(inverted + noise).astype(np.float32), source="other contrast")


def displaced(
    volume: Volume, shift: tuple[float, float, float], angles: tuple[float, ...] = (0, 0, 0)
) -> Volume:
    """The volume with its content moved by some mm and radians, by its header alone."""
    turn = SimpleITK.Euler3DTransform((0.0, 20.0, 20.0), *angles, shift)
    place = np.eye(4)
    place[:3, :3] = np.array(turn.GetMatrix()).reshape(3, 3)
    place[:3, 3] = turn.TransformPoint((0.0, 0.0, 0.0))
    moved = place @ volume.geometry.affine_lps
    spacing = np.linalg.norm(moved[:3, :3], axis=0)
    direction = tuple(map(tuple, (moved[:3, :3] / spacing).tolist()))
    geometry = Geometry(tuple(spacing.tolist()), tuple(moved[:3, 3].tolist()), direction)
    return replace(volume, geometry=geometry)


def correlation(one: Floats, other: Floats) -> float:
    both = np.isfinite(one) & np.isfinite(other)
    return float(np.corrcoef(one[both], other[both])[0, 1])


def test_a_guide_in_place_keeps_its_voxels(brain: Volume, other_contrast: Volume) -> None:
    aligned = align(other_contrast, brain, Monitor())
    assert aligned.is_usable and not aligned.facts["moved"] and not aligned.facts["resampled"]
    low, high = np.percentile(other_contrast.voxels, [0.5, 99.8])
    undone = aligned.voxels * (high - low) + low
    np.testing.assert_allclose(undone, other_contrast.voxels, atol=1e-3)


@pytest.mark.parametrize("shift", [pytest.param(1.5, marks=pytest.mark.slow), 8.0])
def test_a_planted_motion_is_undone(brain: Volume, other_contrast: Volume, shift: float) -> None:
    guide = displaced(other_contrast, (shift, -shift / 2, shift / 3), (0.06, -0.04, 0.05))
    aligned = align(guide, brain, Monitor())
    assert aligned.is_usable and aligned.facts["moved"]
    assert aligned.facts["fit_after"] > aligned.facts["fit_before"]
    if shift < 2:  # the same input gives the same result
        again = align(guide, brain, Monitor())
        np.testing.assert_array_equal(again.voxels, aligned.voxels)
        assert again.facts == aligned.facts
    # A quarter of a voxel costs about .02 here.
    assert correlation(aligned.voxels, other_contrast.voxels) > 0.95


def test_what_the_guide_does_not_show_is_nan(brain: Volume, other_contrast: Volume) -> None:
    half = other_contrast.crop(k=slice(0, 40))
    aligned = align(half, brain, Monitor())
    assert aligned.is_usable
    assert np.isnan(aligned.voxels[45:]).all() and np.isfinite(aligned.voxels[5:35, 10:60]).all()
    assert aligned.facts["overlap"] < 0.9


@pytest.mark.parametrize("kind", ["elsewhere", pytest.param("else", marks=pytest.mark.slow)])
def test_a_guide_that_does_not_fit_is_not_used(
    brain: Volume, other_contrast: Volume, recorder: Any, kind: str
) -> None:
    if kind == "elsewhere":
        guide, says = displaced(other_contrast, (0.0, 0.0, 900.0)), "it shows 0%"
    else:
        rng = np.random.default_rng(5)
        k, j, i = np.indices(brain.shape)
        bumps = sum(
            np.sin(rng.normal(0, 0.4, 3) @ np.stack([k, j, i]).reshape(3, -1)) for _ in range(9)
        )
        voxels = (np.reshape(bumps, brain.shape) + 9).astype(np.float32)
        guide, says = replace(brain, voxels=voxels, source="else"), "does not match"
    aligned = align(guide, brain, recorder.monitor)
    assert not aligned.is_usable and not aligned.facts["used"]
    assert np.isnan(aligned.voxels).all()
    (warning,) = recorder.warnings
    assert says in aligned.reason and warning.endswith(f"not used as guide: {aligned.reason}")


# --- suggestion -----------------------------------------------------------------------------------


NOISY = Candidate(
    key="1", description="T1", modality="MR", geometry=Geometry(), shape=(20, 20, 20), noise=0.3
)


def test_the_series_of_least_noise_is_suggested() -> None:
    less, least = replace(NOISY, key="2", noise=0.2), replace(NOISY, key="3", noise=0.1)
    choice = suggest(NOISY, [less, replace(least, description="T2")])
    assert choice is not None and choice[0].key == "3"
    assert choice[1] == "T2: same examination, least noise of 2 series, 33% of the volume's noise."


@pytest.mark.parametrize(
    "fields",
    [
        {"modality": "CT"},
        {"noise": 0.4},
        {"noise": np.inf},
        {"geometry": Geometry(origin=(50.0, 0.0, 0.0))},
        {"geometry": Geometry((3.0, 3.0, 3.0))},
    ],
)
def test_what_is_no_help_is_not_suggested(fields: dict[str, Any]) -> None:
    assert suggest(NOISY, [replace(NOISY, key="2", **{"noise": 0.1, **fields})]) is None


@pytest.fixture
def other(head: Volume) -> Volume:
    """Another series of the examination, on a grid of its own."""
    return Volume(
        head.voxels[:3, ::2, 5:], Geometry((3.0, 1.0, 7.0)), modality="MR", source="other.nii"
    )


def test_a_frame_without_noise_is_not_changed_by_a_guide(head: Volume) -> None:
    rng = np.random.default_rng(0)
    still = np.broadcast_to(np.where(head.voxels > 300, 600.0, 100.0), (2, *head.shape))
    frames = still.astype(np.float32)
    frames[1] += rng.normal(0, 40, head.shape)
    sequence = replace(head, voxels=frames, source="cine.nii")
    result = me.enhance(sequence, model="mr", guide=head, strength="full", device="cpu", noise=28)
    assert result.guide_use is not None
    assert result.guide_use.shape == sequence.shape
    assert result.guide_use.voxels[0].max() == 0
    options = EnhanceConfig(model="mr", uncertainty=True, device="cpu", strength="full", noise=28)
    some = enhance(sequence, options, guide=head, slices=(2, 4))  # its neighbors count, too
    assert np.array_equal(some.guide_use.voxels, result.guide_use.voxels[:, 2:4])
    assert some.guide_use.voxels[1].max() > 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda one: replace(one, modality="CT"), r"other\.nii: the guide is CT, the volume MR"),
        (
            lambda one: replace(one, voxels=np.stack([one.voxels] * 2)),
            r"other\.nii: a sequence of 2 frames",
        ),
        (lambda one: one.with_voxels(np.full_like(one.voxels, 7)), r"the guide is constant, every"),
        (
            lambda one: one.with_voxels(np.where(one.voxels > 400, np.nan, 1.0)),
            r"other\.nii: .*NaN or infinite",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_model_is_looked_for(
    head: Volume, other: Volume, change: Any, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        enhance(head, EnhanceConfig(model="not-there"), guide=change(other))


def test_the_volume_itself_is_no_guide(head: Volume) -> None:
    for same in (replace(head, source="copy.nii"), head.voxels):
        with pytest.raises(InputError, match="the guide is the volume itself"):
            me.enhance(head, model="mr", guide=same, device="cpu")
    with pytest.raises(InputError, match=r"the shape \(11, 40, 36\), and the volume"):
        me.enhance(head, model="mr", guide=head.voxels[1:], device="cpu")


@pytest.mark.parametrize(
    "fields", [{"slice_spacing": "half"}, {"slice_thickness": 3.0}, {"slice_profile": "box"}]
)
def test_no_other_task_takes_options_of_slices(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="requires the task slices"):
        EnhanceConfig(**fields)


@pytest.mark.parametrize("name", ["guide", "uncertainty", "correct_bias_field"])
def test_what_thin_slices_do_not_take_is_refused(head: Volume, other: Volume, name: str) -> None:
    value = other if name == "guide" else True
    with pytest.raises(ConfigError, match=rf"\(the task slices\) take no {name}"):
        me.enhance(head, task="slices", **{name: value})
