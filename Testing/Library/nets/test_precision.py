"""Half precision pays with few bits: where it is used, and how far its results are off."""

from __future__ import annotations

import pytest
import torch

from MedEnhanceLib.bundles import open_bundle
from MedEnhanceLib.degrade import Rician
from MedEnhanceLib.hqg.bundle import open_enhancer
from MedEnhanceLib.hqg.config import NetworkConfig
from MedEnhanceLib.hqg.network import Enhancer
from MedEnhanceLib.io import load
from MedEnhanceLib.nets import precision
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.nets.precision import inference_precision
from MedEnhanceLib.nets.slices import SliceStacks
from MedEnhanceLib.runtime.resources import resource_folder


def _run(
    enhancer: Enhancer,
    slab: torch.Tensor,
    dtype: torch.dtype | None,
    cue: torch.Tensor | None = None,
) -> torch.Tensor:
    cue = torch.ones(1, 64) if cue is None else cue
    with (
        torch.inference_mode(),
        torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None),
    ):
        return enhancer(slab, cue)


@pytest.fixture(scope="module")
def enhancer() -> Enhancer:
    torch.manual_seed(2)
    network = Enhancer(NetworkConfig(widths=(16, 24, 32, 48))).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter += 0.01 * torch.randn(parameter.shape)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mr-brain"])
def test_rounding_stays_below_a_thousandth_of_the_range(model: str) -> None:
    # Of what was trained: noise on the weights would be amplified as no learned features are.
    volume = Rician(0.1, 0).apply(
        load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")
    )
    opened = open_enhancer(open_bundle(model, kind="enhancer", modality="MR"))
    middle = len(volume.voxels) // 2
    stacks = SliceStacks(volume.voxels, scaling_for(volume), context=5)
    slab = stacks.planes(slice(middle - 2, middle + 3))[None]
    exact, half = (
        _run(opened.enhancer, slab, dtype, opened.bank.mean[None])
        for dtype in (None, torch.bfloat16)
    )
    assert (exact - slab).abs().mean() > 0.02
    assert (exact - half).square().mean().sqrt() < 5e-4
    assert (exact - half).abs().max() < 5e-3


def test_float16_rounds_finer_than_bfloat16(enhancer: Enhancer) -> None:
    slab = torch.rand(1, 2, 64, 64)
    exact = _run(enhancer, slab, None)
    errors = [
        (exact - _run(enhancer, slab, dtype)).abs().mean()
        for dtype in (torch.float16, torch.bfloat16)
    ]
    assert errors[0] < 0.4 * errors[1]


def test_what_an_enhancer_starts_from_is_never_rounded() -> None:
    slab = torch.rand(1, 5, 32, 32)
    blank = Enhancer(NetworkConfig(widths=(8, 8, 12, 16))).eval()
    for dtype in (None, torch.bfloat16):
        assert torch.allclose(_run(blank, slab, dtype), blank.start(slab), atol=1e-5)


def test_a_cpu_without_bfloat16_keeps_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: False)
    with inference_precision("cpu"):
        assert not torch.is_autocast_enabled("cpu")
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: True)
    with inference_precision("cpu"):
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16
        assert torch.is_autocast_enabled("cpu")
    with inference_precision("cpu", half=False):
        assert not torch.is_autocast_enabled("cpu")
