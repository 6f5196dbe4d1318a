"""The guide: registered to the volume, left as it is where it is in place, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg.guide import AlignedGuide, Candidate, align, suggest
from MedEnhanceLib.hqg.registration import Rigid
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]
_SAMPLE = Path(__file__).resolve().parents[3] / "Resources/samples/mni152_t1.nii.gz"


@pytest.fixture(scope="module")
def brain() -> Volume:
    """The template at 3 mm, with 5 % noise."""
    import nibabel

    image: Any = nibabel.load(_SAMPLE)
    voxels = np.asarray(image.dataobj, np.float32).T[:189, :231, :195]
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


def displaced(volume: Volume, place: Rigid) -> Volume:
    """The volume with its content moved, by its header alone."""
    moved = place.matrix @ volume.geometry.affine_lps
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


@pytest.mark.parametrize("shift", [1.5, 8.0])
def test_a_planted_motion_is_undone(brain: Volume, other_contrast: Volume, shift: float) -> None:
    motion = Rigid((0.06, -0.04, 0.05), (shift, -shift / 2, shift / 3), (0.0, 20.0, 20.0))
    aligned = align(displaced(other_contrast, motion), brain, Monitor())
    assert aligned.is_usable and aligned.facts["moved"]
    assert aligned.facts["fit_after"] > aligned.facts["fit_before"]
    # A quarter of a voxel costs about .02 here.
    assert correlation(aligned.voxels, other_contrast.voxels) > 0.95


def test_the_same_input_gives_the_same_result(brain: Volume, other_contrast: Volume) -> None:
    guide = displaced(other_contrast, Rigid(shift=(2.0, 1.0, -2.0)))
    part = brain.crop(k=slice(15, 45), j=slice(20, 60))
    first, second = (align(guide, part, Monitor()) for _ in range(2))
    np.testing.assert_array_equal(first.voxels, second.voxels)
    assert first.facts == second.facts


def test_what_the_guide_does_not_show_is_nan(brain: Volume, other_contrast: Volume) -> None:
    half = other_contrast.crop(k=slice(0, 40))
    aligned = align(half, brain, Monitor())
    assert aligned.is_usable
    assert np.isnan(aligned.voxels[45:]).all() and np.isfinite(aligned.voxels[5:35, 10:60]).all()
    assert aligned.facts["overlap"] < 0.9


def test_headers_without_a_common_position_are_replaced_by_the_centers(
    brain: Volume, other_contrast: Volume, recorder: Any
) -> None:
    far = displaced(other_contrast, Rigid(shift=(0.0, 0.0, 900.0)))
    aligned = align(far, brain, recorder.monitor)
    assert aligned.is_usable and aligned.facts["start"] == "centers"
    assert correlation(aligned.voxels, other_contrast.voxels) > 0.95
    assert "by the centers" in recorder.warnings[0]


def refused(guide: Volume, volume: Volume, recorder: Any) -> AlignedGuide:
    aligned = align(guide, volume, recorder.monitor)
    assert not aligned.is_usable and not aligned.facts["used"]
    assert np.isnan(aligned.voxels).all()
    assert recorder.warnings == [aligned.reason]
    return aligned


@pytest.mark.slow
def test_a_guide_of_something_else_is_not_used(brain: Volume, recorder: Any) -> None:
    rng = np.random.default_rng(5)
    k, j, i = np.indices(brain.shape)
    bumps = sum(
        np.sin(rng.normal(0, 0.4, 3) @ np.stack([k, j, i]).reshape(3, -1)) for _ in range(9)
    )
    voxels = (np.reshape(bumps, brain.shape) + 9).astype(np.float32)
    aligned = refused(replace(brain, voxels=voxels, source="else"), brain, recorder)
    assert "does not match" in aligned.reason


def test_sequences_and_empty_guides_are_refused(brain: Volume) -> None:
    frames = brain.with_voxels(np.stack([brain.voxels] * 2))
    with pytest.raises(InputError, match="sequence"):
        align(frames, brain, Monitor())
    with pytest.raises(InputError, match="constant"):
        align(brain.with_voxels(np.zeros(brain.shape)), brain, Monitor())


# --- suggestion -----------------------------------------------------------------------------------


NOISY = Candidate(
    key="1", modality="MR", frame_of_reference="9", patient="P", date="2020-01-02", noise=0.3
)


def series(key: str, **fields: Any) -> Candidate:
    return replace(NOISY, key=key, **fields)


def test_the_series_of_least_noise_is_suggested() -> None:
    choice = suggest(
        NOISY, [NOISY, series("2", noise=0.1, description="T2"), series("3", noise=0.2)]
    )
    assert choice is not None and choice.candidate.key == "2"
    assert choice.reason == (
        "T2: same frame of reference, least noise of 2 series (33% of the volume's)."
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"patient": "Q"},
        {"modality": "CT"},
        {"noise": 0.4},
        {"frame_of_reference": "8", "date": "2021-01-02"},
    ],
)
def test_what_is_no_help_is_not_suggested(fields: dict[str, Any]) -> None:
    assert suggest(NOISY, [series("2", **{"noise": 0.1, **fields})]) is None


def test_files_without_headers_must_show_the_same_region() -> None:
    grid = {"modality": "MR", "folder": "f", "geometry": Geometry(), "shape": (20, 20, 20)}
    volume = Candidate(key="a", **grid)
    far = Candidate(key="b", **{**grid, "geometry": Geometry(origin=(50.0, 0.0, 0.0))})
    near = Candidate(key="c", **grid)
    choice = suggest(volume, [volume, far, near])
    assert choice is not None and choice.candidate.key == "c"
    assert suggest(volume, [far]) is None
