"""Labeled images: drawn as they are at the drawn places; unlabeled voxels teach nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from Library.training.gradprom import structure_maps as heads

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.structures.anatomy import UNLABELED
from MedEnhanceLib.gradprom.structures.correcting import ClassShares
from MedEnhanceLib.gradprom.structures.locating import CoarseScan, Location
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.segmenting import PlacedScan, label_voxels
from MedEnhanceLib.gradprom.structures.space import Placement, Space, TissueMap, make_space
from MedEnhanceLib.io import save
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom import painting, sizes
from MedEnhanceLib.training.gradprom.heads import class_loss
from MedEnhanceLib.training.gradprom.label_maps import find_labeled_images
from MedEnhanceLib.training.gradprom.painting import UNKNOWN, Painter
from MedEnhanceLib.training.gradprom.sizes import fit_sizes


def _brain_alone(item: TissueMap) -> TissueMap:
    """Return a map without what surrounds its structures, as a brain's labels are."""
    is_outside = np.append(heads.anatomy().is_outside, False)
    tissues = item.tissues.copy()
    tissues[(tissues == 0) | is_outside[tissues & 127]] = UNLABELED
    return replace(item, tissues=tissues)


@pytest.fixture(scope="module")
def placed() -> tuple[list[TissueMap], Space, list[Placement]]:
    """Three maps, and again the first one of them, with its structures alone, in one space."""
    maps = heads.maps()
    maps.append(_brain_alone(maps[0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("MedEnhanceLib.gradprom.structures.space._STEPS", 10)
        space, placements = make_space(maps, heads.anatomy(), 3, Monitor())
    return maps, space, placements


def test_a_map_of_structures_alone_is_placed_as_the_whole_one(
    placed: tuple[list[TissueMap], Space, list[Placement]],
) -> None:
    maps, _, placements = placed
    inner = np.argwhere((maps[3].tissues & 127) > 0)[::7, ::-1].copy()
    points = torch.from_numpy(inner).float() * heads.VOXEL_MM
    apart = (placements[0](points) - placements[3](points)).norm(dim=1)
    assert float(apart.mean()) < 1.5


def test_a_drawn_scan_shows_the_image_at_its_places(
    placed: tuple[list[TissueMap], Space, list[Placement]], monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, space, _ = placed
    monkeypatch.setattr(painting, "_scan", lambda _rng, image, *_: image)  # a perfect scanner
    monkeypatch.setattr(painting, "normalize", lambda image: image)
    last = heads.SIDE - 1
    ramp = torch.linspace(0.1, 0.9, heads.SIDE)[:, None, None].expand(maps[0].tissues.shape)
    still = Placement.linear(np.eye(4))
    both = [maps[0], replace(maps[3], images=(ramp.contiguous(),))]
    painter = Painter(both, [still, still], space, heads.anatomy(), image_share=1.0)
    scan = painter.draw(np.random.default_rng(3), (48, 48, 48))
    z = scan.places[2] / heads.VOXEL_MM / last
    shown = torch.nn.functional.avg_pool3d(scan.image[None], 2)[0]
    inside = (z > 0.1) & (z < 0.9)
    gamma = shown[inside].log() / (0.1 + 0.8 * z[inside]).log()
    assert float(gamma.std() / gamma.mean()) < 0.01


def test_unlabeled_voxels_teach_nothing(
    placed: tuple[list[TissueMap], Space, list[Placement]],
) -> None:
    maps, space, placements = placed
    image = torch.rand(maps[0].tissues.shape)
    both = [maps[0], replace(maps[3], images=(image,))]
    painter = Painter(both, [placements[0], placements[3]], space, heads.anatomy(), 1.0)
    classes = painter.draw(np.random.default_rng(1), (64, 64, 64)).classes
    unknown = classes == UNKNOWN
    assert unknown.any() and (classes == 1).any()
    assert not (classes == heads.anatomy().classes.index("scalp")).any()
    logits = torch.randn(1, 5, *classes.shape)
    loss = class_loss(logits, classes)
    logits[:, :, unknown] += 3 * torch.randn(1, 5, int(unknown.sum()))
    assert class_loss(logits, classes) == loss
    assert class_loss(logits, torch.full_like(classes, UNKNOWN)) == 0


def test_images_are_drawn_as_often_as_is_stated(
    placed: tuple[list[TissueMap], Space, list[Placement]],
) -> None:
    maps, space, placements = placed
    image = torch.rand(maps[0].tissues.shape)
    drawn = [*maps[:3], replace(maps[3], images=(image,))]
    painter = Painter(drawn, placements, space, heads.anatomy(), image_share=0.5)
    scans = [painter.draw(np.random.default_rng(seed), (32, 32, 32)) for seed in range(20)]
    assert 4 <= sum(bool((scan.classes == UNKNOWN).any()) for scan in scans) <= 16


def test_sizes_from_images_make_the_volumes_of_their_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anatomy, truth = heads.anatomy(), heads.label_values()
    spacing = (heads.VOXEL_MM,) * 3
    image = Volume.from_array(np.ones(truth.shape, np.float32), spacing=spacing, modality="MR")
    save(image.with_voxels(truth), tmp_path / "sub-1_dseg.nii.gz")
    save(image, tmp_path / "sub-1_T1w.nii.gz")
    classes = anatomy.tissue_classes[anatomy.painted(truth) & 127]
    shown = torch.nn.functional.one_hot(torch.from_numpy(classes).long(), 5).movedim(-1, 0)
    share = painting.smooth_all(shown.float(), 1.0)
    share[2] *= 9  # the core takes what is its neighbors'
    scan = CoarseScan(torch.zeros(shown.shape[1:]), (0.0, 2.0), torch.full((3,), 6.0))
    place = Location(Placement.linear(torch.eye(3, 4)), (), 1.0, (1.0, 1.0), 100.0)
    left = torch.from_numpy(np.isin(truth, (heads.LEFT, heads.LEFT_CORE))).float()
    window = ClassShares(
        (0, 0, 0), torch.full((3,), 6.0), share / share.sum(0), left, place.placement
    )
    monkeypatch.setattr(sizes, "place", lambda volume, _: PlacedScan(volume, scan, place))
    monkeypatch.setattr(sizes, "correct", lambda *_: window)
    model = StructureModel("toy", anatomy, *[None] * 3, {}, {})

    labeled = find_labeled_images(tmp_path)
    fitted, overlap = fit_sizes(model, labeled, "MR", Monitor())

    def core(each: StructureModel) -> float:
        sized = replace(window, share=each.weighted(window.share))
        labels, _ = label_voxels(image, scan, sized, each, Monitor())
        return float(np.isin(labels, (heads.LEFT_CORE, heads.RIGHT_CORE)).sum())

    true = np.isin(truth, (heads.LEFT_CORE, heads.RIGHT_CORE)).sum()
    assert core(model) > 1.2 * true
    assert core(fitted) == pytest.approx(true, rel=0.05)
    # The Dice of these images, beside what the classes let expect.
    assert overlap.true.shape == overlap.expected.shape == (1, 3)
    assert (overlap.true[0, :2] > 0.99).all()
    assert (overlap.expected < overlap.true).any()
    assert overlap.information.tolist() == [1.0]
