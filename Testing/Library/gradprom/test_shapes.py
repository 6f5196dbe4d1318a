"""What is made of labels after the network: the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.gradprom import SegmentConfig, head, segment
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig

LABEL = {"value": 4, "name": "Bright", "color": "#ff0000"}
TURNED = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]


@pytest.mark.parametrize("slices", [1, 5])
def test_thin_and_oblique_volumes_are_segmented_and_measured(
    slices: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a volume lies in the patient changes nothing of what its labels measure."""

    class Bright(torch.nn.Module):
        """Finds what is bright, whatever its weights."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(8))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            middle = images[:, images.shape[1] // 2, None]
            return torch.cat([0.5 - middle, middle - 0.5], dim=1)

    monkeypatch.setattr(head, "make_head", lambda *_: Bright())
    config = TrainHeadConfig.from_json(
        {"preset": "smoke", "labels": ["x"], "structures": [LABEL], "name": "bright"}
    )
    folder = head.export_head(tmp_path / "bright", config, Bright(), 1.0).folder
    bright = np.zeros((slices, 40, 40), np.int16)
    bright[:, 8:32, 12:28] = 800
    spacing = (0.7, 0.8, 3.0)
    oblique = tuple(map(tuple, TURNED.tolist()))
    tables = []
    for geometry in (Geometry(spacing), Geometry(spacing, (5.0, -9.0, 70.0), oblique)):
        image = Volume(bright + 10, geometry, modality="MR")
        found = segment(image, SegmentConfig(model=str(folder), device="cpu", force_segmenter=True))
        assert np.array_equal(found.volume.voxels == 4, bright > 0)
        assert found.volume.geometry == geometry
        tables.append(found.table)
    assert tables[0] == tables[1]
    (row,) = tables[0]
    a, b, c = 16 * 0.7, 24 * 0.8, slices * 3.0
    assert (row["voxels"], row["volume_ml"]) == (16 * 24 * slices, round(a * b * c / 1000, 3))
