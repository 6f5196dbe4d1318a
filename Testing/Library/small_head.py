"""A head of structures that learned nothing: small, quick, and it takes everything for a head."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from Library.label_maps import SKULL, STRUCTURES, label_map
from torch.nn.functional import one_hot

from MedEnhanceLib.bundles.export import export_bundle
from MedEnhanceLib.core.labels import Label
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.gradprom.config import STRUCTURES as KIND
from MedEnhanceLib.gradprom.structures.anatomy import Anatomy
from MedEnhanceLib.gradprom.structures.networks import Corrector, Locator

_WIDTHS = [4, 8]


def write_small_head(folder: Path, **more: Any) -> Path:
    """Write its bundle, for MR of the brain, and return the folder; more: fields of its card."""
    torch.manual_seed(0)
    values = label_map(0).voxels[1:-1, 1:-1, 1:-1]
    labels = [config_from_json(Label, entry) for entry in STRUCTURES]
    tissues = [{"name": "skull", "values": [SKULL], "outside": "skull"}]
    anatomy = Anatomy.of(labels, tissues, {}, [int(value) for value in np.unique(values)])
    classes = anatomy.tissue_classes[anatomy.painted(values.astype(np.int64)) & 127]
    prior = one_hot(torch.from_numpy(classes).long(), len(anatomy.classes)).movedim(-1, 0) + 0.1
    locator, corrector = Locator(_WIDTHS), Corrector(len(anatomy.classes), _WIDTHS)
    torch.nn.init.constant_(locator.out.bias[3:], 1.0)
    tensors = {"prior": (prior / prior.sum(0) * 255).round().to(torch.uint8)}
    for part, network in (("locator", locator), ("corrector", corrector)):
        tensors |= {f"{part}.{name}": value for name, value in network.state_dict().items()}
    metadata: dict[str, Any] = {
        "name": "small",
        "kind": "head",
        "modality": "MR",
        "anatomy": "brain",
        "description": "It learned nothing.",
        "license": "CC0-1.0",
        "network": {
            "kind": KIND,
            "widths": _WIDTHS,
            "locator_widths": _WIDTHS,
            "origin": [-74.0, -74.0, -74.0],
            "columns": prior.shape[3],
            **anatomy.to_json(),
        },
        "labels": [asdict(label) for label in labels],
        "limits": ["Of nothing."],
    }
    return export_bundle(folder, tensors, metadata | more).folder
