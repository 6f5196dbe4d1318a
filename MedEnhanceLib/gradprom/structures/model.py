"""The bundle of a head that learned from label maps: networks, priors, anatomy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from MedEnhanceLib.bundles.export import NOT_STATED, export_bundle, load_tensors, must_fit
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.bundles.suitability import training_length_limits
from MedEnhanceLib.core.labels import Label
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.gradprom.config import TrainFromLabelsConfig
from MedEnhanceLib.gradprom.structures.anatomy import Anatomy
from MedEnhanceLib.gradprom.structures.networks import Corrector, Locator
from MedEnhanceLib.gradprom.structures.space import Space

#: Kind of network in the metadata of such a head.
STRUCTURES = "structures"
_LIMITS = (
    "Trained on scans painted from label maps, not on images of patients.",
    "A research tool: do not use it for measurements of patients.",
)


@dataclass(frozen=True, eq=False)
class StructureModel:
    """A head ready for inference.

    Attributes:
        name: of its bundle.
        anatomy: labels and classes.
        space: priors.
        locator, corrector: the networks.
        limits: numbers beyond which a volume is refused, by name; {} for none measured.
        quality: slope and offset of the expected Dice, by structure.
    """

    name: str
    anatomy: Anatomy
    space: Space
    locator: Locator
    corrector: Corrector
    limits: Mapping[str, float]
    quality: Mapping[str, tuple[float, float]]


def export_structures(
    folder: Path,
    config: TrainFromLabelsConfig,
    model: StructureModel,
    maps: int,
    seconds: float,
) -> Bundle:
    """Write the bundle of a training.

    Args:
        folder: of the bundle; replaced if it exists.
        config: of the training.
        model: with averaged weights.
        maps: number of label maps.
        seconds: duration of the training.
    """
    prior = (model.space.prior * 255).round().to(torch.uint8)
    if model.anatomy.has_sides:  # symmetric: half is enough
        prior = prior[..., : (prior.shape[3] + 1) // 2]
    tensors = {"prior": prior.contiguous()}
    for part, network in (("locator", model.locator), ("corrector", model.corrector)):
        tensors |= {f"{part}.{name}": value for name, value in network.state_dict().items()}
    of_body = f" of the {config.anatomy}" if config.anatomy else ""
    origin = config.label_origin or "given; who drew them is not stated"
    names = ", ".join(model.anatomy.structures)
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
            "quality": {name: list(pair) for name, pair in model.quality.items()},
            **model.anatomy.to_json(),
        },
        "on_request": False,
        "labels": [asdict(label) for label in model.anatomy.labels],
        "training": {
            "config": config.to_json() | {"device": ""},
            "seconds": round(seconds),
            "summary": f"{config.steps} steps, each on a scan painted from one of {maps} label "
            f"maps{of_body}, seed {config.seed}, {seconds / 60:.0f} minutes",
        },
        "data": list(config.data),
        "warnings": [*training_length_limits(config.steps), *config.warnings],
        "limits": [
            *_LIMITS,
            f"Made for {config.modality} images{of_body}; not validated on anything else.",
        ],
    }
    return export_bundle(folder, tensors, metadata)


def open_structures(bundle: Bundle) -> StructureModel:
    """Build the networks of a verified bundle; raises ModelError where weights do not fit."""
    tensors: dict[str, Tensor] = load_tensors(bundle)
    with must_fit(bundle, tensors):
        fields: dict[str, Any] = bundle.metadata["network"]
        labels = [config_from_json(Label, entry) for entry in bundle.metadata["labels"]]
        anatomy = Anatomy.of(labels, fields["tissues"], fields["merged"], [])
        prior = tensors.pop("prior").float() / 255
        columns = int(fields["columns"])
        if columns > prior.shape[3]:
            prior = torch.cat([prior, prior[..., : columns // 2].flip(3)], 3)
        prior[0] += 1e-4
        x, y, z = (float(value) for value in fields["origin"])
        parts: dict[str, dict[str, Tensor]] = {"locator": {}, "corrector": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value.float()
        locator = Locator(fields["locator_widths"])
        corrector = Corrector(len(anatomy.classes), fields["widths"])
        locator.load_state_dict(parts["locator"])
        corrector.load_state_dict(parts["corrector"])
    return StructureModel(
        name=bundle.name,
        anatomy=anatomy,
        space=Space(prior / prior.sum(0), (x, y, z)),
        locator=locator.eval().requires_grad_(False),
        corrector=corrector.eval().requires_grad_(False),
        limits=fields.get("limits", {}),
        quality={name: (a, b) for name, (a, b) in fields.get("quality", {}).items()},
    )
