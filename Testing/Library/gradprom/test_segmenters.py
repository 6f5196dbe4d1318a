"""A segmenter: its geometry and intensities, what it finds and teaches, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import NormalizeIntensity, ScaleIntensity, ScaleIntensityRange
from torch import Tensor, nn

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, InputError, ModelError
from MedEnhanceLib.gradprom.segmenter_spec import Intensity, SegmenterSpec
from MedEnhanceLib.gradprom.segmenters import Segmenter
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.runtime.progress import Monitor

#: Of the networks below: the intensities as they are in the file.
_PLAIN = {"modality": "MR", "labels": ("Cube",), "multiple": 1}


class Shifted(nn.Module):
    """Finds what is above 500, and puts it one voxel on along the first axis of its array."""

    def __init__(self) -> None:
        super().__init__()
        kernel = torch.zeros(2, 1, 3, 3, 3)
        kernel[1, 0, 0, 1, 1] = 0.1  # a voxel takes the value of the one before it
        self.weight = nn.Parameter(kernel)

    def forward(self, images: Tensor) -> Tensor:
        bias = torch.tensor([0.0, -50.0])
        return nn.functional.conv3d(images, self.weight, bias, padding=1)


class Echo(nn.Module):
    """Its one label's logit is the intensity that it sees."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(images), images], dim=1)


def opened(network: nn.Module, fields: dict[str, Any]) -> Segmenter:
    network.requires_grad_(False)
    spec = SegmenterSpec(**fields)
    return Segmenter(type(network).__name__, network, spec, sha256="")


def cube(spacing: tuple[float, float, float] = (1, 1, 1)) -> Volume:
    """Bright cube of 900 in 100, off center in 24 × 20 × 18 mm; I, J, K point to R, A, S."""
    sides = [round(mm / one) for mm, one in zip((24, 20, 18), spacing, strict=True)]
    centers = [(np.arange(n) + 0.5) * s for n, s in zip(sides, spacing, strict=True)]
    i, j, k = np.meshgrid(*centers, indexing="ij")
    inside = (i > 6) & (i < 12) & (j > 9) & (j < 15) & (k > 3) & (k < 9)
    geometry = Geometry.from_affine_ras(
        np.diag([*spacing, 1.0]) + np.eye(4, k=3) * (spacing[0] / 2)
    )
    voxels = np.where(inside, 900.0, 100.0).T.astype(np.float32)
    return Volume(voxels, geometry, modality="MR", source="cube")


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


def logits_of(segmenter: Segmenter, volume: Volume) -> Tensor:
    scaling = scaling_for(volume)
    slab = torch.from_numpy(scaling.apply(volume.voxels))
    return segmenter.logits(slab, segmenter.view_of(volume, scaling))


TURNS = [
    ((0, 1, 2), ()),
    ((0, 1, 2), (0,)),
    ((2, 0, 1), (1,)),
    ((1, 0, 2), (0, 2)),
    ((2, 1, 0), (0, 1, 2)),
]


@pytest.mark.parametrize(
    ("orientation", "step"), [("RAS", [1, 0, 0]), ("LPS", [-1, 0, 0]), ("SLA", [0, 0, 1])]
)
@pytest.mark.parametrize(("order", "flips"), TURNS)
def test_labels_land_in_the_patient_however_the_file_is_stored(
    order: tuple[int, int, int], flips: tuple[int, ...], orientation: str, step: list[int]
) -> None:
    segmenter = opened(Shifted(), {**_PLAIN, "orientation": orientation})
    volume = stored_otherwise(cube(), order, flips)
    found = segmenter.find(volume)
    assert found.shape == volume.shape and found.sum() == 6**3
    moved = center_ras(volume, found == 1) - center_ras(volume, volume.voxels > 500)
    np.testing.assert_allclose(moved, step, atol=1e-6)  # one voxel along the first axis
    assert np.array_equal(logits_of(segmenter, volume).argmax(dim=0).numpy(), found)


def test_an_anisotropic_volume_is_seen_at_the_spacing_of_the_segmenter() -> None:
    fields = {**_PLAIN, "orientation": "RAS", "spacing": (1.5, 1.0, 0)}
    segmenter = opened(Shifted(), fields)
    volume = stored_otherwise(cube((1.0, 2.0, 3.0)), *TURNS[2])
    found = segmenter.find(volume)
    moved = center_ras(volume, found == 1) - center_ras(volume, volume.voxels > 500)
    # One voxel of the segmenter, whose axis to the right has 1.5 mm, within a voxel of the file.
    np.testing.assert_allclose(moved, [1.5, 0, 0], atol=0.51)
    assert segmenter.view_of(volume).sides(volume.shape) == (16, 20, 6)


