"""Crops that a simulated scanner acquires: the same again by number, pairs in the same noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from MedEnhanceLib.hqg.train import crops, losses
from MedEnhanceLib.hqg.train.losses import Window
from MedEnhanceLib.hqg.train.targets import synthetic_target


def test_crops_of_scanners_depend_on_their_number_and_pairs_share_scanner_and_noise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crops, "SHAPE", (8, 24, 24))
    monkeypatch.setattr(crops, "_SCANNED_SHARE", 1.0)
    target = synthetic_target("MR", 1)
    target = replace(target, series=(target.series[0], target.series[0] ** 2))
    maker = crops.CropMaker([target], "MR", blocks=8, seed=2, kind="lesions")
    made = [maker.make(number)[0] for number in range(12)]
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


def test_a_lost_faint_lesion_costs_more_in_ct_than_as_much_error_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crops, "SHAPE", (8, 32, 32))
    maker = crops.CropMaker([synthetic_target("CT", 1)], "CT", blocks=8, seed=2)
    made = [crop for number in range(3) for crop in maker.make(number)]
    with_lesions = [crop for crop in made if crop.faint is not None]
    assert 0 < len(with_lesions) < len(made)
    crop = with_lesions[0]
    assert crop.faint is not None
    window = Window.of(crop.plain)
    whole = losses.faint_error(crop.plain.target, crop, window)
    without = losses.faint_error(crop.plain.target - crop.faint.contrast, crop, window)
    elsewhere = torch.flip(crop.faint.contrast, dims=(1, 2)) * (crop.faint.number == 0)
    other = losses.faint_error(crop.plain.target - elsewhere, crop, window)
    assert float(whole) == 0
    assert float(without) > 10 * float(other)
