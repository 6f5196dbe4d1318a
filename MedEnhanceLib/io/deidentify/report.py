"""What was removed, from which attribute and how often; never a value."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedEnhanceLib.io.deidentify.clean import Deidentifier
from MedEnhanceLib.io.deidentify.files import Outcome, Status

#: What the user must know of every result.
LIMITS = (
    "Text in pixels is not removed.",
    "Faces and other features of a body that can be recognised are not removed.",
    "Reports, documents and other free text are left out, not cleaned.",
    "Attributes that the profile keeps can, taken together, still point to a person.",
)


@dataclass(frozen=True)
class Report:
    """outcomes: one a file, in the order of their names. by: the profile and its options.

    doubts: which patients may be several, or one.
    """

    outcomes: tuple[Outcome, ...]
    by: Deidentifier
    source: Path
    folder: Path
    doubts: tuple[str, ...] = ()

    def count(self, status: Status) -> int:
        """How many files ended so."""
        return sum(one.status == status for one in self.outcomes)

    @property
    def failed(self) -> list[Outcome]:
        """Files that should have been written and were not."""
        return [one for one in self.outcomes if one.status == "failed"]

    def attributes(self) -> list[dict[str, Any]]:
        """A row an attribute and action: tag, name, action, files, and how often in all."""
        counts: Counter[tuple[str, str, str]] = Counter()
        files: Counter[tuple[str, str, str]] = Counter()
        for outcome in self.outcomes:
            for change in outcome.changes:
                key = (change.tag, change.name, change.action)
                counts[key] += change.count
                files[key] += 1
        return [
            {"tag": tag, "name": name, "action": action, "files": files[key], "count": counts[key]}
            for key in sorted(counts)
            for tag, name, action in [key]
        ]

    def warnings(self) -> list[str]:
        """Doubts about what was written, a line each with how many files it holds for."""
        notes = Counter(note for one in self.outcomes for note in one.notes)
        lines = [
            f"{count} of {self.count('written')} files: {note}" for note, count in notes.items()
        ]
        for status in ("left out", "failed"):
            reasons = Counter(one.reason for one in self.outcomes if one.status == status)
            lines += [f"{count} {status}: {reason}" for reason, count in reasons.items()]
        return [*self.doubts, *lines]

    def to_json(self) -> dict[str, Any]:
        """All of it; names of source files are in it, so it is not for passing on."""
        return {
            "profile": "PS3.15 Basic Application Level Confidentiality Profile",
            "edition": self.by.table.edition,
            "dates": "moved" if self.by.keep_intervals else "removed",
            "characteristics": "kept" if self.by.keep_characteristics else "removed",
            "written": self.count("written"),
            "left_out": self.count("left out"),
            "failed": self.count("failed"),
            "patients": len({one.output.split("/")[0] for one in self.outcomes if one.output}),
            "attributes": self.attributes(),
            "warnings": self.warnings(),
            "limits": list(LIMITS),
            "files": [self._row(one) for one in self.outcomes],
        }

    def to_text(self) -> str:
        """The attributes as a table for people, then what was not written and why."""
        rows = [("tag", "attribute", "what was done", "files", "times")] + [
            (row["tag"], row["name"], row["action"], str(row["files"]), str(row["count"]))
            for row in self.attributes()
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        missing = sorted(
            (one for one in self.outcomes if one.status != "written"), key=lambda one: one.status
        )
        lines += ["", f"{self.count('written')} files written, {len(missing)} not"]
        lines += [f"  {one.status}: {self._relative(one)}: {one.reason}" for one in missing]
        return "\n".join([*lines, "", *self.warnings(), "", *LIMITS]) + "\n"

    def _row(self, one: Outcome) -> dict[str, Any]:
        row = {"source": self._relative(one), "status": one.status}
        row |= {"output": one.output} if one.output else {"reason": one.reason}
        return row | ({"notes": list(one.notes)} if one.notes else {})

    def _relative(self, one: Outcome) -> str:
        root = str(self.source if self.source.is_dir() else self.source.parent)
        return one.source.removeprefix(root).lstrip("/\\")
