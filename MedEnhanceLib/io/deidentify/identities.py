"""The removed values that tell who somebody is, and the search for them in what stays."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property

#: Words for a person, a place or a number of somebody, in the keywords of attributes.
_TELLING = re.compile(
    r"Patient|Physician|Person|Institution|Address|Phone|Telecom|Location|Residence|Accession"
    r"|Insurance|Department|Station|Operator|Performe[rd]|Locator|Issuer|Organization|Enterer"
    r"|EnteredBy|Military|Occupation|Sponsor|Site|AdmissionID|SerialNumber|OrderNumber|StudyID"
    r"|ProcedureID|StepID|NetworkID|DeviceID|DetectorID|GantryID|GeneratorID|Observer|Author"
    r"|Recipient|Reviewer|Owner|Subject|Creator|Identifier|Custodial"
)
#: What describes and does not tell; its words stand in other elements by right.
_DESCRIBING = re.compile(
    r"Description|Comment|Code|Sex|Age$|Size|Weight|Position|Orientation|State|Status|Protocol"
    r"|Label|Reason|Type|Species|Breed"
)
_NAME_PARTS = re.compile(r"[\^=\\\s,;]+")
#: Placeholders of names that were taken away before.
_PLACEHOLDERS = {"anonymous", "anonymized", "anonymised", "unknown", "none", "null", "patient"}
#: Terms of the standard without which an image is none, whoever bears them as a name.
_TERMS = {
    "original", "derived", "primary", "secondary", "axial", "localizer", "mixed", "volume",
    "monochrome1", "monochrome2", "angio", "cardiac", "gated", "dynamic", "fluoroscopy", "motion",
    "perfusion", "diffusion", "contrast", "rest", "stress", "static", "none", "other", "tomo",
}  # fmt: skip
_SHORTEST = 4
#: From here on a value is looked for inside longer words too.
_LONG = 6
_NEIGHBOUR = "[0-9A-Za-z]"
_UID = re.compile(rb"\d+(?:\.\d+){2,}")


def is_telling(keyword: str, vr: str) -> bool:
    """Whether the values of an attribute are looked for elsewhere."""
    if vr == "PN":
        return True
    if vr not in ("AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT"):
        return False
    return bool(_TELLING.search(keyword)) and not _DESCRIBING.search(keyword)


class Identities:
    """Removed values of one file. Nothing here is ever printed."""

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._stored: set[bytes] = set()
        self.uids: set[str] = set()

    def add(self, text: str, vr: str) -> None:
        """A removed value: a name with its parts, all other text as a whole, dates as 8 digits."""
        parts = [text, *_NAME_PARTS.split(text)] if vr == "PN" else text.split("\\")
        if vr == "PN":
            parts += [part for group in text.split("=") for part in group.split("^")]
        self._texts |= {part.strip(" \0").lower() for part in parts if _is_enough(part)}

    def add_stored(self, value: bytes) -> None:
        """The bytes of a removed name as its file stored them, in whatever character set."""
        parts = re.split(rb"[\^=\\]", value)
        wide = {part.strip(b" \0") for part in parts if not part.isascii() or b"\x1b" in part}
        self._stored |= {part for part in wide if len(part) >= _SHORTEST}

    def forget(self, written: Iterable[str]) -> None:
        """What stands in the result on purpose too: in the pseudonym, the name of the method."""
        ours = " ".join(written).lower()
        self._texts = {text for text in self._texts if text not in ours}

    def in_text(self, text: str) -> bool:
        """Whether the text holds a removed value that is none of the standard's own terms."""
        found = self._in_text.search(text.lower()) if self._texts else None
        return found is not None

    def only_terms(self, text: str) -> bool:
        """Whether all that `in_text` finds there are terms which the standard defines."""
        return all(found.lower() in _TERMS for found in self._in_text.findall(text.lower()))

    def in_bytes(self, data: bytes, *, shortest: int = _SHORTEST) -> bool:
        """Whether bytes hold a removed text with letters, as UTF-8, Latin-1 or as stored.

        Digits alone are not looked for here: they would be found in every table of numbers.
        """
        for length, pattern in self._in_bytes.items():
            if length >= shortest and pattern.search(data):
                return True
        return False

    def uid_in_bytes(self, data: bytes) -> bool:
        """Whether bytes hold one of the UIDs that were replaced."""
        return any(found.decode("ascii") in self.uids for found in _UID.findall(data))

    @cached_property
    def _in_text(self) -> re.Pattern[str]:
        return re.compile("|".join(_bounded(text) for text in sorted(self._texts, key=len)[::-1]))

    @cached_property
    def _in_bytes(self) -> dict[int, re.Pattern[bytes]]:
        by_length: dict[int, set[bytes]] = {}
        for text in self._texts:
            if text not in _TERMS and any(letter.isalpha() for letter in text):
                for encoding in ("utf-8", "latin-1"):
                    pattern = _bounded(text).encode(encoding, "ignore")
                    if len(text.encode(encoding, "ignore")) >= min(len(text), _SHORTEST):
                        by_length.setdefault(len(text), set()).add(pattern)
        for stored in self._stored:
            by_length.setdefault(len(stored), set()).add(re.escape(stored))
        return {
            length: re.compile(b"|".join(patterns), re.IGNORECASE)
            for length, patterns in by_length.items()
        }


def _is_enough(part: str) -> bool:
    text = part.strip(" \0")
    if text.lower() in _PLACEHOLDERS or not any(letter.isalnum() for letter in text):
        return False
    # Two ideographs are a whole name.
    return len(text) >= (_SHORTEST if text.isascii() else 2)


def _bounded(text: str) -> str:
    has_letter = any(letter.isalpha() for letter in text)
    if not text.isascii() or (has_letter and len(text) >= _LONG):
        return re.escape(text)
    return f"(?<!{_NEIGHBOUR}){re.escape(text)}(?!{_NEIGHBOUR})"
