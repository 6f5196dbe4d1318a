"""The page of the demo: one brain damaged, enhanced, segmented, compressed, and what that did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.report.enhance import about, sheet_alt
from MedEnhanceLib.report.figures import LabelLike, Pane, comparison_sheet
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


@dataclass(frozen=True)
class Quality:
    """How near a volume is to the undamaged one, inside the brain.

    psnr_db: None for the undamaged volume itself. ssim: at most 1.
    dice: label's name → overlap of its segmentation with the sample's labels, 0 to 1.
    """

    name: str
    psnr_db: float | None
    ssim: float | None
    dice: Mapping[str, float]


@dataclass(frozen=True)
class Compression:
    """One compressed file, read back and compared with what went in.

    mode: for people ("largest error 2"). largest_error: in the volume's units.
    psnr_db: None where nothing differs. kept: what was found to be kept, for people.
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
    """How long a step took."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Findings:
    """All numbers of a demo; quality holds the rows "undamaged", "damaged", "enhanced"."""

    quality: Sequence[Quality]
    compression: Sequence[Compression]
    steps: Sequence[Step]

    @property
    def seconds(self) -> float:
        """All steps together."""
        return sum(step.seconds for step in self.steps)


@dataclass(frozen=True)
class Shown:
    """The volumes that the pictures show, on one grid, with the sample's labels.

    packed: what was compressed with some loss and read back, by mode; the coarsest last.
    """

    undamaged: Volume
    damaged: Volume
    enhanced: Volume
    packed: Mapping[str, Volume]
    reference: Volume
    segmented: Mapping[str, Volume]
    labels: Sequence[LabelLike]


def findings_from_json(fields: Mapping[str, Any]) -> Findings:
    """The inverse of `dataclasses.asdict`, as a job's result carries it."""
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
    """What came out, in sentences that follow the numbers, also when they are bad."""
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
    third = (
        f"Compression made it smaller by {packed}; each file was read back and kept its promise."
    )
    return [first, second, third]


def draw_pictures(
    folder: Path, shown: Shown, *, point: Point | None, overwrite: bool
) -> list[Picture]:
    """The four comparison sheets, written into `folder`."""
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
            "One window for all grey images. The difference is what the enhancement changed.",
        ),
        "errors.png": (
            "What is still wrong",
            [
                Pane("Undamaged", shown.undamaged),
                Pane("Enhanced", shown.enhanced),
                Pane("Damaged − undamaged", shown.damaged, minus=shown.undamaged),
                Pane("Enhanced − undamaged", shown.enhanced, minus=shown.undamaged),
            ],
            "The undamaged volume is known here, so the error is too: before and after, on one "
            "scale. Anatomy in the last column is detail that was lost or made up.",
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
                    Pane(f"{mode.capitalize()}: what it changed", volume, minus=shown.enhanced)
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
    """index.html of the demo. notes: what a reader must know to judge the numbers."""
    _, damaged, enhanced = findings.quality
    bounded = findings.compression[1]
    page = Page(
        title="One volume, all the way",
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
    """With fixed decimals; a dash for nothing, ∞ for infinity."""
    if value is None:
        return "–"
    return "∞" if math.isinf(value) else f"{value:.{decimals}f}"


def _arrow(before: float | None, after: float | None, decimals: int) -> str:
    return f"{number(before, decimals)} → {number(after, decimals)}"


def _verb(before: float | None, after: float | None) -> str:
    return "raised" if (after or 0) > (before or 0) else "lowered"


def _mean(dice: Mapping[str, float]) -> float:
    return sum(dice.values()) / len(dice)


_QUALITY_NOTE = (
    "PSNR (peak: the range of the undamaged volume) and SSIM (window 11, σ 1.5, within slices) "
    "against the undamaged volume, inside the brain only. "
    "Dice against the tissue labels of the sample."
)
_CODEC_NOTE = (
    "Ratio: bytes of the raw 16-bit voxels by bytes of the file. "
    "Each file was opened again and compared, voxel by voxel, with what went in."
)
