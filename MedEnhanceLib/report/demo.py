"""The page of the demo: one brain degraded, enhanced, segmented and compressed, with figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.report.enhance import about
from MedEnhanceLib.report.figures import LabelLike, Pane, comparison_sheet, sheet_alt
from MedEnhanceLib.report.page import Fact, FileEntry, Page, Picture, Table, write_page
from MedEnhanceLib.report.planes import Point

QUALITY_COLUMNS = ("Volume", "PSNR, dB", "SSIM")
COMPRESSION_COLUMNS = (
    "Mode",
    "Ratio",
    "Largest error",
    "PSNR, dB",
    "Encode, s",
    "Decode, s",
    "Read back",
)
_QUALITY_NOTE = (
    "PSNR (peak: the range of the undamaged volume) and SSIM (window 11, σ 1.5, within slices) "
    "against the undamaged volume, inside the brain only. "
    "Dice against the tissue labels of the sample."
)
_CODEC_NOTE = (
    "Ratio: bytes of the raw 16-bit voxels by bytes of the file. "
    "Each file was opened again and compared with its source, voxel by voxel."
)


@dataclass(frozen=True)
class Quality:
    """Similarity of a volume to the undamaged one, inside the brain.

    psnr_db, ssim (at most 1): None for the undamaged volume itself.
    dice: by label, overlap of the volume's segmentation with the sample's labels, 0 to 1.
    """

    name: str
    psnr_db: float | None
    ssim: float | None
    dice: Mapping[str, float]


@dataclass(frozen=True)
class Compression:
    """One compressed file, read back and compared with its source.

    mode: for readers ("largest error 2"). largest_error: in the volume's units.
    psnr_db: None where nothing differs. kept: what the comparison confirmed ("all within ± 2").
    """

    mode: str
    file: str
    ratio: float
    largest_error: float
    psnr_db: float | None
    encode_s: float
    decode_s: float
    kept: str


@dataclass(frozen=True)
class Step:
    """Duration of a step."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Findings:
    """All figures of a demo; quality has the rows "undamaged", "damaged" and "enhanced"."""

    quality: Sequence[Quality]
    compression: Sequence[Compression]
    steps: Sequence[Step]

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(step.seconds for step in self.steps)


@dataclass(frozen=True)
class Shown:
    """The volumes in the pictures, on one grid, and the sample's labels.

    packed: by mode, volumes after lossy compression; the coarsest last.
    """

    undamaged: Volume
    damaged: Volume
    enhanced: Volume
    packed: Mapping[str, Volume]
    reference: Volume
    segmented: Mapping[str, Volume]
    labels: Sequence[LabelLike]


def findings_from_json(fields: Mapping[str, Any]) -> Findings:
    """The inverse of `dataclasses.asdict`, for the result of a job."""
    return Findings(
        [Quality(**row) for row in fields["quality"]],
        [Compression(**row) for row in fields["compression"]],
        [Step(**row) for row in fields["steps"]],
    )


def quality_table(findings: Findings) -> Table:
    """A row per volume: PSNR, SSIM, and the Dice of each label."""
    names = list(findings.quality[0].dice)
    rows = [
        (
            row.name,
            number(row.psnr_db, 2),
            number(row.ssim, 3),
            *(number(row.dice[name], 3) for name in names),
        )
        for row in findings.quality
    ]
    columns = (*QUALITY_COLUMNS, *(f"Dice, {name}" for name in names))
    return Table("Quality before and after", columns, rows, _QUALITY_NOTE)


def compression_table(findings: Findings) -> Table:
    """A row per mode."""
    rows = [
        (
            row.mode,
            f"{row.ratio:.1f}",
            f"{row.largest_error:g}",
            "no difference" if row.psnr_db is None else number(row.psnr_db, 1),
            f"{row.encode_s:.1f}",
            f"{row.decode_s:.1f}",
            row.kept,
        )
        for row in findings.compression
    ]
    return Table("Compression of the enhanced volume", COMPRESSION_COLUMNS, rows, _CODEC_NOTE)


def steps_table(findings: Findings) -> Table:
    """Seconds of each step and of all."""
    rows = [(step.name, f"{step.seconds:.1f}") for step in findings.steps]
    return Table("Time", ("Step", "Seconds"), [*rows, ("all", f"{findings.seconds:.1f}")])


def summary(findings: Findings) -> list[str]:
    """The results as sentences, which also state where a figure got worse."""
    _, damaged, enhanced = findings.quality
    first = (
        f"Enhancement {_verb(damaged.psnr_db, enhanced.psnr_db)} the PSNR in the brain from "
        f"{number(damaged.psnr_db, 1)} to {number(enhanced.psnr_db, 1)} dB and "
        f"{_verb(damaged.ssim, enhanced.ssim)} the SSIM from {number(damaged.ssim, 3)} to "
        f"{number(enhanced.ssim, 3)}."
    )
    before, after = _mean(damaged.dice), _mean(enhanced.dice)
    second = (
        f"The mean Dice of the segmentation {'rose' if after > before else 'fell'} from "
        f"{before:.3f} on the damaged volume to {after:.3f} on the enhanced one."
    )
    packed = ", ".join(f"{row.ratio:.1f} ({row.mode})" for row in findings.compression)
    third = f"Compression made it smaller by {packed}; each file was read back and verified."
    return [first, second, third]


