"""The privacy audit of a distilled set: attacks, what they found, and what they would have missed.

    report = audit(Audited(distilled, training, held_out), redistill=redistill)
    print(report.summary)
    write_audit(report, "distilled/audit")

Importing this needs numpy alone; pictures need matplotlib when they are drawn.
"""

from MedEnhanceLib.spg.audit.audited import Audited
from MedEnhanceLib.spg.audit.config import AuditConfig
from MedEnhanceLib.spg.audit.findings import Finding, NotRun
from MedEnhanceLib.spg.audit.report import AuditReport, write_audit
from MedEnhanceLib.spg.audit.run import audit

__all__ = [
    "AuditConfig",
    "AuditReport",
    "Audited",
    "Finding",
    "NotRun",
    "audit",
    "write_audit",
]
