"""The network that corrects what the inversion of a scanner leaves: its size, and what it sees."""

from __future__ import annotations

from dataclasses import dataclass

from MedEnhanceLib.core.options import Options, option

#: The network of a bundle: the field of its sizes, and the prefix of its weights.
UNPAIRED = "unpaired"
# Models learn with these. Measured as a whole by Benchmarks/unpaired.py.
#: Slices on each side of the middle one that the network sees.
NEIGHBORS = 2
#: Side in pixels of the mean that inverted values are relative to.
AROUND = 15
#: σ and values, on the network's scale, that are 0 and 1 for it.
TYPICAL_SIGMA, TYPICAL_VALUE = 0.05, 0.5
#: Least σ on the network's scale that values are divided by.
LEAST_SIGMA = 1e-4
#: Images that the network sees of a slice.
IMAGES = 2 * (2 * NEIGHBORS + 1) + 2


@dataclass(frozen=True, kw_only=True)
class ViewConfig(Options):
    """Size of the network that sees whole slices."""

    # Chosen by hand; no table isolates it. Measured as a whole by Benchmarks/unpaired.py.
    widths: tuple[int, ...] = option(
        (32, 64, 96, 128), help="channels of each level", low=1, high=4096, items=(1, 6)
    )
    depth: int = option(1, help="residual blocks of each level on the way down", low=1, high=16)