def draw_pictures(
    folder: Path, shown: Shown, *, point: Point | None, overwrite: bool
) -> list[Picture]:
    """Write the four comparison sheets into `folder`."""
    *_, coarsest = shown.packed
    sheets = {
        "enhancement.png": (
            "Before and after",
            [
                Pane("Damaged", shown.damaged),
                Pane("Enhanced", shown.enhanced),
                Pane("Enhanced − damaged", shown.enhanced, minus=shown.damaged),
                Pane("Segmentation", shown.enhanced, labels=shown.segmented["enhanced"]),
            ],
            "All gray images have the same window. The difference shows what enhancement changed.",
        ),
        "errors.png": (
            "Remaining errors",
            [
                Pane("Undamaged", shown.undamaged),
                Pane("Enhanced", shown.enhanced),
                Pane("Damaged − undamaged", shown.damaged, minus=shown.undamaged),
                Pane("Enhanced − undamaged", shown.enhanced, minus=shown.undamaged),
            ],
            "The undamaged volume is known here, and so is the error: before and after, on one "
            "scale. Anatomy in the last column is detail that was lost or invented.",
        ),
        "segmentation.png": (
            "Segmentation",
            [
                Pane("Labels of the sample", shown.undamaged, labels=shown.reference),
                Pane("From the undamaged", shown.undamaged, labels=shown.segmented["undamaged"]),
                Pane("From the damaged", shown.damaged, labels=shown.segmented["damaged"]),
                Pane("From the enhanced", shown.enhanced, labels=shown.segmented["enhanced"]),
            ],
            "The same head on three versions of the volume, beside the labels of the sample.",
        ),
        "compression.png": (
            "Compression",
            [
                Pane("Enhanced", shown.enhanced),
                *(
                    Pane(f"{mode.capitalize()}: change", volume, minus=shown.enhanced)
                    for mode, volume in shown.packed.items()
                ),
                Pane(f"{coarsest.capitalize()}, read back", shown.packed[coarsest]),
            ],
            "The changes are on one scale. The lossless file changed nothing.",
        ),
    }
    pictures = []
    for file, (title, panes, caption) in sheets.items():
        comparison_sheet(
            folder / file, panes, legend=shown.labels, point=point, overwrite=overwrite
        )
        pictures.append(Picture(file, title, sheet_alt(panes), caption))
    return pictures


def write_demo_page(
    folder: Path,
    findings: Findings,
    pictures: Sequence[Picture],
    files: Sequence[FileEntry],
    *,
    volume: Volume,
    manifest: Mapping[str, Any],
    notes: Sequence[str],
    overwrite: bool,
) -> Path:
    """Write index.html of the demo; notes: what a reader must know to judge the numbers."""
    _, damaged, enhanced = findings.quality
    bounded = findings.compression[1]
    page = Page(
        title="One volume, step by step",
        about=about(manifest, volume),
        summary=summary(findings),
        notes=notes,
        facts=(
            Fact(_arrow(damaged.psnr_db, enhanced.psnr_db, 1), "PSNR in the brain, dB"),
            Fact(_arrow(damaged.ssim, enhanced.ssim, 2), "SSIM in the brain"),
            Fact(_arrow(_mean(damaged.dice), _mean(enhanced.dice), 2), "mean Dice"),
            Fact(f"{bounded.ratio:.1f} ×", f"smaller, {bounded.mode}"),
            Fact(f"{findings.seconds:.0f} s", f"in all, on {manifest.get('device', 'cpu')}"),
        ),
        tables=(quality_table(findings), compression_table(findings), steps_table(findings)),
        pictures=pictures,
        files=files,
        provenance={"Manifest": manifest, "History of the enhanced volume": list(volume.history)},
    )
    return write_page(folder, page, overwrite=overwrite)


def number(value: float | None, decimals: int) -> str:
    """A number with fixed decimals; a dash for None, ∞ for infinity."""
    if value is None:
        return "–"
    return "∞" if math.isinf(value) else f"{value:.{decimals}f}"


def _arrow(before: float | None, after: float | None, decimals: int) -> str:
    return f"{number(before, decimals)} → {number(after, decimals)}"


def _verb(before: float | None, after: float | None) -> str:
    return "raised" if (after or 0) > (before or 0) else "lowered"


def _mean(dice: Mapping[str, float]) -> float:
    return sum(dice.values()) / len(dice)
