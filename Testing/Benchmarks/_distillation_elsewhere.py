"""Networks of the ordinary budget on volumes of another scanner, body part and contrast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from _common import SHARED_DATA
from _distillation_cases import ROWS

from MedEnhanceLib.io import load
from MedEnhanceLib.spg.comparison import (
    FULL,
    MATCHED_NETWORK,
    PRIOR,
    PUBLIC,
    RANDOM,
    SPG,
    CompareConfig,
    Row,
    RowStore,
)
from MedEnhanceLib.spg.comparison_arms import Material, prior_alone, public_prior, random_coreset
from MedEnhanceLib.spg.config import sha256_of
from MedEnhanceLib.spg.images import Floats, axial_slices, data_sha256, spread_over
from MedEnhanceLib.spg.restorer import restored_psnr, train_restorer
from MedEnhanceLib.spg.tasks import make_task

#: By modality: what is measured, and its file. Of CT no other volume is here: one is the prior.
_VOLUMES = {
    "MR": {
        "T1, another hospital": "mr/open_ms/L03/study2_T1W.nii.gz",
        "T1, 3D": "mr/studyforrest/T1.nii.gz",
        "T2, another hospital": "mr/open_ms/L03/study1_T2W.nii.gz",
        "FLAIR, another hospital": "mr/open_ms/L20/study2_FLAIR.nii.gz",
    }
}
_IMAGES = 16


def elsewhere(
    case: str, material: Material, config: CompareConfig, distilled: Floats | None, *, kept: bool
) -> Iterator[Row]:
    """A row for each arm, seed and volume. distilled: the images of SPG; None leaves it out.

    kept: only what was measured before.
    """
    store = RowStore(ROWS / f"{case.replace(' ', '-')}-elsewhere.jsonl")
    for arm, images_of in _arms(material, config, distilled).items():
        for seed in range(config.seeds):
            images = images_of(seed)
            key = sha256_of(
                {
                    "arm": arm,
                    "seed": seed,
                    "images": data_sha256([images]),
                    "restorer": str(config.training_of(MATCHED_NETWORK, seed)),
                    "task": str(config.distill.record()["damage"]) + config.distill.task,
                    "volumes": _VOLUMES.get(material.modality, {}),
                }
            )[:32]
            found = store.find(key)
            if found is None and not kept:
                found = store.add(key, _measured(material, config, arm, seed, images))
            if found is not None:
                yield found


def _arms(
    material: Material, config: CompareConfig, distilled: Floats | None
) -> dict[str, Callable[[int], Floats]]:
    if material.modality not in _VOLUMES:
        return {}
    budget = config.budgets[-1]
    arms: dict[str, Callable[[int], Floats]] = {
        FULL: lambda _seed: material.pool,
        RANDOM: lambda seed: random_coreset(material, budget, seed),
        PUBLIC: lambda seed: public_prior(material, budget, seed),
        PRIOR: lambda seed: prior_alone(material, budget, seed),
    }
    if distilled is not None:
        arms[SPG] = lambda _seed: distilled
    return arms


def _measured(
    material: Material, config: CompareConfig, arm: str, seed: int, images: Floats
) -> Row:
    task = make_task(config.distill, material.modality)
    trained = train_restorer(
        images,
        task,
        material.modality,
        config.training_of(MATCHED_NETWORK, seed),
        scaling=material.scaling,
    )
    measured = {}
    for name, file in _VOLUMES[material.modality].items():
        floor, restored = restored_psnr(
            trained,
            _images_of(SHARED_DATA / file, material),
            task,
            material.modality,
            scaling=material.scaling,
        )
        measured[name] = {"floor_db": round(floor, 4), "psnr_db": round(restored, 4)}
    return {"arm": arm, "seed": seed, "elsewhere": measured}


def _images_of(path: Path, material: Material) -> Floats:
    images = axial_slices(load(path), material.scaling)
    return spread_over(images, min(_IMAGES, len(images)))
