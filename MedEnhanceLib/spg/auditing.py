"""The audit of a result, as part of every distillation."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.spg.prepared import Prepared
from MedEnhanceLib.spg.slices import Floats

#: Patients that were used, and that were not, besides the prior's: fewer cannot be compared.
_FEWEST = 2


def audit_result(
    distilled: Floats, owners: tuple[str, ...], prepared: Prepared, folder: Path, monitor: Monitor
) -> dict[str, Any]:
    """Audit the images as they are stored, [N, H, W] in [0, 1], and write the report into `folder`.

    owners: the patient of each image. Returns what the manifest says of it: `alarm` and `summary`;
    where nothing could be compared `alarm` is None and the summary says why.
    """
    chosen = prepared.prior.patient
    counts = [
        sum(name != chosen for name in group) for group in (prepared.training, prepared.held_out)
    ]
    if min(counts) < _FEWEST:
        why = (
            f"Not audited: {counts[0]} patients were used and {counts[1]} held out, and a "
            f"comparison takes {_FEWEST} of each. Treat the images as the patients' own."
        )
        monitor.warn(why)
        return {"alarm": None, "summary": why}
    if find_spec("MedEnhanceLib.spg.audit") is None:
        why = "Not audited: this version has no audit. Treat the images as the patients' own."
        monitor.warn(why)
        return {"alarm": None, "summary": why}
    raise NotImplementedError
