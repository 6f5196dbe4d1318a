"""One configuration for an enhancer and a head that learn from each other through the gate.

The training itself is that of an enhancer with a task (hqg's bi-level scheme): this only spares
its user to say everything twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.core.options import Options, config_from_json
from MedEnhanceLib.errors import ConfigError

if TYPE_CHECKING:
    from MedEnhanceLib.gradprom import TrainHeadConfig
    from MedEnhanceLib.hqg import TrainConfig

#: What both sections take over where they do not say otherwise.
_SHARED = ("modality", "anatomy", "seed", "device")


@dataclass(frozen=True, kw_only=True)
class JointConfig(Options):
    """A joint training.

    head: fields of gradprom.TrainHeadConfig: labeled images and what is labeled in them.
    enhancement: fields of hqg.TrainConfig; without high_quality the enhancer learns from the
        head's images.
    task: fields of hqg's TaskConfig: weight λ, gate, gate_ema, gate_scope, start, …
    preset: smoke, cpu, full or published. modality, anatomy, seed, device: of both. name: of the
        enhancer; the head's is its own, or that with "-head". steps: of the whole training.
    """

    head: dict[str, Any]
    enhancement: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    preset: str = "cpu"
    modality: str = "MR"
    anatomy: str = ""
    name: str = "enhancer"
    seed: int = 0
    steps: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if "head" in self.task or "task" in self.enhancement:
            raise ConfigError(
                "the head is described twice", "Describe it in the section head alone."
            )

    def enhancer_config(self) -> TrainConfig:
        """What is trained: an enhancer with a task."""
        from MedEnhanceLib.hqg import TrainConfig

        shared = {option: getattr(self, option) for option in _SHARED}
        steps = {} if self.steps is None else {"steps": self.steps}
        defaults = {
            "preset": self.preset,
            "name": self.name,
            "high_quality": self.head.get("images", ["images/*"]),
            "low_quality": [],
            "data": self.head.get("data", []),
        }
        if ("held_out" in self.head or "folds" in self.head) and (
            "high_quality" not in self.enhancement
        ):
            raise ConfigError(
                "patients are held out of the head, and the enhancer would learn from them",
                "State high_quality of the enhancement: the images of the others.",
            )
        fields = {**defaults, **shared, **steps, **self.enhancement}
        # A head knows no losses, so the publication's alone are nothing to it.
        preset = "full" if fields["preset"] == "published" else fields["preset"]
        head = {"preset": preset, "name": f"{fields['name']}-head", **shared, **self.head}
        return TrainConfig.from_json({**fields, "task": {**self.task, "head": head}})


def joint_config(fields: Mapping[str, Any]) -> TrainConfig:
    """An enhancer with a task from the JSON object of a `JointConfig`."""
    if "head" not in fields:
        raise ConfigError(
            "the section head is missing", "State its labels (or atlas) and structures there."
        )
    return config_from_json(JointConfig, fields).enhancer_config()


def head_of(config: TrainConfig) -> TrainHeadConfig:
    """The head of an enhancer's task, with as many steps as it takes there.

    Raises ConfigError where it would take the enhancer's folder.
    """
    from MedEnhanceLib.gradprom import TrainHeadConfig

    assert config.task is not None
    head = TrainHeadConfig.from_json(config.task.head)
    if head.name == config.name:
        raise ConfigError(
            f"enhancer and head are both called {head.name!r}", "Give the head another name."
        )
    if head.modality != config.modality:
        raise ConfigError(
            f"the enhancer is for {config.modality}, its head for {head.modality}",
            "Give both the same modality.",
        )
    taken = config.steps - math.ceil(config.task.start * config.steps)
    return replace(head, steps=max(1, taken), batch=config.task.batch, patch=config.patch)


def training_note(config: TrainConfig, seconds: float) -> str:
    """How a head was trained beside its enhancer, for its card."""
    task, head = config.task, head_of(config)
    assert task is not None
    return (
        f"{head.steps} steps of {task.batch} slabs of {config.patch} pixels, as the enhancer "
        f"{config.name} gave them while it learned; taught it through a gate ({task.gate}, "
        f"averages {task.gate_ema:g}, weight {task.weight:g}), seed {config.seed}, "
        f"{seconds / 60:.0f} minutes"
    )
