"""The refinement of a placement by the classes of a scan whose skull is stripped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from Library.training.gradprom import structure_maps as heads
from torch import Tensor

from MedEnhanceLib.gradprom.structures.correcting import correct
from MedEnhanceLib.gradprom.structures.locating import CoarseScan, Location
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.space import make_space
from MedEnhanceLib.runtime.progress import Monitor


class _KnowsAll:
    """A corrector that is given the true classes, whatever it sees."""

    def __init__(self, classes: Tensor) -> None:
        shown = torch.nn.functional.one_hot(classes, 5).movedim(-1, 0).float()
        self._logits = 8 * shown[None]

    def to(self, _: str) -> _KnowsAll:
        return self

    def __call__(self, *_: Any) -> tuple[Tensor, Tensor]:
        return self._logits, torch.zeros(1, *self._logits.shape[2:])


@pytest.mark.parametrize("is_stripped", [False, True])
def test_a_placement_stays_where_the_skull_is_stripped(is_stripped: bool) -> None:
    """Background beside the brain pulled the cortex towards the air around a whole head."""
    anatomy, maps = heads.anatomy(), heads.maps()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("MedEnhanceLib.gradprom.structures.space._STEPS", 10)
        space, placements = make_space(maps, anatomy, 3, Monitor())
    classes = torch.from_numpy(anatomy.tissue_classes[maps[0].tissues & 127]).long()
    if is_stripped:
        classes[classes > len(anatomy.structures)] = 0
    model = StructureModel("toy", anatomy, space, None, _KnowsAll(classes), {}, {})  # type: ignore[arg-type]
    scan = CoarseScan(classes.float(), (0.0, 4.0), torch.full((3,), heads.VOXEL_MM))
    box = ((0, heads.SIDE),) * 3
    location = Location(placements[0], box, 1.0, (1.0,), 100.0)

    after = correct(scan, location, model).placement

    inner = (classes > 0) & (classes <= len(anatomy.structures))
    points = torch.from_numpy(np.argwhere(inner.numpy())[:, ::-1].copy()).float() * heads.VOXEL_MM
    apart = (after(points) - placements[0](points)).norm(dim=1)
    assert float(apart.mean()) < 2.0
    assert float(apart.quantile(0.95)) < 5.0
