"""How often the host may wait for a card, and copy: counted, held, and lowered when it can be.

Each wait leaves the card without work for as long as the host needs to go on. The budgets are what
the code needs now; a change that needs more fails here and says where.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from Library.unicompress.implicit.conftest import waves
from PretendedCuda.device import Counts, cards
from PretendedCuda.test_training import raw

from MedEnhanceLib.gradprom import GradientGate
from MedEnhanceLib.nets.precision import without_tf32
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.matching import PatientLoop
from MedEnhanceLib.unicompress.codecs.implicit.config import ImplicitConfig
from MedEnhanceLib.unicompress.codecs.implicit.trainer import Blocks, make_source
from MedEnhanceLib.unicompress.codecs.implicit.trainer import Trainer as ImplicitTrainer

pytestmark = pytest.mark.usefixtures("cards")


@contextmanager
def counted() -> Iterator[Counts]:
    cards.counts = Counts()
    with without_tf32():
        yield cards.counts


def held(counts: Counts, *, waits: int, up: int, down: int) -> None:
    for found, most in ((counts.waits, waits), (counts.up, up), (counts.down, down)):
        assert found.total() <= most, found.most_common()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["denoise", "sr2"])
def test_a_match_and_teaching_of_a_distillation(task: str) -> None:
    config = replace(DistillConfig.preset("smoke"), method="matching", task=task)
    loop = PatientLoop(raw(config), config, "cuda:1")
    per_inner = 1 + config.loop.teaching
    with counted():
        for number in range(per_inner):
            loop.step(number)
    with counted() as match:
        loop.step(per_inner)
    with counted() as teaching:
        loop.step(per_inner + 1)
    held(match, waits=1, up=5, down=1)
    held(teaching, waits=0, up=2, down=0)


@pytest.mark.slow
def test_a_step_of_the_implicit_network() -> None:
    config = replace(ImplicitConfig.preset("smoke"), teacher_steps=4, student_steps=4, warm_up=0.25)
    trainer = ImplicitTrainer(config, Blocks([make_source(waves((34, 70, 66)))]), "cuda:1")
    with counted():
        for number in range(2):
            trainer.step(number)
    with counted() as counts:
        trainer.step(2)
    held(counts, waits=3, up=10, down=0)


def test_a_decision_of_the_gate() -> None:
    weight = torch.nn.Parameter(torch.ones(8, device="cuda:1"))
    gate = GradientGate(ema=0.9)
    for _ in range(2):
        with counted() as counts:
            gate(weight.square().sum(), -weight.sum(), [weight])
    held(counts, waits=4, up=0, down=0)
