"""Runs the arms on a cohort: makes each one's images, trains on them, measures on other patients.

Material, CompareConfig  →  rows: arm × budget × seed, with PSNR by network
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace

from MedEnhanceLib.core.options import check_range, config_to_json
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.arms import chosen, matched
from MedEnhanceLib.spg.arms.material import Budget, Material
from MedEnhanceLib.spg.arms.rows import Row, RowStore
from MedEnhanceLib.spg.config import GRID, DistillConfig, sha256_of
from MedEnhanceLib.spg.networks import UNSEEN
from MedEnhanceLib.spg.restorer import RestorerConfig, restored_psnr, train_restorer
from MedEnhanceLib.spg.slices import Floats, data_sha256
from MedEnhanceLib.spg.tasks import make_task

FULL, RANDOM, PUBLIC, PRIOR, SPG = "full", "random", "public", "prior", "spg"
Choice = Callable[[Material, Budget, int], Floats]
Matching = Callable[[Material, Budget, int, DistillConfig, Monitor | None], Floats]
_CHOSEN: dict[str, Choice] = {
    RANDOM: chosen.random_coreset,
    "k-centre": chosen.k_centre,
    PUBLIC: chosen.public_prior,
    PRIOR: chosen.prior_alone,
}
_MATCHED: dict[str, Matching] = {
    "dc-noise": matched.gradients_from_noise,
    "dc-real": matched.gradients_from_real,
    "dm": matched.features_from_real,
    SPG: matched.spg,
}
#: What each arm is, in the order of tables.
ARMS = {
    FULL: "all images of all training patients",
    RANDOM: "random coreset: raw images by lot",
    "k-centre": "raw images that lie far from each other",
    PUBLIC: "the public prior as it is",
    PRIOR: "the prior with the cohort's intensities (33 numbers)",
    "dc-noise": "gradient matching of pixels from noise (DC)",
    "dc-real": "gradient matching of pixels from raw images (DC)",
    "dm": "distribution matching of pixels from raw images (DM)",
    SPG: "SPG: gradient matching of a generator from the prior",
}
#: Arms that are measured with a budget of images per patient too.
_ORDINARY = (RANDOM, PUBLIC, PRIOR, SPG)
#: Arms that are measured with further networks as well, at the first and the last budget.
_OTHERS = (FULL, RANDOM, PUBLIC, SPG)
ALL = Budget("all", 0)
MATCHED_NETWORK = "srcnn"
#: Networks that learn slower take so many times the steps.
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

    distill: task, images and generator; loop is that of the small budgets. ordinary: matches for
    each patient at a budget per patient, as `loop.outer`. restorer: the training, the same for all
    arms. seeds: of every arm but the random coreset, which is drawn `draws` times. distillations:
    how many of the seeds of SPG at a budget per patient distil anew; the others train anew on the
    first ones' images. networks: besides SRCNN. test_images: of each held-out patient.
    """

    distill: DistillConfig
    restorer: RestorerConfig = field(default_factory=RestorerConfig)
    budgets: tuple[Budget, ...] = ()
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
        if set(self.arms) - set(ARMS):
            raise ConfigError(f"arms are {self.arms}", f"Use {', '.join(ARMS)}.")

    def training_of(self, network: str, seed: int) -> RestorerConfig:
        """The training of one network, of the same length for every arm."""
        steps = self.restorer.steps * _LONGER.get(network, 1)
        return replace(self.restorer, network=network, seed=seed, steps=steps)


@dataclass(frozen=True)
class Cell:
    """What one row is about."""

    arm: str
    budget: Budget
    seed: int
    networks: tuple[str, ...]


