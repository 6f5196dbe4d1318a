"""The bundle of a head that learned from label maps."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from MedEnhanceLib.bundles.export import NOT_STATED, export_bundle
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.bundles.suitability import training_length_limits
from MedEnhanceLib.gradprom.config import STRUCTURES
from MedEnhanceLib.gradprom.structures.model import StructureModel
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig

_PAINTED = "Trained on scans painted from label maps, not on images of patients."
_RESEARCH = "A research tool: do not use it for measurements of patients."


def export_structures(
    folder: Path,
    config: TrainHeadConfig,
    model: StructureModel,
    counts: tuple[int, int, int],
    seconds: float,
) -> Bundle:
    """Write the bundle of a training.

    Args:
        folder: of the bundle; replaced if it exists.
        config: of the training.
        model: with averaged weights.
        counts: of label maps that were painted, of labeled images, and of those for sizes alone.
        seconds: duration of the training.
    """
    prior = (model.space.prior * 255).round().to(torch.uint8)
    if model.anatomy.has_sides:  # symmetric: half is enough
        prior = prior[..., : (prior.shape[3] + 1) // 2]
    tensors = {"prior": prior.contiguous()}
    for part, network in {"locator": model.locator, "corrector": model.corrector}.items():
        tensors |= {f"{part}.{name}": value for name, value in network.state_dict().items()}
    of_body = f" of the {config.anatomy}" if config.anatomy else ""
    origin = config.label_origin or "given; who drew them is not stated"
    names = ", ".join(model.anatomy.structures)
    recorded = config.to_json() | {"device": "", "images": "", "sizes_from": ""}
    (maps, images, sized), shown, fitted = counts, "", ""
    if images:
        shown = f", {config.image_share:.0%} showing one of {images} labeled images instead"
    if sized:
        fitted = f"; sizes fitted on {sized} labeled images"
    metadata: dict[str, Any] = {
        "name": config.name,
        "kind": "head",
        "modality": config.modality,
        "anatomy": config.anatomy,
        "description": f"Segmentation model: {names}. Label maps for training: {origin}.",
        "license": config.license or NOT_STATED,
        "network": {
            "kind": STRUCTURES,
            "widths": list(config.widths),
            "locator_widths": list(config.locator_widths),
            "origin": list(model.space.origin),
            "columns": model.space.prior.shape[3],
            "limits": dict(model.limits),
            "quality": {name: list(fit) for name, fit in model.quality.items()},
            "sizes": dict(model.sizes),
            **model.anatomy.to_json(),
        },
        "volume_interval": {name: list(ends) for name, ends in model.volume_interval.items()},
        "labels": [asdict(label) for label in model.anatomy.labels],
        "training": {
            "config": recorded,
            "seconds": round(seconds),
            "summary": f"{config.steps} steps, each on a scan painted from one of {maps} label "
            f"maps{of_body}{shown}, seed {config.seed}, {seconds / 60:.0f} minutes"
            f"{fitted}",
        },
        "data": list(config.data),
        "warnings": [*training_length_limits(config.steps), *config.warnings],
        "limits": [
            *([] if images else [_PAINTED]),
            _RESEARCH,
            f"Made for {config.modality} images{of_body}; not validated on anything else.",
        ],
    }
    return export_bundle(folder, tensors, metadata)
