"""Runs an audit: which attacks are possible, the level of each test, and their findings."""

from __future__ import annotations

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit.audit_report import AuditReport
from MedEnhanceLib.spg.audit.copies import search_copies
from MedEnhanceLib.spg.audit.membership import (
    Redistill,
    distill_shadows,
    lira_finding,
    shadow_finding,
    smallest_shadow_p,
)
from MedEnhanceLib.spg.audit.nearest import Gallery, likeness
from MedEnhanceLib.spg.audit.records import Audited
from MedEnhanceLib.spg.audit.significance import ALPHA, smallest_rank_sum_p, tarone_level

#: Correlation that slices of two people never reach.
_ONE_PERSON = 0.85
#: The attacks that did not run where nothing distills again.
_NO_SHADOWS = "**Membership.** Not tried: it needs further distillations (--shadows 8)."


def audit(
    audited: Audited,
    *,
    redistill: Redistill | None = None,
    shadows: int = 8,
    monitor: Monitor | None = None,
) -> AuditReport:
    """Attack a distilled set.

    Without a leak the probability of an alarm, over all attacks, is at most `ALPHA`.

    Args:
        audited: the set and the patients.
        redistill: distills slices by patient with a seed, in the same way and from the same prior,
            for the shadow distillations. None: only attacks on the images.
        shadows: distillations of random halves of the patients, an even number from 4 on.
        monitor: gets progress; may cancel between images and between distillations.
    Raises:
        Cancelled: the monitor asked for it.
    """
    monitor = monitor or Monitor()
    pairs = 0 if redistill is None else shadows // 2
    ours, theirs = len(audited.training), len(audited.held_out)
    groups = smallest_rank_sum_p(ours, theirs)
    # Of copies, both kinds of likeness, shadows and LiRA.
    smallest = [0.0, groups, groups]
    if pairs:
        smallest += [smallest_shadow_p(ours + theirs, pairs), groups]
    level = tarone_level(smallest, ALPHA)
    gallery = Gallery(audited.patients)
    nearest = gallery.nearest(audited.distilled, monitor.part(0.0, 0.05))
    share = 0.4 if redistill is None else 0.1
    findings = [
        search_copies(audited, gallery, nearest, level, monitor.part(0.05, share)),
        *likeness(audited, gallery, nearest, level, monitor.part(share, 2 * share)),
    ]
    left = monitor.part(2 * share, 1.0)
    if redistill is not None:
        drawn = distill_shadows(audited, gallery, redistill, pairs, left)
        findings.append(shadow_finding(drawn, level))
        findings.append(lira_finding(audited, nearest, drawn, level))
    copies, cautions = findings[0].measured, []
    if float(copies["highest_strangers"]) > _ONE_PERSON:
        cautions.append(
            "slices of two patients are as similar as slices of one person: is one person "
            "listed under two names? The tests assume not."
        )
    if copies["held_out_beyond_limit"]:
        cautions.append(
            "a held-out patient is as close to an image as a copy would be: was a held-out "
            "patient used, or is the prior of one?"
        )
    return AuditReport(
        findings=tuple(findings),
        not_run=() if pairs else (_NO_SHADOWS,),
        exposed=audited.aliases.get(audited.prior_owner or ""),
        cautions=tuple(cautions),
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
