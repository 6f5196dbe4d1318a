"""Privacy accounted for, against closed forms, and a distillation with noised gradients."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from MedEnhanceLib import io
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.errors import ConfigError, DependencyError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg import folder as folder_module
from MedEnhanceLib.spg import prepare as prepared_module
from MedEnhanceLib.spg.config import DistillConfig, DPConfig
from MedEnhanceLib.spg.dataset import load_distilled
from MedEnhanceLib.spg.distill import distill_cohort
from MedEnhanceLib.spg.folder import SECRET, RunFolder
from MedEnhanceLib.spg.images import axial_slices
from MedEnhanceLib.spg.matching import PatientLoop, Raw
from MedEnhanceLib.spg.objective import Noising, clipped, norm
from MedEnhanceLib.spg.prepare import Prior, prepare
from MedEnhanceLib.spg.privacy import NoisySteps, epsilon, noise_for, noisy_steps, statement

from .conftest import PEOPLE, phantom
from .test_distill import Stop, at_step, hashes


def spent(steps: int, noise: float, rate: float = 1.0, delta: float = 1e-5) -> float:
    phase = NoisySteps(steps=steps, noise_multiplier=noise, sampling_rate=rate)
    return epsilon([phase], delta)


@pytest.mark.parametrize(
    ("rate", "noise", "steps", "delta", "reference"),
    [
        # Opacus 1.6.0, RDPAccountant's analysis with its default orders.
        (256 / 60000, 1.1, 14040, 1e-5, 2.5944),
        (0.01, 1.0, 1000, 1e-5, 2.1014),
        (1.0, 10.0, 100, 1e-3, 3.5366),
        (1.0, 30.0, 2000, 1e-3, 5.7899),
        (0.2, 3.0, 500, 1e-3, 6.0738),
        (1.0, 1.0, 1, 1e-5, 4.7285),
        (0.5, 100.0, 2000, 1e-4, 0.7631),
    ],
)
def test_it_says_what_another_accountant_says_or_somewhat_less(
    rate: float, noise: float, steps: int, delta: float, reference: float
) -> None:
    """Rényi divergences bound from above what loss distributions give nearly exactly."""
    assert 0.85 * reference < spent(steps, noise, rate, delta) < reference


@pytest.mark.parametrize(("noise", "delta"), [(1.0, 1e-5), (5.0, 1e-3), (0.7, 1e-6)])
def test_its_bound_is_never_below_the_exact_curve_of_one_step(noise: float, delta: float) -> None:
    """Balle and Wang 2018: δ = Φ(1/2σ − εσ) − e^ε Φ(−1/2σ − εσ) is exact for one Gaussian."""

    def normal(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    claimed = spent(1, noise, delta=delta)
    half, scaled = 1 / (2 * noise), claimed * noise
    exact = normal(half - scaled) - math.exp(claimed) * normal(-half - scaled)
    assert 0.99 * delta < exact <= delta


@pytest.mark.parametrize(("rate", "noise"), [(0.05, 0.8), (0.3, 1.5)])
def test_its_bound_is_never_below_that_of_one_sampled_step(rate: float, noise: float) -> None:
    """The hockey-stick divergence of the mixture, both ways, by quadrature."""
    delta = 1e-4
    claimed = spent(1, noise, rate, delta)
    x = np.linspace(-30, 30, 600_001)

    def density(mean: float) -> np.ndarray:
        return np.exp(-((x - mean) ** 2) / (2 * noise**2)) / (noise * math.sqrt(2 * math.pi))

    without, with_one = density(0), (1 - rate) * density(0) + rate * density(1)
    for p, q in ((with_one, without), (without, with_one)):
        exact = np.maximum(p - math.exp(claimed) * q, 0).sum() * (x[1] - x[0])
        assert exact <= delta


def test_less_noise_more_steps_and_more_sampling_cost_more() -> None:
    for costs in (
        [spent(100, noise, 0.1) for noise in (8, 4, 2, 1, 0.5)],
        [spent(steps, 2, 0.1) for steps in (1, 10, 100, 1000)],
        [spent(100, 2, rate) for rate in (0.01, 0.1, 0.5, 0.99, 1.0)],
        [spent(100, 2, 0.1, delta) for delta in (1e-2, 1e-4, 1e-8)],
    ):
        assert all(less < more for less, more in pairwise(costs))


def test_sampling_of_nearly_everybody_is_sampling_of_everybody() -> None:
    assert spent(50, 5, 0.999999) == pytest.approx(spent(50, 5, 1.0), rel=0.01)


def test_phases_add_up() -> None:
    once = NoisySteps(steps=100, noise_multiplier=3, sampling_rate=0.2)
    half = NoisySteps(steps=50, noise_multiplier=3, sampling_rate=0.2)
    other = NoisySteps(steps=10, noise_multiplier=20)
    assert epsilon([half, half], 1e-5) == pytest.approx(epsilon([once], 1e-5))
    assert epsilon([once, other], 1e-5) > epsilon([once], 1e-5)
    assert epsilon([], 1e-5) == 0
    assert epsilon([NoisySteps(steps=0, noise_multiplier=1)], 1e-5) == 0


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_the_noise_for_an_epsilon_spends_it(rate: float) -> None:
    noise = noise_for(3.0, 1e-3, steps=500, sampling_rate=rate)
    assert spent(500, noise, rate, 1e-3) <= 3.0
    assert spent(500, noise * 0.99, rate, 1e-3) > 3.0


def test_what_no_noise_can_keep_is_refused() -> None:
    with pytest.raises(ConfigError, match="no noise"):
        noise_for(1e-6, 1e-12, steps=10**9)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": -1, "noise_multiplier": 1},
        {"steps": 1, "noise_multiplier": 0},
        {"steps": 1, "noise_multiplier": 1, "sampling_rate": 0},
        {"steps": 1, "noise_multiplier": 1, "sampling_rate": 1.5},
        {"steps": 1, "noise_multiplier": math.nan},
    ],
)
def test_steps_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        NoisySteps(**options)  # type: ignore[arg-type]


def test_a_delta_that_allows_to_publish_a_patient_is_refused() -> None:
    phase = [NoisySteps(steps=10, noise_multiplier=30)]
    with pytest.raises(ConfigError, match="patients"):
        statement(phase, 0.1, 12)
    said = statement(phase, 1e-3, 12)
    assert "each of 12 patients" in said
    assert "private" not in said


def test_little_noise_is_called_next_to_no_guarantee() -> None:
    assert "next to no guarantee" in statement([NoisySteps(steps=100, noise_multiplier=1)], 1e-3, 9)
    assert "strong" in statement([NoisySteps(steps=10, noise_multiplier=100)], 1e-3, 9)


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_next_to_no_noise_is_accounted_for_at_once(noise: float) -> None:
    """Loss distributions of such an ε would take gigabytes."""
    said = spent(1000, noise, delta=1e-3)
    assert said > 1000 / (2 * noise**2)  # the mean loss of one Gaussian of 1000 steps


def test_without_the_accountant_it_says_what_to_install(
    cohort: Cohort, smoke: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    config = replace(smoke, method="statistics", dp=DPConfig(epsilon=7.7123))
    with pytest.raises(DependencyError, match="needs the package dp-accounting") as caught:
        distill_cohort(cohort, tmp_path / "out", config)
    assert "pip install 'dp-accounting'" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.fixture
def noised(smoke: DistillConfig) -> DistillConfig:
    return replace(smoke, intensities="own", dp=DPConfig(epsilon=8.0, delta=1e-3))


@pytest.fixture
def two(cohort: Cohort) -> Cohort:
    return cohort.only(lambda patient: patient.id in PEOPLE[1:3])


@pytest.fixture
def layers() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(count, generator=generator) for count in (900, 100, 30)]


@pytest.mark.parametrize("most", [0.01, 1.0, 5.0])
def test_all_layers_together_are_cut_to_the_norm(layers: list[torch.Tensor], most: float) -> None:
    cut = clipped(layers, torch.tensor(most))
    assert float(norm(cut)) == pytest.approx(most, rel=1e-5)
    for before, after in zip(layers, cut, strict=True):
        assert torch.allclose(after * norm(layers) / most, before, atol=1e-5)


def test_what_is_short_enough_stays_and_what_has_no_norm_goes(layers: list[torch.Tensor]) -> None:
    kept = clipped(layers, torch.tensor(1e3))
    assert all(torch.equal(a, b) for a, b in zip(layers, kept, strict=True))
    layers[1][0] = torch.inf
    assert float(norm(clipped(layers, torch.tensor(1.0)))) == 0


def test_noise_is_as_large_as_it_says(noised: DistillConfig, layers: list[torch.Tensor]) -> None:
    """Of clip · multiplier times the distilled images' own norm, whatever the raw gradient."""
    config = replace(noised, dp=DPConfig(noise_multiplier=3.0, clip=0.5))
    noising = Noising(config, secret=5, patient=0)
    ours = [7.0 * layer / norm(layers) for layer in layers]
    none = [torch.zeros_like(layer) for layer in layers]
    drawn = torch.cat(noising(none, ours, 0))
    assert float(drawn.std()) == pytest.approx(3.0 * 0.5 * 7.0, rel=0.08)
    huge = [1e6 * layer for layer in layers]
    signal = torch.cat(noising(huge, ours, 0)) - drawn
    assert float(signal.norm()) == pytest.approx(0.5 * 7.0, rel=1e-4)


