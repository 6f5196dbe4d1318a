"""The measurement of a head on painted scans, by a made-up head that errs as it is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from Library.training.gradprom import structure_maps as heads

from MedEnhanceLib.gradprom.structures.locating import Location
from MedEnhanceLib.gradprom.structures.model import ALL, StructureModel
from MedEnhanceLib.gradprom.structures.space import Placement
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.gradprom import measuring
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
from MedEnhanceLib.training.gradprom.painting import Painted, smooth_all
from MedEnhanceLib.training.gradprom.sizes import Overlap

#: Power of their sizes by which the made-up head underrates structures.
_POWER = 0.4


class _Head:
    """Paints a map, and segments it worse where it was placed worse; overrates the small."""

    anatomy = heads.anatomy()

    def __init__(self) -> None:
        self.model = StructureModel("toy", self.anatomy, *[None] * 3, {}, {})  # type: ignore[arg-type]

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Painted:
        tissues = heads.maps()[int(rng.integers(3))].tissues & 127
        classes = torch.from_numpy(self.anatomy.tissue_classes[tissues])
        self.classes = classes
        places = torch.stack(torch.meshgrid(*[torch.arange(16.0) * 2] * 3, indexing="ij")[::-1])
        nothing = torch.zeros(0)
        return Painted(torch.zeros(classes.shape), classes, nothing, places, nothing, nothing)

    def locate(self, scan: Any, model: StructureModel) -> Location:
        return Location(Placement.linear(torch.eye(3, 4)), (), 1.0, (1.0, 1.0), 100.0)

    def register_from(
        self, scan: Any, start: torch.Tensor, model: StructureModel
    ) -> tuple[torch.Tensor, float]:
        return start, 1 - float((start - torch.eye(3, 4))[:, 3].norm()) / 40

    def segment_painted(
        self, scan: Any, location: Location, model: StructureModel
    ) -> tuple[torch.Tensor, float]:
        truth = torch.nn.functional.one_hot(self.classes.long(), 5).movedim(-1, 0).float()
        blur = 0.7 + 3 * (1 - location.information)
        sizes = truth.flatten(1).sum(1) ** -_POWER
        sizes[[0, 4]] = float(sizes[1])  # as the largest structure
        share = smooth_all(truth, blur) * sizes.view(-1, 1, 1, 1)
        return share / share.sum(0), 0.2


def _measured(labeled: Overlap | None) -> tuple[StructureModel, list[dict[str, Any]]]:
    """Measure; returns the model, and the rows of its card."""
    head = _Head()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "_MEASURED", 8)
        patch.setattr(measuring, "_EACH", 1)
        for name in ("locate", "register_from", "segment_painted"):
            patch.setattr(measuring, name, getattr(head, name))
        args: Any = head.model, head, TrainHeadConfig(), Monitor(), labeled
        model, card = measuring.measure(*args)
    return model, card["measured"]


@pytest.fixture(scope="module")
def measured() -> tuple[StructureModel, list[dict[str, Any]]]:
    """The model as it was measured on painted scans alone, and the rows of its card."""
    return _measured(None)


def test_small_structures_that_are_overrated_get_their_volumes(
    measured: tuple[StructureModel, list[dict[str, Any]]],
) -> None:
    model, rows = measured
    assert model.sizes["half"] == 1 > model.sizes["core"] > model.sizes["Stem"]
    errors = {row["structure"]: float(row["volume error"].split()[0]) for row in rows}
    assert all(abs(error) <= 8 for error in errors.values()), errors
    low, high = model.volume_interval["core"]
    assert 0.8 < low <= high < 1.25 and ALL in model.volume_interval


def test_probabilities_with_sizes_add_up_to_one(
    measured: tuple[StructureModel, list[dict[str, Any]]],
) -> None:
    share = measured[0].weighted(torch.full((5, 2, 2, 2), 0.2))
    assert torch.allclose(share.sum(0), torch.ones(2, 2, 2))
    assert float(share[2, 0, 0, 0] / share[1, 0, 0, 0]) == pytest.approx(
        measured[0].sizes["core"] / measured[0].sizes.get("half", 1.0), rel=1e-4
    )


def test_the_expected_dice_falls_where_the_placement_errs(
    measured: tuple[StructureModel, list[dict[str, Any]]],
) -> None:
    of_certainty, of_placement, offset, _ = measured[0].quality["core"]
    assert of_certainty > 0 and of_placement >= 0
    certain, doubtful = (
        of_certainty * x + of_placement * m + offset for x, m in ((0.85, 0.95), (0.6, 0.7))
    )
    assert doubtful < certain - 0.1


def test_where_images_have_labels_the_expected_dice_is_theirs() -> None:
    """Painted scans are harder: their offsets are too low for images."""
    true = np.tile([0.95, 0.6, 0.9], (4, 1))
    model, _ = _measured(Overlap(true, np.full((4, 3), 0.8), np.ones(4)))
    for name, dice in zip(("half", "core", "Stem"), true[0], strict=True):
        of_certainty, of_placement, offset, most = model.quality[name]
        assert most == dice
        assert of_certainty * 0.8 + of_placement + offset == pytest.approx(dice, abs=0.01)
