"""The pretended cards punish what real ones punish: else the other tests here show nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from MedEnhanceLib.learning.precision import without_tf32


@pytest.mark.parametrize("card", ["cuda", "cuda:1"])
def test_values_are_those_of_the_cpu(card: str, cards: object) -> None:
    torch.manual_seed(0)
    network, images = nn.Conv2d(1, 3, 3), torch.randn(2, 1, 8, 8)
    wanted = network(images).square().mean()
    wanted.backward()
    gradient = network.weight.grad.clone()
    network.weight.grad = None
    weight = network.weight
    network.to(card)
    assert network.weight is weight  # as on a real device: optimizers keep their parameters
    with without_tf32:
        found = network(images.to(card)).square().mean()
        found.backward()
    assert network.weight.grad.device == weight.device == torch.device("cuda", int(card[-1] == "1"))
    assert torch.equal(found.detach().cpu(), wanted.detach())
    assert torch.equal(network.weight.grad.cpu(), gradient)


@pytest.mark.parametrize("other", ["cpu", "cuda:0"])
def test_mixed_devices_are_refused(cards: object, other: str) -> None:
    here, there = torch.ones(3, device="cuda:1"), torch.ones(3, device=other)
    for mixed in (
        lambda: here + there,
        lambda: torch.cat([there, here]),
        lambda: nn.functional.linear(here[None], there[None]),
        lambda: there.add_(here),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    assert (here * torch.tensor(2.0)).sum().item() == 6  # a number is passed by value


def test_what_a_driver_refuses_is_refused(cards: object) -> None:
    with pytest.raises(RuntimeError, match="indices"):
        torch.ones(3)[torch.tensor([0], device="cuda")]
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, device="cuda", generator=torch.Generator())
    with pytest.raises(RuntimeError, match="ordinal"):
        torch.ones(1, device="cuda:2")
