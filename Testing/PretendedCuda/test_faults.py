"""Faults that an audit of the code for CUDA found; each of these tests failed before its repair."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch
from Library.gradprom.pair import network
from PretendedCuda.device import MEMORY
from torch import nn

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.gradprom import GradientGate
from MedEnhanceLib.jobs.job import JobSpec, run_job
from MedEnhanceLib.nets import precision
from MedEnhanceLib.nets.checkpoint import load_checkpoint, save_checkpoint
from MedEnhanceLib.nets.precision import mixed_precision, without_tf32
from MedEnhanceLib.nets.slices import Plan
from MedEnhanceLib.nets.training import averaged_weights, finite_weights
from MedEnhanceLib.runtime import machine
from MedEnhanceLib.runtime.device import choose_device, devices_for
from MedEnhanceLib.unicompress.codecs.implicit.tokenizer import principal_axes


def waits(cards) -> int:
    return sum(cards.counts.waits.values())


def test_tf32_is_refused_by_the_cards_and_switched_off_for_whole_runs(cards) -> None:
    layer, images = nn.Conv2d(1, 2, 3).to("cuda"), torch.ones(1, 1, 5, 5, device="cuda")
    with pytest.raises(RuntimeError, match="TF32"):
        layer(images)
    deterministic = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        with without_tf32():
            with without_tf32():
                loss = layer(images).sum()
            loss.backward()  # the backward pass is a part of the run
            assert torch.backends.cudnn.deterministic
    finally:
        torch.backends.cudnn.deterministic = deterministic
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    "run",
    [
        "gradprom.infer:segment", "gradprom.train:train", "hqg.infer:enhance",
        "hqg.slices.restore:enhance_slices", "hqg.slices.train:train_slices",
        "hqg.train.run:train",
        "spg.patient:distill_patient", "spg.patient:seconds_of_a_patient",
        "unicompress.codecs.implicit.trainer:train",
    ],
)  # fmt: skip
def test_every_run_on_a_card_is_without_tf32(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    switched: list[tuple[bool, bool]] = []
    monkeypatch.setattr(precision, "_allow_tf32", lambda *to: switched.append(to) or to)
    with pytest.raises(TypeError):  # of arguments that are missing: after the switch
        pkgutil.resolve_name(f"MedEnhanceLib.{run}")()
    assert switched[:1] == [(False, False)]


def test_tf32_is_switched_off_where_a_program_uses_the_newer_names(cards) -> None:
    conv, rnn = torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    before = conv.fp32_precision, rnn.fp32_precision
    conv.fp32_precision, rnn.fp32_precision = "tf32", "ieee"
    try:
        with pytest.raises(RuntimeError):
            print(torch.backends.cudnn.allow_tf32)
        with without_tf32():
            assert conv.fp32_precision == "ieee"
        assert conv.fp32_precision == "tf32"
    finally:
        conv.fp32_precision, rnn.fp32_precision = before


def test_auto_leaves_a_card_without_kernels_alone_and_says_why(cards) -> None:
    assert choose_device("auto").name == "cuda"
    assert devices_for("auto") == ["cuda:0", "cuda:1"]
    cards.without_kernels = {1}
    assert devices_for("auto") == ["cuda:0"]
    cards.without_kernels = {0}
    choice = choose_device("auto")
    assert choice.name == "cpu"
    assert "no kernel image" in choice.reason
    with pytest.raises(ConfigError, match="no kernel image"):
        choose_device("cuda")
    assert choose_device("cuda:1").name == "cuda:1"


def test_the_report_of_a_machine_says_the_same_and_what_memory_a_card_has(cards) -> None:
    cards.free[0] = MEMORY // 2
    found = machine.compute()
    card, other, _cpu = found["devices"]
    assert (card["name"], card["free"], card["total"]) == ("cuda:0", MEMORY // 2, MEMORY)
    assert 1e9 < card["needs"] < MEMORY
    assert found["choice"]["name"] == "cuda"
    assert not card["fault"] + other["fault"]
    cards.without_kernels = {0}
    found = machine.compute()
    assert "no kernel image" in found["devices"][0]["fault"]
    assert found["choice"]["name"] == "cpu"
    assert "Pretended cannot be used" in found["choice"]["reason"]


def test_the_plan_takes_what_is_free_on_its_card(cards) -> None:
    def batch(device: str) -> int:
        return Plan(device, None, 1024, 0.25).suited(512, 512).slices

    cards.free[1] = MEMORY // 4
    assert 1 <= batch("cuda:1") < batch("cuda") < 32
    cards.free[1] -= 1000  # what others take meanwhile does not change the bits of a result
    assert batch("cuda:1") == batch("cuda") // 4
    cards.free[1] = 1000
    assert batch("cuda:1") == 1
    cards.free[1] = 140 << 30
    assert batch("cuda:1") == 32


def test_bfloat16_is_not_emulated(card, cards) -> None:
    assert mixed_precision(card)._enabled
    cards.capability = (7, 5)
    assert not mixed_precision(card)._enabled


def test_memory_is_given_back_when_a_job_ends(cards) -> None:
    run_job(JobSpec("ping", {}))
    assert cards.released == 1


def test_random_numbers_are_those_of_the_card_of_the_training(
    cards, card, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(
        torch.cuda, "get_rng_state", lambda d="cuda": (asked.append(d), torch.zeros(16).byte())[1]
    )
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda _, d="cuda": asked.append(d))
    parts = {"config": {}, "modules": {"network": network().to(card)}, "optimizers": {}}
    save_checkpoint(tmp_path / "checkpoint", step=1, **parts)
    load_checkpoint(tmp_path / "checkpoint", **parts)
    assert asked == [torch.device("cuda", int(card == "cuda:1"))] * 2


def test_a_training_on_the_cpu_leaves_the_cards_alone(
    cards, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def touched(*_: object) -> None:
        raise AssertionError("CUDA was asked for")

    for name in ("is_available", "get_rng_state", "set_rng_state", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, touched)
    parts = {"config": {}, "modules": {"network": network()}, "optimizers": {}}
    save_checkpoint(tmp_path / "checkpoint", step=1, **parts)
    load_checkpoint(tmp_path / "checkpoint", **parts)


def test_what_needs_float64_works_on_devices_without(
    card, cards, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    wanted = principal_axes(points)
    cards.has_double = False
    with pytest.raises(TypeError, match="float64"):
        torch.ones(2, device=card).double()
    monkeypatch.setattr(precision, "has_double", lambda _: False)
    assert torch.allclose(principal_axes(points.to(card)).cpu(), wanted)
    model, images = network().to(card), torch.ones(3, 6).to(card)
    main, aux = (sign * model(images).square().mean() for sign in (1, -1))
    _, report = GradientGate()(main, aux, list(model.parameters()))
    assert report.cosine == pytest.approx(-1)


def test_a_state_is_examined_with_one_wait(cards) -> None:
    state = {str(n): torch.full((3,), float(n)) for n in range(5)}
    on_card = {name: values.to("cuda") for name, values in state.items()}
    assert finite_weights(on_card)
    assert waits(cards) == 1
    assert not finite_weights(on_card | {"bad": torch.full((1,), float("nan")).to("cuda")})


def test_averaging_weights_waits_for_nothing(cards) -> None:
    model = nn.Linear(2, 2)
    here, there = averaged_weights(model, 0.9), None
    model_there = nn.Linear(2, 2)
    model_there.load_state_dict(model.state_dict())
    there = averaged_weights(model_there.to("cuda"), 0.9)
    for _ in range(4):
        for one in (model, model_there):
            with torch.no_grad():
                one.weight += 1
        here.update_parameters(model)
        there.update_parameters(model_there)
    assert waits(cards) == 0
    found = there.module.weight.detach().cpu()
    assert np.allclose(found, here.module.weight.detach())
