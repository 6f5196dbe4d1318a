"""Options of the implicit network and of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from MedEnhanceLib.core.options import option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.runtime.device import DEVICES
from MedEnhanceLib.unicompress.config import CodecTrainingConfig

#: Id of the block type.
IMPLICIT = 17
#: Units that a cell of codes spans along each axis. A unit is a voxel in the plane; along
#: slices it is a voxel, or half of one where slices are thick.
CELL = 8
#: Slices are thick where their spacing is more than this many times that of pixels.
THICK = 3.0
#: Fourier bands of a position: wavelengths of 64, 32 … 2 units.
BANDS = 6
FEATURES = 6 * BANDS


@dataclass(frozen=True)
class TokenConfig:
    """Encoders and codebooks, which teacher and student share.

    Attributes:
        width: channels of the encoders.
        latent: channels of their outputs.
        code_size: numbers of a code.
        codes: in each codebook, 256 at most.
        order: for each layer of codes the branch that it refines, 0 the low band, 1 the details.
    """

    width: int = 128
    latent: int = 64
    code_size: int = 8
    codes: int = 256
    order: str = "000000001"

    @property
    def branches(self) -> list[int]:
        """The branch of each layer of codes, 0 or 1; ValueError for anything else."""
        return [("0", "1").index(branch) for branch in self.order]


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the fusion and the network that gives a voxel for a position.

    Attributes:
        hidden: sines of a layer.
        depth: layers of sines.
        scaled: the first of them, whose phases are scaled as well as shifted.
        heads, key_size: of the attention.
    """

    hidden: int = 256
    depth: int = 6
    scaled: int = 6
    heads: int = 4
    key_size: int = 8


_TINY = DecoderConfig(hidden=16, depth=2, scaled=1, heads=2, key_size=4)


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
