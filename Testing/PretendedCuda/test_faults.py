"""Faults that an audit of the code for CUDA found."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import pytest
import torch
from Library.training.gradprom.pair import network
from PretendedCuda.device import MEMORY
from torch import nn

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.job import JobSpec, run_job
from MedEnhanceLib.learning import precision
from MedEnhanceLib.learning.checkpoint import Checkpoint
from MedEnhanceLib.learning.precision import without_tf32
from MedEnhanceLib.runtime.device import choose_device, compute
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import principal_axes


def test_the_cards_refuse_what_real_ones_do(cards: object) -> None:
    """Else the other tests here show nothing."""
    here, elsewhere = torch.ones(3, device="cuda:1"), torch.ones(3, device="cuda:0")
    for other in (elsewhere, torch.ones(3)):
        with pytest.raises(RuntimeError, match="same device"):
            here + other
    assert (here * torch.tensor(2.0)).sum().item() == 6  # a number is passed by value
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, device="cuda", generator=torch.Generator())
    with pytest.raises(RuntimeError, match="ordinal"):
        torch.ones(1, device="cuda:2")


def test_tf32_is_refused_by_the_cards_and_switched_off_for_whole_runs(cards) -> None:
    layer, images = nn.Conv2d(1, 2, 3).to("cuda"), torch.ones(1, 1, 5, 5, device="cuda")
    with pytest.raises(RuntimeError, match="TF32"):
        layer(images)
    with without_tf32:
        with without_tf32:
            loss = layer(images).sum()
        loss.backward()  # the backward pass is a part of the run
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    "run",
    [
        "gradprom.infer:segment", "training.gradprom.heads:train_head",
        "slices.thin_slices:enhance_slices", "training.hqg.slice_training:train_slices",
        "training.hqg.run:train", "training.spg.patient:distill_patient",
        "training.unicompress.two_stages:train",
    ],
)  # fmt: skip
def test_every_run_on_a_card_is_without_tf32(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    switched: list[tuple[bool, bool]] = []
    monkeypatch.setattr(precision, "allow_tf32", lambda *to: switched.append(to) or to)
    with pytest.raises(TypeError):  # of arguments that are missing: after the switch
        pkgutil.resolve_name(f"MedEnhanceLib.{run}")()
    assert switched[:1] == [(False, False)]


def test_auto_leaves_a_card_without_kernels_alone_and_says_why(cards) -> None:
    assert choose_device("auto").name == "cuda"
    cards.free[0] = MEMORY // 2
    found = compute()
    card, other, _cpu = found["devices"]
    assert (card["name"], card["free"], card["total"]) == ("cuda:0", MEMORY // 2, MEMORY)
    assert not card["fault"] + other["fault"]
    cards.without_kernels = {0}
    choice = choose_device("auto")
    assert choice.name == "cpu"
    assert "no kernel image" in choice.reason
    with pytest.raises(ConfigError, match="no kernel image"):
        choose_device("cuda")
    assert choose_device("cuda:1").name == "cuda:1"
    found = compute()
    assert "no kernel image" in found["devices"][0]["fault"]
    assert "Pretended cannot be used" in found["choice"]["reason"]


def test_memory_is_given_back_when_a_job_ends(cards) -> None:
    run_job(JobSpec("ping", {}))
    assert cards.released == 1


def test_a_checkpoint_has_the_random_numbers_of_the_card_of_its_training(
    cards, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(
        torch.cuda, "get_rng_state", lambda d="cuda": (asked.append(d), torch.zeros(16).byte())[1]
    )
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda _, d="cuda": asked.append(d))
    for device, states in (("cpu", []), ("cuda:1", 2 * [torch.device("cuda", 1)])):
        parts = {"config": {}, "modules": {"network": network().to(device)}, "optimizers": {}}
        checkpoint = Checkpoint(tmp_path / "checkpoint", **parts)
        checkpoint.save(1, {})
        checkpoint.load()
        assert asked == states


def test_what_needs_float64_works_on_devices_without(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    asked: list[str] = []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: asked.append("cpu") or tensor)
    wanted = principal_axes(points)
    assert not asked
    monkeypatch.setattr(precision, "WITHOUT_DOUBLE", ("cpu",))
    assert torch.equal(principal_axes(points), wanted)
    assert asked
