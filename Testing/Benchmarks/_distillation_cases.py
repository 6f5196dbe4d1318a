"""Cohorts and tasks on which distillation is compared, and how much work goes into each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from _common import REPOSITORY, SHARED_DATA

from MedEnhanceLib.io.cohort import Cohort, Patient
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.comparison import CompareConfig, ordinary_budget, small_budgets
from MedEnhanceLib.spg.comparison_arms import Material, gather
from MedEnhanceLib.spg.config import DistillConfig
from MedEnhanceLib.spg.restorer import RestorerConfig

ROWS = REPOSITORY / "runs" / "distillation-rows"
_FILES = {"CT": "CT.nii.gz", "MR": "MR_T1.nii.gz"}
#: A CT that is of no patient of the cohort; MR takes the template.
_PRIORS = {"CT": str(SHARED_DATA / "ct" / "abdomen" / "CT.nii.gz"), "MR": "template"}
_HELD_OUT = 0.3
_PATCH, _BATCH = 24, 4
#: Matches of pixels and generators at the small budgets: outer × inner; teaching steps after each.
_OUTER, _INNER, _TEACHING, _MATCH_BATCH, _NETWORK_RATE = 6, 10, 5, 8, 1e-3
#: Outer steps of each patient at ten images per patient.
_ORDINARY_OUTER = 3


@dataclass(frozen=True)
class Case:
    """One cohort and task. steps: of each training; what is nearly right already takes longer."""

    modality: str
    task: str
    steps: int

    def __str__(self) -> str:
        return f"{self.modality} {self.task}"


CASES = (
    Case("MR", "denoise", 600),
    Case("CT", "denoise", 600),
    Case("MR", "sr2", 1500),
    Case("MR", "undersample", 1500),
)


@lru_cache(maxsize=2)
def material_of(modality: str) -> Material:
    """The STS cohort of a modality, patients split by seed 0."""
    folder = SHARED_DATA / modality.lower() / "sts"
    files = sorted(folder.glob(f"*/{_FILES[modality]}"))
    cohort = Cohort(tuple(Patient(file.parent.name, (file,)) for file in files), modality)
    config = DistillConfig(prior=_PRIORS[modality], held_out=_HELD_OUT)
    return gather(cohort, config, Monitor())


def config_of(case: Case, *, seeds: int, draws: int, quick: bool) -> CompareConfig:
    """The same for every case but for the task."""
    distill = DistillConfig(task=case.task, prior=_PRIORS[case.modality])
    loop = replace(
        distill.loop,
        outer=1 if quick else _OUTER,
        inner=2 if quick else _INNER,
        teaching=_TEACHING,
        patch=_PATCH,
        batch=_MATCH_BATCH,
        teaching_batch=_BATCH,
        network_rate=_NETWORK_RATE,
    )
    distill = replace(distill, loop=loop)
    return CompareConfig(
        distill=distill,
        restorer=RestorerConfig(
            steps=20 if quick else case.steps, batch=_BATCH, patch=_PATCH, learning_rate=3e-3
        ),
        budgets=(
            *small_budgets(distill.images.size),
            ordinary_budget(distill.images_per_patient),
        ),
        seeds=seeds,
        draws=draws,
        ordinary=1 if quick else _ORDINARY_OUTER,
        distillations=1,
    )
