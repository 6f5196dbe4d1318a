"""A training that was stopped goes on to the same state, and can begin as another's teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from MedEnhanceLib.errors import Cancelled, ConfigError, InputError, ModelError
from MedEnhanceLib.jobs.kinds.train import training_config
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress.codecs.implicit.config import ImplicitConfig
from MedEnhanceLib.unicompress.codecs.implicit.train import ImplicitTraining
from MedEnhanceLib.unicompress.codecs.implicit.trainer import Blocks, Source, Trainer, read_sources


@pytest.mark.slow
@pytest.mark.parametrize("stop", [30, 80], ids=["teacher", "student"])
def test_a_stopped_training_goes_on_to_the_same_state(
    smoke: ImplicitConfig,
    sources: list[Source],
    trained: ImplicitTraining,
    tmp_path: Path,
    stop: int,
) -> None:
    class Stop:
        steps = 0

        def is_set(self) -> bool:
            Stop.steps += 1
            return Stop.steps > 2 * stop

    first = ImplicitTraining(smoke, sources, tmp_path, "cpu", Monitor())
    with pytest.raises(Cancelled, match="checkpoint"):
        first.learn(Monitor(cancel=Stop()))
    again = ImplicitTraining(smoke, sources, tmp_path, "cpu", Monitor())
    assert 0 < again.start < smoke.teacher_steps + smoke.student_steps
    again.learn(Monitor())
    expected = trained.trainer.networks.state_dict()
    found = again.trainer.networks.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_report_shows_what_was_decoded(trained: ImplicitTraining) -> None:
    page = (trained.out / "report" / "index.html").read_text(encoding="utf-8")
    assert "student, 2 layers" in page
    assert (trained.out / "report" / "samples.png").stat().st_size > 1000


def test_a_teacher_starts_from_another_domain(
    smoke: ImplicitConfig, sources: list[Source], trained: ImplicitTraining
) -> None:
    config = replace(smoke, start_from=str(trained.out), seed=4)
    trainer = Trainer(config, Blocks(sources), "cpu")
    theirs = trained.trainer.networks.teacher.state_dict()
    assert all(torch.equal(theirs[n], t) for n, t in trainer.networks.teacher.state_dict().items())
    with pytest.raises(ModelError, match="other sizes"):
        Trainer(replace(config, teacher=replace(smoke.teacher, hidden=8)), Blocks(sources), "cpu")


@pytest.mark.parametrize(
    "fields",
    [
        {"token": {"codebook": "off"}},
        {"token": {"codebook": "random"}},
        {"token": {"high_band": False}},
        {"teacher": {"conditioned": False}, "student": {"conditioned": False}},
    ],
)
def test_ablations_are_values_of_the_configuration(
    sources: list[Source], fields: dict[str, object]
) -> None:
    config = ImplicitConfig.from_json({"preset": "smoke", **fields})
    trainer = Trainer(config, Blocks(sources), "cpu")
    for number in (0, config.teacher_steps - 1, config.teacher_steps):
        assert all(value >= 0 for value in trainer.step(number).values())


def test_nothing_to_learn_from_is_an_error(smoke: ImplicitConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no volumes"):
        read_sources(smoke, tmp_path, Monitor())


def test_the_job_knows_the_parts_of_the_codec() -> None:
    chosen = training_config("unicompress", {"preset": "smoke", "part": "implicit"})
    assert chosen.config.blocks == 2
    with pytest.raises(ConfigError, match="unknown part 'video'"):
        training_config("unicompress", {"part": "video"})
