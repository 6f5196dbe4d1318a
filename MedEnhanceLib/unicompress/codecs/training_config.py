"""What all trainings of the codec's models share: what is learned from, and said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from MedEnhanceLib.bundles.store import CODEC_PREFIX
from MedEnhanceLib.core.options import WithPresets, option
from MedEnhanceLib.errors import ConfigError

MODALITIES = ("CT", "MR", "EM")


@dataclass(frozen=True, kw_only=True)
class CodecTrainingConfig(WithPresets):
    """Which volumes of a data folder are learned from, and the bundle that is made."""

    files: tuple[str, ...] = option(
        ("**/*.nii.gz",), help="patterns relative to the data folder, of volumes to learn from"
    )
    held_out: tuple[str, ...] = option((), help="patterns of volumes to exclude")
    name: str = option("codec", help="name of the bundle; the modality is appended")
    data: tuple[dict[str, str], ...] = option(
        (), help="name, subjects, license and source of each data set, for the model card"
    )
    seed: int = option(0, help="random seed")

    def __post_init__(self) -> None:
        super().__post_init__()
        is_found = f"{self.name}-".startswith(CODEC_PREFIX)
        if not is_found or not self.name.replace("-", "").replace("_", "").isalnum():
            raise ConfigError(
                f"name is {self.name!r}",
                f"Use codec, or {CODEC_PREFIX} followed by letters, digits, - and _: compressed "
                "files find their models by it.",
            )
        for entry in self.data:
            lacking = [field for field in ("name", "subjects") if field not in entry]
            if lacking:
                raise ConfigError(
                    f"data has the entry {entry!r} without {' and '.join(lacking)}",
                    "Give name and subjects of each collection, and license and source if you can.",
                )

    def found(self, data: Path) -> list[Path]:
        """List the volumes of a folder to learn from, by name."""
        left_out = {path for pattern in self.held_out for path in data.glob(pattern)}
        return sorted({path for pattern in self.files for path in data.glob(pattern)} - left_out)
