"""The bundle of a head that learned from label maps: networks, priors, anatomy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from MedEnhanceLib.bundles.export import load_tensors, must_fit
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.labels import Label
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.gradprom.structures.anatomy import Anatomy
from MedEnhanceLib.gradprom.structures.networks import Corrector, Locator
from MedEnhanceLib.gradprom.structures.space import Space

#: Name of all structures together among those of `volume_interval`.
ALL = "all structures"


@dataclass(frozen=True, eq=False)
class StructureModel:
    """A head ready for inference.

    Attributes:
        name: of its bundle.
        anatomy: labels and classes.
        space: priors.
        locator, corrector: the networks.
        limits: numbers beyond which a volume is refused, by name; {} for none measured.
        quality: expected Dice by structure: its changes by certainty and by the mutual information
            of the placement, an offset, and the highest.
        sizes: factors of the probabilities of classes, since training may weight these by size.
        volume_interval: factors of a volume between which another reader's is expected, by
            structure.
    """

    name: str
    anatomy: Anatomy
    space: Space
    locator: Locator
    corrector: Corrector
    limits: Mapping[str, float]
    quality: Mapping[str, tuple[float, float, float, float]]
    sizes: Mapping[str, float] = field(default_factory=dict)
    volume_interval: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def weighted(self, share: Tensor) -> Tensor:
        """Multiply probabilities [C, ...] by the factors of their classes' sizes."""
        factors = share.new_tensor([self.sizes.get(name, 1.0) for name in self.anatomy.classes])
        share = share * factors.view(-1, *[1] * (share.ndim - 1))
        return share / share.sum(0)


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
        quality={name: (a, b, c, d) for name, (a, b, c, d) in fields.get("quality", {}).items()},
        sizes=fields.get("sizes", {}),
        volume_interval={
            name: (a, b) for name, (a, b) in bundle.metadata.get("volume_interval", {}).items()
        },
    )
