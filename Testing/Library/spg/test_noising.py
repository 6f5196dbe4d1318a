"""Differential privacy of a distillation: what is clipped, noised, told, and left untold."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from MedEnhanceLib import io
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg import folder as folder_module
from MedEnhanceLib.spg import prepared as prepared_module
from MedEnhanceLib.spg.config import DistillConfig, DPConfig
from MedEnhanceLib.spg.dataset import load_distilled
from MedEnhanceLib.spg.folder import SECRET, RunFolder
from MedEnhanceLib.spg.loop import PatientLoop, Raw
from MedEnhanceLib.spg.noising import Noising, clipped, noisy_steps, norm
from MedEnhanceLib.spg.prepared import prepare
from MedEnhanceLib.spg.prior import Prior
from MedEnhanceLib.spg.privacy import NoisySteps, epsilon
from MedEnhanceLib.spg.run import distil_cohort
from MedEnhanceLib.spg.slices import axial_slices

from .conftest import PEOPLE, phantom
from .test_run import Stop, at_step, hashes


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


def test_a_wish_for_epsilon_becomes_the_noise_that_keeps_it(noised: DistillConfig) -> None:
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


def test_the_manifest_says_what_the_accountant_says(
    two: Cohort, noised: DistillConfig, tmp_path: Path
) -> None:
    out = distil_cohort(two, tmp_path / "out", noised)
    told = load_distilled(out).manifest
    privacy = told["privacy"]
    phase = NoisySteps(steps=privacy["matches"], noise_multiplier=privacy["noise_multiplier"])
    assert privacy["epsilon"] == epsilon([phase], privacy["delta"])
    assert privacy["epsilon"] <= 8
    assert privacy["statement"] in (out / "card.md").read_text(encoding="utf-8")
    assert load_distilled(out).config.dp == noised.dp
    # What no noise covers is not there.
    assert "data_sha256" not in told
    assert set(told["measured"]) == {"structure", "saturation"}
    before = hashes(out)
    distil_cohort(two, out, noised)  # it is known again, all the same
    assert hashes(out) == before
    with pytest.raises(ConfigError, match=r"dp\.epsilon"):
        distil_cohort(two, out, replace(noised, dp=DPConfig(epsilon=4.0, delta=1e-3)))


def test_a_second_run_has_other_noise_and_nothing_leads_to_it(
    two: Cohort, noised: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = RunFolder.secret
    monkeypatch.setattr(RunFolder, "secret", lambda self: seen.append(original(self)) or seen[-1])
    first, second = (distil_cohort(two, tmp_path / name, noised) for name in ("a", "b"))
    assert seen[0] != seen[1]
    assert hashes(first)["images.npy"] != hashes(second)["images.npy"]
    everything = b"".join(path.read_bytes() for path in first.rglob("*") if path.is_file())
    assert f"{seen[0]:x}".encode() not in everything
    assert str(seen[0]).encode() not in everything
    assert not (first / "work").exists()


def test_a_killed_run_goes_on_with_the_same_noise(
    two: Cohort,
    noised: DistillConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kill() -> None:
        raise Stop

    often = replace(noised, checkpoint_s=0.0)
    with pytest.raises(Stop):
        distil_cohort(two, tmp_path / "out", often, Monitor(at_step(17, kill)))
    path = tmp_path / "out" / "work" / SECRET
    assert path.stat().st_mode & 0o077 == 0
    drawn = int(path.read_text(encoding="ascii"), 16)
    resumed = distil_cohort(two, tmp_path / "out", often)
    monkeypatch.setattr(folder_module, "new_secret", lambda: drawn)
    whole = distil_cohort(two, tmp_path / "whole", often)
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


def test_what_the_cohort_shows_stays_out_of_the_result(
    cohort: Cohort, noised: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its intensities go in nor what an audit found, and that is said."""

    def never(*_: object) -> Prior:
        raise AssertionError("the cohort's quantiles were taken")

    monkeypatch.setattr(prepared_module, "with_intensities", never)
    heard: list[str] = []
    monitor = Monitor(lambda event: heard.append(str(event.fields.get("message"))))
    config = replace(noised, intensities="cohort", held_out=0.5)
    out = distil_cohort(cohort, tmp_path / "out", config, monitor)
    assert any("keeps its own intensities" in message for message in heard)
    assert load_distilled(out).config.intensities == "own"
    assert not (out / "audit").exists()
    assert (tmp_path / "out-confidential" / "audit.json").exists()
    told = load_distilled(out).manifest["audit"]
    assert told["alarm"] is None
    assert "no noise covers it" in told["summary"]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"epsilon": 8, "noise_multiplier": 2}, "Give one"),
        ({"delta": 1e-5}, "Give one"),
        ({"epsilon": -1}, "epsilon"),
        ({"epsilon": 8, "clip": 0}, "clip"),
        ({"epsilon": 8, "sigma": 0}, "sigma"),
        ("8", "DPConfig"),
    ],
)
def test_what_promises_nothing_is_refused(fields: object, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DistillConfig.from_json({"dp": fields})
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_the_command_takes_epsilon_and_delta(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distill", str(people), str(tmp_path / "out"), "--preset", "smoke", "--device", "cpu"]
    words += ["--held-out", "0", "--json"]
    assert main([*words, "--epsilon", "8", "--delta", "0.4"]) == 2
    assert "δ is 0.4 with 4 patients" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert main([*words, "--epsilon", "8", "--delta", "1e-4"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["privacy"]["delta"] == 1e-4
    assert "ε = 8" in told["privacy"]["statement"]
