"""Size of the network that corrects what the inversion of a scanner leaves."""

from __future__ import annotations

from dataclasses import dataclass

from MedEnhanceLib.core.options import Options, option


@dataclass(frozen=True, kw_only=True)
class ViewConfig(Options):
    """Size of the network that sees whole slices."""

    # Chosen by hand; no table isolates it. Measured as a whole by Benchmarks/unpaired.py.
    widths: tuple[int, ...] = option(
        (32, 64, 96, 128), help="channels of each level", low=1, high=4096, items=(1, 6)
    )
    depth: int = option(1, help="residual blocks of each level on the way down", low=1, high=16)
