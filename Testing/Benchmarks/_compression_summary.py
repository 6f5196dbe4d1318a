"""The few figures that the user's page shows."""

from __future__ import annotations

from _common import table
from _compression_gates import chosen
from _compression_measures import Row
from _compression_ours import ESTIMATE, OURS
from _compression_rows import BOUNDED, BOUNDS, LOSSLESS, RATIO

_SHOWN_RATIOS = (8, 32, 128)


def summary_table(rows: list[Row]) -> str:
    """Ratios of the modes that guarantee voxels, PSNR of the one that guarantees a size."""
    lines = []
    for row in chosen(rows, mode=LOSSLESS, codec=OURS):
        mine = chosen(rows, volume=row["volume"], codec=OURS)
        bounded = {r["setting"]: f"{r['ratio']:.1f}" for r in chosen(mine, mode=BOUNDED)}
        psnr = {r["setting"]: _psnr(r) for r in chosen(mine, mode=RATIO)}
        lines.append(
            (
                row["volume"],
                f"{row['ratio']:.1f}",
                *(bounded.get(bound, "–") for bound in BOUNDS),
                *(psnr.get(ratio, "–") for ratio in _SHOWN_RATIOS),
            )
        )
    errors = (f"ratio, error {bound}" for bound in BOUNDS)
    ratios = (f"PSNR at {ratio}" for ratio in _SHOWN_RATIOS)
    return table(("volume", "ratio, lossless", *errors, *ratios), lines)


def estimate_sentence(rows: list[Row]) -> str:
    """How far estimates were off, at worst."""
    found = chosen(rows, mode=ESTIMATE)
    size = max(abs(row["size_error"]) for row in found)
    low = [
        row["psnr_db"] - row["estimated_psnr_db"]
        for row in found
        if None not in (row["psnr_db"], row["estimated_psnr_db"])
    ]
    seconds = max(row["estimate_s"] for row in found)
    volumes = len({row["volume"] for row in found})
    return (
        f"On the {volumes} volumes of the benchmark the size was off by at most "
        f"{100 * size:.1f} %, and the estimated PSNR was between {max(low):.1f} dB too low and "
        f"{abs(min(*low, 0)):.1f} dB too high; it took at most {seconds:.0f} s."
    )


def _psnr(row: Row) -> str:
    return "lossless" if row["psnr_db"] is None else f"{row['psnr_db']:.1f} dB"
