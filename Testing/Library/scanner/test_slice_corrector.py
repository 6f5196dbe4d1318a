"""The network that sees whole slices: in C and in PyTorch, of slices and of parts of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from MedEnhanceLib import native
from MedEnhanceLib.scanner.corrector.config import ViewConfig
from MedEnhanceLib.scanner.corrector.view_inputs import inputs_of
from MedEnhanceLib.scanner.corrector.view_network import ViewNet


def test_untrained_it_changes_nothing_and_is_blind_where_there_is_no_noise() -> None:
    network = ViewNet(ViewConfig(widths=(8, 8)))
    images = torch.randn(2, 5, 40, 44), torch.randn(2, 5, 40, 44)
    sigma = torch.full((2, 40, 44), 0.02)
    assert torch.equal(network(*images, sigma), images[1][:, 2])
    torch.nn.init.ones_(network.last.weight)
    sigma[:, :20] = 0
    changed = network(*images, sigma) != images[1][:, 2]
    assert not changed[:, :20].any()
    assert changed[:, 20:].any()


def view_net(widths: tuple[int, ...], depth: int) -> ViewNet:
    torch.manual_seed(0)
    network = ViewNet(ViewConfig(widths=widths, depth=depth)).eval().requires_grad_(False)
    for weights in network.parameters():  # some begin at 0
        torch.nn.init.normal_(weights, std=0.05)
    return network


@pytest.mark.parametrize(
    ("widths", "depth", "shape"), [((8, 24, 40), 2, (37, 44)), ((33,), 1, (9, 5))]
)
def test_c_and_pytorch_agree(widths: tuple, depth: int, shape: tuple, native_path: Path) -> None:
    network = view_net(widths, depth)
    noisy, filtered = torch.randn(2, 1, 5, *shape)
    sigma = torch.rand(1, *shape) / 50
    expected = network(noisy, filtered, sigma)[0].numpy()
    top = 1000.0
    scaled = ((each[0] * top).numpy() for each in (noisy, filtered, sigma))
    inputs = inputs_of(*scaled, top)
    changed = np.abs(expected - filtered[0, 2].numpy()).max()
    for width in native.Library(native_path).widths:
        compiled = network.compiled(native.Library(native_path, width))
        for _again in range(2):  # with the memory of the first image
            change = compiled.change(inputs)
            result = filtered[0, 2].numpy() + sigma[0].numpy() * change
            assert np.abs(result - expected).max() < changed * (
                0.03 if width in native.BFLOAT_WIDTHS else 1e-4
            )
        assert compiled.change(inputs[:, :7, :4]).shape == (7, 4)
        with pytest.raises(ValueError, match="11 images"):
            compiled.change(inputs[1:])
