"""Who is called what, over a whole cohort."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from MedEnhanceLib.errors import ConfigError

if TYPE_CHECKING:
    from pydicom import Dataset

PREFIX = "ANON"
#: What PatientID and PatientName may hold, without name components.
_FIT = re.compile(r"[0-9A-Za-z][0-9A-Za-z ._-]{0,62}[0-9A-Za-z]|[0-9A-Za-z]")


class Patients:
    """known: `patient_of` → pseudonym. Not safe to share between threads."""

    def __init__(self, known: Mapping[str, str] | None = None, prefix: str = PREFIX) -> None:
        self.known = dict(known or {})
        self._prefix = check_pseudonym(prefix)

    def pseudonym(self, patient: str) -> str:
        """Of this patient; a new one gets the next free number."""
        if patient not in self.known:
            taken = set(self.known.values())
            number = len(taken) + 1
            while f"{self._prefix}-{number:04}" in taken:
                number += 1
            self.known[patient] = f"{self._prefix}-{number:04}"
        return self.known[patient]

    def name(self, patient: str, pseudonym: str) -> None:
        """Give a patient a chosen pseudonym; raises ConfigError where it contradicts another."""
        check_pseudonym(pseudonym)
        others = {name for one, name in self.known.items() if one != patient}
        if pseudonym in others:
            raise ConfigError(
                f"the patient ID {pseudonym} stands for somebody else in this mapping",
                "Choose another.",
            )
        if self.known.setdefault(patient, pseudonym) != pseudonym:
            raise ConfigError(
                f"in this mapping the patient is called {self.known[patient]} already",
                "Leave the patient ID out, or give that one.",
            )


def check_pseudonym(text: str) -> str:
    """The text, where it can be a PatientID and a folder's name; raises ConfigError."""
    if not _FIT.fullmatch(text):
        raise ConfigError(
            "the new patient ID cannot be used",
            "Use up to 64 letters, digits, spaces and . _ -, a letter or digit at both ends.",
        )
    return text


def patient_of(dataset: Dataset) -> str:
    """What tells patients apart: the ID; without one name and birth date; without both the study.

    The text is as secret as the values in it.
    """
    identity = _text(dataset, "PatientID")
    if identity:
        return f"id:{identity}"
    name, birth = _text(dataset, "PatientName"), _text(dataset, "PatientBirthDate")
    if name.strip("^= "):
        return f"name:{name}|{birth}"
    return f"study:{_text(dataset, 'StudyInstanceUID')}"


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()
