"""Training of an enhancer by a segmentation head through the gate.

train hqg                      an enhancer by its own loss
train head --enhancer NAME     a head, on volumes from the enhancer
train hqg --segmenter HEAD     some steps of the enhancer, taught by the head through the gate
train head --enhancer NAME     a head, on volumes from the enhancer with its accepted weights
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib import hqg
from MedEnhanceLib.bundles.store import Bundle, find_bundle, list_bundles, open_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, MedEnhanceError, ModelError
from MedEnhanceLib.gradprom.labeled import config_of, find_split
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.spg.cohort import Cohort, Patient

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom.head import Enhancer
    from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
    from MedEnhanceLib.training.hqg.trainer import Gate, Task

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
#: Steps of the preset for tests.
_SMOKE_STEPS = 4


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
    The preset smoke takes few steps and crops.

    Raises ConfigError if no head or no enhancer is named, or the head's training held nobody out;
    ModelError if one is missing.
    """
    task = fields["task"]
    if not isinstance(task, Mapping) or not task.get("segmenter"):
        raise ConfigError("task names no segmenter", "Name a segmentation head (--segmenter).")
    head = find_bundle(str(task["segmenter"]))
    if is_of_maps(head):
        fields = {"start": "auto", "high_quality": list(_SCANS), "license": "", **fields}
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
    stated, pool = enhancer.metadata, _POOLS[enhancer.modality]
    if fields.get("preset") == "smoke":
        fields, pool = {**fields, "task": {"steps": _SMOKE_STEPS, **task}}, {}
    return {
        "modality": modality,
        "anatomy": enhancer.anatomy,
        "license": stated.get("license", ""),
        "network": stated["network"],
        "high_quality": [],
        **dict.fromkeys(("steps", "guide_steps", "lesion_steps"), 0),
        **pool,
        **fields,
        "data": _data_of(stated, head.metadata, fields),
        # The default may be another model later.
        "start": enhancer.name if start == "auto" else start,
    }


def is_of_maps(head: Bundle) -> bool:
    """Return whether a head learned from label maps alone."""
    return bool(head.metadata.get("network", {}).get("kind") == _STRUCTURES)


def _require_held_out(head: Bundle) -> None:
    """Raise ConfigError if a head's training held nobody out to validate its teaching on."""
    if not head.metadata.get("training", {}).get("config", {}).get("held_out"):
        raise ConfigError(
            f"head {head.name}: nobody is held out to decide whether taught weights are accepted",
            "Train the head with images in held_out.",
        )


def _data_of(*stated: Mapping[str, Any]) -> list[dict[str, str]]:
    """Collect the training data of bundles and of a configuration, each collection once."""
    entries: list[dict[str, str]] = []
    for fields in stated:
        entries += [entry for entry in fields.get("data", []) if entry not in entries]
    return entries


def find_images(config: TrainConfig, data: Path) -> tuple[list[Path], list[Path]]:
    """Find the images that a head teaches on, and those of held-out patients, by their names.

    Args:
        config: with a `task`.
        data: the folder of the images.
    Raises InputError where there are too few.
    """
    training, held_out = find_split(_images_of(config, data)[1], data)
    return [image for image, _ in training], [image for image, _ in held_out]


def _images_of(config: TrainConfig, data: Path) -> tuple[Bundle, TrainHeadConfig]:
    """Open the head of a task; returns also the configuration of the images that it teaches on."""
    assert config.task is not None
    head = open_bundle(config.task.segmenter, kind="head", modality=config.modality)
    if not is_of_maps(head):
        _require_held_out(head)
        return head, config_of(head)
    files, _ = find_split(config_of(head, (*config.high_quality, *config.held_out)), data)
    left_out = {path for pattern in config.leave_out for path in data.glob(pattern)}
    scans = [path for path, _ in files if left_out.isdisjoint((path, *path.parents))]
    patterns = {path: escape(path.relative_to(data).as_posix()) for path in scans}
    held_out = config.held_out or [patterns[path] for path in _draw(scans, head.name, config)]
    return head, config_of(head, [*patterns.values()], held_out)


def _draw(scans: list[Path], head: str, config: TrainConfig) -> list[Path]:
    """Draw the scans of held-out patients: of a folder, or a file, in the one that has all."""
    assert config.task is not None
    common = os.path.commonpath([path.parent for path in scans] or [Path()])
    files = defaultdict[str, list[Path]](list)
    for path in scans:
        files[path.relative_to(common).parts[0]].append(path)
    cohort = Cohort(tuple(Patient(name, tuple(paths)) for name, paths in files.items()))
    cohort.require(f"Teaching by {head}, which is judged on patients held out,")
    _, held_out = cohort.split(config.task.held_out_share, config.seed)
    return [path for patient in held_out for path in patient.paths]


def teaching_of(config: TrainConfig, data: Path, device: str) -> tuple[Task, Gate]:
    """Make the task of a configuration, and the gate that admits its gradients.

    Args:
        config: with a `task`, whose segmenter is opened.
        data: the folder of the images.
        device: as PyTorch names it.
    """
    from MedEnhanceLib.gradprom.task import SegmentationTask
    from MedEnhanceLib.training.gradprom.gate import GradientGate
    from MedEnhanceLib.training.gradprom.structure_task import StructuresTask

    task = config.task
    assert task is not None
    head, images = _images_of(config, data)
    averages = task.gate == "ema"
    gate = GradientGate(
        ema=_GATE_EMA if averages else 0.0,
        weight=task.weight,
        relative=True,
        warm_up=min(_GATE_WARM_UP, task.steps // 5) if averages else 0,
    )
    if is_of_maps(head):
        return StructuresTask(head, images, data, device), gate
    return SegmentationTask(task.segmenter, data, device, modality=config.modality), gate


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
