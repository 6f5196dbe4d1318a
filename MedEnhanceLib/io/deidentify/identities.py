"""The removed values that tell who somebody is, and the search for them in what stays."""

from __future__ import annotations

import re
import unicodedata
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
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "oe", "å": "aa"})
#: Placeholders of names that were taken away before.
_PLACEHOLDERS = {"anonymous", "anonymized", "anonymised", "unknown", "none", "null", "patient"}
#: Terms of the standard without which an image is none, whoever bears them as a name.
_TERMS = {
    "original", "derived", "primary", "secondary", "axial", "localizer", "mixed", "volume",
    "monochrome1", "monochrome2", "angio", "cardiac", "gated", "dynamic", "fluoroscopy", "motion",
    "perfusion", "diffusion", "contrast", "rest", "stress", "static", "none", "other", "tomo",
    # Parts of the body and views, some of which are names of people and phantoms as well.
    "abdomen", "abdomenpelvis", "ankle", "aorta", "arm", "axilla", "back", "bladder", "brain",
    "breast", "calcaneus", "calf", "carotid", "chest", "chestabdomen", "chestabdpelvis",
    "clavicle", "coccyx", "colon", "cspine", "elbow", "extremity", "face", "femur", "finger",
    "foot", "forearm", "hand", "head", "headneck", "heart", "hip", "humerus", "iliac", "jaw",
    "kidney", "knee", "leg", "liver", "lower", "lspine", "lung", "maxilla", "mediastinum",
    "neck", "orbit", "ovary", "pancreas", "patella", "pelvis", "phantom", "prostate", "rectum",
    "ribs", "sacrum", "scapula", "shoulder", "skull", "spine", "spleen", "sternum", "stomach",
    "test", "thigh", "thorax", "thumb", "thyroid", "tibia", "toes", "tspine", "upper", "uterus",
    "wholebody", "wrist", "left", "right", "both", "supine", "prone",
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
        self._short: set[str] = set()
        self._stored: set[bytes] = set()
        self.uids: set[str] = set()

    def add(self, text: str, vr: str) -> None:
        """A removed value: a name with its parts, all other text as a whole, dates as 8 digits."""
        parts = [text, *_NAME_PARTS.split(text)] if vr == "PN" else text.split("\\")
        if vr == "PN":
            parts += [part for group in text.split("=") for part in group.split("^")]
            parts += [joined for group in text.split("=") for joined in _joined(group)]
            words = [part.strip(" \0").lower() for part in parts]
            self._short |= {word for word in words if len(word) in (2, 3) and word.isalpha()}
        else:
            parts += [re.sub(r"[\W_]+", "", part) for part in parts if any(map(str.isdigit, part))]
        ways = {way for part in parts for way in (part, *_spelt(part))}
        self._texts |= {way.strip(" \0").lower() for way in ways if _is_enough(way)}

    def add_stored(self, value: bytes) -> None:
        """The bytes of a removed name as its file stored them, in whatever character set."""
        parts = re.split(rb"[\^=\\]", value)
        wide = {part.strip(b" \0") for part in parts if not part.isascii() or b"\x1b" in part}
        self._stored |= {part for part in wide if len(part) >= _SHORTEST}

    def forget(self, written: Iterable[str]) -> None:
        """What stands in the result on purpose too: in the pseudonym, the name of the method."""
        ours = " ".join(written).lower()
        for texts in (self._texts, self._short):
            texts -= {text for text in texts if re.search(_bounded(text), ours)}

    def in_text(self, text: str, *, also_short: bool = False) -> bool:
        """Whether the text holds a removed value, spelt like this or with other accents.

        also_short: names of two and three letters too, where they are words of their own.
        """
        written = [text.lower(), *_spelt(text)]
        if self._texts and any(self._in_text.search(way) for way in written):
            return True
        words = set(re.findall(r"[^\W\d_]+", text.lower())) if also_short else set()
        return bool(words & self._short)

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


def _spelt(text: str) -> list[str]:
    """The text in small letters without accents, ü as ue and as u; none where it has none."""
    if text.isascii():
        return []
    small = unicodedata.normalize("NFKC", text).lower()
    ways = [unicodedata.normalize("NFKD", way) for way in (small.translate(_UMLAUTS), small)]
    return ["".join(sign for sign in way if not unicodedata.combining(sign)) for way in ways]


def _joined(name: str) -> list[str]:
    """Family and given name as users of machines write them: jdoe, doej, johndoe, doejohn."""
    family, given, *_ = (part.replace(" ", "") for part in [*name.split("^"), "", ""])
    if not (family and given):
        return []
    return [given[0] + family, family + given[0], given + family, family + given]


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
