"""What can be chosen when a small restorer is trained, from distilled images or from a cohort."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from MedEnhanceLib.core.options import check_range, config_from_json, config_to_json
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.spg.config import MODALITIES, TASKS, DamageConfig, ImageConfig

NETWORKS = ("srcnn", "edsr", "unet")
#: What does not change what is learned: a training may go on with other values of these.
_FREE = ("device", "checkpoint_s", "data", "licence")


@dataclass(frozen=True, kw_only=True)
class TrainDenoiserConfig:
    """One training, reproducible from this and the data.

    network: "srcnn", "edsr" or "unet"; steps, batch, patch, learning_rate, seed: as in
    `restorer.RestorerConfig`. name: of the bundle that comes out. data: what its card says of the
    data besides: name, subjects, licence and source of each. licence: of the weights, as that card
    tells it; empty: not stated.

    Of a distilled set all that follows is the set's own and cannot be said here. Of a cohort (a
    folder of patients, a table, DICOM) task is needed: "denoise", "sr2", "sr4" or "undersample".
    modality: where the files do not state it; pattern: of the names of files that are images;
    images, damage: how volumes become images and how these are damaged, None as a distillation
    does by default; held_out: share of the patients who are not learned from but measured on.
    """

    network: str = "srcnn"
    steps: int = 4000
    batch: int = 8
    patch: int = 48
    learning_rate: float = 1e-3
    seed: int = 0
    name: str = "denoiser"
    data: tuple[dict[str, str], ...] = ()
    licence: str = ""
    task: str | None = None
    modality: str | None = None
    pattern: str = "*"
    images: ImageConfig | None = None
    damage: DamageConfig | None = None
    held_out: float = 0.2
    device: str = "auto"
    checkpoint_s: float = 60.0

    def __post_init__(self) -> None:
        for field, kind in (("images", ImageConfig), ("damage", DamageConfig)):
            given: Any = getattr(self, field)
            if given is not None and not isinstance(given, kind):
                object.__setattr__(self, field, config_from_json(kind, given))
        if self.network not in NETWORKS:
            raise ConfigError(f"network is {self.network!r}", f"Use {', '.join(NETWORKS)}.")
        if self.task is not None and self.task not in TASKS:
            raise ConfigError(f"unknown task {self.task!r}", f"Use one of {', '.join(TASKS)}.")
        if self.modality not in (None, *MODALITIES):
            raise ConfigError(f"modality is {self.modality!r}", f"Use {' or '.join(MODALITIES)}.")
        name: object = self.name
        if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"name is {self.name!r}", "Use letters, digits, - and _.")
        check_range("steps", self.steps, 1, 10_000_000)
        check_range("batch", self.batch, 1, 4096)
        check_range("patch", self.patch, 8, 4096)
        check_range("learning_rate", self.learning_rate, 0, 1)
        check_range("seed", self.seed, 0, 2**53)
        check_range("held_out", self.held_out, 0, 0.9)
        check_range("checkpoint_s", self.checkpoint_s, 0, 1e9)
        if self.patch % 4:
            raise ConfigError(f"patch is {self.patch}", "Use a multiple of 4.")

    @classmethod
    def preset(cls, name: str) -> TrainDenoiserConfig:
        """The configuration of a name.

        smoke: seconds, for tests; cpu: a minute or two on one core; full: a larger network for
        longer, on a GPU.
        """
        presets = {
            "smoke": cls(steps=6, batch=2, patch=16),
            "cpu": cls(),
            "full": replace(cls(), network="unet", steps=20_000, batch=32),
        }
        if name not in presets:
            raise ConfigError(f"unknown preset {name!r}", f"Use one of {', '.join(presets)}.")
        return presets[name]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> TrainDenoiserConfig:
        """A whole or partial configuration; `preset` names what the rest is taken from."""
        fields = dict(fields)
        base = config_to_json(cls.preset(fields.pop("preset", "cpu")))
        return config_from_json(cls, base | fields)

    def learned_with(self) -> dict[str, Any]:
        """What a training that goes on must agree in."""
        return {name: v for name, v in config_to_json(self).items() if name not in _FREE}
