"""Training without pairs, by its own loss or taught by a segmentation head through the gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from MedEnhanceLib.bundles.store import open_bundle
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.gradprom.config import STRUCTURES
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.hqg.config import TrainConfig

if TYPE_CHECKING:
    from MedEnhanceLib.training.hqg.teaching import Gate, Task

# Tuned on quadratics whose losses share noise (decision 0017).
#: Decay of the gradients that the gate averages, and first steps in which it only averages.
_GATE_EMA, _GATE_WARM_UP = 0.99, 20


def train_unpaired(config: TrainConfig, data: Path, out: Path, monitor: Monitor) -> Path:
    """Train without pairs; returns the folder of the bundle.

    Args:
        config: of the training; its task, if any, names the head.
        data: the folder of the images.
        out: of bundle and checkpoint.
        monitor: receives progress and metrics; may cancel.
    """
    from MedEnhanceLib.training.hqg.run import train

    return train(config, data, out, monitor, make_task=lambda device: _task_of(config, device))


def _task_of(config: TrainConfig, device: str) -> tuple[Task, Gate]:
    """Open the head that a configuration names, and make the gate that admits its gradients."""
    from MedEnhanceLib.training.gradprom.gate import GradientGate
    from MedEnhanceLib.training.gradprom.structure_task import StructuresTask

    task = config.task
    assert task is not None
    head = open_bundle(task.segmenter, kind="head", modality=config.modality)
    if head.metadata.get("network", {}).get("kind") != STRUCTURES:
        raise ModelError(f"head {head.name} cannot teach", "Name one from label maps.")
    averages = task.gate == "ema"
    gate = GradientGate(
        ema=_GATE_EMA if averages else 0.0,
        weight=task.weight,
        relative=True,
        warm_up=min(_GATE_WARM_UP, config.steps // task.every // 5) if averages else 0,
    )
    return StructuresTask(head, device), gate
