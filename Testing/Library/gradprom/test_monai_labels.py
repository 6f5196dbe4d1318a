"""A MONAI bundle finds labels where they lie in the patient, and refuses what it is not for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai import transforms
from torch import Tensor, nn

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, InputError, ModelError
from MedEnhanceLib.gradprom.monai_bundle import MonaiBundle
from MedEnhanceLib.runtime.progress import Monitor


class Shifted(nn.Module):
    """Finds what is above 500, and puts it one voxel on along the first axis of its array."""

    def __init__(self) -> None:
        super().__init__()
        kernel = torch.zeros(2, 1, 3, 3, 3)
        kernel[1, 0, 0, 1, 1] = 0.1  # a voxel takes the value of the one before it
        self.weight = nn.Parameter(kernel, requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        bias = torch.tensor([0.0, -50.0])
        return nn.functional.conv3d(images, self.weight, bias, padding=1)


def opened(*before: Any, **fields: Any) -> MonaiBundle:
    stated = {
        "name": "Shifted", "network": Shifted(), "before": transforms.Compose(before),
        "modality": "MR", "labels": ("Cube",), "has_background": True,
        "window": (), "overlap": 0.25, "sha256": "", "notes": (),
    }  # fmt: skip
    return MonaiBundle(**(stated | fields))


def cube(spacing: tuple[float, float, float] = (1, 1, 1)) -> Volume:
    """Bright cube of 900 in 100, off center in 24 × 20 × 18 mm; I, J, K point to R, A, S."""
    sides = [round(mm / one) for mm, one in zip((24, 20, 18), spacing, strict=True)]
    centers = [(np.arange(n) + 0.5) * s for n, s in zip(sides, spacing, strict=True)]
    i, j, k = np.meshgrid(*centers, indexing="ij")
    inside = (i > 6) & (i < 12) & (j > 9) & (j < 15) & (k > 3) & (k < 9)
    affine = np.diag([*spacing, 1.0]) + np.eye(4, k=3) * (spacing[0] / 2)
    voxels = np.where(inside, 900.0, 100.0).T.astype(np.float32)
    return Volume(voxels, Geometry.from_affine_ras(affine), modality="MR", source="cube")


def stored_otherwise(volume: Volume, order: tuple[int, int, int], flips: tuple[int, ...]) -> Volume:
    """The same object with its file axes (i, j, k) in another order and reversed."""
    array = volume.voxels.T.transpose(order)
    affine = volume.geometry.affine_ras[:, [*order, 3]]
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
        affine[:3, axis] *= -1
        array = np.flip(array, axis)
    return Volume(array.T, Geometry.from_affine_ras(affine), modality="MR", source="turned")


def center_ras(volume: Volume, inside: np.ndarray) -> np.ndarray:
    """Center of some voxels in mm, RAS."""
    indices = np.argwhere(inside).mean(axis=0)[::-1]
    return (volume.geometry.affine_ras @ [*indices, 1])[:3]


TURNS = [((0, 1, 2), ()), ((2, 0, 1), (1,)), ((1, 0, 2), (0, 2)), ((2, 1, 0), (0, 1, 2))]


@pytest.mark.parametrize(("codes", "step"), [("RAS", [1, 0, 0]), ("SLA", [0, 0, 1])])
@pytest.mark.parametrize(("order", "flips"), TURNS)
def test_labels_land_in_the_patient_however_the_file_is_stored(
    order: tuple[int, int, int], flips: tuple[int, ...], codes: str, step: list[int]
) -> None:
    bundle = opened(transforms.Orientationd(["image"], axcodes=codes, labels=None))
    volume = stored_otherwise(cube(), order, flips)
    found = bundle.segment(volume, Monitor())
    assert found.shape == volume.shape and found.sum() == 6**3
    moved = center_ras(volume, found == 1) - center_ras(volume, volume.voxels > 500)
    np.testing.assert_allclose(moved, step, atol=1e-6)  # one voxel along the first axis


def test_an_anisotropic_volume_is_seen_at_the_spacing_of_the_segmenter() -> None:
    sides = (1.5, 1.0, 0.0)
    bundle = opened(
        transforms.Orientationd(["image"], axcodes="RAS", labels=None),
        transforms.Spacingd(["image"], pixdim=sides),
    )
    volume = stored_otherwise(cube((1.0, 2.0, 3.0)), *TURNS[1])
    found = bundle.segment(volume, Monitor())
    moved = center_ras(volume, found == 1) - center_ras(volume, volume.voxels > 500)
    # One voxel of the bundle, whose axis to the right has 1.5 mm, within a voxel of the file.
    np.testing.assert_allclose(moved, [1.5, 0, 0], atol=0.51)


def test_windows_change_nothing_report_progress_and_can_be_cancelled() -> None:
    bundle = opened(window=(24, 16, 8))
    fractions: list[float] = []
    monitor = Monitor(lambda event: fractions.append(event.fields["fraction"]))
    found = bundle.segment(cube(), monitor)
    assert np.array_equal(found, opened().segment(cube(), Monitor()))  # all at once
    assert len(fractions) > 5 and fractions == sorted(fractions) and fractions[-1] == 1
    calls = iter(range(100))
    with pytest.raises(Cancelled):
        bundle.segment(cube(), Monitor(cancel=lambda: next(calls) > 3))


def test_logits_that_the_bundle_does_not_state_are_refused() -> None:
    broken, cubes = Shifted(), cube()
    broken.weight[0] = torch.nan
    takes_two = nn.Conv3d(2, 2, 1)
    for bundle, sentence in (
        (opened(labels=("Cube", "Ball")), r"gives \[1, 2, 32, 32, 32\], with 3 channels"),
        (opened(network=broken), "values that are not finite"),
        (opened(network=takes_two), "does not take cube: .* 2 channels"),
    ):
        with pytest.raises(ModelError, match=sentence):
            bundle.segment(cubes, Monitor())


def test_volumes_that_it_is_not_for_are_refused() -> None:
    bundle = opened()
    voxels, geometry = cube().voxels, cube().geometry
    unknown = Volume(voxels[None], geometry, modality="OT")
    assert bundle.segment(unknown, Monitor()).any()
    guessed = Volume(voxels, geometry, modality="CT", modality_is_guess=True)
    for volume, sentence in (
        (Volume(voxels, geometry, modality="CT"), "is for MR, volume is CT"),
        (guessed, "is for MR, volume is CT"),
        (Volume(np.stack([voxels] * 2), geometry, modality="MR"), "a sequence of 2 frames"),
    ):
        with pytest.raises((InputError, ModelError), match=sentence) as caught:
            bundle.segment(volume, Monitor())
        assert caught.value.hint