def cells(config: CompareConfig) -> list[Cell]:
    """All rows of a comparison in the order in which they are measured.

    Full data first, then budget by budget, the smallest and the last one before those between.
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
    """Each row as it is measured, or read from the store. made: gets the images of an arm.
    kept: only what is in the store, and nothing new.

    A row has arm, budget, seed, network, images and pixels in all, made_s (of the images),
    trained_s, psnr_db, and floor_db: of the damaged images themselves.
    Raises Cancelled; what was measured stays in the store.
    """
    monitor = monitor or Monitor()
    everything = [material.pool, *material.held_out.values(), material.public, material.prior]
    data = data_sha256(everything)
    todo = cells(config)
    shelf = _Shelf(material, config)
    for place, cell in enumerate(todo):
        part = monitor.part(place / len(todo), (place + 1) / len(todo))
        keys = {name: _key(config, cell, name, data) for name in cell.networks}
        missing = [name for name, key in keys.items() if store.find(key) is None]
        if missing and not kept:
            part.progress(0.0, f"{cell.arm}, {cell.budget.name}, seed {cell.seed}")
            images, seconds = shelf.images(cell, part.part(0.0, 0.6))
            if made is not None:
                made(cell, images)
            for name in missing:
                row = _measured(material, config, cell, name, images, part.part(0.6, 1.0))
                store.add(keys[name], row | {"made_s": round(seconds, 2)})
        for key in keys.values():
            row_or_none = store.find(key)
            if row_or_none is not None:
                yield row_or_none


class _Shelf:
    """Makes images; those of SPG at a budget per patient once for all seeds that share them."""

    def __init__(self, material: Material, config: CompareConfig) -> None:
        self._material, self._config = material, config
        self._last: tuple[tuple[str, int], Floats, float] | None = None

    def images(self, cell: Cell, monitor: Monitor) -> tuple[Floats, float]:
        """An arm's images, and the seconds of processor that making them took."""
        is_shared = cell.arm == SPG and cell.budget.per_patient
        seed = cell.seed % self._config.distillations if is_shared else cell.seed
        name = cell.budget.name, seed
        if is_shared and self._last is not None and self._last[0] == name:
            return self._last[1:]
        began = time.process_time()
        images = _images(self._material, self._config, cell.arm, cell.budget, seed, monitor)
        seconds = time.process_time() - began
        if is_shared:
            self._last = name, images, seconds
        return images, seconds


def _images(
    material: Material,
    config: CompareConfig,
    arm: str,
    budget: Budget,
    seed: int,
    monitor: Monitor | None,
) -> Floats:
    if arm == FULL:
        return material.pool
    if arm in _CHOSEN:
        return _CHOSEN[arm](material, budget, seed)
    distill = config.distill
    if budget.per_patient:
        distill = replace(distill, loop=replace(distill.loop, outer=config.ordinary))
    return _MATCHED[arm](material, budget, seed, distill, monitor)


def _measured(
    material: Material,
    config: CompareConfig,
    cell: Cell,
    network: str,
    images: Floats,
    monitor: Monitor,
) -> Row:
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
    test = material.test_images(config.test_images)
    floor, restored = restored_psnr(
        trained, test, task, material.modality, scaling=material.scaling
    )
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
    }


def _key(config: CompareConfig, cell: Cell, network: str, data: str) -> str:
    """Of all that a row depends on, and of nothing else: more seeds keep what was measured."""
    parts = ["task", "images", "damage"]
    is_ordinary = cell.arm == SPG and cell.budget.per_patient
    parts += ["loop"] * (cell.arm in _MATCHED) + ["generator"] * (cell.arm == SPG)
    parts += ["keeping"] * is_ordinary
    distill = config.distill.told()
    told = {
        "cell": [cell.arm, asdict(cell.budget), cell.seed],
        "distill": {name: distill[name] for name in parts},
        "ordinary": (config.ordinary, config.distillations) * is_ordinary,
        "restorer": config_to_json(config.training_of(network, cell.seed)),
        "test_images": config.test_images,
        "data": data,
    }
    if cell.arm in (PRIOR, SPG) and not cell.budget.per_patient:
        told["start"] = "nearest intensities"  # not by lot, as it was
    return sha256_of(told)[:32]
