"""The privacy audit of a distilled set: attacks, their findings, and what they would have missed.

    report = audit(Audited(distilled, training, held_out))
    print(report.verdict)
    write_report(report, "distilled/audit")

Importing this needs numpy alone.
"""

from MedEnhanceLib.training.spg.audit.attacks import audit
from MedEnhanceLib.training.spg.audit.audit_report import (
    AuditReport,
    write_confidential,
    write_report,
)
from MedEnhanceLib.training.spg.audit.records import Audited, Finding

__all__ = [
    "AuditReport",
    "Audited",
    "Finding",
    "audit",
    "write_confidential",
    "write_report",
]
