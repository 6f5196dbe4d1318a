"""What the implicit network is, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from MedEnhanceLib.core.options import check_range, check_types, config_from_json, config_to_json
from MedEnhanceLib.errors import ConfigError

Codebook = Literal["learned", "random", "off"]
PRESETS = ("smoke", "cpu", "full")

#: A cell of codes spans so many units along each axis. A unit is a voxel in the plane; along
#: slices it is a voxel, or half of one where slices are thick.
CELL = 8
#: Slices are thick where their spacing is more than so many times that of pixels.
THICK = 3.0
#: Fourier bands of a position: wavelengths of 64, 32 … 2 units.
BANDS = 6
FEATURES = 6 * BANDS


@dataclass(frozen=True, kw_only=True)
class TokenConfig:
    """Encoders and codebooks, which teacher and student share.

    width: channels of the encoders; latent: of what they give; code_size: numbers of a code;
    codes: in each codebook; order: for each layer of a file the branch that it refines, 0 for the
    low band and 1 for the details. codebook: "learned", or as an ablation "random" (never
    learned) or "off" (nothing is quantised). high_band: whether the second branch sees anything.
    """

    width: int = 128
    latent: int = 64
    code_size: int = 8
    codes: int = 256
    order: str = "000000001"
    codebook: Codebook = "learned"
    high_band: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        check_range("width", self.width, 4, 512)
        check_range("latent", self.latent, 8, 64)
        check_range("code_size", self.code_size, 2, 16)
        check_range("codes", self.codes, 4, 4096)
        if not 1 <= len(self.order) <= 32 or set(self.order) - {"0", "1"}:
            raise ConfigError(f"order is {self.order!r}", "Use a 0 or a 1 for each layer.")
        if self.codebook not in ("learned", "random", "off"):
            raise ConfigError(f"codebook is {self.codebook!r}", "Use learned, random or off.")

    @property
    def branches(self) -> list[int]:
        """The branch of each layer of a file."""
        return [int(branch) for branch in self.order]


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The fusion and the network that gives a voxel for a position.

    hidden: sines of a layer; depth: layers of sines; scaled: the first layers whose phases are
    scaled as well as shifted; heads, key_size: of the attention. conditioned: as an ablation,
    False cuts the network off from the codes.
    """

    hidden: int = 256
    depth: int = 6
    scaled: int = 6
    heads: int = 4
    key_size: int = 8
    conditioned: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        check_range("hidden", self.hidden, 8, 1024)
        check_range("depth", self.depth, 1, 16)
        check_range("scaled", self.scaled, 0, self.depth)
        check_range("heads", self.heads, 1, 16)
        check_range("key_size", self.key_size, 1, 32)


@dataclass(frozen=True, kw_only=True)
class ImplicitConfig:
    """One training: a teacher with encoders and codebooks, then a student of it.

    modality: "CT", "MR", "EM", or "all": one model for all three, each drawn equally often.
    files, held_out: patterns of volumes relative to the data folder, learned from and not.
    blocks: of a step; coordinates: of each block. warm_up: share of the teacher's steps before
    anything is quantised. match: share of the student's steps that match features, with weight
    match_weight; fixed: share at its end with the arithmetic of the integer decoder; joint: share
    before that in which encoders and codebooks learn on with the student, without the teacher.
    bands_weight, commitment: of the losses. gradient_share: of the coordinates, drawn in
    proportion to the gradient. start_from: the folder of a training, of this or another
    modality, whose networks this one starts from.
    """

    name: str = "codec"
    modality: str = "all"
    files: tuple[str, ...] = ("**/*.nii.gz",)
    held_out: tuple[str, ...] = ()
    data: tuple[dict[str, str], ...] = ()
    token: TokenConfig = field(default_factory=TokenConfig)
    teacher: DecoderConfig = field(default_factory=DecoderConfig)
    student: DecoderConfig = field(
        default_factory=lambda: DecoderConfig(hidden=64, depth=3, scaled=1)
    )
    teacher_steps: int = 200_000
    student_steps: int = 100_000
    blocks: int = 16
    coordinates: int = 2048
    learning_rate: float = 2e-4
    warm_up: float = 0.1
    commitment: float = 0.02
    bands_weight: float = 0.02
    gradient_share: float = 0.0
    match: float = 0.2
    match_weight: float = 0.1
    fixed: float = 0.2
    joint: float = 0.5
    start_from: str = ""
    seed: int = 0
    device: str = "auto"
    checkpoint_s: float = 300.0

    def __post_init__(self) -> None:
        check_types(self)
        if self.modality not in ("all", "CT", "MR", "EM"):
            raise ConfigError(f"modality is {self.modality!r}", "Use all, CT, MR or EM.")
        if not self.files:
            raise ConfigError("files is empty", "Name patterns of volumes to learn from.")
        check_range("learning_rate", self.learning_rate, 1e-9, 1.0)
        check_range("teacher_steps", self.teacher_steps, 1, 10_000_000)
        check_range("student_steps", self.student_steps, 1, 10_000_000)
        check_range("blocks", self.blocks, 1, 1024)
        check_range("coordinates", self.coordinates, 8, 65_536)
        for name in ("warm_up", "gradient_share", "match", "fixed", "joint"):
            check_range(name, getattr(self, name), 0, 1)
        if self.match + self.joint + self.fixed > 1:
            raise ConfigError("match, joint and fixed are more than 1", "Shorten one of them.")

    @classmethod
    def preset(cls, name: str) -> ImplicitConfig:
        """smoke: seconds; cpu: 40 minutes on one core; full: the published scale, on a GPU."""
        if name not in PRESETS:
            raise ConfigError(f"unknown preset {name!r}", f"Use one of {', '.join(PRESETS)}.")
        if name == "full":
            return cls(checkpoint_s=600.0)
        if name == "cpu":
            # Small batches: what counts in so short a time is the number of steps. Networks begin
            # as a linear transform, which a high rate would forget.
            return cls(
                teacher_steps=150,
                student_steps=1000,
                blocks=4,
                coordinates=512,
                learning_rate=2e-4,
                warm_up=0.02,
                match=0.05,
                joint=0.76,
                fixed=0.14,
            )
        small = DecoderConfig(hidden=16, depth=2, scaled=1, heads=2, key_size=4)
        return cls(
            token=TokenConfig(width=8, latent=16, code_size=4, codes=16, order="0011"),
            teacher=small,
            student=small,
            teacher_steps=12,
            student_steps=12,
            blocks=2,
            coordinates=64,
            learning_rate=1e-3,
            warm_up=0.3,
        )

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ImplicitConfig:
        """A preset (default cpu) and what differs from it; an unknown key is a ConfigError."""
        base = config_to_json(cls.preset(fields.get("preset", "cpu")))
        given = {name: value for name, value in fields.items() if name != "preset"}
        values = base | given
        for part, kind in (("teacher", DecoderConfig), ("student", DecoderConfig)):
            fields_of = given.get(part, {})
            if isinstance(fields_of, dict):
                values[part] = config_from_json(kind, base[part] | fields_of)
        if isinstance(given.get("token"), dict):
            values["token"] = base["token"] | given["token"]
        return config_from_json(cls, values)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return config_to_json(self)

    @property
    def learned(self) -> dict[str, Any]:
        """What decides what is learned: a training goes on only where it is the same."""
        return replace(self, device="", checkpoint_s=0.0).to_json()
