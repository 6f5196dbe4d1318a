"""The enhancer as a bundle: written after training, opened for use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from MedEnhanceLib.bundles.export import export_bundle, load_tensors
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.config import config_from_json, config_to_json
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.hqg.config import NetworkConfig, TrainConfig
from MedEnhanceLib.hqg.network import Enhancer, GuidanceEncoder
from MedEnhanceLib.nets.precision import move

_LIMITS = (
    "Trained on few subjects; other scanners, sequences and anatomy can give worse results.",
    "It can remove faint structure together with noise: compare with the input.",
    "The uncertainty map is the spread over sampled cues and flips; it is not calibrated.",
)


@dataclass(frozen=True)
class CueBank:
    """The high-quality bank's cues: mean, and spread of sampled ones, [cue_size] each."""

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


def export_enhancer(
    folder: Path,
    config: TrainConfig,
    enhancer: Enhancer,
    guide: GuidanceEncoder,
    bank: CueBank,
    seconds: float,
) -> Bundle:
    """Write the bundle of a finished training."""
    tensors = {f"enhancer.{key}": value for key, value in enhancer.state_dict().items()}
    tensors |= {f"guide.{key}": value for key, value in guide.state_dict().items()}
    tensors |= {"bank.mean": bank.mean, "bank.spread": bank.spread}
    what = "MR with noise, blur and shading" if config.modality == "MR" else "low-dose CT"
    metadata = {
        "name": config.name,
        "kind": "enhancer",
        "modality": config.modality,
        "anatomy": config.anatomy,
        "description": f"HQG-Net, first form: unpaired, guided enhancement of {what}.",
        "licence": "Apache-2.0",
        "network": config_to_json(config.network),
        "intensity": "HU / 1000" if config.modality == "CT" else "value / robust maximum",
        "training": {
            "config": config_to_json(config),
            "seconds": round(seconds),
            "summary": f"{config.steps} steps of {config.batch} patches of {config.patch} pixels, "
            f"seed {config.seed}, {seconds / 60:.0f} minutes",
        },
        "data": list(config.data),
        "limits": list(_LIMITS),
    }
    return export_bundle(folder, tensors, metadata)


def open_enhancer(bundle: Bundle) -> EnhancerModel:
    """Build the networks of a verified bundle; raises ModelError where weights do not fit."""
    fields: dict[str, Any] = bundle.metadata.get("network", {})
    config = config_from_json(NetworkConfig, fields)
    tensors = load_tensors(bundle)
    enhancer, guide = Enhancer(config), GuidanceEncoder(config)
    try:
        enhancer.load_state_dict(_below(tensors, "enhancer."))
        guide.load_state_dict(_below(tensors, "guide."))
        bank = CueBank(tensors["bank.mean"], tensors["bank.spread"])
    except (RuntimeError, KeyError) as cause:
        raise ModelError(
            f"model {bundle.name!r}: its weights do not fit its description", "Import it again."
        ) from cause
    for network in (enhancer, guide):
        move(network, "cpu").eval().requires_grad_(False)
    return EnhancerModel(bundle, config, enhancer, guide, bank)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
