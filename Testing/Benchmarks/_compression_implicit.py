"""The implicit network against networks that are fitted to one block each, at equal bytes.

The fits come from `_compression_inr.py`; where it or the network is not there, nothing is measured
and the page says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from _common import SHARED_DATA
from _compression_arms import Arm
from _compression_measures import Row
from _compression_ours import codec_key, coded
from _compression_rows import Case
from _enhancement_cache import code_hash, key_of

from MedEnhanceLib.core import metrics
from MedEnhanceLib.io import load

IMPLICIT, SIREN, SHARED = "implicit blocks", "SIREN per block", "shared INR, fitted codes"
MODE = "implicit"
ARM = Arm(IMPLICIT, {"block_type": "implicit"})
RATIO = 64
_BLOCK = (32, 64, 64)
_BLOCKS = 4
#: What a fit is allowed: 100 times our encoding time, or until it stands still.
HUNDREDFOLD, CONVERGED, STEPS = (
    "100 × our time",
    "until it stands still, 160 s at most",
    "100 steps",
)
_ALLOWED = {HUNDREDFOLD: 100.0, CONVERGED: math.inf}
#: The shared network learns for so long, on blocks of a volume that is not measured.
_SHARED_SECONDS = 120.0
_SHARED_BLOCKS = 12
_SHARED_FROM = {
    "CT": "ct/sts/STS_002/CT.nii.gz",
    "MR": "mr/open_ms/C07/T1.nii.gz",
    "EM": "em/medulla_t2.nii.gz",
}


def why_not() -> str | None:
    """What is missing for this comparison; None where it can be made."""
    if ARM.missing:
        return f"implicit blocks cannot be chosen ({ARM.missing})"
    if find_spec("_compression_inr") is None:
        return "the fitted networks (_compression_inr.py) are not there"
    return None


def implicit_rows(case: Case, *, anew: bool) -> Iterator[Row]:
    """Ours and each fit on a few blocks; PSNR over all of them, against the volume's range.

    anew: also what was not measured before.
    """
    if why_not():
        return
    ours = key_of(codec_key(), case.print, MODE)
    if anew or case.store.find(ours) is not None:
        yield case.row(ours, lambda: _ours(case))
    code = key_of(codec_key(), code_hash("_compression_inr.py"), case.print, MODE)
    for name, setting in ((SIREN, HUNDREDFOLD), (SIREN, CONVERGED), (SHARED, STEPS)):

        def measure(name: str = name, setting: str = setting) -> Row:
            return _fitted(case, name, setting)

        key = key_of(code, name, setting)
        if anew or case.store.find(key) is not None:
            yield case.row(key, measure)


def _ours(case: Case) -> Row:
    found, decoded = coded(case.volume, ARM.config | {"ratio": RATIO})
    parts = list(blocks(case.volume.voxels.shape))
    voxels = case.volume.voxels
    return _row(case, IMPLICIT, None, [(voxels[part], decoded[part]) for part in parts]) | {
        "bytes": found["bytes"],
        "encode_cpu_s_per_mvoxel": found["encode_cpu_s"] / voxels.size * 1e6,
    }


def _fitted(case: Case, name: str, setting: str) -> Row:
    """At the bytes that ours took for a block's share."""
    from _compression_inr import patches_of, shared_inr, siren_per_block

    ours = case.row(key_of(codec_key(), case.print, MODE), lambda: _ours(case))
    voxels, pairs, seconds, taken = case.volume.voxels, [], 0.0, 0
    shared = None
    if name == SHARED:
        a_block = ours["bytes"] * math.prod(_BLOCK) / voxels.size
        shared = _shared_network(case.subject.modality, int(a_block / patches_of(_BLOCK)))
    for part in blocks(voxels.shape):
        block = voxels[part]
        share = int(ours["bytes"] * block.size / voxels.size)
        speed = ours["encode_cpu_s_per_mvoxel"] * block.size / 1e6
        if shared is None:
            found = siren_per_block(block, share, _ALLOWED[setting] * speed)
        else:
            found = shared_inr(block, shared)
        pairs.append((block, found.decoded))
        seconds, taken = seconds + found.seconds, taken + found.size
    size = sum(source.size for source, _ in pairs)
    row = _row(case, name, setting, pairs)
    return row | {
        "ratio": size * voxels.itemsize / taken,
        "encode_cpu_s_per_mvoxel": seconds / size * 1e6,
    }


@lru_cache(maxsize=1)
def _shared_network(modality: str, latent: int) -> Any:
    from _compression_inr import meta_siren

    voxels = load(SHARED_DATA / _SHARED_FROM[modality]).voxels
    parts = blocks(voxels.shape, _SHARED_BLOCKS)
    return meta_siren([voxels[part] for part in parts], _SHARED_SECONDS, latent=latent)


def _row(case: Case, name: str, setting: str | None, pairs: list[tuple[Any, Any]]) -> Row:
    source, decoded = (np.concatenate([np.ravel(pair[side]) for pair in pairs]) for side in (0, 1))
    span = float(case.volume.voxels.max()) - float(case.volume.voxels.min())
    psnr = metrics.psnr(source[None], decoded[None], data_range=span)
    return {"mode": MODE, "setting": setting, "codec": name, "psnr_db": psnr}


def blocks(shape: tuple[int, ...], count: int = _BLOCKS) -> Iterator[tuple[slice, ...]]:
    """A few blocks along the volume's diagonal, away from its corners."""
    for number in range(count):
        share = (number + 1) / (count + 1)
        yield tuple(
            slice(start := int(share * max(extent - side, 0)), start + side)
            for extent, side in zip(shape, _BLOCK, strict=True)
        )
