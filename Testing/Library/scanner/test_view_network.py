"""The network that sees whole slices."""

from __future__ import annotations

import torch

from MedEnhanceLib.scanner.corrector.config import ViewConfig
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
