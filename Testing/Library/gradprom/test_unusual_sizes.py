"""A head warns of structures that have another size than in the averages of its training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from Library.training.gradprom import structure_maps as heads

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom.structures import segmenting
from MedEnhanceLib.gradprom.structures.correcting import ClassShares
from MedEnhanceLib.gradprom.structures.locating import CoarseScan, Location
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.gradprom.structures.segmenting import PlacedScan, segment_structures
from MedEnhanceLib.gradprom.structures.space import Placement, Space
from MedEnhanceLib.runtime.progress import Monitor


@pytest.mark.parametrize(
    ("is_eroded", "unusual"), [(False, ""), (True, "Stem 0.4 times the average")]
)
def test_a_structure_of_another_size_is_warned_of(
    is_eroded: bool, unusual: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    anatomy, values = heads.anatomy(), heads.label_values()
    average = torch.from_numpy(anatomy.tissue_classes[anatomy.painted(values) & 127]).long()
    classes = average.clone()
    stem = (average == 3).nonzero()
    if is_eroded:
        classes[tuple(stem[: round(0.6 * len(stem))].T)] = 1
    prior, share = (
        torch.nn.functional.one_hot(each, 5).movedim(-1, 0).float() for each in (average, classes)
    )
    step, affine = torch.full((3,), heads.VOXEL_MM), torch.eye(3, 4)
    location = Location(Placement.linear(affine), (), 1.0, (1.0, 1.0), 100.0)
    window = ClassShares((0, 0, 0), step, share, share[0], location.placement)
    monkeypatch.setattr(segmenting, "correct", lambda *_: window)
    parts: Any = anatomy, Space(prior, (0.0, 0.0, 0.0)), None, None, {}, {}
    image = np.ones(values.shape, np.float32)
    volume = Volume.from_array(image, spacing=(heads.VOXEL_MM,) * 3, modality="MR")
    placed = PlacedScan(volume, CoarseScan(classes.float(), (0.0, 1.0), step), location)

    warnings = segment_structures(volume, placed, StructureModel("toy", *parts), "cpu", Monitor())

    said = [text for text in warnings.warnings if "unusual" in text]
    assert said == (
        [f"the share of all structures is unusual, so labels may be wrong: {unusual}"]
        if unusual
        else []
    )
