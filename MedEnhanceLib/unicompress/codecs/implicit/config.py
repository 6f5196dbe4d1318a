"""What the implicit network is, and how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from MedEnhanceLib.core.options import Options, WithPresets, check_range, option
from MedEnhanceLib.errors import ConfigError

#: Units that a cell of codes spans along each axis. A unit is a voxel in the plane; along
#: slices it is a voxel, or half of one where slices are thick.
CELL = 8
#: Slices are thick where their spacing is more than this many times that of pixels.
THICK = 3.0
#: Fourier bands of a position: wavelengths of 64, 32 … 2 units.
BANDS = 6
FEATURES = 6 * BANDS
_SMALL = {"hidden": 16, "depth": 2, "scaled": 1, "heads": 2, "key_size": 4}


@dataclass(frozen=True, kw_only=True)
class TokenConfig(Options):
    """Encoders and codebooks, which teacher and student share."""

    width: int = option(128, help="channels of the encoders", low=4, high=512)
    latent: int = option(64, help="channels of what they give", low=8, high=64)
    code_size: int = option(8, help="numbers of a code", low=2, high=16)
    codes: int = option(256, help="in each codebook", low=4, high=256)
    order: str = option(
        "000000001",
        help="for each layer of codes the branch that it refines: 0 the low band, 1 the details",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.order) <= 32 or set(self.order) - {"0", "1"}:
            raise ConfigError(f"order is {self.order!r}", "Use a 0 or a 1 for each layer.")

    @property
    def branches(self) -> list[int]:
        """The branch of each layer of codes."""
        return [int(branch) for branch in self.order]


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(Options):
    """The fusion and the network that gives a voxel for a position."""

    hidden: int = option(256, help="sines of a layer", low=8, high=1024)
    depth: int = option(6, help="layers of sines", low=1, high=16)
    scaled: int = option(6, help="the first layers whose phases are scaled as well as shifted")
    heads: int = option(4, help="of the attention", low=1, high=16)
    key_size: int = option(8, help="of the attention", low=1, high=32)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("scaled", self.scaled, 0, self.depth)


@dataclass(frozen=True, kw_only=True)
class ImplicitConfig(WithPresets):
    """One training: a teacher with encoders and codebooks, then a student of it.

    Presets: smoke: seconds; cpu: 40 minutes on one core; full: the published scale, on a GPU.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "token": {"width": 8, "latent": 16, "code_size": 4, "codes": 16, "order": "0011"},
            "teacher": _SMALL,
            "student": _SMALL,
            "teacher_steps": 12,
            "student_steps": 12,
            "blocks": 2,
            "coordinates": 64,
            "learning_rate": 1e-3,
            "warm_up": 0.3,
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
        "full": {"checkpoint_s": 600.0},
    }

    modality: Literal["all", "CT", "MR", "EM"] = option(
        "all", help="all: one model for all three, each drawn equally often"
    )
    token: TokenConfig = option(factory=TokenConfig, help="encoders and codebooks")
    teacher: DecoderConfig = option(factory=DecoderConfig, help="the teacher's decoder")
    student: DecoderConfig = option(
        factory=lambda: DecoderConfig(hidden=64, depth=3, scaled=1), help="the student's decoder"
    )
    teacher_steps: int = option(200_000, help="of the optimizer", low=1, high=10_000_000)
    student_steps: int = option(100_000, help="of the optimizer", low=1, high=10_000_000)
    blocks: int = option(16, help="of a step", low=1, high=1024)
    coordinates: int = option(2048, help="of each block", low=8, high=65_536)
    learning_rate: float = option(2e-4, help="of the optimizer", low=1e-9, high=1)
    warm_up: float = option(
        0.1, help="share of the teacher's steps before anything is quantized", low=0, high=1
    )
    match: float = option(
        0.2, help="share of the student's steps that match features", low=0, high=1
    )
    joint: float = option(
        0.7,
        help="share at its end in which encoders and codebooks learn on with the student, without "
        "the teacher",
        low=0,
        high=1,
    )
    seed: int = option(0, help="of everything that is drawn")
    device: str = option("auto", help="auto, cpu, cuda, cuda:N or mps")
    checkpoint_s: float = option(300.0, help="from one checkpoint to the next", unit="s")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.match + self.joint > 1:
            raise ConfigError("match and joint are more than 1", "Shorten one of them.")

    @property
    def steps(self) -> int:
        """Of teacher and student."""
        return self.teacher_steps + self.student_steps
