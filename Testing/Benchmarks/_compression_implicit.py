"""The implicit network against networks that are fitted to one block each, at equal bytes.

The fits come from `_compression_inr.py`; where it or the network is not there, nothing is measured
and the page says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from _compression_arms import Arm
from _compression_measures import Row
from _compression_ours import codec_key, coded
from _compression_rows import Case
from _enhancement_cache import code_hash, key_of

from MedEnhanceLib import metrics

IMPLICIT, SIREN, SHARED = "implicit blocks", "SIREN per block", "shared INR, fitted codes"
MODE = "implicit"
ARM = Arm(IMPLICIT, {"block_types": ("implicit",)})
RATIO = 64
_BLOCK = (32, 64, 64)
_BLOCKS = 4
#: Of our encoding time: what the paper's comparison gives a fit, and what it takes to converge.
_MULTIPLES = (100.0, 1000.0)


@dataclass(frozen=True)
class Fit:
    """What a fitted network made of a block. Returned by the functions of `_compression_inr`."""

    decoded: Any
    seconds: float


def why_not() -> str | None:
    """What is missing for this comparison; None where it can be made."""
    if ARM.missing:
        return f"implicit blocks cannot be chosen ({ARM.missing})"
    if find_spec("_compression_inr") is None:
        return "the fitted networks (_compression_inr.py) are not there"
    return None


def implicit_rows(case: Case) -> Iterator[Row]:
    """Ours and each fit on a few blocks; PSNR over all of them, against the volume's range."""
    if why_not():
        return
    yield case.row(key_of(codec_key(), case.print, MODE), lambda: _ours(case))
    for multiple in _MULTIPLES:
        for name in (SIREN, SHARED):
            key = key_of(
                codec_key(), code_hash("_compression_inr.py"), case.print, MODE, name, multiple
            )
            yield case.row(key, lambda name=name, multiple=multiple: _fitted(case, name, multiple))


def _ours(case: Case) -> Row:
    found, decoded = coded(case.volume, ARM.config | {"ratio": RATIO})
    parts = list(blocks(case.volume.voxels.shape))
    voxels = case.volume.voxels
    return _row(case, IMPLICIT, None, [(voxels[part], decoded[part]) for part in parts]) | {
        "bytes": found["bytes"],
        "encode_cpu_s_per_mvoxel": found["encode_cpu_s"] / voxels.size * 1e6,
    }


def _fitted(case: Case, name: str, multiple: float) -> Row:
    from _compression_inr import shared_inr, siren_per_block

    fit = {SIREN: siren_per_block, SHARED: shared_inr}[name]
    ours = case.row(key_of(codec_key(), case.print, MODE), lambda: _ours(case))
    voxels, pairs, seconds = case.volume.voxels, [], 0.0
    for part in blocks(voxels.shape):
        block = voxels[part]
        share = int(ours["bytes"] * block.size / voxels.size)
        allowed = multiple * ours["encode_cpu_s_per_mvoxel"] * block.size / 1e6
        found: Fit = fit(block, share, allowed)
        pairs.append((block, found.decoded))
        seconds += found.seconds
    size = sum(source.size for source, _ in pairs)
    row = _row(case, name, multiple, pairs)
    return row | {"encode_cpu_s_per_mvoxel": seconds / size * 1e6}


def _row(case: Case, name: str, multiple: float | None, pairs: list[tuple[Any, Any]]) -> Row:
    source, decoded = (np.concatenate([np.ravel(pair[side]) for pair in pairs]) for side in (0, 1))
    span = float(case.volume.voxels.max()) - float(case.volume.voxels.min())
    psnr = metrics.psnr(source[None], decoded[None], data_range=span)
    return {"mode": MODE, "setting": multiple, "codec": name, "psnr_db": psnr}


def blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """A few blocks along the volume's diagonal, away from its corners."""
    for number in range(_BLOCKS):
        share = (number + 1) / (_BLOCKS + 1)
        yield tuple(
            slice(start := int(share * max(extent - side, 0)), start + side)
            for extent, side in zip(shape, _BLOCK, strict=True)
        )
