"""The patient's earlier scan: registered or refused, and never seen in the result."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.hqg import earlier_scan
from MedEnhanceLib.hqg.earlier_scan import pilot_from, register
from MedEnhanceLib.nets.shrinkage import BlockShrinkage, gather

Floats = npt.NDArray[np.float32]
_SIGMA = 0.08


def head(
    shape: tuple[int, int, int] = (20, 48, 52), shift: float = 0.0, seed: int = 1
) -> npt.NDArray[np.float64]:
    """An ellipsoid with folds and spots, 4 mm slices and 3 mm pixels, values 0 to 1000."""
    rng = np.random.default_rng(seed)
    k, j, i = (np.mgrid[tuple(slice(0, n) for n in shape)].T * [4, 3, 3]).T
    k, j, i = k - 40, j - 72, i - 78 - shift
    inside = (k / 36) ** 2 + (j / 60) ** 2 + (i / 52) ** 2 < 1
    image = 500 + 150 * np.sin(j / 9 + seed) * np.cos(i / 11)
    for _ in range(12):
        at = rng.uniform(-25, 25, 3)
        distance = (k - at[0]) ** 2 + (j - at[1]) ** 2 + (i - at[2]) ** 2
        image += rng.uniform(-300, 300) * np.exp(-distance / 120)
    return inside * image


def volume_of(voxels: npt.NDArray[np.float64], origin: float = 0.0) -> Volume:
    noise = np.random.default_rng(3).normal(0, 10, voxels.shape)
    geometry = Geometry((3.0, 3.0, 4.0), (origin, 0.0, 0.0))
    stored = np.abs(voxels + noise).astype(np.int16)
    return Volume(stored, geometry, modality="MR", source="scan")


def test_a_shifted_scan_is_brought_back() -> None:
    found = register(volume_of(head(shift=7.0)), volume_of(head()))
    assert found.similarity > 0.95
    assert found.translation_mm[0] == pytest.approx(7.0, abs=0.7)
    assert found.aligned.shape == (20, 48, 52)


def test_another_patient_is_refused() -> None:
    other = head(seed=5)[:, ::-1] * np.random.default_rng(0).uniform(0, 1, (20, 48, 52))
    with pytest.raises(InputError, match="resembles the volume too little") as caught:
        register(volume_of(other), volume_of(head()))
    assert "same patient" in caught.value.hint


def test_a_scan_of_a_part_is_refused() -> None:
    with pytest.raises(InputError, match="of the volume's tissue"):
        register(volume_of(head()[:8]), volume_of(head()))


def test_another_modality_is_refused() -> None:
    scan = volume_of(head())
    other = Volume(scan.voxels, scan.geometry, modality="CT")
    with pytest.raises(InputError, match="is CT, the volume MR"):
        register(other, scan)


def _anatomy() -> Floats:
    j, i = np.mgrid[:64, :64]
    return np.repeat((0.5 + 0.15 * np.sin(i / 1.8) * np.sin(j / 2.3))[None], 8, 0).astype("f4")


def _denoised(noisy: Floats, aligned: Floats | None) -> Floats:
    """The start, and the Wiener stage with it or with the earlier scan's pilot."""
    stage = BlockShrinkage()
    level = torch.full((1, len(noisy), 32, 32), _SIGMA)
    slabs = torch.from_numpy(noisy)[None]
    with torch.inference_mode():
        start = gather([stage.first_layers(slabs, level)], 0, len(noisy))
        pilot = start
        if aligned is not None:
            pilot = torch.from_numpy(pilot_from(start[0].numpy(), aligned, _SIGMA))[None]
        layers = stage.second_layers(slabs, pilot, level)
        result: Floats = gather([layers], 0, len(noisy))[0].numpy()
    return result


def _noisy(anatomy: Floats) -> Floats:
    return anatomy + np.random.default_rng(2).normal(0, _SIGMA, anatomy.shape).astype("f4")


def _lesions() -> Floats:
    k, j, i = np.mgrid[:8, :64, :64]
    blobs = [
        np.exp(-((k - 4) ** 2 + (j - y) ** 2 + (i - x) ** 2) / 8)
        for y in range(12, 60, 14)
        for x in range(12, 60, 14)
    ]
    return np.sum(blobs, axis=0).astype(np.float32)


def _contrast(change: Floats, lesions: Floats) -> float:
    return float((change * lesions).sum() / (lesions**2).sum())


def test_the_right_scan_helps_and_a_wrong_one_does_not() -> None:
    anatomy = _anatomy()
    noisy = _noisy(anatomy)
    without, right, wrong = (
        float(((_denoised(noisy, scan) - anatomy) ** 2).mean())
        for scan in (None, 3 * anatomy + 1, np.ascontiguousarray(anatomy[:, :, ::-1]))
    )
    assert right < 0.99 * without
    assert right < 0.99 * wrong
    assert wrong < 1.02 * without


def test_a_lesion_of_the_earlier_scan_alone_leaves_no_trace() -> None:
    anatomy, lesions = _anatomy(), 2 * _SIGMA * _lesions()
    noisy = _noisy(anatomy)
    change = _denoised(noisy, anatomy + lesions) - _denoised(noisy, anatomy)
    assert abs(_contrast(change, lesions)) < 0.02


def test_a_lesion_of_the_new_scan_alone_stays() -> None:
    anatomy, lesions = _anatomy(), 2 * _SIGMA * _lesions()
    kept = {}
    for name, scan in (("without", None), ("with", anatomy)):
        change = _denoised(_noisy(anatomy + lesions), scan) - _denoised(_noisy(anatomy), scan)
        kept[name] = _contrast(change, lesions)
    assert kept["without"] > 0.7
    assert kept["with"] > kept["without"] - 0.01


def test_where_the_earlier_scan_shows_nothing_the_start_stays() -> None:
    start = _noisy(_anatomy())
    aligned = _anatomy()
    aligned[:, :, :32] = np.nan
    pilot = pilot_from(start, aligned, _SIGMA)
    assert np.isfinite(pilot).all()
    assert np.array_equal(pilot[:, :, :30], start[:, :, :30])
    assert not np.array_equal(pilot[:, :, 36:], start[:, :, 36:])


def test_slabs_join_without_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    start, aligned = _noisy(_anatomy()), _anatomy()
    whole = pilot_from(start, aligned, _SIGMA)
    monkeypatch.setattr(earlier_scan, "_SLAB", 3)
    assert np.allclose(pilot_from(start, aligned, _SIGMA), whole, atol=1e-5)


def test_grids_must_be_the_same() -> None:
    with pytest.raises(InputError, match="shape"):
        pilot_from(_anatomy(), _anatomy()[:4], _SIGMA)
