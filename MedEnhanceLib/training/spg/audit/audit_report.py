"""The report of an audit: its verdict, its files, and pictures of the nearest pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib._version import __version__
from MedEnhanceLib.io.atomic import atomic_write, make_folder, write_json
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.texts import Text, all_of, text
from MedEnhanceLib.training.spg.audit.nearest import Pair
from MedEnhanceLib.training.spg.audit.records import Finding
from MedEnhanceLib.training.spg.audit.significance import ALPHA

FORMAT = 1
_WARNING = """These pictures show slices of patients, and patients.json names them.
Only persons who may see the original images may see them. Do not share this folder.

Each picture: the distilled image registered to the slice, the slice, and the difference (gray: 0).
"""
#: Height of a picture in pixels, about.
_HEIGHT = 320
#: Smallest difference that is drawn black or white.
_LEAST_REACH = 0.05


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """Result of an audit. `to_json`, `verdict` and `tried` name nobody and show none of `pairs`.

    Attributes:
        warnings: limits of the tests.
        counts: of images and patients.
        pairs: the five nearest, with slices of patients.
        aliases: patient → alias.
    """

    findings: tuple[Finding, ...]
    warnings: tuple[Text, ...]
    counts: Mapping[str, int]
    pairs: tuple[Pair, ...] = field(repr=False)
    aliases: Mapping[str, str] = field(repr=False)

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """The attacks that found a leak."""
        return tuple(finding for finding in self.findings if finding.alarm)

    @property
    def alarm(self) -> bool:
        """Whether any attack found a leak."""
        return bool(self.alarms)

    @property
    def weight(self) -> str:
        """How to show the verdict: "warning" unless most attacks could have found a leak."""
        able = sum(not finding.is_blind for finding in self.findings)
        sound = "info" if able > len(self.findings) / 2 else "warning"
        return "severe" if self.alarm else sound

    @property
    def verdict(self) -> Text:
        """The result: an alarm, else what the audit could have found."""
        able = [finding.finds for finding in self.findings if not finding.is_blind]
        return text(
            "alarm" if self.alarm else "no_leak" if able else "blind",
            alarms=len(self.alarms),
            attacks=len(self.findings),
            names=", ".join(finding.attack for finding in self.alarms),
            used=self.counts["training_patients"],
            others=self.counts["held_out_patients"],
            finds=all_of(able),
            able=len(able),
        )

    @property
    def tried(self) -> tuple[Text, ...]:
        """Method, figures and result of each attack, what was not tried, and warnings."""
        attacks = (finding.text for finding in self.findings)
        return text("groups", alpha=ALPHA), *attacks, text("not_tried"), *self.warnings

    def to_json(self) -> dict[str, Any]:
        """Convert all figures, with aliases for patients; reproducible for equal input."""
        return {
            "format": FORMAT,
            "software": __version__,
            "alarm": self.alarm,
            "verdict": str(self.verdict),
            "alpha": ALPHA,
            "findings": [finding.to_json() for finding in self.findings],
            "warnings": list(map(str, self.warnings)),
            "nearest_pairs": [
                {
                    "image": pair.image,
                    "patient": self.aliases[pair.patient],
                    "ncc": round(pair.score, 4),
                    "ssim": round(pair.ssim, 4),
                }
                for pair in self.pairs
            ],
            "counts": dict(self.counts),
        }


def write_report(report: AuditReport, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write audit.json, which names nobody and may be shared with the images.

    Args:
        report: of the audit.
        folder: made if missing; returned.
        overwrite: whether the file may be replaced.
    Raises:
        OutputError: the file exists and may not be replaced, or cannot be written.
    """
    target = make_folder(folder)
    write_json(target / "audit.json", report.to_json(), overwrite=overwrite)
    return target


def write_confidential(report: AuditReport, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write pictures of the nearest pairs and the patients' names, never to be shared.

    Args:
        report: of the audit.
        folder: made if missing; returned.
        overwrite: whether files may be replaced.
    Raises OutputError as `write_report`.
    """
    target = make_folder(folder)
    lines = [
        f"pair-{number}.png: image {pair.image} and patient {report.aliases[pair.patient]}, "
        f"NCC of details {pair.score:.2f}, SSIM {pair.ssim:.2f}"
        for number, pair in enumerate(report.pairs, start=1)
    ]
    _write(target / "README.txt", "\n".join([_WARNING, *lines, ""]).encode(), overwrite)
    names = {alias: patient for patient, alias in report.aliases.items()}
    write_json(target / "patients.json", names, overwrite=overwrite)
    for number, pair in enumerate(report.pairs, start=1):
        _write(target / f"pair-{number}.png", _picture(pair), overwrite)
    return target


def _write(path: Path, data: bytes, overwrite: bool) -> None:
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(data)


def _picture(pair: Pair) -> bytes:
    """Draw a PNG of three panes: the image registered to the slice, the slice, image − slice."""
    codecs: Any = require("imagecodecs", purpose="Writing pictures")
    difference = pair.laid - pair.onto
    reach = max(_LEAST_REACH, float(np.percentile(np.abs(difference), 99.7)))
    panes = np.hstack([pair.laid, pair.onto, 0.5 + difference / (2 * reach)])
    factor = max(1, _HEIGHT // len(panes))
    pixels = np.rint(255 * panes.clip(0, 1)).astype(np.uint8)
    return bytes(codecs.png_encode(pixels.repeat(factor, axis=0).repeat(factor, axis=1)))
