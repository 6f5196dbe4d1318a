"""Differential privacy: its figures against the exact curve, and what it refuses."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from MedEnhanceLib.cli.main import main
from MedEnhanceLib.errors import ConfigError, DependencyError
from MedEnhanceLib.io.cohort import Cohort
from MedEnhanceLib.spg.config import DistillConfig, DPConfig
from MedEnhanceLib.spg.distill import distill_cohort
from MedEnhanceLib.spg.folder import RunFolder
from MedEnhanceLib.spg.privacy import noise_multiplier, privacy_record

from .conftest import PEOPLE
from .test_distill import hashes


def delta_of(epsilon: float, noise: float) -> float:
    """Balle and Wang 2018: exact for one Gaussian whose mean moves by 1."""

    def normal(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    half, scaled = 1 / (2 * noise), epsilon * noise
    return normal(half - scaled) - math.exp(epsilon) * normal(-half - scaled)


@pytest.mark.parametrize(("epsilon", "delta"), [(8.0, 1e-5), (0.1, 1e-6)])
def test_the_noise_keeps_the_epsilon_where_a_patient_is_replaced(
    epsilon: float, delta: float
) -> None:
    dp = DPConfig(epsilon=epsilon, delta=delta)
    noise = noise_multiplier(dp)
    assert delta_of(epsilon, noise / 2) == pytest.approx(delta, rel=1e-6)
    assert delta_of(epsilon, 0.99 * noise / 2) > delta
    record = privacy_record(dp, 10)
    assert record["epsilon"] == pytest.approx(epsilon)
    assert float(str(record["epsilon_left_out"])) < epsilon


def test_without_the_accountant_it_says_what_to_install(
    cohort: Cohort, private: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(DependencyError, match="needs the package dp-accounting") as caught:
        distill_cohort(cohort, tmp_path / "out", private)
    assert "pip install 'dp-accounting'" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_second_run_has_other_noise_and_nothing_leads_to_it(
    cohort: Cohort, private: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = RunFolder.secret
    monkeypatch.setattr(RunFolder, "secret", lambda self: seen.append(original(self)) or seen[-1])
    first, second = (distill_cohort(cohort, tmp_path / name, private) for name in ("a", "b"))
    assert seen[0] != seen[1]
    assert hashes(first)["images.npy"] != hashes(second)["images.npy"]
    everything = b"".join(path.read_bytes() for path in first.rglob("*") if path.is_file())
    assert f"{seen[0]:x}".encode() not in everything
    assert str(seen[0]).encode() not in everything
    assert not (first / "work").exists()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"dp": {"delta": 1e-5}}, "Give both"),
        ({"dp": {"epsilon": -1}}, "epsilon"),
        ({"dp": "8"}, "dp is '8'"),
        ({"dp": {"epsilon": 8}, "method": "matching"}, "with the method matching"),
        ({"dp": {"epsilon": 8}, "prior": "representative"}, "whom no noise covers"),
        ({"dp": {"epsilon": 8}, "prior": f"patient:{PEOPLE[1]}"}, "whom no noise covers"),
    ],
)
def test_what_guarantees_nothing_is_refused(fields: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DistillConfig.from_json(fields)
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_the_command_takes_epsilon_and_delta(
    people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distill", str(people), str(tmp_path / "out"), "--preset", "smoke", "--device", "cpu"]
    words += ["--held-out", "0", "--json"]
    assert main([*words, "--epsilon", "8", "--delta", "0.4"]) == 2
    assert "δ is 0.4 with 4 patients" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert main([*words, "--epsilon", "8", "--delta", "1e-4"]) == 0
    reported = json.loads(capsys.readouterr().out)
    assert reported["privacy"]["delta"] == 1e-4
    assert "ε = 8" in reported["privacy"]["statement"]
