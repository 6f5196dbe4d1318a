"""Crops that a simulated scanner acquires: the same again by number, pairs in the same noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from MedEnhanceLib.training.hqg import crops
from MedEnhanceLib.training.hqg.targets import synthetic_target


def test_crops_depend_on_their_number_and_pairs_share_scanner_and_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crops, "SHAPE", (8, 24, 24))
    monkeypatch.setattr(crops, "SCANNED_SHARE", 1.0)
    target = synthetic_target("MR", 1)
    target = replace(target, series=(target.series[0], target.series[0] ** 2))
    maker = crops.CropMaker([target], "MR", blocks=8, seed=2, kind="lesions")
    made = [maker.make(number)[0] for number in range(8)]
    again = maker.make(7)[0]
    assert torch.equal(again.plain.noisy, made[7].plain.noisy)
    assert torch.equal(again.plain.estimate, made[7].plain.estimate)
    spectra = torch.stack([crop.plain.places.root for crop in made])
    assert 0 < int((spectra == 1).all(dim=1).sum()) < len(made)
    assert float(spectra.min()) > 0.03
    pairs = [(crop.plain, crop.planted) for crop in made if crop.planted is not None]
    assert pairs
    for plain, planted in pairs:
        noise = [(part.noisy - part.target).numpy().ravel() for part in (plain, planted)]
        assert np.corrcoef(*noise)[0, 1] > 0.95
        assert not torch.equal(plain.target, planted.target)
