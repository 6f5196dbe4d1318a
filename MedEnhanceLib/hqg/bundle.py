"""The enhancer as a bundle: exported after training, opened for inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from MedEnhanceLib.bundles.export import (
    NOT_STATED,
    export_bundle,
    load_tensors,
    must_fit,
    record_fields,
)
from MedEnhanceLib.bundles.store import Bundle, read_bundle
from MedEnhanceLib.core.options import config_from_json, config_to_json
from MedEnhanceLib.hqg.calibration import Calibration
from MedEnhanceLib.hqg.config import NetworkConfig, TrainConfig
from MedEnhanceLib.hqg.network import Enhancer, GuidanceEncoder
from MedEnhanceLib.nets.precision import move

_LIMITS = (
    "Trained on few subjects; other scanners, sequences and anatomy can give worse results.",
    "It can remove faint structure together with noise: compare with the input.",
)
#: Values for bundles that were trained before these options existed.
_BEFORE = {"shrinkage": False, "rician": False, "sharpening": False}
_ONE_SEGMENTER = (
    "Made for one segmenter: for looking at, and for other segmenters, the enhancement without a "
    "model of its own is the better choice."
)
_OF_THE_FILTER = "The uncertainty map is that of the filter before the network."
_NOT_CALIBRATED = "The uncertainty map is not calibrated: its values rank, they do not measure."


@dataclass(frozen=True)
class CueBank:
    """Cues of the high-quality patches: mean, and spread of sampled cues, [cue_size] each."""

    mean: Tensor
    spread: Tensor

    @classmethod
    def measure(cls, guide: GuidanceEncoder, patches: Tensor) -> CueBank:
        """patches: [N, 1, P, P], high quality, on the network's scale."""
        device = next(guide.parameters()).device
        with torch.inference_mode():
            cue = guide(patches.to(device))
            variance = cue.log_variance.exp().mean(dim=0) + cue.mean.var(dim=0)
        return cls(cue.mean.mean(dim=0).cpu(), variance.sqrt().cpu())


@dataclass(frozen=True)
class EnhancerModel:
    """Networks ready for inference, with the bank's cue."""

    bundle: Bundle
    config: NetworkConfig
    enhancer: Enhancer
    guide: GuidanceEncoder
    bank: CueBank
    calibration: Calibration = field(default_factory=Calibration)


def export_enhancer(
    folder: Path,
    config: TrainConfig,
    enhancer: Enhancer,
    guide: GuidanceEncoder,
    bank: CueBank,
    seconds: float,
    limits: Sequence[str] = (),
) -> Bundle:
    """Write the bundle of a training.

    Args:
        folder: of the bundle.
        config: of the training.
        enhancer: with averaged weights.
        guide: the guidance encoder, with averaged weights.
        bank: their cues.
        seconds: duration of the training.
        limits: warnings that the model card lists first.
    """
    tensors = {f"enhancer.{key}": value for key, value in enhancer.state_dict().items()}
    tensors |= {f"guide.{key}": value for key, value in guide.state_dict().items()}
    tensors |= {"bank.mean": bank.mean, "bank.spread": bank.spread}
    what = "MR with noise, blur and shading" if config.modality == "MR" else "low-dose CT"
    metadata = {
        "name": config.name,
        "kind": "enhancer",
        "modality": config.modality,
        "anatomy": config.anatomy,
        "description": f"HQG-Net: unpaired, guided enhancement of {what}.",
        "licence": config.licence or NOT_STATED,
        "network": config_to_json(config.network),
        "intensity": "HU / 1000" if config.modality == "CT" else "value / robust maximum",
        "training": {
            "config": config_to_json(config),
            "seconds": round(seconds),
            "summary": f"{config.steps} steps of {config.batch} patches of {config.patch} pixels, "
            f"seed {config.seed}, {seconds / 60:.0f} minutes",
        },
        "data": list(config.data),
        "limits": [*limits, *_LIMITS, _NOT_CALIBRATED],
    }
    return export_bundle(folder, tensors, metadata)


def export_corrector(folder: Path, enhancer: Enhancer, fields: dict[str, Any]) -> Bundle:
    """Write the bundle of a network that runs after the grouped filter, made for a segmenter.

    Args:
        folder: of the bundle.
        enhancer: with averaged weights; without guidance and restyling.
        fields: of the metadata: name, modality, what it was made for and how.
    """
    network, guide = enhancer.config, GuidanceEncoder(enhancer.config)
    zero = torch.zeros(network.cue_size)
    tensors = {f"enhancer.{key}": value for key, value in enhancer.state_dict().items()}
    tensors |= {f"guide.{key}": value for key, value in guide.state_dict().items()}
    tensors |= {"bank.mean": zero, "bank.spread": zero}
    return export_bundle(
        folder,
        tensors,
        fields
        | {
            "kind": "enhancer",
            "licence": fields.get("licence") or NOT_STATED,
            "network": config_to_json(network),
            "intensity": "HU / 1000" if fields["modality"] == "CT" else "value / robust maximum",
            "start": "grouped",
            "second_pass": True,
            "expects_error": False,
            "limits": [*fields.get("limits", ()), _ONE_SEGMENTER, *_LIMITS, _OF_THE_FILTER],
        },
    )


def record_calibration(folder: Path, calibration: Calibration) -> Bundle:
    """Write a calibration into a bundle, replacing an earlier one; the weights stay the same."""
    bundle = read_bundle(folder)
    kept = bundle.metadata.get("limits", ())
    limits = [text for text in kept if not text.startswith("The uncertainty")]
    blur = " and blur" if bundle.modality == "MR" else ""
    limit = (
        f"The uncertainty map is calibrated on {calibration.fitted_on}: there ± 1.645 σ hold 90 % "
        f"of the errors by noise{blur}. On other data it can be too narrow or too wide, and it "
        "does not cover shading."
    )
    fields = {"calibration": calibration.to_json(), "limits": [*limits, limit]}
    return record_fields(folder, fields)


def open_enhancer(bundle: Bundle) -> EnhancerModel:
    """Build the networks of a verified bundle; raises ModelError where weights do not fit."""
    fields: dict[str, Any] = bundle.metadata.get("network", {})
    tensors = load_tensors(bundle)
    with must_fit(bundle, tensors):
        config = config_from_json(NetworkConfig, _BEFORE | fields)
        enhancer, guide = Enhancer(config), GuidanceEncoder(config)
        enhancer.load_state_dict(_below(tensors, "enhancer."))
        of_guide = _below(tensors, "guide.")
        of_guide.pop("deblurring", None)  # of networks that undid blur on request
        guide.load_state_dict(of_guide)
        bank = CueBank(tensors["bank.mean"], tensors["bank.spread"])
    for network in (enhancer, guide):
        move(network, "cpu").eval().requires_grad_(False)
    calibration = Calibration.from_json(bundle.metadata.get("calibration"))
    return EnhancerModel(bundle, config, enhancer, guide, bank, calibration)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
