"""Training of an enhancer by a segmentation head through the gate.

train hqg                      an enhancer by its own loss
train head --enhancer NAME     a head, on volumes from the enhancer
train hqg --segmenter HEAD     some steps of the enhancer, taught by the head through the gate
train head --enhancer NAME     a head, on volumes from the enhancer with its accepted weights
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib import hqg
from MedEnhanceLib.bundles.store import Bundle, find_bundle, list_bundles, open_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, MedEnhanceError, ModelError

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom import TrainHeadConfig
    from MedEnhanceLib.gradprom.head import Enhancer
    from MedEnhanceLib.hqg.train.trainer import Gate, Task

#: Kind of network of a head from label maps, which teaches on any clean scans.
_STRUCTURES = "structures"
#: Clean scans below the data folder, if none are stated.
_SCANS = ("hq/*",)
# Tuned on quadratics whose losses share noise (decision 0017). Measured by Benchmarks/gradprom.py.
#: Decay of the gradients that the gate averages, and first steps in which it only averages.
_GATE_EMA, _GATE_WARM_UP = 0.99, 20
#: Crops in the pool of a short training, and steps after which one is replaced; in CT one
#: simulation gives several crops.
_POOLS = {"MR": {"crops": 40, "renewed_every": 2}, "CT": {"crops": 12, "renewed_every": 5}}


def teachers(modality: str) -> tuple[list[Bundle], list[MedEnhanceError]]:
    """List the installed heads that can teach an enhancer, and why each other one cannot."""
    able, faults = [], []
    for head in list_bundles():
        if (head.kind, head.modality) == ("head", modality):
            try:
                taught_fields({"task": {"segmenter": head.name}})
                able.append(head)
            except MedEnhanceError as fault:
                faults.append(fault)
    return able, faults


def taught_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the fields of an enhancer's training that a head teaches, from the bundles.

    The training starts from the enhancer that the head was trained with, has taught steps only, and
    uses the head's images. A head from label maps learned from none: the training starts from the
    default enhancer, and uses those of high_quality and held_out. Fields that are stated are kept.

    Raises ConfigError if no head or no enhancer is named, or the head's training held nobody out;
    ModelError if one is missing.
    """
    task = fields["task"]
    if not isinstance(task, Mapping) or not task.get("segmenter"):
        raise ConfigError("task names no segmenter", "Name a segmentation head (--segmenter).")
    head = find_bundle(str(task["segmenter"]))
    if _is_of_maps(head):
        fields = {"start": "auto", "high_quality": list(_SCANS), **fields}
    else:
        _require_held_out(head)
    modality = fields.get("modality", head.modality)
    start = fields.get("start") or head.metadata.get("training", {}).get("config", {}).get(
        "enhancer"
    )
    if not start:
        raise ConfigError(
            f"head {head.name} did not learn from enhanced images",
            "Name the enhancer to go on from (start), or train the head with --enhancer.",
        )
    try:
        enhancer = open_bundle(str(start), kind="enhancer", modality=modality)
    except ModelError as cause:
        if fields.get("start"):
            raise
        raise ModelError(
            f"head {head.name} learned from the enhancer {start}: {cause.message}",
            "Import that enhancer, name another to go on from (start), or train the head on an "
            "installed one.",
        ) from cause
    recorded = head.metadata.get("gradprom", {}).get("enhancer", {}).get("sha256")
    known = {None, enhancer.sha256}
    if "view" in enhancer.metadata:  # its training left the set network as it was
        known.add(enhancer.metadata["training"].get("start_sha256"))
    if not fields.get("start") and recorded not in known:
        raise ConfigError(
            f"head {head.name} learned from other weights than those of {enhancer.name} now",
            "Train the head again on this enhancer, or name the enhancer to go on from (start).",
        )
    stated = enhancer.metadata
    return {
        "modality": modality,
        "anatomy": enhancer.anatomy,
        "license": stated.get("license", ""),
        "data": _data_of(enhancer, head),
        "network": stated["network"],
        "high_quality": [],
        **dict.fromkeys(("steps", "guide_steps", "lesion_steps"), 0),
        **_POOLS[enhancer.modality],
        **fields,
        # The default may be another model later.
        "start": enhancer.name if start == "auto" else start,
    }


def _is_of_maps(head: Bundle) -> bool:
    """Return whether a head learned from label maps alone."""
    return bool(head.metadata.get("network", {}).get("kind") == _STRUCTURES)


def _require_held_out(head: Bundle) -> None:
    """Raise ConfigError if a head's training held nobody out to validate its teaching on."""
    if not head.metadata.get("training", {}).get("config", {}).get("held_out"):
        raise ConfigError(
            f"head {head.name}: nobody is held out to decide whether taught weights are accepted",
            "Train the head with images in held_out.",
        )


def _data_of(*bundles: Bundle) -> list[dict[str, str]]:
    """Collect the training data of bundles, each collection once."""
    entries: list[dict[str, str]] = []
    for bundle in bundles:
        entries += [entry for entry in bundle.metadata.get("data", []) if entry not in entries]
    return entries


def teaching_of(config: hqg.TrainConfig, data: Path, device: str) -> tuple[Task, Gate]:
    """Make the task of a configuration, and the gate that admits its gradients.

    Args:
        config: with a `task`, whose segmenter is opened.
        data: the folder of the labeled images.
        device: as PyTorch names it.
    """
    from MedEnhanceLib.gradprom.gate import GradientGate
    from MedEnhanceLib.gradprom.task import SegmentationTask

    task = config.task
    assert task is not None
    head = find_bundle(task.segmenter)
    averages = task.gate == "ema"
    gate = GradientGate(
        ema=_GATE_EMA if averages else 0.0,
        weight=task.weight,
        relative=True,
        warm_up=min(_GATE_WARM_UP, task.steps // 5) if averages else 0,
    )
    modality = config.modality
    if not _is_of_maps(head):
        _require_held_out(head)
        return SegmentationTask(task.segmenter, data, device, modality=modality), gate
    if not config.held_out:
        raise ConfigError(
            f"head {head.name} teaches, and nobody is held out to decide whether taught weights "
            "are accepted",
            "Name clean scans of other patients in held_out.",
        )
    from MedEnhanceLib.gradprom.structure_task import StructuresTask

    images, held_out = (*config.high_quality, *config.held_out), config.held_out
    of_maps = StructuresTask(
        task.segmenter, data, device, images=images, held_out=held_out, modality=modality
    )
    return of_maps, gate


def enhancer_of(config: TrainHeadConfig) -> Enhancer | None:
    """Return the enhancer of a head's training volumes; None if they are not enhanced."""
    if not config.enhancer:
        return None
    from MedEnhanceLib.gradprom.head import Enhancer

    bundle = open_bundle(config.enhancer, kind="enhancer", modality=config.modality)
    options = hqg.EnhanceConfig(model=config.enhancer, device=config.device)

    def enhanced(volume: Volume) -> Volume:
        return hqg.enhance(volume, options).volume

    return Enhancer(enhanced, bundle.identity(), bundle.metadata.get("gradprom"))
