"""A tiny cohort and configuration that a distillation takes a second or two for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from MedEnhanceLib import io
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.training.jobs.matched_networks import make_networks
from MedEnhanceLib.training.spg.cohort import Cohort
from MedEnhanceLib.training.spg.config import DistillConfig
from MedEnhanceLib.training.spg.distillation import distill_cohort

#: Four people; names that no file should ever hold.
PEOPLE = ("MILLER_1961", "GARCIA_1975", "NAKAMURA_88", "OKONKWO_403")


def phantom(seed: int, modality: str = "MR") -> Volume:
    """8 slices of 44 × 40 pixels, 3 mm: ellipses with texture, different for each seed."""
    rng = np.random.default_rng(seed)
    k, j, i = np.mgrid[-1:1:8j, -1:1:44j, -1:1:40j]
    voxels = rng.normal(0, 6, k.shape) + 150 * (k**2 / 2 + j**2 + i**2 < 0.8)
    geometry = Geometry((3.0, 3.0, 5.0))
    for _ in range(5):
        center, radius = rng.uniform(-0.4, 0.4, 3), rng.uniform(0.25, 0.8, 3)
        inside = sum(((x - c) / r) ** 2 for x, c, r in zip((k, j, i), center, radius, strict=True))
        voxels += 250 * (inside < 1) * (1 + 0.3 * np.sin(rng.uniform(5, 20) * (i + j)))
    if modality == "CT":
        return Volume((4 * voxels - 1000).astype(np.int16), geometry, "CT", "HU")
    return Volume(np.maximum(voxels, 0).astype(np.int16), geometry, "MR")


def write_cohort(folder: Path, modality: str = "MR", people: tuple[str, ...] = PEOPLE) -> Path:
    """A folder for each of the people."""
    for number, name in enumerate(people):
        (folder / name).mkdir(parents=True)
        io.save(phantom(number, modality), folder / name / f"{name}_T1.nii.gz")
    return folder


def hashes(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, with its hash."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks here are so small that a second thread only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the MR cohort; not to be changed."""
    return write_cohort(tmp_path_factory.mktemp("MR") / "cohort-of-2019-03-07")


@pytest.fixture
def cohort(people: Path) -> Cohort:
    return Cohort.from_folder(people)


SMOKE = replace(DistillConfig.preset("smoke"), method="matching", device="cpu", held_out=0.0)


@pytest.fixture
def smoke() -> DistillConfig:
    return SMOKE


distill = partial(distill_cohort, make_networks=make_networks)


@pytest.fixture(scope="session")
def whole(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a run that nothing interrupted: a volume of each patient."""
    out = tmp_path_factory.mktemp("whole") / "distilled"
    return distill(Cohort.from_folder(people), out, SMOKE)
