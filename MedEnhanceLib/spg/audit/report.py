"""The outcome of an audit, in figures and in words, and the files that keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedEnhanceLib._version import __version__
from MedEnhanceLib.io.atomic import atomic_write, write_json
from MedEnhanceLib.report.enhance import make_folder
from MedEnhanceLib.spg.audit.findings import Finding, NotRun
from MedEnhanceLib.spg.audit.neighbours import Pair
from MedEnhanceLib.spg.audit.pictures import draw_pair

FORMAT = 1
CLEAN = "No leak detected by these attacks at this power."
NOT_A_PROOF = (
    "This is no proof that there is none: another attack may find what these missed, and what "
    "each of them would have missed is said below."
)
#: What shows patients: never to be passed on with the images.
CONFIDENTIAL = "confidential"
_WARNING = """These pictures show slices of patients, and patients.json names them.
They are for whoever may see the original images. Do not share this folder.
"""


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What an audit found.

    findings, not_run: of each attack. alpha: how often all attacks together alarm at a set without
    a leak. exposed: alias of the patient whose anatomy the prior is, who is in every image by
    construction and in no test; None for a template. prior: how alike images and prior are.
    cautions: what limits the tests. counts: of images and patients. config: of the run; seconds: it
    took. pairs: the five nearest, with slices of patients. aliases: patient → alias. Neither of the
    two is in `to_json` or `summary`, which name nobody.
    """

    findings: tuple[Finding, ...]
    not_run: tuple[NotRun, ...]
    alpha: float
    exposed: str | None
    prior: Mapping[str, float]
    cautions: tuple[str, ...]
    counts: Mapping[str, int]
    config: Mapping[str, Any]
    seconds: float
    pairs: tuple[Pair, ...] = field(repr=False)
    aliases: Mapping[str, str] = field(repr=False)

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """The attacks that found a leak."""
        return tuple(finding for finding in self.findings if finding.alarm)

    @property
    def alarm(self) -> bool:
        """Whether any attack found a leak of a patient besides the prior's."""
        return bool(self.alarms)

    @property
    def headline(self) -> str:
        """The outcome in one or two sentences."""
        if self.alarm:
            names = ", ".join(finding.attack for finding in self.alarms)
            said = f"ALARM: the images give away their patients ({names}). Do not share them."
        elif all(finding.is_blind for finding in self.findings):
            said = "Nothing is known: on so few patients none of the attacks could find a leak."
        else:
            could = sum(not finding.is_blind for finding in self.findings)
            total = len(self.findings) + len(self.not_run)
            said = f"{CLEAN} {could} of {total} attacks could have found one. {NOT_A_PROOF}"
        if self.exposed is not None:
            said += (
                f" The prior is the anatomy of patient {self.exposed}, who is to be seen in every "
                "image: share them only with this patient's consent."
            )
        return said

    @property
    def summary(self) -> str:
        """All in plain words, Markdown."""
        lines = [self.headline, ""]
        for finding in self.findings:
            mark = "ALARM" if finding.alarm else "could find nothing" if finding.is_blind else "ok"
            lines.append(f"- **{finding.title}** {mark}. {finding.sentence} {finding.power}")
        lines += [f"- **{each.title}** not run. {each.reason}" for each in self.not_run]
        lines += [f"- Caution: {caution}" for caution in self.cautions]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """All figures; patients by alias (T: training, H: held out, A: of the prior).

        The same for the same images, seed and options: what differs from run to run is left out.
        """
        return {
            "format": FORMAT,
            "software": __version__,
            "alarm": self.alarm,
            "exposed": self.exposed,
            "headline": self.headline,
            "alpha": self.alpha,
            "findings": [finding.to_json() for finding in self.findings],
            "not_run": [each.to_json() for each in self.not_run],
            "cautions": list(self.cautions),
            "prior": dict(self.prior),
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
            "config": dict(self.config),
        }


def write_audit(
    report: AuditReport,
    folder: str | Path,
    *,
    confidential: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write audit.json and audit.md into `folder`, made where it is missing; returns it.

    They name nobody and may go with the images. Pictures of the nearest pairs and the patients'
    names may not: they go into `confidential`, by default a folder of that name in `folder`.
    Raises OutputError where files exist and may not be replaced, or cannot be written.
    """
    target = make_folder(Path(folder))
    secret = make_folder(Path(confidential) if confidential else target / CONFIDENTIAL)
    _write(secret / "README.txt", _WARNING, overwrite)
    write_json(secret / "patients.json", _by_alias(report), overwrite=overwrite)
    for number, pair in enumerate(report.pairs, start=1):
        title = f"image {pair.image} and patient {report.aliases[pair.patient]}"
        draw_pair(secret / f"pair-{number}.png", pair, title, overwrite=overwrite)
    return write_report(report, target, overwrite=overwrite)


def write_report(report: AuditReport, folder: Path, *, overwrite: bool = False) -> Path:
    """audit.json and audit.md alone, which name nobody; the folder, made where it is missing."""
    target = make_folder(folder)
    write_json(target / "audit.json", report.to_json(), overwrite=overwrite)
    _write(target / "audit.md", f"# Privacy audit\n\n{report.summary}\n", overwrite)
    return target


def _by_alias(report: AuditReport) -> dict[str, str]:
    return {alias: patient for patient, alias in report.aliases.items()}


def _write(path: Path, text: str, overwrite: bool) -> None:
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
