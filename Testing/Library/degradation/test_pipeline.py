"""Degradations of volumes: the same numbers give the same voxels, and nothing else changes."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from MedEnhanceLib.core.arrays import robust_max
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import (
    Bias,
    Blur,
    Composite,
    Degradation,
    LowDose,
    Rician,
    Scan,
    degradation_from_json,
    draw,
    standard_composite,
)
from MedEnhanceLib.errors import ConfigError, InputError

_MR_KINDS: list[Degradation] = [
    Rician(0.1, 3),
    Blur(1.2, 3),
    Bias(0.3, 3),
    Scan(kind="epi", partial_fourier=0.75, coils=4, correlation=0.2, steps=4.0, seed=3),
    standard_composite(3),
]
_KINDS = [*_MR_KINDS, LowDose(5e3, 3, 3)]


@pytest.fixture
def body(rng: np.random.Generator, oblique_geometry: Geometry) -> Volume:
    """A small trunk, int16 HU."""
    _, j, i = np.mgrid[:6, -1:1:40j, -1:1:36j]
    hu = np.where(j**2 + i**2 < 0.7, 40, -1000) + rng.normal(0, 8, j.shape)
    return Volume(
        hu.astype(np.int16), oblique_geometry, modality="CT", units="HU", source="body.nii"
    )


@pytest.fixture
def fitting(head: Volume, body: Volume):  # type: ignore[no-untyped-def]
    def of(kind: Degradation) -> Volume:
        return body if isinstance(kind, LowDose) else head

    return of


@pytest.mark.parametrize("kind", _KINDS, ids=str)
class TestContract:
    """What holds for every degradation."""

    def test_a_replay_gives_the_same_voxels_also_from_json(self, kind, fitting) -> None:  # type: ignore[no-untyped-def]
        again = degradation_from_json(json.loads(json.dumps(kind.to_json(), allow_nan=False)))
        assert again == kind
        assert again.apply(fitting(kind)).is_equal(kind.apply(fitting(kind)))

    def test_voxels_change_and_nothing_else(self, kind, fitting) -> None:  # type: ignore[no-untyped-def]
        before = fitting(kind)
        copy = before.voxels.copy()
        after = kind.apply(before)
        assert np.array_equal(before.voxels, copy)
        assert after.dtype == np.float32
        assert np.isfinite(after.voxels).all()
        assert not np.array_equal(after.voxels, before.voxels)
        assert (after.shape, after.geometry) == (before.shape, before.geometry)
        for field in ("modality", "units", "source"):
            assert getattr(after, field) == getattr(before, field)
        assert kind.name in after.history[-1] or "rician" in after.history[-1]

    def test_the_type_is_kept_on_request(self, kind, fitting) -> None:  # type: ignore[no-untyped-def]
        before = fitting(kind)
        kept = kind.apply(before, keep_dtype=True)
        assert kept.dtype == before.dtype
        assert np.abs(kept.voxels - kind.apply(before).voxels).max() <= 0.5

    def test_frames_of_a_sequence_are_damaged_each(self, kind, fitting) -> None:  # type: ignore[no-untyped-def]
        single = fitting(kind)
        sequence = replace(single, voxels=np.stack([single.voxels, single.voxels]))
        after = kind.apply(sequence)
        assert after.shape == sequence.shape
        # Noise of stacked slices is drawn in their order, so the first frame may be compared.
        if not isinstance(kind, Rician | Composite):
            assert after.voxels[0] == pytest.approx(kind.apply(single).voxels, abs=0.05)


@pytest.mark.parametrize("kind", [Rician(0, 1), Blur(0), Bias(0, 1)], ids=str)
def test_strength_zero_returns_the_input(kind: Degradation, head: Volume) -> None:
    assert np.array_equal(kind.apply(head).voxels, head.voxels)


def test_rician_level_is_a_share_of_the_robust_maximum(oblique_geometry: Geometry) -> None:
    voxels = np.zeros((8, 80, 80), np.int16)
    voxels[:, 20:60, 20:60] = 1000
    voxels[3, 40, 40] = 20_000
    mr = Volume(voxels, oblique_geometry, modality="MR")
    air = Rician(0.1, 5).apply(mr).voxels[:, :15]
    assert robust_max(voxels) == 1000
    assert air.mean() == pytest.approx(100 * math.sqrt(math.pi / 2), rel=0.02)


@pytest.mark.parametrize("name", ["rician", "blur", "bias", "low-dose", "scanner", "composite"])
def test_what_is_drawn_can_be_replayed(name: str, fitting) -> None:  # type: ignore[no-untyped-def]
    kind = draw(name, np.random.default_rng(8))
    assert kind.name == name
    assert kind == draw(name, np.random.default_rng(8))
    assert kind != draw(name, np.random.default_rng(9))
    assert kind.apply(fitting(kind)).is_equal(kind.apply(fitting(kind)))


@pytest.mark.parametrize(
    ("kind", "modality", "advice"),
    [
        (LowDose(5e3, 3, 1), "MR", "rician"),
        (Rician(0.1, 1), "CT", "low-dose"),
        (Scan(), "CT", "low-dose"),
        (Bias(0.3, 1), "CT", "HU"),
        (Blur(1), "SEG", "Labels"),
    ],
    ids=str,
)
def test_the_wrong_modality_is_refused_with_advice(
    kind: Degradation, modality: str, advice: str, head: Volume
) -> None:
    for degradation in (kind, Composite((kind,))):
        with pytest.raises(InputError, match=f"{kind.name}.*{modality}") as caught:
            degradation.apply(replace(head, modality=modality, source="scan.nii"))
        assert "scan.nii" in caught.value.message
        assert advice in caught.value.hint


def test_undershoot_is_accepted_but_signed_data_is_not(head: Volume) -> None:
    undershoot = head.voxels.copy()
    undershoot[0, 0, :5] = -40
    assert (Rician(0.1, 1).apply(head.with_voxels(undershoot)).voxels >= 0).all()
    normalized = (head.voxels - head.voxels.mean()) / head.voxels.std()
    with pytest.raises(InputError, match="negative") as caught:
        Rician(0.1, 1).apply(head.with_voxels(normalized))
    assert "magnitude" in caught.value.hint


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "haze"},
        {"level": 0.1},
        {"name": "rician", "level": 0.1, "sead": 3},
        {"name": "rician", "level": 1.5, "seed": 3},
        {"name": "rician", "level": math.nan, "seed": 3},
        {"name": "rician", "level": 0.1},
        {"name": "blur", "sigma_px": -1},
        {"name": "bias", "strength": 0.3, "seed": -1},
        {"name": "low-dose", "photons": 0, "electronic": 0, "seed": 1},
        {"name": "composite", "steps": []},
        {"name": "scanner", "kind": "4d"},
    ],
    ids=str,
)
def test_numbers_that_cannot_be_are_refused_with_advice(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        degradation_from_json(fields)
    assert caught.value.hint
