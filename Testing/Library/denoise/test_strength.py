"""A result blended with its input later is what a run at that strength gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from Library.denoise.conftest import brain

import MedEnhanceLib as me  # noqa: N813 - the name of the documentation
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.degradation.pipeline import Rician
from MedEnhanceLib.denoise import EnhanceConfig, enhance
from MedEnhanceLib.denoise.strength import blend
from MedEnhanceLib.errors import InputError


def crop(volume: Volume) -> Volume:
    return replace(volume, voxels=volume.voxels[3:8])


@pytest.mark.parametrize(("strength", "dtype"), [(0.0, "int16"), (0.3, "float32"), (0.8, "int16")])
def test_blending_later_equals_a_run_bit_for_bit(head: Volume, strength: float, dtype: str) -> None:
    volume = replace(crop(head), voxels=head.voxels[3:8].astype(dtype))
    run = enhance(volume, EnhanceConfig(strength=strength))
    full = enhance(volume, EnhanceConfig())
    assert full.strength == 1
    assert blend(volume, full.volume, strength).is_equal(run.volume)
    assert full.at_strength(strength).volume.is_equal(run.volume)
    assert run.volume.history == full.at_strength(strength).volume.history
    if strength == 0:
        assert np.array_equal(run.volume.voxels, volume.voxels)


@pytest.mark.slow
def test_a_blend_of_auto_is_a_run_at_that_strength() -> None:
    """Also where auto removes a share of the noise alone, as it is weak."""
    noisy = Rician(0.008, 3).apply(brain())
    scan = noisy.with_voxels(np.round(noisy.voxels).astype(np.int16))
    auto = me.enhance(scan, device="cpu", uncertainty=True)
    share = auto.report["results"]["measured"]["noise"]["share_removed"]
    assert 0.2 < share < 0.7
    run = me.enhance(scan, device="cpu", strength=0.5, uncertainty=True)
    later = auto.at_strength(0.5)
    assert later.volume.is_equal(run.volume)
    assert later.uncertainty is None and "uncertainty" not in later.report["results"]
    # The noise that stays counts.
    assert run.uncertainty is not None and auto.uncertainty is not None
    assert (run.uncertainty.voxels > auto.uncertainty.voxels).mean() > 0.9
    for each in (later, run):
        assert each.report["results"]["strength"] == each.report["config"]["strength"] == 0.5
    full = me.enhance(scan, device="cpu", strength="full")
    assert full.report["results"]["measured"]["noise"]["share_removed"] == 1.0


def test_every_frame_of_a_sequence_is_blended(head: Volume) -> None:
    voxels = np.stack([head.voxels, head.voxels // 2])
    sequence = replace(head, voxels=voxels)
    half = blend(sequence, sequence.with_voxels(voxels + np.int16(100)), 0.5)
    assert np.array_equal(half.voxels, voxels + 50)
    assert half.history[-1].startswith("DERIVED: blended with its input at strength 0.5")


def test_wide_integers_come_back_exactly(head: Volume) -> None:
    wide = head.with_voxels(head.voxels.astype(np.int32) + np.int32(2**30 + 1))
    more = wide.with_voxels(wide.voxels + 8)
    assert np.array_equal(blend(wide, more, 0.0).voxels, wide.voxels)
    assert np.array_equal(blend(wide, more, 0.25).voxels, wide.voxels + 2)


@pytest.mark.parametrize("kind", ["positions", "shapes", "MR and CT", "already", "NaN"])
def test_what_is_no_pair_is_refused(head: Volume, kind: str) -> None:
    brighter = head.with_voxels(head.voxels + np.int16(9))
    spoilt = head.voxels.astype(np.float32)
    spoilt[2, 3, 4] = np.nan
    others = {
        "positions": replace(head, geometry=replace(head.geometry, origin=(0.0, 0.0, 0.0))),
        "shapes": crop(head),
        "MR and CT": replace(head, modality="CT"),
        "already": blend(head, brighter, 0.5),
        "NaN": head.with_voxels(spoilt),
    }
    with pytest.raises(InputError, match=kind):
        blend(head, others[kind], 0.5)


def test_what_was_enhanced_may_itself_be_a_blend(head: Volume) -> None:
    half = blend(head, head.with_voxels(head.voxels + np.int16(9)), 0.5)
    assert blend(half, half.with_voxels(half.voxels, did="DERIVED: enhanced"), 0.5)
    # One after the other: what was enhanced again had been enhanced before.
    again = head.with_voxels(head.voxels, did="DERIVED: enhanced with mr")
    twice = again.with_voxels(head.voxels + np.int16(4), did="DERIVED: enhanced with ct")
    assert blend(again, twice, 0.5).history[:2] == twice.history