def test_each_patient_step_and_run_has_noise_of_its_own(
    noised: DistillConfig, layers: list[torch.Tensor]
) -> None:
    def first(secret: int, patient: int, number: int) -> float:
        return float(Noising(noised, secret, patient)(layers, layers, number)[0][0])

    values = [first(*which) for which in ((5, 0, 0), (6, 0, 0), (5, 1, 0), (5, 0, 11))]
    assert len(set(values)) == 4
    assert first(5, 0, 0) == values[0]


def test_a_requested_epsilon_becomes_the_noise_that_keeps_it(noised: DistillConfig) -> None:
    steps = noisy_steps(noised)
    assert (steps.steps, steps.sampling_rate) == (4, 1.0)  # two networks, two matches each
    assert 7.9 < epsilon([steps], 1e-3) <= 8.0
    chosen = replace(noised, dp=DPConfig(noise_multiplier=2.5))
    assert noisy_steps(chosen).noise_multiplier == 2.5


def test_raw_images_reach_the_generator_through_the_noise_alone(noised: DistillConfig) -> None:
    """Two patients with other images, and another number of them, under endless noise."""
    config = replace(noised, dp=DPConfig(noise_multiplier=1e6))
    images = axial_slices(phantom(1), config.images)
    prior = axial_slices(phantom(2), config.images)[2:4]
    found = []
    for part in (images, images[:5] ** 2):
        loop = PatientLoop(Raw(part, prior, "MR"), config, "cpu", secret=1)
        if found:  # however many random numbers raw images take
            loop._raw_pairs = partial(_wasteful, loop._raw_pairs)  # type: ignore[method-assign]
        for number in range(loop.steps):
            loop.step(number)
        found.append(loop.images())
    assert np.abs(found[0] - prior).max() > 1e-4
    assert np.allclose(found[0], found[1], atol=2e-5)


