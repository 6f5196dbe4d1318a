"""The audit of a result, as part of every distillation.

What names or shows patients goes into a folder beside the result, never into it: the result may be
shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.spg.audit import AuditConfig, Audited, audit, write_audit
from MedEnhanceLib.spg.audit.report import write_report
from MedEnhanceLib.spg.folder import confidential_folder
from MedEnhanceLib.spg.prepared import Prepared
from MedEnhanceLib.spg.slices import Floats

#: Distils images by patient with a seed, as `run.redistiller` gives it.
Redistil = Callable[[Mapping[str, Floats], int], Floats]
#: Patients that were used, and that were not, besides the prior's: fewer cannot be compared.
_FEWEST = 2
_KEPT = (
    "Audited; what was found is not told here, because no noise covers it. Ask who made the set."
)


def audit_result(
    distilled: Floats,
    owners: tuple[str, ...],
    prepared: Prepared,
    out: Path,
    monitor: Monitor,
    *,
    shadows: int = 0,
    redistil: Redistil | None = None,
    is_covered: bool = False,
) -> dict[str, Any]:
    """Audit the images as they are stored, [N, H, W] in [0, 1]; write `out`/audit.

    owners: the patient of each image. shadows: distillations by `redistil` to compare with; 0 makes
    the attacks on the images alone. Returns what the manifest says: `alarm` and `summary`; where
    nothing could be compared `alarm` is None and the summary says why. is_covered: whether the
    images are differentially private: then nothing of the audit, which is not, goes into `out`.
    """
    chosen = prepared.prior.patient
    counts = [
        sum(name != chosen for name in group) for group in (prepared.training, prepared.held_out)
    ]
    if min(counts) < _FEWEST:
        why = f"{counts[0]} patients were used and {counts[1]} held out; it takes {_FEWEST} of each"
        monitor.warn(f"the result is not audited: {why}")
        summary = f"Not audited: {why}. Treat the images as the patients' own."
        return {"alarm": None, "summary": summary}
    report = audit(
        Audited(
            distilled=distilled,
            training=prepared.training,
            held_out=prepared.held_out,
            prior=prepared.prior.images,
            prior_owner=chosen,
            owners=owners,
        ),
        AuditConfig(shadows=shadows, canaries=shadows > 0),
        redistill=redistil if shadows else None,
        monitor=monitor,
    )
    secret = write_audit(report, confidential_folder(out), overwrite=True)
    if not is_covered:
        write_report(report, out / "audit", overwrite=True)
    monitor.log(f"pictures of the nearest patients, not to be shared: {secret}")
    if report.alarm:
        monitor.warn(report.headline)
    if is_covered:
        return {"alarm": None, "summary": _KEPT}
    return {"alarm": bool(report.alarm), "summary": str(report.summary)}
