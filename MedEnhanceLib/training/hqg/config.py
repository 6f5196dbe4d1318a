"""Options of the trainings of enhancers and of thin slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from MedEnhanceLib.core.options import About, Options, in_their_case, merged, option
from MedEnhanceLib.denoise.config import NetworkConfig
from MedEnhanceLib.scanner.corrector.config import ViewConfig
from MedEnhanceLib.slices.config import SliceNetConfig, SlicePatchConfig
from MedEnhanceLib.training.config import NetworkTrainingConfig

#: An option of both trainings.
_NOISELESS: Any = option(
    (),
    help="patterns of volumes without noise, such as those of a distilled set; noise is not "
    "measured in them, as texture could be taken for noise",
)


@dataclass(frozen=True, kw_only=True)
class TaskConfig(Options):
    """Last steps, in which a frozen segmentation head teaches the enhancer through a gate.

    The taught weights are accepted only if the head gains on persons held out at the same fidelity.
    """

    MINUTES: ClassVar[float] = 10  # about, on two cores

    segmenter: Annotated[str, About(help="name or folder of the head")]
    gate: Literal["ema", "binary"] = option(
        "ema",
        help="when the task's gradient counts: ema by averaged gradients, binary as published",
    )
    # Tuned with persons left out (decision 0017). Measured again by Benchmarks/gradprom.py.
    weight: float = option(
        3.0,
        help="weight of the task's gradient, in units of the mean norms of both; 0: without it",
        low=0,
        high=1e6,
    )
    steps: int = option(100, help="number of steps", low=1, high=10_000_000)
    held_out_share: float = option(
        0.2,
        help="share of the patients held out, drawn by the seed, for a head from label maps if "
        "held_out names nobody; at least one is",
        above=0,
        high=0.9,
    )
    learning_rate: float = option(5e-4, help="learning rate of AdamW", low=1e-9, high=1)


@dataclass(frozen=True, kw_only=True)
class UnpairedConfig(Options):
    """Parts of HQG-Net in a training without pairs: their weights in the loss; 0: without."""

    # Decision 0111. Measured by Benchmarks/unpaired.py.
    code: float = option(
        0.0,
        help="code of a high-quality image, which scales and shifts the channels of the network: "
        "weight of its Kullback-Leibler divergence",
        low=0,
        high=1e6,
    )
    guide: str = option(
        "", help="high-quality volume whose code is used in the result; empty: the mean code of all"
    )
    adversary: float = option(
        0.0, help="discriminator of corrected and high-quality patches", low=0, high=1e6
    )
    content: float = option(
        0.0,
        help="difference of corrected scans of low_quality from their inversion in wavelet bands "
        "and features, whatever their contrast",
        low=0,
        high=1e6,
    )
    style: float = option(
        0.0,
        help="difference of the code of corrected scans of low_quality from that of the guide",
        low=0,
        high=1e6,
    )

    @property
    def takes_scans(self) -> bool:
        """Whether a part sees scans of low quality."""
        return max(self.adversary, self.content, self.style) > 0


#: By preset, of trainings without pairs: a slab takes seconds of a core, as it is inverted.
_WITHOUT_PAIRS: Mapping[str, Mapping[str, Any]] = {
    "smoke": {"crops": 1, "view": {"widths": (8, 8)}},
    "quick": {"steps": 300, "crops": 8, "learning_rate": 5e-4},
    "cpu": {"steps": 4000, "crops": 24, "renewed_every": 20, "learning_rate": 5e-4},
    "full": {"steps": 40_000, "crops": 100, "learning_rate": 5e-4},
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig(NetworkTrainingConfig):
    """One training of the enhancer, reproducible from this, the seed and the data.

    Three stages follow one another: without a guide, with guides, and with planted lesions. Without
    examinations there is the first alone. Presets: smoke: for tests; quick: some further steps of a
    trained enhancer (`start`); cpu; full: for a GPU.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "steps": 4,
            "guide_steps": 2,
            "lesion_steps": 2,
            "crops": 2,
            "validated": 1,
            "network": {"width": 16, "hidden": 16, "layers": 1, "guide_layers": 1, "blocks": 8},
        },
        "quick": {
            "steps": 800,
            "guide_steps": 300,
            "lesion_steps": 200,
            "crops": 60,
            "validated": 12,
            "learning_rate": 5e-4,
        },
        "cpu": {},
        "full": {
            "steps": 60_000,
            "guide_steps": 30_000,
            "lesion_steps": 20_000,
            "network": {"width": 192, "hidden": 384, "layers": 4, "guide_layers": 3, "blocks": 32},
        },
    }

    #: Without guides.
    MINUTES: ClassVar[Mapping[str, float]] = {"smoke": 0.5, "quick": 5, "cpu": 60, "full": 4000}

    high_quality: tuple[str, ...] = option(
        ("hq/*",), help="patterns of clean volumes below the data folder"
    )
    noiseless: tuple[str, ...] = _NOISELESS
    low_quality: str = option(
        "",
        help="hqg, without pairs: folder with volumes of another scanner, of the same body part "
        "and other patients than those of high quality; the scanner is measured and inverted, and "
        "a network learns what is left",
        metavar="DIR",
    )
    scanner: str = option(
        "",
        help="the same with a measured scanner (medenhance scanner) in place of low_quality, or "
        "beside it where a part of unpaired sees the scans",
        metavar="FILE",
    )
    synthetic: float = option(0.0, help="share of crops that show synthetic volumes", low=0, high=1)
    examinations: tuple[str, ...] = option(
        (),
        help="patterns of series, one pattern for each examination, for the stages with guides; "
        "empty: the enhancer takes no guide",
    )
    leave_out: tuple[str, ...] = option(
        (), help="patterns of files or folders to exclude from training"
    )
    name: str = "mr"
    start: str = option(
        "", help="name or folder of an enhancer of the same size that training starts from"
    )
    # Chosen in trials (decision 0047). Measured as a whole by Benchmarks/denoising.py.
    steps: int = option(9400, help="steps without a guide", low=0, high=10_000_000)
    guide_steps: int = option(4700, help="steps with guides", low=0, high=10_000_000)
    lesion_steps: int = option(3500, help="steps with planted lesions", low=0, high=10_000_000)
    crops: int = option(300, help="crops to draw from at a time", low=1, high=100_000)
    renewed_every: int = option(
        10, help="steps after which a crop is replaced", low=1, high=10_000_000
    )
    learning_rate: float = option(2e-3, help="learning rate of AdamW", low=1e-9, high=1)
    validated: int = option(8, help="number of validation crops", low=1, high=1000)
    network: NetworkConfig = option(factory=NetworkConfig, help="size of the network")
    view: ViewConfig | None = option(
        None,
        help="size of a network that sees whole slices, for CT, whose noise reaches beyond blocks, "
        "and without pairs: it is trained, and the bundle keeps the set network of start",
    )
    unpaired: UnpairedConfig = option(
        factory=UnpairedConfig, help="parts of the paper in a training without pairs"
    )
    task: TaskConfig | None = option(
        None, help="segmentation task whose gradient passes a gate in the last steps; null: none"
    )

    @classmethod
    def preset_fields(cls, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the fields of a preset for the modality, as `Options.preset_fields` does."""
        base = {"name": "ct"} if fields.get("modality") == "CT" else {}
        base = merged(cls, base, super().preset_fields(fields))
        if fields.get("low_quality") or fields.get("scanner"):
            name = in_their_case(fields.get("preset", "cpu"), cls.PRESETS)
            base = merged(cls, base, {"name": "scanner", **_WITHOUT_PAIRS[name]})
        return base


@dataclass(frozen=True, kw_only=True)
class TrainSlicesConfig(NetworkTrainingConfig, SlicePatchConfig):
    """One training run, reproducible from this, the seed and the data.

    Presets: smoke: for tests; quick: some further steps of a trained network (`start`); cpu; full:
    for a GPU.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "steps": 4,
            "batch": 2,
            "rows": 32,
            "columns": 16,
            "network": {"widths": (8, 8)},
        },
        "quick": {"steps": 400, "learning_rate": 1e-4},
        "cpu": {},
        "full": {"steps": 60_000, "batch": 64},
    }
    MINUTES: ClassVar[Mapping[str, float]] = {"smoke": 0.5, "quick": 6, "cpu": 90, "full": 6900}

    files: tuple[str, ...] = option(
        ("**/*.nii.gz",),
        help="patterns of volumes below the data folder; their slices are used, of nearly "
        "isotropic volumes all three sets of planes",
    )
    noiseless: tuple[str, ...] = _NOISELESS
    name: str = "mr-slices"
    start: str = option(
        "", help="name or folder of a model of the same size that training starts from"
    )
    # Chosen by hand; no table isolates them. Measured as a whole by Benchmarks/slices.py.
    steps: int = option(6000, help="steps of the optimizer", low=1, high=10_000_000)
    network: SliceNetConfig = option(factory=SliceNetConfig, help="size of the network")
