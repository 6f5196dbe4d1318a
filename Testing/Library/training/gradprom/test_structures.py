"""Heads from label maps: classes, common space, painted scans, mixture, placements."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from Library.training.gradprom import structure_maps as heads

from MedEnhanceLib.core.labels import Label
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.gradprom.structures.anatomy import Anatomy
from MedEnhanceLib.gradprom.structures.segmenting import expected_dice
from MedEnhanceLib.gradprom.structures.space import (
    Placement,
    Space,
    fit_placement,
    make_space,
)
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom.painting import NO_SIDE, Painter


@pytest.fixture(scope="module")
def placed() -> tuple[Space, list[Placement], Painter]:
    """A space of three maps, their placements, and a painter."""
    maps = heads.maps()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("MedEnhanceLib.gradprom.structures.space._STEPS", 10)
        space, placements = make_space(maps, heads.anatomy(), len(maps), Monitor())
    return space, placements, Painter(maps, placements, space, heads.anatomy())


def test_left_and_right_labels_are_one_class_with_sides() -> None:
    anatomy = heads.anatomy()
    assert anatomy.classes == ("background", "half", "core", "Stem", "scalp")
    assert anatomy.values[:, 1].tolist() == [heads.RIGHT, heads.LEFT]
    assert anatomy.values[:, 3].tolist() == [heads.STEM, heads.STEM]
    assert anatomy.values[:, 4].tolist() == [0, 0]


def test_a_label_named_left_without_a_right_is_a_class_by_itself() -> None:
    labels = [Label(value=7, name="Left lung", color="#00ff00")]
    anatomy = Anatomy.of(labels, [], {}, [7])
    assert anatomy.classes == ("background", "Left lung")
    assert not anatomy.has_sides


def test_a_value_in_two_tissues_is_refused() -> None:
    tissues = [{"name": "a", "values": [1]}, {"name": "b", "values": [1]}]
    with pytest.raises(ConfigError, match="two tissues"):
        Anatomy.of(heads.LABELS, tissues, {}, [1])


def test_a_tissue_of_two_structures_is_refused() -> None:
    tissues = [{"name": "all", "values": [heads.STEM, heads.LEFT_CORE]}]
    with pytest.raises(ConfigError, match="'all' belongs to 2 structures"):
        _ = Anatomy.of(heads.LABELS, tissues, {}, []).tissue_classes


def test_merged_values_count_as_their_label() -> None:
    anatomy = Anatomy.of(heads.LABELS, [], {"77": heads.LEFT_CORE}, [77])
    painted = anatomy.painted(np.array([77, heads.LEFT_CORE, 0]))
    classes = anatomy.tissue_classes[painted & 127]
    assert classes.tolist() == [2, 2, 0]
    assert (painted >> 7).tolist() == [1, 1, 0]


def test_painted_labels_lie_on_their_priors_and_sides(
    placed: tuple[Space, list[Placement], Painter],
) -> None:
    scan = placed[2].draw(np.random.default_rng(1), (80, 80, 80))
    agreed = scan.prior.argmax(0) == scan.classes[::2, ::2, ::2]
    assert float(agreed.float().mean()) > 0.6
    x = torch.nn.functional.interpolate(scan.places[None], scale_factor=2)[0, 0]
    sided = scan.left != NO_SIDE
    far = sided & (x.abs() > 8)
    assert float(((x > 0) == (scan.left == 1))[far].float().mean()) > 0.98


def test_a_painted_scan_depends_on_its_seed_alone(
    placed: tuple[Space, list[Placement], Painter],
) -> None:
    first, again, other = (
        placed[2].draw(np.random.default_rng(seed), (32, 32, 32)).image for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert float(first.min()) >= 0 and float(first.max()) <= 1


def test_a_shifted_placement_is_found_again(
    placed: tuple[Space, list[Placement], Painter],
) -> None:
    space, placements, _ = placed
    item = heads.maps()[0]
    index = (
        torch.from_numpy(np.argwhere(item.tissues >= 0)[::5, ::-1].copy()).float() * heads.VOXEL_MM
    )
    classes = heads.anatomy().tissue_classes[item.tissues.ravel()[::5] & 127]
    shares = torch.nn.functional.one_hot(torch.from_numpy(classes).long(), 5).T.float()
    affine = placements[0].affine.clone()
    affine[0, 3] += 6
    affine[2, 3] -= 5
    start = Placement.linear(affine)
    fitted = fit_placement(space, index, shares, start, 40, is_affine_fixed=False)
    inner = torch.from_numpy((classes > 0) & (classes < 4))
    true = placements[0](index)[inner]
    before, after = (
        float((place(index)[inner] - true).norm(dim=1).mean()) for place in (start, fitted)
    )
    assert before > 7
    assert after < 3


def test_expected_dice_is_one_for_certain_classes_and_less_for_others() -> None:
    classes = torch.tensor([[[0, 1, 1, 0]]])
    certain = torch.nn.functional.one_hot(classes, 2).movedim(-1, 0).float()
    assert expected_dice(certain, classes, 1) == pytest.approx(1)
    assert expected_dice(certain * 0.4 + 0.3, classes, 1) == pytest.approx(0.7)
    assert np.isnan(expected_dice(certain, torch.zeros(1, 1, 4), 1))
