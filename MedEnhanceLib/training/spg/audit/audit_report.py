"""The report of an audit: its summary, its files, and pictures of the nearest pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib._version import __version__
from MedEnhanceLib.io.atomic import atomic_write, make_folder, write_json
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.training.spg.audit.nearest import Pair
from MedEnhanceLib.training.spg.audit.records import Finding
from MedEnhanceLib.training.spg.audit.significance import ALPHA

FORMAT = 1
NOT_A_PROOF = "This does not prove that there is none: weaker leaks or other leaks may exist."
#: What each attack does, for those who decide on sharing.
TRIED = {
    "copies": "Every image was compared with every slice of every patient, shifted and turned.",
    "likeness-ncc": "Fine details of the images were compared with those of every patient.",
    "likeness-ssim": "Brightness and structure of the images were compared with every patient's.",
}
_NOT_TRIED = (
    "**Not tried:** membership inference, which compares the images with further distillations "
    "(shadow models, LiRA); copies that were mirrored, zoomed or warped, or of the rim of a slice."
)
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
    """Result of an audit. `to_json` and `summary` name nobody and show nothing of `pairs`.

    Attributes:
        warnings: limits of the tests.
        counts: of images and patients.
        pairs: the five nearest, with slices of patients.
        aliases: patient → alias.
    """

    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]
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
    def headline(self) -> str:
        """The result: an alarm, else what the audit could have found."""
        groups = (
            f"{self.counts['training_patients']} used and {self.counts['held_out_patients']} "
            "held-out patients"
        )
        if self.alarm:
            names = ", ".join(finding.attack for finding in self.alarms)
            text = (
                f"ALARM: {len(self.alarms)} of {len(self.findings)} attacks found that the images "
                f"reveal their patients ({names}). Do not share them."
            )
        elif all(finding.is_blind for finding in self.findings):
            text = (
                f"This audit could not have found a leak, however large: with {groups} no attack "
                "can. Treat the set as the patients' own data."
            )
        else:
            able = [finding.finds for finding in self.findings if not finding.is_blind]
            text = (
                f"This audit could have found {' and '.join(able)}; it found none. "
                f"{len(able)} of {len(self.findings)} attacks were able to, with {groups}. "
                f"{NOT_A_PROOF}"
            )
        return text

    @property
    def tried(self) -> tuple[str, ...]:
        """Method, figures and result of each attack, then what was not tried; in Markdown."""
        lines = []
        for finding in self.findings:
            verdict = "It found no leak."
            if finding.is_blind:
                verdict = "Inconclusive: it could not have found a leak."
            if finding.alarm:
                verdict = "ALARM: it found a leak."
            lines.append(
                f"**{finding.title}** {TRIED[finding.attack]} {finding.sentence} **{verdict}**"
            )
        return (*lines, _NOT_TRIED)

    @property
    def summary(self) -> str:
        """All findings in Markdown."""
        lines = [
            self.headline,
            "",
            "The images were made from the used patients; the held-out patients are from the same "
            "cohort, but were not used. If the images reveal nothing, no attack can tell the two "
            "groups apart. Without a leak, all attacks together raise the alarm in at most "
            f"{ALPHA:.0%} of audits.",
            "",
        ]
        for finding, tried in zip(self.findings, self.tried, strict=False):
            lines.append(f"- {tried} {finding.power}")
        lines.append(f"- {_NOT_TRIED}")
        lines += [f"- Warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Convert all figures, with aliases for patients; reproducible for equal input."""
        return {
            "format": FORMAT,
            "software": __version__,
            "alarm": self.alarm,
            "headline": self.headline,
            "alpha": ALPHA,
            "findings": [finding.to_json() for finding in self.findings],
            "warnings": list(self.warnings),
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
    """Write audit.json and audit.md, which name nobody and may be shared with the images.

    Args:
        report: of the audit.
        folder: made if missing; returned.
        overwrite: whether files may be replaced.
    Raises:
        OutputError: files exist and may not be replaced, or cannot be written.
    """
    target = make_folder(folder)
    write_json(target / "audit.json", report.to_json(), overwrite=overwrite)
    _write(target / "audit.md", f"# Privacy audit\n\n{report.summary}\n".encode(), overwrite)
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
