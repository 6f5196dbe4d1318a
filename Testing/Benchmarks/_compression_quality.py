"""How near the estimate of a requested quality comes to the file, on the smaller volumes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from _compression_measures import Row
from _compression_ours import codec_key, estimate_row
from _compression_rows import Case
from _enhancement_cache import code_hash, key_of

#: What is asked for: a usual quality of each modality.
ASKED: dict[str, tuple[dict[str, float], ...]] = {
    "CT STS_013": ({"psnr": 46.0}, {"psnr": 50.0}, {"ssim": 0.985}),
    "MR open_ms L20": ({"psnr": 40.0}, {"ssim": 0.97}),
    "EM medulla_v_z0": ({"psnr": 28.0},),
}


def quality_rows(case: Case) -> Iterator[Row]:
    """Bytes and PSNR estimated beforehand, and those of the file."""
    for asked in ASKED.get(case.subject.name, ()):

        def measure(asked: dict[str, Any] = asked) -> Row:
            return estimate_row(case, asked)

        own = code_hash("_compression_quality.py")
        yield case.row(key_of(codec_key(), own, case.print, sorted(asked.items())), measure)