@pytest.mark.parametrize("zoomed", [False, True])
def test_the_gradient_of_a_voxel_reaches_that_voxel(zoomed: bool) -> None:
    fields = {**_PLAIN, "orientation": "RAS", "spacing": (2, 2, 2) if zoomed else ()}
    segmenter = opened(Echo(), fields)
    volume = stored_otherwise(cube(), (2, 0, 1), (1,))
    scaling = scaling_for(volume)
    slab = torch.from_numpy(scaling.apply(volume.voxels)).requires_grad_()
    logits = segmenter.logits(slab, segmenter.view_of(volume, scaling))
    (slope,) = torch.autograd.grad(logits[1, 5, 9, 7], slab)
    reached = np.argwhere(slope.numpy() != 0)
    assert np.abs(reached - [5, 9, 7]).max() <= (2 if zoomed else 0)
    assert float(slope.sum()) == pytest.approx(scaling.scale, rel=1e-5)


INTENSITIES = [
    (Intensity(), lambda x: x),
    (
        Intensity(kind="window", low=50, high=450, to_low=-1, to_high=1, clip=True),
        ScaleIntensityRange(50, 450, -1, 1, clip=True),
    ),
    (Intensity(kind="window", low=50, high=450), ScaleIntensityRange(50, 450, 0, 1)),
    (Intensity(kind="z-score"), NormalizeIntensity()),
    (Intensity(kind="z-score", nonzero=True), NormalizeIntensity(nonzero=True)),
    (Intensity(kind="scale", to_low=-1, to_high=1), ScaleIntensity(-1, 1)),
]


@pytest.mark.parametrize(("intensity", "monai"), INTENSITIES)
@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_intensities_are_those_of_monai(
    intensity: Intensity, monai: Any, modality: str, head: Volume
) -> None:
    voxels = head.voxels - (300 if modality == "CT" else 0)
    volume = Volume(voxels.astype(np.int16), head.geometry, modality=modality)
    fields = {**_PLAIN, "modality": modality, "intensity": intensity}
    seen = logits_of(opened(Echo(), fields), volume)[1]
    wanted = monai(torch.from_numpy(volume.voxels.astype(np.float32))[None])[0]
    torch.testing.assert_close(seen, torch.as_tensor(wanted), rtol=1e-4, atol=1e-3)


def test_windows_change_nothing_report_progress_and_can_be_cancelled() -> None:
    segmenter = opened(Shifted(), {**_PLAIN, "window": (24, 16, 8)})
    fractions: list[float] = []
    found = segmenter.find(
        cube(), Monitor(lambda event: fractions.append(event.fields["fraction"]))
    )
    assert np.array_equal(found, opened(Shifted(), _PLAIN).find(cube()))  # all at once
    assert len(fractions) > 5 and fractions == sorted(fractions) and fractions[-1] == 1
    calls = iter(range(100))
    with pytest.raises(Cancelled):
        segmenter.find(cube(), Monitor(cancel=lambda: next(calls) > 3))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_loss_falls_towards_the_labels(activation: str) -> None:
    network = Echo() if activation == "softmax" else nn.Identity()
    fields = {**_PLAIN, "modality": "CT", "activation": activation}
    segmenter = opened(network, fields)
    volume = cube()
    view = segmenter.view_of(volume, scaling_for(volume))
    target = torch.from_numpy((volume.voxels > 500).astype(np.int64))
    right, wrong, nothing = (
        float(segmenter.loss(20.0 * slab, view, target))
        for slab in (2.0 * target - 1, 1 - 2.0 * target, torch.zeros(target.shape))
    )
    assert right < 0.01 < nothing < wrong


def test_volumes_that_it_is_not_for_are_refused() -> None:
    fields = {**_PLAIN, "spacing": (1, 1, 1), "multiple": 8, "orientation": "RAS"}
    segmenter = opened(Shifted(), fields)
    good = cube()
    labels = Volume((good.voxels > 500).astype(np.uint8), good.geometry, modality="SEG")
    segmenter.check(good, labels)
    segmenter.check(Volume(good.voxels, good.geometry, modality="OT"))
    segmenter.check(Volume(good.voxels, good.geometry, modality="CT", modality_is_guess=True))

    two = labels.with_voxels(labels.voxels * 2)
    thick = Volume(good.voxels, Geometry((1, 1, 3.5)), modality="MR")
    fine = Volume(good.voxels, Geometry((0.3, 1, 1)), modality="MR")
    for volume, drawn, sentence in (
        (Volume(good.voxels, good.geometry, modality="CT"), None, "is for MR, volume is CT"),
        (Volume(good.voxels[None], good.geometry, modality="MR"), None, "a sequence"),
        (thick, None, "voxels of 3.5 mm, segmenter 'Shifted' is for 1 mm: more than 3 times"),
        (fine, None, "voxels of 0.3 mm"),
        (good.crop(k=slice(2, 5)), None, "24 × 20 × 3 voxels .* needs 8"),
        (good, two, "values up to 2, segmenter 'Shifted' has 1: Cube"),
    ):
        with pytest.raises((InputError, ModelError), match=sentence) as caught:
            segmenter.check(volume, drawn)
        assert caught.value.hint
    with pytest.raises(InputError, match=r"3\.5 mm"):
        segmenter.find(thick)
