"""Training of an enhancer by a segmentation head through the gate.

train hqg                      an enhancer by its own loss
train head --enhancer NAME     a head, on painted scans that the enhancer made, too
train hqg --segmenter HEAD     some steps of the enhancer, taught by the head through the gate
train head --enhancer NAME     a head, on those of the enhancer with its accepted weights
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib import denoise
from MedEnhanceLib.bundles.store import Bundle, find_bundle, list_bundles, open_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError, MedEnhanceError, ModelError
from MedEnhanceLib.gradprom.config import STRUCTURES
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.hqg.config import TrainConfig
from MedEnhanceLib.training.spg.cohort import Cohort, Patient

if TYPE_CHECKING:
    from MedEnhanceLib.training.gradprom.config import TrainHeadConfig
    from MedEnhanceLib.training.gradprom.enhanced import Enhancer
    from MedEnhanceLib.training.hqg.trainer import Gate, Task

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

    The training starts from the enhancer that the head was trained with, or from the default one,
    and has taught steps only. Fields that are stated are kept. The preset smoke takes few steps and
    crops.

    Raises ConfigError if no head is named, or it learned from other weights of its enhancer;
    ModelError if a model is missing, or the head cannot teach.
    """
    task = fields["task"]
    if not isinstance(task, Mapping) or not task.get("segmenter"):
        raise ConfigError("task names no segmenter", "Name a segmentation head (--segmenter).")
    head = find_bundle(str(task["segmenter"]))
    if head.metadata.get("network", {}).get("kind") != STRUCTURES:
        raise ModelError(f"head {head.name} cannot teach", "Name one from label maps.")
    modality = fields.get("modality", head.modality)
    trained_with = head.metadata.get("training", {}).get("config", {}).get("enhancer")
    start = fields.get("start") or trained_with or "auto"
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
    if not fields.get("start") and recorded not in (None, enhancer.sha256):
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
        "license": "",
        "network": stated["network"],
        "high_quality": list(_SCANS),
        **dict.fromkeys(("steps", "guide_steps", "lesion_steps"), 0),
        **pool,
        **fields,
        "data": _data_of(stated, head.metadata, fields),
        # The default may be another model later.
        "start": enhancer.name if start == "auto" else start,
    }


def _data_of(*stated: Mapping[str, Any]) -> list[dict[str, str]]:
    """Collect the training data of bundles and of a configuration, each collection once."""
    entries: list[dict[str, str]] = []
    for fields in stated:
        entries += [entry for entry in fields.get("data", []) if entry not in entries]
    return entries


def find_images(config: TrainConfig, data: Path) -> tuple[list[Path], list[Path]]:
    """Find the scans that a head teaches on, and those of held-out patients.

    Args:
        config: with a `task`. A pattern of `held_out` that matches a scan holds out its patient,
            which is a folder of scans, or a single scan if all are in one folder; without patterns
            patients are drawn.
        data: the folder of the scans.
    Raises InputError where there are too few.
    """
    patterns = (*config.high_quality, *config.held_out)
    left_out = {path for pattern in config.leave_out for path in data.glob(pattern)}
    found = dict.fromkeys(path for pattern in patterns for path in sorted(data.glob(pattern)))
    scans = [path for path in found if left_out.isdisjoint((path, *path.parents))]
    if not scans:
        raise InputError(
            f"{data}: no image matches {', '.join(patterns)}",
            "Give the folder that these patterns start from, with files of such names.",
        )
    chosen = _matching(scans, config.held_out, data) if config.held_out else _draw(scans, config)
    in_folders = len({path.parent for path in scans}) > 1
    held = {path.parent if in_folders else path for path in chosen}
    training = [path for path in scans if held.isdisjoint((path, path.parent))]
    if not training:
        raise InputError("all images are held out", "Hold out fewer patients.")
    return training, [path for path in scans if path not in training]


def _matching(scans: Sequence[Path], patterns: Sequence[str], data: Path) -> list[Path]:
    """List the scans that patterns match; InputError for one that matches none."""
    matching = list[Path]()
    for pattern in patterns:
        named = [path for path in scans if fnmatchcase(path.relative_to(data).as_posix(), pattern)]
        if not named:
            raise InputError(
                f"{data}: no image matches {pattern!r} (held_out)",
                "Add the images of that patient, or give another pattern, relative to the folder.",
            )
        matching += named
    return matching


def _draw(scans: Sequence[Path], config: TrainConfig) -> list[Path]:
    """Draw the scans of held-out patients: of a folder, or a file, in the one that has all."""
    assert config.task is not None
    common = os.path.commonpath([path.parent for path in scans])
    files = defaultdict[str, list[Path]](list)
    for path in scans:
        files[path.relative_to(common).parts[0]].append(path)
    cohort = Cohort(tuple(Patient(name, tuple(paths)) for name, paths in files.items()))
    cohort.require(f"Teaching by {config.task.segmenter}, which is judged on patients held out,")
    _, held_out = cohort.split(config.task.held_out_share, config.seed)
    return [path for patient in held_out for path in patient.paths]


def train_enhancer(config: TrainConfig, data: Path, out: Path, monitor: Monitor) -> Path:
    """Train an enhancer, by its own loss or taught by a head.

    Args:
        config: of the training; its task names the head.
        data: the folder of the images.
        out: of bundle and checkpoint.
        monitor: receives progress and metrics; may cancel.
    Returns the folder of the bundle.
    """
    from MedEnhanceLib.training.hqg.run import train

    return train(config, data, out, monitor, make_task=partial(teaching_of, config, data))


def train_head(config: TrainHeadConfig, data: Path, out: Path, monitor: Monitor) -> Path:
    """Train a head, also on what an enhancer makes, if it names one.

    Args:
        config: of the training.
        data: the folder of the label maps.
        out: of bundle and checkpoint.
        monitor: receives progress and metrics; may cancel.
    Returns the folder of the bundle.
    """
    from MedEnhanceLib.training.gradprom import heads

    return heads.train_head(config, data, out, monitor, enhancer=enhancer_of(config))


def teaching_of(config: TrainConfig, data: Path, device: str) -> tuple[Task, Gate]:
    """Make the task of a configuration, and the gate that admits its gradients.

    Args:
        config: with a `task`, whose segmenter is opened.
        data: the folder of the images.
        device: as PyTorch names it.
    """
    from MedEnhanceLib.training.gradprom.gate import GradientGate
    from MedEnhanceLib.training.gradprom.structure_task import StructuresTask

    task = config.task
    assert task is not None
    head = open_bundle(task.segmenter, kind="head", modality=config.modality)
    averages = task.gate == "ema"
    gate = GradientGate(
        ema=_GATE_EMA if averages else 0.0,
        weight=task.weight,
        relative=True,
        warm_up=min(_GATE_WARM_UP, task.steps // 5) if averages else 0,
    )
    return StructuresTask(head, *find_images(config, data), data, device), gate


def enhancer_of(config: TrainHeadConfig) -> Enhancer | None:
    """Return the enhancer of a head's painted scans; None if they are not enhanced."""
    if not config.enhancer:
        return None
    from MedEnhanceLib.training.gradprom.enhanced import Enhancer

    bundle = open_bundle(config.enhancer, kind="enhancer", modality=config.modality)

    def enhanced(volume: Volume, sigma: float) -> Volume:
        options = denoise.EnhanceConfig(model=config.enhancer, device=config.device, noise=sigma)
        return denoise.enhance(volume, options).volume

    return Enhancer(enhanced, bundle.identity(), bundle.metadata.get("gradprom"))
