"""Helpers of the enhancer's tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from MedEnhanceLib.bundles.store import WEIGHTS
from MedEnhanceLib.manifest import file_sha256


def shaken_bundle(source: Path, target: Path) -> Path:
    """A copy of a bundle with noise on its weights and with its hash made true again."""
    folder = target / "shaken"
    shutil.copytree(source, folder)
    weights = load_file(folder / WEIGHTS)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in weights.items():
        noise = torch.randn(tensor.shape, generator=generator)
        weights[name] = (tensor.float() + 0.05 * noise).half()
    weights["bank.spread"] = weights["bank.spread"].abs() + 0.5
    save_file(weights, folder / WEIGHTS)
    path = folder / "configs/metadata.json"
    metadata = json.loads(path.read_text())
    metadata["files"][str(WEIGHTS)] = file_sha256(folder / WEIGHTS)
    path.write_text(json.dumps(metadata))
    return folder
