"""Guides and looks of an enhancement: what is refused, and what reaches the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import MedEnhanceLib as me  # noqa: N813
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.options import option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.hqg import EnhanceConfig, enhance
from MedEnhanceLib.jobs.enhancing import enhance_volume
from MedEnhanceLib.runtime.progress import Monitor


@pytest.fixture
def other(head: Volume) -> Volume:
    """Another series of the examination, on a grid of its own."""
    return Volume(
        head.voxels[:3, ::2, 5:], Geometry((3.0, 1.0, 7.0)), modality="MR", source="other.nii"
    )


def test_a_frame_without_noise_is_not_changed_by_a_guide(head: Volume) -> None:
    rng = np.random.default_rng(0)
    still = np.broadcast_to(np.where(head.voxels > 300, 600.0, 100.0), (2, *head.shape))
    frames = still.astype(np.float32)
    frames[1] += rng.normal(0, 40, head.shape)
    sequence = replace(head, voxels=frames, source="cine.nii")
    result = me.enhance(sequence, "mr", guide=head, task="noise", strength="full", device="cpu")
    assert result.guide_use is not None
    assert result.guide_use.shape == sequence.shape
    assert result.guide_use.voxels[0].max() == 0


@pytest.mark.parametrize("role", ["guide", "look"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda one: replace(one, modality="CT"), r"other\.nii: the {} is CT, the volume MR"),
        (
            lambda one: replace(one, voxels=np.stack([one.voxels] * 2)),
            r"other\.nii: the {} is a sequence",
        ),
        (lambda one: one.with_voxels(np.full_like(one.voxels, 7)), r"the {} is constant, every"),
        (
            lambda one: one.with_voxels(np.where(one.voxels > 400, np.nan, 1.0)),
            r"other\.nii: .*NaN or infinite",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_model_is_looked_for(
    head: Volume, other: Volume, role: str, change: Any, says: str
) -> None:
    with pytest.raises(InputError, match=says.format(role)):
        enhance(head, EnhanceConfig(model="not-there"), **{role: change(other)})


def test_the_volume_itself_is_no_guide(head: Volume) -> None:
    for same in (replace(head, source="copy.nii"), head.voxels):
        with pytest.raises(InputError, match="the guide is the volume itself"):
            me.enhance(head, "mr", guide=same, device="cpu")
    with pytest.raises(InputError, match="an array has the shape"):
        me.enhance(head, "mr", guide=head.voxels[1:], device="cpu")


def test_no_other_task_takes_their_spacing() -> None:
    with pytest.raises(ConfigError, match="slice_spacing requires the task slices"):
        EnhanceConfig(slice_spacing="half")


@pytest.mark.parametrize("role", ["guide", "look"])
def test_thin_slices_have_neither(head: Volume, other: Volume, role: str) -> None:
    with pytest.raises(ConfigError, match=f"the task slices has no {role}"):
        me.enhance(head, task="slices", **{role: other})


@dataclass(frozen=True)
class _WithBorder(EnhanceConfig):
    """As somebody would add an option."""

    border: int = option(0, help="voxels at the sides that stay as they are")


@pytest.mark.parametrize(
    "fields", [{"uncertainty": True}, {"bias_correction": "n4"}, {"border": 2}], ids=str
)
def test_what_thin_slices_do_not_take_is_refused(head: Volume, fields: dict[str, Any]) -> None:
    config = _WithBorder(task="slices", bias_correction="none")
    with pytest.raises(ConfigError, match=f"the task slices has no {next(iter(fields))}"):
        enhance_volume(head, replace(config, **fields), monitor=Monitor())
