"""Configuration, the distance of gradients, and the generator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.training.spg.config import DistillConfig, LoopConfig
from MedEnhanceLib.training.spg.generator import RHO, Generator
from MedEnhanceLib.training.spg.matching import cosine_distance


def test_equal_gradients_are_at_no_distance() -> None:
    raw = [torch.randn(9), torch.randn(40)]
    distance = cosine_distance
    assert float(distance(raw, [each.clone() for each in raw])) == pytest.approx(0, abs=1e-5)
    assert float(distance(raw, [-each for each in raw])) > 1.5
    # One that is exactly nothing, as of a layer that is dead, has a slope that is a number.
    nothing = [torch.zeros_like(each).requires_grad_() for each in raw]
    distance(raw, nothing).backward()
    assert all(torch.isfinite(each.grad).all() for each in nothing)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"method": "segment"}, "segment"),
        ({"volumes": 0}, "volumes"),
        ({"task": "denoise"}, "task"),
        ({"size": {"side": 8}}, "side"),
        ({"prior": ""}, "prior is empty"),
        ({"license": "CC0\n# Not so"}, "license is"),
        ({"license": "CC0 "}, "license is"),
    ],
)
def test_what_cannot_be_configured_is_said(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        DistillConfig.from_json(fields)


def test_a_configuration_goes_through_json_and_names_no_place() -> None:
    config = DistillConfig.from_json(
        {"preset": "smoke", "prior": "/home/SMITH.nii", "loop": {"outer": 7}}
    )
    assert config.loop == replace(DistillConfig.preset("smoke").loop, outer=7)
    reported = config.record()
    assert reported["prior"] == "file"
    assert DistillConfig.from_json({**reported, "prior": "/home/SMITH.nii"}).record() == reported
    assert LoopConfig(outer=3, inner=2, teaching=4).steps == 30


def test_what_is_made_of_a_voxel_does_not_depend_on_the_crop() -> None:
    shape = (12, 40, 40)
    rng = np.random.default_rng(0)
    generator, prior = Generator(shape, rng), torch.rand(shape)
    assert torch.equal(generator(prior), prior), "at the beginning"
    with torch.no_grad():
        generator.last.weight.normal_()
        generator.zeta.normal_()
    whole = generator(prior)
    where = (slice(2, 12), slice(4, 36), slice(3, 40))
    part = generator.add(prior[where], generator.residual(prior[where], where))
    inner = (slice(4, -4), slice(8, -8), slice(8, -8))
    assert torch.allclose(part[inner], whole[where][inner], atol=1e-6)
    assert 0.01 < float((whole - prior).abs().max().detach()) <= RHO + 1e-6
