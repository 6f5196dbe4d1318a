"""The bundle of a trained enhancer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from MedEnhanceLib.bundles.export import NOT_STATED, export_bundle, load_tensors, training_record
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.denoise.bundle import VIEW
from MedEnhanceLib.denoise.groups import GuidedNetwork
from MedEnhanceLib.scanner.corrector.view_network import ViewNet
from MedEnhanceLib.training.hqg.config import TrainConfig

_LIMITS = (
    "Trained on few subjects; other scanners, sequences and anatomy can give worse results.",
    "It can remove faint structure together with noise: compare with the input.",
)
_GUIDE_LIMIT = "A lesion that only the guide shows can leave a trace: look at the guide too."


def export_enhancer(
    folder: Path,
    config: TrainConfig,
    network: GuidedNetwork,
    *,
    seconds: float,
    is_guided: bool,
    gains: dict[str, float],
    verdict: Mapping[str, Any] | None = None,
    start: Bundle | None = None,
) -> Bundle:
    """Write the bundle of a training.

    Args:
        folder: of the bundle.
        config: of the training.
        network: with averaged weights.
        seconds: duration of the training.
        is_guided: whether the correction by a guide was trained.
        gains: of the last validation, in dB over the filter.
        verdict: of `judge` on the weights that a task taught; None without a task.
        start: the enhancer that the training started from.
    """
    stages = {"without guides": config.steps}
    if is_guided:
        stages |= {"with guides": config.guide_steps, "with lesions": config.lesion_steps}
    steps = [f"{count} steps {how}" for how, count in stages.items() if count]
    summary = ", ".join([*steps, f"seed {config.seed}", f"{seconds / 60:.0f} minutes"])
    if start:
        summary = f"From {start.name}: {summary}"
    recorded = training_record(config.to_json(), start)
    if config.task and verdict:
        recorded["config"]["task"]["segmenter"] = verdict["gradprom"]["segmenter"]["name"]
    guided = ", guided by other series of the same examination" if is_guided else ""
    metadata: dict[str, Any] = {
        "name": config.name,
        "kind": "enhancer",
        "modality": config.modality,
        "anatomy": config.anatomy,
        "description": f"HQG-Net: a set network over groups of similar blocks{guided}.",
        "license": config.license or NOT_STATED,
        "network": config.network.to_json(),
        "guided": is_guided,
        "intensity": profile_of(config.modality).scale,
        "training": {
            **recorded,
            "seconds": round(seconds),
            "validation": {name: round(gain, 3) for name, gain in gains.items()},
            "summary": summary + (f". {verdict['gradprom']['summary']}" if verdict else ""),
        },
        "data": list(config.data),
        "limits": [*_LIMITS, *([_GUIDE_LIMIT] if is_guided else [])],
        **(verdict or {}),
    }
    tensors = dict(network.state_dict())
    if not is_guided:
        tensors = {k: v for k, v in tensors.items() if not k.startswith("correction.")}
    return export_bundle(folder, tensors, metadata)


def export_with_view(
    folder: Path,
    config: TrainConfig,
    view: ViewNet | None,
    *,
    start: Bundle,
    seconds: float,
    gain_db: float,
    part: str = VIEW,
    fields: Mapping[str, Any] | None = None,
) -> Bundle:
    """Write the bundle of an enhancer and of a network that sees whole slices.

    Args:
        folder: of the bundle.
        config: of the training of `view`.
        view: with averaged weights, on the CPU; None for none.
        start: the enhancer, whose set network is taken over.
        seconds: duration of the training.
        gain_db: of `view` over the filter, on slabs that no step saw.
        part: of the bundle that `view` is, as of `view_weights`; other parts are taken over.
        fields: of metadata.json, in place of those of a network for low dose.
    """
    tensors = {k: v for k, v in load_tensors(start).items() if not k.startswith(f"{part}.")}
    parts = {part: view.config.to_json()} if view else {}
    if view:
        tensors |= {f"{part}.{name}": value for name, value in view.state_dict().items()}
    summary = f"From {start.name}: {config.steps} steps of the network that sees whole slices, "
    metadata: dict[str, Any] = {
        **start.metadata,
        "name": config.name,
        "anatomy": config.anatomy,
        "description": "HQG-Net: after the block-matching filter, a set network over groups of "
        "similar blocks, then a U-Net that sees whole slices.",
        "license": config.license or NOT_STATED,
        **parts,
        "training": {
            **training_record(config.to_json(), start),
            "seconds": round(seconds),
            "validation": {"gain_db": round(gain_db, 3)},
            "summary": f"{summary}seed {config.seed}, {seconds / 60:.0f} minutes",
        },
        "data": list(config.data),
        "limits": list(_LIMITS),
        **(fields or {}),
    }
    return export_bundle(folder, tensors, metadata)
