"""Options of the training without pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from MedEnhanceLib.core.options import About, Options, option
from MedEnhanceLib.scanner.corrector.config import ViewConfig
from MedEnhanceLib.training.config import NetworkTrainingConfig


@dataclass(frozen=True, kw_only=True)
class TaskConfig(Options):
    """A frozen segmentation head whose gradient enters the training through a gate."""

    segmenter: Annotated[str, About(help="name or folder of the head")]
    gate: Literal["ema", "binary"] = option(
        "ema",
        help="when the task's gradient counts: ema by averaged gradients, binary as published",
    )
    # Tuned with persons left out (decision 0017).
    weight: float = option(
        3.0,
        help="weight of the task's gradient, in units of the mean norms of both; 0: without it",
        low=0,
        high=1e6,
    )
    every: int = option(2, help="steps from one with the task to the next", low=1, high=10_000_000)


@dataclass(frozen=True, kw_only=True)
class UnpairedConfig(Options):
    """Parts of HQG-Net: their weights in the loss; 0: without."""

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


@dataclass(frozen=True, kw_only=True)
class TrainConfig(NetworkTrainingConfig):
    """One training without pairs, reproducible from this, the seed and the data.

    Presets: smoke: for tests; quick; cpu; full: for a GPU.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {"steps": 4, "slabs": 1, "validated": 1, "network": {"widths": (8, 8)}},
        "quick": {"steps": 300, "slabs": 8, "renewed_every": 10},
        "cpu": {},
        "full": {"steps": 40_000, "slabs": 100, "renewed_every": 10},
    }
    MINUTES: ClassVar[Mapping[str, float]] = {"smoke": 0.5, "quick": 10, "cpu": 120, "full": 1200}

    high_quality: tuple[str, ...] = option(
        ("hq/*",), help="patterns of high-quality volumes below the data folder"
    )
    low_quality: str = option(
        "",
        help="hqg: folder with volumes of another scanner, of the same body part and other "
        "patients than those of high quality; the scanner is measured and inverted, and a network "
        "learns what is left",
        metavar="DIR",
    )
    scanner: str = option(
        "",
        help="hqg: a measured scanner (medenhance scanner) in place of low_quality, or beside it "
        "where a part of unpaired sees the scans",
        metavar="FILE",
    )
    leave_out: tuple[str, ...] = option(
        (), help="patterns of files or folders to exclude from training"
    )
    name: str = "scanner"
    # Chosen by hand (decision 0109). Measured as a whole by Benchmarks/unpaired.py.
    steps: int = option(4000, help="number of steps", low=0, high=10_000_000)
    slabs: int = option(24, help="slabs to draw from at a time", low=1, high=100_000)
    renewed_every: int = option(
        20, help="steps after which a slab is replaced", low=1, high=10_000_000
    )
    learning_rate: float = option(5e-4, help="learning rate of AdamW", low=1e-9, high=1)
    validated: int = option(8, help="number of validation slabs", low=1, high=1000)
    network: ViewConfig = option(factory=ViewConfig, help="size of the network")
    unpaired: UnpairedConfig = option(factory=UnpairedConfig, help="parts of the paper")
    task: TaskConfig | None = option(
        None, help="segmentation task whose gradient passes a gate; null: none"
    )
