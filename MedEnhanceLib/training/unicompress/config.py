"""Options of the trainings of parts of the codec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from MedEnhanceLib.bundles.schema import CODEC_PREFIX
from MedEnhanceLib.core.options import option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.device import DEVICES
from MedEnhanceLib.training.config import TrainingConfig
from MedEnhanceLib.unicompress.codecs.implicit.settings import DecoderConfig, TokenConfig

_TINY = DecoderConfig(hidden=16, depth=2, scaled=1, heads=2, key_size=4)


@dataclass(frozen=True, kw_only=True)
class CodecTrainingConfig(TrainingConfig):
    """Options shared by trainings of codecs: data and the bundle to write."""

    files: tuple[str, ...] = option(
        ("**/*.nii.gz",), help="patterns relative to the data folder, of volumes to learn from"
    )
    name: str = "codec"  # the modality is appended

    def __post_init__(self) -> None:
        super().__post_init__()
        has_prefix = f"{self.name}-".startswith(CODEC_PREFIX)
        if not has_prefix or not self.name.replace("-", "").replace("_", "").isalnum():
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

    def volume_files(self, data: Path) -> list[Path]:
        """List the volumes of a folder to learn from, by name."""
        left_out = {path for pattern in self.held_out for path in data.glob(pattern)}
        return sorted({path for pattern in self.files for path in data.glob(pattern)} - left_out)


@dataclass(frozen=True, kw_only=True)
class ImplicitConfig(CodecTrainingConfig):
    """Training of a teacher with encoders and codebooks, then a student of it.

    Presets: smoke: seconds; cpu: 40 minutes on one core; full: the published scale, on a GPU.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "size": "tiny",
            "teacher_steps": 12,
            "student_steps": 12,
            "blocks": 2,
            "coordinates": 64,
            "learning_rate": 1e-3,
            "warm_up": 0.3,
        },
        "quick": {
            "teacher_steps": 60,
            "student_steps": 400,
            "blocks": 4,
            "coordinates": 512,
            "warm_up": 0.02,
            "match": 0.05,
            "joint": 0.9,
        },
        # Small batches: what counts in so short a time is the number of steps. Networks begin
        # as a linear transform, which a high rate would forget.
        "cpu": {
            "teacher_steps": 150,
            "student_steps": 1000,
            "blocks": 4,
            "coordinates": 512,
            "warm_up": 0.02,
            "match": 0.05,
            "joint": 0.9,
        },
        "full": {},
    }
    MINUTES: ClassVar[Mapping[str, float]] = {"smoke": 0.5, "quick": 6, "cpu": 15, "full": 30_000}

    modality: Literal["all", "CT", "MR", "EM"] = option(
        "all", help="all: one model for all three, sampled equally often"
    )
    size: Literal["published", "tiny"] = option(
        "published", help="size of the networks; tiny: for tests"
    )
    # Chosen in trials on CT, MR and EM; no table isolates them.
    teacher_steps: int = option(
        200_000, help="optimizer steps of the teacher", low=1, high=10_000_000
    )
    student_steps: int = option(
        100_000, help="optimizer steps of the student", low=1, high=10_000_000
    )
    blocks: int = option(16, help="blocks per step", low=1, high=1024)
    coordinates: int = option(2048, help="coordinates per block", low=8, high=65_536)
    learning_rate: float = option(2e-4, help="learning rate", low=1e-9, high=1)
    warm_up: float = option(
        0.1, help="fraction of the teacher's steps without quantization", low=0, high=1
    )
    match: float = option(
        0.2, help="fraction of the student's steps that match the teacher's features", low=0, high=1
    )
    joint: float = option(
        0.7,
        help="fraction at the end in which encoders and codebooks are trained with the student, "
        "without the teacher",
        low=0,
        high=1,
    )
    device: str = option("auto", help=DEVICES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.match + self.joint > 1:
            raise ConfigError("match + joint is more than 1", "Reduce one of them.")

    @property
    def steps(self) -> int:
        """Steps of teacher and student."""
        return self.teacher_steps + self.student_steps

    @property
    def token(self) -> TokenConfig:
        """Encoders and codebooks."""
        return TokenConfig(8, 16, 4, 16, "0011") if self.size == "tiny" else TokenConfig()

    @property
    def teacher(self) -> DecoderConfig:
        """The teacher's decoder."""
        return _TINY if self.size == "tiny" else DecoderConfig()

    @property
    def student(self) -> DecoderConfig:
        """The student's decoder."""
        return _TINY if self.size == "tiny" else DecoderConfig(hidden=64, depth=3, scaled=1)