def _wasteful(pairs: Any, number: int, rng: np.random.Generator, shared: Any) -> Any:
    rng.random(3)
    return pairs(number, rng, shared)


@pytest.mark.slow
def test_the_manifest_says_what_the_accountant_says(
    two: Cohort, noised: DistillConfig, tmp_path: Path
) -> None:
    out = distill_cohort(two, tmp_path / "out", noised)
    reported = load_distilled(out).manifest
    privacy = reported["privacy"]
    phase = NoisySteps(steps=privacy["matches"], noise_multiplier=privacy["noise_multiplier"])
    assert privacy["epsilon"] == epsilon([phase], privacy["delta"])
    assert privacy["epsilon"] <= 8
    assert privacy["statement"] in (out / "README.md").read_text(encoding="utf-8")
    assert load_distilled(out).config.dp == noised.dp
    # What no noise covers is not there.
    assert "data_sha256" not in reported
    assert set(reported["measured"]) == {"structure", "saturation"}
    before = hashes(out)
    distill_cohort(two, out, noised)  # it is known again, all the same
    assert hashes(out) == before
    with pytest.raises(ConfigError, match=r"dp\.epsilon"):
        distill_cohort(two, out, replace(noised, dp=DPConfig(epsilon=4.0, delta=1e-3)))


