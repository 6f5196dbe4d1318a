"""Runs an audit: the level of each test, and the findings."""

from __future__ import annotations

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.texts import Text, text
from MedEnhanceLib.training.spg.audit.audit_report import AuditReport
from MedEnhanceLib.training.spg.audit.copies import search_copies
from MedEnhanceLib.training.spg.audit.nearest import Gallery, likeness
from MedEnhanceLib.training.spg.audit.records import Audited
from MedEnhanceLib.training.spg.audit.significance import ALPHA, smallest_rank_sum_p, tarone_level

# Chosen by hand; no table isolates it.
#: Correlation that slices of two people never reach.
_ONE_PERSON = 0.85


def audit(audited: Audited, *, monitor: Monitor | None = None) -> AuditReport:
    """Attack a distilled set.

    Without a leak the probability of an alarm, over all attacks, is at most `ALPHA`.

    Args:
        audited: the set and the patients.
        monitor: gets progress; may cancel between images.
    """
    monitor = monitor or Monitor()
    groups = smallest_rank_sum_p(len(audited.training), len(audited.held_out))
    level = tarone_level([0.0, groups, groups], ALPHA)  # of copies, and of both kinds of likeness
    gallery = Gallery(audited.patients)
    nearest = gallery.nearest(audited.distilled, monitor.part(0.0, 0.05))
    findings = [
        search_copies(audited, gallery, nearest, level, monitor.part(0.05, 0.5)),
        *likeness(audited, gallery, nearest, level, monitor.part(0.5, 1.0)),
    ]
    copies, warnings = findings[0].measured, list[Text]()
    if float(copies["highest_strangers"]) > _ONE_PERSON:
        warnings.append(text("two_names"))
    if copies["held_out_beyond_limit"]:
        warnings.append(text("used_or_prior"))
    return AuditReport(
        findings=tuple(findings),
        warnings=tuple(warnings),
        counts={
            "images": len(audited.distilled),
            "training_patients": len(audited.training),
            "held_out_patients": len(audited.held_out),
            "training_slices": sum(map(len, audited.training.values())),
            "held_out_slices": sum(map(len, audited.held_out.values())),
        },
        pairs=tuple(gallery.worst_pairs(audited.distilled, nearest, audited.training)),
        aliases=audited.aliases,
    )
