"""The terms of the loss: there when on, without cost when off; each teaches whom it should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.hqg.config import LossConfig, TrainConfig
from MedEnhanceLib.hqg.network import Enhancer, GuidanceEncoder, make_discriminator
from MedEnhanceLib.hqg.train import Trainer, losses
from MedEnhanceLib.hqg.train.losses import Critic, Objective, PastImages
from MedEnhanceLib.hqg.train.pools import Pools
from MedEnhanceLib.runtime.progress import Monitor

NOTHING = LossConfig(
    **dict.fromkeys(("cycle", "gradient", "structure", "wavelet", "error", "kl", "low_band"), 0.0),
    adversarial=0.0,
    adversarial_start=0.0,
)
CLEAN = ("cycle", "gradient", "structure", "wavelet", "feature", "identity", "error", "kl")
REAL = ("low_band", "adversarial", "real_wavelet", "real_feature")


@pytest.fixture(scope="module")
def pools(training_data: Path, smoke: TrainConfig) -> Pools:
    return Pools.load(smoke, training_data, Monitor())


@pytest.fixture
def with_loss(pools: Pools, smoke: TrainConfig) -> Any:
    """A trainer with these weights, whose networks are away from their zero start."""

    def make(loss: LossConfig, **network: Any) -> Trainer:
        config = replace(
            smoke, loss=loss, unpaired_every=1, network=replace(smoke.network, **network)
        )
        trainer = Trainer(config, pools, "cpu")
        with torch.no_grad():
            for weight in trainer.networks.parameters():
                weight.add_(0.05 * torch.randn_like(weight))
        return trainer

    return make


def terms_of(trainer: Trainer, number: int = 3) -> dict[str, torch.Tensor]:
    batch = trainer.batches[number]
    terms, _ = trainer.objective.clean_terms(batch, number)
    share = trainer.processes.average_gradients
    return terms | trainer.objective.real_terms(batch, np.random.default_rng(0), share)


@pytest.mark.parametrize("name", [*CLEAN, *REAL])
def test_a_term_alone_is_there_and_is_weighted(with_loss: Any, name: str) -> None:
    once, twice = (terms_of(with_loss(replace(NOTHING, **{name: weight}))) for weight in (1.0, 2.0))
    assert set(once) == {name}
    assert once[name].requires_grad
    assert twice[name].item() == pytest.approx(2 * once[name].item(), rel=1e-4)
    assert once[name].item() != 0


def test_what_is_off_is_not_computed(with_loss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[str] = []
    monkeypatch.setattr(Objective, "_encoder_content", lambda *_: runs.append("encoder"))
    monkeypatch.setattr(losses, "published_wavelet", lambda *_: runs.append("wavelet"))
    trainer = with_loss(replace(NOTHING, identity=1.0))
    trainer.enhancer.register_forward_hook(lambda *_: runs.append("enhancer"))
    trainer.objective.clean_terms(trainer.batches[0], 0)
    assert runs == ["enhancer"]
    assert trainer.critic is None


def test_nothing_to_learn_is_an_error(with_loss: Any, pools: Pools, smoke: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="no loss"):
        with_loss(NOTHING).step(0)


def gradients(network: torch.nn.Module) -> float:
    return sum(float(w.grad.abs().sum()) for w in network.parameters() if w.grad is not None)


@pytest.mark.parametrize("name", ["real_feature", "real_wavelet", "identity", "cycle"])
def test_gradients_reach_enhancer_and_guide(with_loss: Any, name: str) -> None:
    trainer = with_loss(replace(NOTHING, **{name: 1.0}))
    terms_of(trainer)[name].backward()
    assert gradients(trainer.enhancer) > 0
    assert gradients(trainer.guide) > 0  # through the cue


def test_the_guide_does_not_learn_from_judging(pools: Pools, smoke: TrainConfig) -> None:
    """As yet no cue changes the output: all that could reach the guide is its own judgment."""
    loss = replace(NOTHING, real_feature=1.0)
    trainer = Trainer(replace(smoke, loss=loss, unpaired_every=1), pools, "cpu")
    term = terms_of(trainer)["real_feature"]
    assert term.item() > 0
    term.backward()
    assert gradients(trainer.guide) == 0


def test_the_encoders_own_weights_get_nothing_from_feature_content(with_loss: Any) -> None:
    trainer = with_loss(NOTHING)
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    trainer.objective._encoder_content(image, torch.rand(1, 3, 32, 32)).backward()
    assert image.grad is not None
    assert float(image.grad.abs().sum()) > 0
    assert gradients(trainer.enhancer) == 0


def test_the_adversary_teaches_the_enhancer_and_the_critic_apart(with_loss: Any) -> None:
    trainer = with_loss(replace(NOTHING, adversarial=1.0))
    assert trainer.critic is not None
    before = [w.clone() for w in trainer.critic.network.parameters()]
    term = terms_of(trainer)["adversarial"]
    after = list(trainer.critic.network.parameters())
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    trainer.critic.optimizer.zero_grad()
    term.backward()
    assert gradients(trainer.enhancer) > 0
    assert gradients(trainer.critic.network) == 0


def test_without_guidance_no_guide_changes_the_result(with_loss: Any) -> None:
    trainer = with_loss(LossConfig(), guidance=False)
    slabs, guides = torch.rand(1, 3, 32, 32), torch.rand(2, 1, 32, 32)
    first, second = (trainer.guide(guide[None]).sample() for guide in guides)
    assert not first.any()
    assert torch.equal(trainer.enhancer(slabs, first), trainer.enhancer(slabs, second))
    assert "kl" not in terms_of(trainer)


def test_without_a_distribution_the_cue_is_its_mean(with_loss: Any) -> None:
    trainer = with_loss(LossConfig(), variational=False)
    cue = trainer.guide(torch.rand(2, 1, 32, 32))
    assert torch.equal(cue.sample(), cue.mean)
    assert cue.mean.any()
    assert "kl" not in terms_of(trainer)
    assert all(torch.isfinite(term) for term in terms_of(trainer).values())


def test_without_restyling_there_are_no_such_weights(with_loss: Any) -> None:
    trainer = with_loss(LossConfig(), restyling=False)
    assert not list(trainer.enhancer.restyle.parameters())
    cues = torch.randn(2, 1, trainer.config.network.cue_size)
    slabs = torch.rand(1, 3, 32, 32)
    first, second = (trainer.enhancer(slabs, cue) for cue in cues)
    assert torch.equal(first, second)


def test_the_published_preset_has_the_published_terms_alone(with_loss: Any) -> None:
    terms = terms_of(with_loss(LossConfig.published()))
    assert set(terms) == {"adversarial", "real_wavelet", "real_feature", "identity", "kl"}
    published = TrainConfig.from_json({"preset": "published", "loss": {"r1": 2.0}})
    assert (published.loss.r1, published.loss.identity, published.loss.cycle) == (2.0, 5.0, 0.0)
    assert (published.learning_rate, published.beta1, published.ema) == (1e-4, 0.5, 0.999)


def test_published_wavelet_is_zero_for_equal_images_and_feels_brightness() -> None:
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert losses.published_wavelet(image, image).item() == pytest.approx(0, abs=1e-5)
    brighter = image + 0.1  # detail bands do not change
    assert losses.published_wavelet(brighter, image, low_weight=0).item() == pytest.approx(
        0, abs=1e-5
    )
    # Twice transformed, orthonormal: a low band has four times the image's brightness.
    assert losses.published_wavelet(brighter, image).item() == pytest.approx(0.4, abs=1e-4)


def test_the_finest_diagonal_band_can_be_left_out() -> None:
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    low, details = losses.haar(image)
    details[:, 2] = details[:, 2].flip(-1)
    changed = losses.inverse_haar(low, details)
    assert losses.published_wavelet(changed, image).item() > 0.05
    assert losses.published_wavelet(changed, image, finest_hh=False).item() == pytest.approx(
        0, abs=1e-4
    )


def test_gradient_penalty_is_the_squared_gradient() -> None:
    class Linear(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [3 * images.mean(dim=(2, 3), keepdim=True)]

    images = torch.rand(4, 1, 8, 8)
    # d/dx of 3·mean is 3/64 at each of 64 pixels: ½·64·(3/64)².
    assert losses.gradient_penalty(Linear(), images).item() == pytest.approx(0.5 * 9 / 64)
    critic = make_discriminator()
    losses.gradient_penalty(critic, torch.rand(2, 1, 32, 32)).backward()
    assert gradients(critic) > 0


def test_the_penalty_changes_what_the_critic_learns() -> None:
    def taught(r1: float) -> torch.Tensor:
        torch.manual_seed(0)
        critic = Critic(replace(LossConfig(), r1=r1), "cpu", torch.autocast("cpu", enabled=False))
        images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
        rng = np.random.default_rng(0)
        critic.teach(images, images.flip(-1), rng, lambda _: None)
        return torch.cat(
            [w.grad.flatten() for w in critic.network.parameters() if w.grad is not None]
        )

    assert not torch.allclose(taught(0.0), taught(10.0))


def test_past_images_come_back_and_survive_a_checkpoint() -> None:
    rng, past = np.random.default_rng(0), PastImages(4)
    first = past.mix(torch.zeros(4, 1, 2, 2), rng)
    assert not first.any()
    shown = past.mix(torch.ones(40, 1, 2, 2), rng)
    assert (shown == 0).any()
    assert (shown == 1).any()
    again = PastImages(4)
    again.load_state_dict(past.state_dict())
    assert torch.equal(torch.stack(again.images), torch.stack(past.images))
    same = torch.rand(2, 1, 2, 2)
    assert PastImages(0).mix(same, rng) is same


def test_networks_are_trainable_after_the_judgment(with_loss: Any) -> None:
    trainer = with_loss(LossConfig.published())
    trainer.step(0)
    trainable = [w.requires_grad for w in trainer.networks.parameters()]
    assert all(trainable)
    assert isinstance(trainer.enhancer, Enhancer)
    assert isinstance(trainer.guide, GuidanceEncoder)