@pytest.mark.slow
def test_a_second_run_has_other_noise_and_nothing_leads_to_it(
    two: Cohort, noised: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = RunFolder.secret
    monkeypatch.setattr(RunFolder, "secret", lambda self: seen.append(original(self)) or seen[-1])
    first, second = (distill_cohort(two, tmp_path / name, noised) for name in ("a", "b"))
    assert seen[0] != seen[1]
    assert hashes(first)["images.npy"] != hashes(second)["images.npy"]
    everything = b"".join(path.read_bytes() for path in first.rglob("*") if path.is_file())
    assert f"{seen[0]:x}".encode() not in everything
    assert str(seen[0]).encode() not in everything
    assert not (first / "work").exists()


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_noise(
    two: Cohort, noised: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill() -> None:
        raise Stop

    often = replace(noised, checkpoint_s=0.0)
    with pytest.raises(Stop):
        distill_cohort(two, tmp_path / "out", often, Monitor(at_step(17, kill)))
    path = tmp_path / "out" / "work" / SECRET
    assert path.stat().st_mode & 0o077 == 0
    drawn = int(path.read_text(encoding="ascii"), 16)
    resumed = distill_cohort(two, tmp_path / "out", often)
    monkeypatch.setattr(folder_module, "new_secret", lambda: drawn)
    whole = distill_cohort(two, tmp_path / "whole", often)
    assert hashes(resumed) == hashes(whole)


@pytest.mark.parametrize("prior", ["representative", f"patient:{PEOPLE[1]}"])
def test_a_patient_as_prior_is_refused(prior: str, noised: DistillConfig) -> None:
    with pytest.raises(ConfigError, match="whom no noise covers"):
        replace(noised, prior=prior)


def test_a_copy_of_a_patients_volume_as_prior_is_refused(
    two: Cohort, noised: DistillConfig, tmp_path: Path
) -> None:
    for seed in (2, 77):
        io.save(phantom(seed), tmp_path / f"{seed}.nii.gz")
    with pytest.raises(ConfigError, match=f"patient {PEOPLE[2]} of the cohort"):
        prepare(two, replace(noised, prior=str(tmp_path / "2.nii.gz")), Monitor())
    prepare(two, replace(noised, prior=str(tmp_path / "77.nii.gz")), Monitor())


@pytest.mark.slow
def test_what_the_cohort_shows_stays_out_of_the_result(
    cohort: Cohort, noised: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its intensities go in nor what an audit found, and that is said."""

    def never(*_: object) -> Prior:
        raise AssertionError("the cohort's quantiles were taken")

    monkeypatch.setattr(prepared_module, "with_intensities", never)
    received: list[str] = []
    monitor = Monitor(lambda event: received.append(str(event.fields.get("message"))))
    config = replace(noised, intensities="cohort", held_out=0.5)
    out = distill_cohort(cohort, tmp_path / "out", config, monitor)
    assert any("keeps its own intensities" in message for message in received)
    assert load_distilled(out).config.intensities == "own"
    assert not (out / "audit").exists()
    assert (tmp_path / "out-confidential" / "audit.json").exists()
    reported = load_distilled(out).manifest["audit"]
    assert reported["alarm"] is None
    assert "no noise covers them" in reported["summary"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"epsilon": 8, "noise_multiplier": 2}, "Give one"),
        ({"delta": 1e-5}, "Give one"),
        ({"epsilon": -1}, "epsilon"),
        ({"epsilon": 8, "clip": 0}, "clip"),
        ({"epsilon": 8, "sigma": 0}, "sigma"),
        ("8", "dp is '8'"),
    ],
)
def test_what_guarantees_nothing_is_refused(fields: object, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DistillConfig.from_json({"dp": fields})
    assert says in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.slow
def test_the_command_takes_epsilon_and_delta(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distill", str(people), str(tmp_path / "out"), "--preset", "smoke", "--device", "cpu"]
    words += ["--held-out", "0", "--method", "matching", "--json"]
    assert main([*words, "--epsilon", "8", "--delta", "0.4"]) == 2
    assert "δ is 0.4 with 4 patients" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert main([*words, "--epsilon", "8", "--delta", "1e-4"]) == 0
    reported = json.loads(capsys.readouterr().out)
    assert reported["privacy"]["delta"] == 1e-4
    assert "ε = 8" in reported["privacy"]["statement"]
