"""The pretended cards punish what real ones punish: else the other tests here show nothing."""

from __future__ import annotations

import threading

import pytest
import torch
from PretendedCuda.device import MEMORY
from torch import nn

from MedEnhanceLib.nets.precision import without_tf32


def test_values_are_those_of_the_cpu(card) -> None:
    torch.manual_seed(0)
    network, images = nn.Conv2d(1, 3, 3), torch.randn(2, 1, 8, 8)
    wanted = network(images).square().mean()
    wanted.backward()
    gradient = network.weight.grad.clone()
    network.weight.grad = None
    weight = network.weight
    network.to(card)
    assert network.weight is weight  # as on a real device: optimizers keep their parameters
    with without_tf32():
        found = network(images.to(card)).square().mean()
        found.backward()
    assert network.weight.grad.device == weight.device == torch.device("cuda", int(card[-1] == "1"))
    assert torch.equal(found.detach().cpu(), wanted.detach())
    assert torch.equal(network.weight.grad.cpu(), gradient)


@pytest.mark.parametrize("other", ["cpu", "cuda:0"])
def test_mixed_devices_are_refused(cards, other: str) -> None:
    here, there = torch.ones(3, device="cuda:1"), torch.ones(3, device=other)
    for mixed in (
        lambda: here + there,
        lambda: torch.cat([there, here]),
        lambda: nn.functional.linear(here[None], there[None]),
        lambda: torch.where(here > 0, here, there),
        lambda: there.add_(here),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    assert (here * torch.tensor(2.0)).sum().item() == 6  # a number is passed by value


def test_indices_of_a_card_do_not_reach_into_the_cpu(cards) -> None:
    with pytest.raises(RuntimeError, match="indices"):
        torch.ones(3)[torch.tensor([0], device="cuda")]


def test_a_generator_of_the_cpu_is_refused(card) -> None:
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, device=card, generator=torch.Generator())


def test_a_third_card_is_refused(cards) -> None:
    with pytest.raises(RuntimeError, match="ordinal"):
        torch.ones(1, device="cuda:2")


def test_a_copy_to_the_host_is_there_once_its_stream_was_waited_for(cards) -> None:
    values = torch.arange(4.0, device="cuda:1")
    host = torch.empty(4, pin_memory=True)
    host.copy_(values, non_blocking=True)
    wrong, right = torch.cuda.Event(), torch.cuda.Event()
    wrong.record()  # on the current stream of the current card, cuda:0
    right.record(torch.cuda.current_stream(values.device))
    values.zero_()  # in order after the copy
    wrong.synchronize()
    assert host.isnan().all()
    right.synchronize()
    assert host.tolist() == [0, 1, 2, 3]


def test_a_copy_to_a_card_is_there_once_the_computing_stream_waited(card) -> None:
    stream, host = torch.cuda.Stream(card), torch.ones(4).pin_memory()
    with torch.cuda.stream(stream):
        here = host.to(card, non_blocking=True)
    computing = torch.cuda.current_stream(card)
    with pytest.raises(RuntimeError, match="record_stream"):
        here + 1
    here.record_stream(computing)
    assert (here + 1).cpu().isnan().all()
    computing.wait_stream(stream)
    assert (here + 1).cpu().tolist() == [2, 2, 2, 2]


def test_who_overwrites_what_is_being_copied_is_found_out(card) -> None:
    host = torch.ones(4).pin_memory()
    stream = torch.cuda.Stream(card)
    with torch.cuda.stream(stream):
        here = host.to(card, non_blocking=True)
    host.zero_()
    torch.cuda.current_stream(card).wait_stream(stream)
    here.record_stream(torch.cuda.current_stream(card))
    assert here.cpu().tolist() == [0, 0, 0, 0]


def test_waits_and_copies_are_counted(cards) -> None:
    values = torch.ones(5).to("cuda")
    values.sum().item()
    values[values > 0].cpu()
    assert sum(cards.counts.up.values()) == 1
    assert sum(cards.counts.down.values()) == 1
    assert sum(cards.counts.waits.values()) == 3  # a number, a mask, a copy
    assert (cards.counts.bytes_up, cards.counts.bytes_down) == (20, 20)


def test_threads_have_the_cards_too(card) -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.ones(2, device=card).sum().item()))
    thread.start()
    thread.join()
    assert found == [2]


def test_the_cards_are_gone_afterwards() -> None:
    assert not torch.cuda.is_available()
    assert torch.ones(2).add_(1).tolist() == [2, 2]


def test_the_driver_knows_free_memory(cards) -> None:
    cards.free[1] = MEMORY // 2
    assert torch.cuda.mem_get_info("cuda:1") == (MEMORY // 2, MEMORY)
