"""The removed values that identify somebody, and the search for them in what stays."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from MedEnhanceLib.io.deidentify.replacements import TEXT_VRS, decoded, stored_bytes, texts, vr_of

if TYPE_CHECKING:
    from pydicom import Dataset


#: Words in keywords of attributes that identify a person or a place.
_REVEALING = re.compile(
    r"Patient|Physician|Person|Institution|Address|Phone|Telecom|Location|Residence|Accession"
    r"|Insurance|Department|Station|Operator|Performe[rd]|Locator|Issuer|Organization|Enterer"
    r"|EnteredBy|Military|Occupation|Sponsor|Site|AdmissionID|SerialNumber|OrderNumber|StudyID"
    r"|ProcedureID|StepID|NetworkID|DeviceID|DetectorID|GantryID|GeneratorID|Observer|Author"
    r"|Recipient|Reviewer|Owner|Subject|Creator|Identifier|Custodial"
)
#: What describes and does not identify; its words may occur in other elements.
_DESCRIBING = re.compile(
    r"Description|Comment|Code|Sex|Age$|Size|Weight|Position|Orientation|State|Status|Protocol"
    r"|Label|Reason|Type|Species|Breed"
)
_NAME_PARTS = re.compile(r"[\^=\\\s,;]+")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "oe", "å": "aa"})
#: Placeholders of names that were taken away before.
_PLACEHOLDERS = {"anonymous", "anonymized", "anonymised", "unknown", "none", "null", "patient"}
#: Terms of the standard that an image needs, even if a patient has one as a name.
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
#: From this length on a value is also searched for inside longer words.
_LONG = 6
_NEIGHBOR = "[0-9A-Za-z]"
_UID = re.compile(rb"\d+(?:\.\d+){2,}")


def is_revealing(keyword: str, vr: str) -> bool:
    """Whether the values of an attribute identify somebody, so that they are searched for."""
    if vr == "PN":
        return True
    if vr not in ("AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT"):
        return False
    return bool(_REVEALING.search(keyword)) and not _DESCRIBING.search(keyword)


class Identities:
    """Removed values of one file. Nothing here is ever printed."""

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._short: set[str] = set()
        self._stored: set[bytes] = set()
        self.uids: set[str] = set()

    def add(self, text: str, vr: str) -> None:
        """Add a removed value: a name with its parts, other text as a whole, dates as 8 digits."""
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
        """Add the bytes of a removed name as stored in its file, in any character set."""
        parts = re.split(rb"[\^=\\]", value)
        wide = {part.strip(b" \0") for part in parts if not part.isascii() or b"\x1b" in part}
        self._stored |= {part for part in wide if len(part) >= _SHORTEST}

    def forget(self, written: Iterable[str]) -> None:
        """Remove values that the result holds on purpose: the pseudonym, the method's name."""
        ours = " ".join(written).lower()
        for known in (self._texts, self._short):
            known -= {text for text in known if re.search(_bounded(text), ours)}

    def in_text(self, text: str, *, also_short: bool = False) -> bool:
        """Whether a text holds a removed value, also with other accents.

        Args:
            text: the text.
            also_short: also search for names of two and three letters, as whole words.
        """
        written = [text.lower(), *_spelt(text)]
        if self._texts and any(self._in_text.search(way) for way in written):
            return True
        words = set(re.findall(r"[^\W\d_]+", text.lower())) if also_short else set()
        return bool(words & self._short)

    def only_terms(self, text: str) -> bool:
        """Whether everything that `in_text` finds there is a term of the standard."""
        return all(found.lower() in _TERMS for found in self._in_text.findall(text.lower()))

    def in_bytes(self, data: bytes, *, shortest: int = _SHORTEST) -> bool:
        """Whether bytes hold a removed text with letters, as UTF-8, Latin-1 or as stored.

        Digits alone are not searched for: they would be found in every table of numbers.

        Args:
            data: the bytes.
            shortest: the fewest characters of a text that is searched for.
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
    """The text in lower case without accents, ü as ue and as u; empty if it has no accents."""
    if text.isascii():
        return []
    small = unicodedata.normalize("NFKC", text).lower()
    ways = [unicodedata.normalize("NFKD", way) for way in (small.translate(_UMLAUTS), small)]
    return ["".join(sign for sign in way if not unicodedata.combining(sign)) for way in ways]


def _joined(name: str) -> list[str]:
    """A name as in user names: "Doe^John" → jdoe, doej, johndoe, doejohn."""
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
    return f"(?<!{_NEIGHBOR}){re.escape(text)}(?!{_NEIGHBOR})"


_PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_CODED = {"ImageType", "FrameType", "Modality"}
#: An item of a code sequence is invalid without them, and a segment without its label.
NEVER_VOID = {
    "CodeValue", "CodeMeaning", "CodingSchemeDesignator", "SegmentLabel", "SegmentAlgorithmName",
}  # fmt: skip


def kept_texts(dataset: Dataset) -> Iterator[tuple[Dataset, int]]:
    """(dataset or item, tag) of every text in a dataset, at every depth, except UIDs."""
    for tag in list(dataset.keys()):
        vr = vr_of(dataset.get_item(tag))
        if vr == "SQ":
            for item in dataset[tag].value:
                yield from kept_texts(item)
        elif vr in TEXT_VRS and vr != "UI" and tag not in _PIXELS:
            yield dataset, tag


def repeats(identities: Identities, tag: int, vr: str, values: Sequence[str]) -> bool:
    """Whether an element's texts repeat a removed value; a term of the standard does not count."""
    text = "\\".join(values)
    if vr == "CS" or is_coded(tag):
        return identities.in_text(text) and not identities.only_terms(text)
    return identities.in_text(text, also_short=keyword_of(tag) not in NEVER_VOID)


def is_coded(tag: int) -> bool:
    """Whether an image is invalid without the standard's terms in this element."""
    return tag >> 16 == 0x0028 or keyword_of(tag) in _CODED


def keyword_of(tag: int) -> str:
    """The keyword of PS3.6; "" for an unknown tag."""
    from pydicom.datadict import keyword_for_tag

    return str(keyword_for_tag(tag))


_PIXEL_GROUP = 0x7FE0
#: Compressed pixels are as good as random: shorter words are found there by chance.
_SHORTEST_IN_PIXELS = 6


def find_leak(dataset: Dataset, head: bytes, identities: Identities) -> str:
    """Search a written file for removed values.

    Args:
        dataset: as read back from the file.
        head: the file's bytes before its pixels.
        identities: the removed values.
    Returns:
        Where one was found, "(gggg,eeee)" or "its header"; "" if none was.
    """
    for inner, tag in kept_texts(dataset):
        element = decoded(inner, tag)
        if repeats(identities, tag, element.VR, texts(element)):
            return _named(tag)
    for tag, stored in _stored(dataset):
        if tag >> 16 == _PIXEL_GROUP:
            if identities.in_bytes(stored, shortest=_SHORTEST_IN_PIXELS):
                return _named(tag)
        elif tag >> 16 & 1 or identities.uid_in_bytes(stored) or identities.in_bytes(stored):
            return _named(tag)
    if identities.uid_in_bytes(head):
        return "its header"
    return "its header" if identities.in_bytes(head) else ""


def _stored(dataset: Dataset) -> Iterator[tuple[int, bytes]]:
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if vr_of(element) == "SQ":
            for item in dataset[tag].value:
                yield from _stored(item)
        else:
            yield tag, stored_bytes(element)


def _named(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
