"""The options of an audit."""

from __future__ import annotations

from dataclasses import dataclass

from MedEnhanceLib.core.options import check_range
from MedEnhanceLib.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """How much is tried, and how often a clean set may raise the alarm.

    alpha: the most often that all attacks together may alarm at a set without a leak.
    references: slices of each patient that stand in for distilled images, to learn how alike
    strangers are. plants: copies of each strength that are planted to measure what the search for
    copies misses. shadows: distillations of random halves of the patients, an even number; 0
    leaves them out. canaries: whether lesions are planted in a distillation of their own.
    decoys: lesions for each planted one that were not planted. permutations: of random
    rearrangements, where there are too many for all. seed: of everything that is drawn.
    """

    alpha: float = 0.05
    references: int = 8
    plants: int = 5
    shadows: int = 8
    canaries: bool = True
    decoys: int = 99
    permutations: int = 9999
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, 1e-6, 0.5)
        check_range("references", self.references, 2, 1000)
        check_range("plants", self.plants, 1, 100)
        check_range("shadows", self.shadows, 0, 10_000)
        check_range("decoys", self.decoys, 19, 100_000)
        check_range("permutations", self.permutations, 99, 1_000_000)
        check_range("seed", self.seed, 0, 2**32 - 1)
        if self.shadows % 2 or self.shadows == 2:
            raise ConfigError(
                f"shadows is {self.shadows}",
                "Each random half of the patients is distilled with the other half, and two such "
                "pairs are the fewest: use 0, or an even number from 4 on.",
            )
