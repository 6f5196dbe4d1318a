"""Compares arms on a cohort: makes each arm's images, trains on them, measures on other patients.

Material, CompareConfig  →  rows: arm × budget × seed, with PSNR by network
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.options import check_range, config_to_json
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.atomic import output_error
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg import comparison_arms
from MedEnhanceLib.spg.comparison_arms import Budget, Material
from MedEnhanceLib.spg.config import GRID, DistillConfig, sha256_of
from MedEnhanceLib.spg.images import Floats, data_sha256
from MedEnhanceLib.spg.networks import UNSEEN
from MedEnhanceLib.spg.restorer import RestorerConfig, restored_psnr, train_restorer
from MedEnhanceLib.spg.statistics import NUMBERS
from MedEnhanceLib.spg.tasks import make_task

Row = dict[str, Any]
FULL, RANDOM, PUBLIC, PRIOR, SPG = "full", "random", "public", "prior", "spg"
STATISTICS = "statistics"
Choice = Callable[[Material, Budget, int], Floats]
Matching = Callable[[Material, Budget, int, DistillConfig, Monitor | None], Floats]
_CHOSEN: dict[str, Choice] = {
    RANDOM: comparison_arms.random_coreset,
    "k-centre": comparison_arms.k_center,
    PUBLIC: comparison_arms.public_prior,
    PRIOR: comparison_arms.prior_alone,
    STATISTICS: comparison_arms.statistics,
}
_MATCHED: dict[str, Matching] = {
    "dc-noise": comparison_arms.gradients_from_noise,
    "dc-real": comparison_arms.gradients_from_real,
    "dm": comparison_arms.features_from_real,
    SPG: comparison_arms.spg,
}
#: The arms, in the order of tables.
ARMS = {
    FULL: "all images of all training patients",
    RANDOM: "random coreset: raw images drawn at random",
    "k-centre": "raw images that lie far from each other",
    PUBLIC: "the public prior as it is",
    PRIOR: "the prior with the cohort's intensities (33 numbers)",
    STATISTICS: f"the prior with their intensities and textures ({NUMBERS} numbers)",
    "dc-noise": "gradient matching of pixels from noise (DC)",
    "dc-real": "gradient matching of pixels from raw images (DC)",
    "dm": "distribution matching of pixels from raw images (DM)",
    SPG: "SPG: gradient matching of a generator from the prior",
}
#: Arms that are also measured with a budget of images per patient.
_ORDINARY = (RANDOM, PUBLIC, PRIOR, STATISTICS, SPG)
#: Arms that are also measured with further networks, at the first and the last budget.
_OTHERS = (FULL, RANDOM, PUBLIC, SPG)
ALL = Budget("all", 0)
MATCHED_NETWORK = "srcnn"
#: Factor of the steps of networks that learn slower.
_LONGER = {UNSEEN: 3}


def small_budgets(size: int) -> tuple[Budget, ...]:
    """One and four crops of half the side of an image, and one image: in all, not per patient."""
    side = max(2 * GRID, size // 2 // GRID * GRID)
    return Budget("1 crop", 1, side), Budget("4 crops", 4, side), Budget("1 slice", 1)


def ordinary_budget(images: int) -> Budget:
    """As many images of each patient as a distillation gives."""
    return Budget(f"{images} per patient", images, per_patient=True)


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """One comparison.

    Args:
        distill: task, images and generator; its loop is that of the small budgets.
        restorer: the training, equal for all arms.
        budgets: from the fewest pixels to the most.
        arms: keys of `ARMS`.
        seeds: of every arm but the random coreset.
        draws: of the random coreset.
        ordinary: `loop.outer` at a budget per patient.
        distillations: seeds of SPG at a budget per patient that distill anew; further seeds train
            anew on the first ones' images.
        networks: besides SRCNN.
        test_images: of each held-out patient.
    """

    distill: DistillConfig
    restorer: RestorerConfig
    budgets: tuple[Budget, ...]
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: int = 3
    draws: int = 10
    ordinary: int = 4
    distillations: int = 3
    networks: tuple[str, ...] = ("edsr", "unet")
    test_images: int = 8

    def __post_init__(self) -> None:
        for name in ("seeds", "draws", "ordinary", "distillations", "test_images"):
            check_range(name, getattr(self, name), 1, 10_000)

    def training_of(self, network: str, seed: int) -> RestorerConfig:
        """The training of one network, of the same length for every arm."""
        steps = self.restorer.steps * _LONGER.get(network, 1)
        return replace(self.restorer, network=network, seed=seed, steps=steps)


@dataclass(frozen=True)
class Cell:
    """The subject of one row for each network."""

    arm: str
    budget: Budget
    seed: int
    networks: tuple[str, ...]


def cells(config: CompareConfig) -> list[Cell]:
    """The cells of a comparison in the order in which they are measured.

    Full data first, then budget by budget: the smallest, the last, and those between.
    """
    small = config.budgets
    order = (ALL, *small[:1], *small[1:][-1:], *small[1:-1])
    return [
        Cell(arm, budget, seed, _networks(config, arm, budget, seed))
        for budget in order
        for seed in range(max(config.seeds, config.draws))
        for arm in config.arms
        if _is_measured(config, arm, budget, seed)
    ]


def _is_measured(config: CompareConfig, arm: str, budget: Budget, seed: int) -> bool:
    if (arm == FULL) != (budget == ALL) or (budget.per_patient and arm not in _ORDINARY):
        return False
    is_draw = arm == RANDOM and not budget.per_patient
    return seed < (config.draws if is_draw else config.seeds)


def _networks(config: CompareConfig, arm: str, budget: Budget, seed: int) -> tuple[str, ...]:
    is_end = budget in (ALL, *config.budgets[:1], *config.budgets[-1:])
    if arm in _OTHERS and is_end and seed < config.seeds:
        return (MATCHED_NETWORK, *config.networks)
    return (MATCHED_NETWORK,)


def measure(
    material: Material,
    config: CompareConfig,
    store: RowStore,
    monitor: Monitor | None = None,
    *,
    made: Callable[[Cell, Floats], None] | None = None,
    kept: bool = False,
) -> Iterator[Row]:
    """Yield each row as it is measured, or read from the store.

    Args:
        material: of the cohort.
        config: of the comparison.
        store: of rows measured before; gets the new ones.
        monitor: gets progress and may cancel; what was measured stays in the store.
        made: called with the images of an arm.
        kept: only rows that are in the store; nothing is measured.
    Returns:
        Rows with arm, budget, seed, network, images and pixels in all, made_s (of the images),
        trained_s, psnr_db, by_patient_db (of each held-out patient), and floor_db: of the degraded
        images themselves.
    """
    monitor = monitor or Monitor()
    todo = cells(config)
    bench = _Bench(material, config)
    for place, cell in enumerate(todo):
        part = monitor.part(place / len(todo), (place + 1) / len(todo))
        keys = {name: bench.key(cell, name) for name in cell.networks}
        missing = [name for name, key in keys.items() if store.find(key) is None]
        if missing and not kept:
            part.progress(0.0, f"{cell.arm}, {cell.budget.name}, seed {cell.seed}")
            images, seconds = bench.images(cell, part.part(0.0, 0.6))
            if made is not None:
                made(cell, images)
            for name in missing:
                row = bench.row(cell, name, images, part.part(0.6, 1.0))
                store.add(keys[name], row | {"made_s": round(seconds, 2)})
        for key in keys.values():
            row_or_none = store.find(key)
            if row_or_none is not None:
                yield row_or_none


class _Bench:
    """Makes the images of a cell, trains on them and measures."""

    def __init__(self, material: Material, config: CompareConfig) -> None:
        self._material, self._config = material, config
        self._data = data_sha256(
            [material.pool, *material.held_out.values(), material.public, material.prior]
        )
        #: Images and seconds of SPG at a budget per patient, by budget and seed: seeds share them.
        self._shared: tuple[tuple[str, int], tuple[Floats, float]] | None = None

    def images(self, cell: Cell, monitor: Monitor) -> tuple[Floats, float]:
        """An arm's images, and the CPU seconds that making them took."""
        if not (cell.arm == SPG and cell.budget.per_patient):
            return self._make(cell, cell.seed, monitor)
        seed = cell.seed % self._config.distillations
        name = cell.budget.name, seed
        if self._shared is None or self._shared[0] != name:
            self._shared = name, self._make(cell, seed, monitor)
        return self._shared[1]

    def _make(self, cell: Cell, seed: int, monitor: Monitor) -> tuple[Floats, float]:
        began = time.process_time()
        if cell.arm == FULL:
            images = self._material.pool
        elif cell.arm in _CHOSEN:
            images = _CHOSEN[cell.arm](self._material, cell.budget, seed)
        else:
            distill = self._config.distill
            if cell.budget.per_patient:
                distill = replace(distill, loop=replace(distill.loop, outer=self._config.ordinary))
            images = _MATCHED[cell.arm](self._material, cell.budget, seed, distill, monitor)
        return images, time.process_time() - began

    def row(self, cell: Cell, network: str, images: Floats, monitor: Monitor) -> Row:
        """Train a network on the images, and measure it on the held-out patients."""
        material, config = self._material, self._config
        task = make_task(config.distill, material.modality)
        began = time.process_time()
        trained = train_restorer(
            images,
            task,
            material.modality,
            config.training_of(network, cell.seed),
            scaling=material.scaling,
            monitor=monitor,
        )
        seconds = time.process_time() - began

        def measured(images: Floats) -> tuple[float, float]:
            return restored_psnr(trained, images, task, material.modality, scaling=material.scaling)

        tests = material.tests(config.test_images)
        floor, restored = measured(np.concatenate(tests))
        return {
            "arm": cell.arm,
            "budget": cell.budget.name,
            "seed": cell.seed,
            "network": network,
            "images": len(images),
            "pixels": int(images.size),
            "trained_s": round(seconds, 2),
            "psnr_db": round(restored, 4),
            "floor_db": round(floor, 4),
            "by_patient_db": [round(measured(images)[1], 4) for images in tests],
        }

    def key(self, cell: Cell, network: str) -> str:
        """A hash of all that a row depends on: a comparison with more seeds reuses its rows."""
        config = self._config
        is_ordinary = cell.arm == SPG and cell.budget.per_patient
        parts = ["task", "images", "damage"]
        parts += ["loop"] * (cell.arm in _MATCHED) + ["generator"] * (cell.arm == SPG)
        parts += ["keeping"] * is_ordinary
        distill = config.distill.record()
        fields = {
            "cell": [cell.arm, asdict(cell.budget), cell.seed],
            "distill": {name: distill[name] for name in parts},
            "ordinary": (config.ordinary, config.distillations) * is_ordinary,
            "restorer": config_to_json(config.training_of(network, cell.seed)),
            "test_images": config.test_images,
            "data": self._data,
        }
        if cell.arm in (PRIOR, STATISTICS, SPG) and not cell.budget.per_patient:
            fields["start"] = "nearest intensities"  # keys of older rows lack it: drawn at random
        if cell.arm == SPG:
            fields["from"] = STATISTICS  # keys of older rows lack it: from intensities alone
        return sha256_of(fields)[:32]


class RowStore:
    """Measured rows by key, in a file with a line each, so that a comparison can be resumed.

    An incomplete last line is removed, and measured again.

    Raises:
        InputError: another line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows = dict(self._read())

    def find(self, key: str) -> Row | None:
        """The row of that key, or None."""
        return self._rows.get(key)

    def add(self, key: str, row: Row) -> Row:
        """Store a row, and return it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "row": row}, allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as cause:
            raise output_error(self._path, cause) from cause
        self._rows[key] = row
        return row

    def _read(self) -> list[tuple[str, Row]]:
        if not self._path.is_file():
            return []
        text = self._path.read_text(encoding="utf-8", errors="replace")
        whole, _, torn = text.rpartition("\n")
        if torn:  # the next row must not be appended to it
            with self._path.open("r+b") as file:
                file.truncate(len((whole + "\n").encode()) if whole else 0)
        found = []
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = json.loads(line)
                found.append((str(entry["key"]), dict(entry["row"])))
            except (ValueError, KeyError, TypeError) as cause:
                raise InputError(
                    f"{self._path}, line {number} is damaged", "Delete that line, or the file."
                ) from cause
        return found
