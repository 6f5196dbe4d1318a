"""The audit of a result, as part of every distillation.

What names or shows patients goes into a folder beside the result, never into it: the result may be
shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from MedEnhanceLib.io.atomic import atomic_write, write_json
from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.spg.folder import confidential_folder
from MedEnhanceLib.spg.prepared import Prepared
from MedEnhanceLib.spg.slices import Floats

#: Distils images by patient with a seed, as `run.redistiller` gives it.
Redistil = Callable[[Mapping[str, Floats], int], Floats]
#: Patients that were used, and that were not, besides the prior's: fewer cannot be compared.
_FEWEST = 2
_AUDIT = "MedEnhanceLib.spg.audit"
_KEPT = (
    "Audited; what was found is not told here, because no noise covers it. Ask who made the set."
)
#: Of an audit's figures, what differs between two runs of the same.
_NOT_REPEATED = ("seconds",)


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
    why = ""
    if min(counts) < _FEWEST:
        why = f"{counts[0]} patients were used and {counts[1]} held out; it takes {_FEWEST} of each"
    elif find_spec(_AUDIT) is None:
        why = "this version has no audit"
    if why:
        monitor.warn(f"the result is not audited: {why}")
        summary = f"Not audited: {why}. Treat the images as the patients' own."
        return {"alarm": None, "summary": summary}
    attacks: Any = import_module(_AUDIT)
    report = attacks.audit(
        attacks.Audited(
            distilled=distilled,
            training=prepared.training,
            held_out=prepared.held_out,
            prior=prepared.prior.images,
            prior_owner=chosen,
            owners=owners,
        ),
        attacks.AuditConfig(shadows=shadows, canaries=shadows > 0),
        redistill=redistil if shadows else None,
        monitor=monitor,
    )
    figures = {n: value for n, value in report.to_json().items() if n not in _NOT_REPEATED}
    secret = attacks.write_audit(report, confidential_folder(out), overwrite=True)
    folder = Path(secret) if is_covered else out / "audit"
    folder.mkdir(exist_ok=True)
    write_json(folder / "audit.json", figures, overwrite=True)
    with atomic_write(folder / "audit.md", overwrite=True) as temporary:
        temporary.write_text(f"# Privacy audit\n\n{report.summary}\n", encoding="utf-8")
    monitor.log(f"pictures of the nearest patients, not to be shared: {secret}")
    if report.alarm:
        monitor.warn(report.headline)
    if is_covered:
        return {"alarm": None, "summary": _KEPT}
    return {"alarm": bool(report.alarm), "summary": str(report.summary)}
