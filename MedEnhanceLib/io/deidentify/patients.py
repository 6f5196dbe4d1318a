"""Who is called what, over a whole cohort: two patients are never one, and one is never two."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from MedEnhanceLib.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pydicom import Dataset

PREFIX = "ANON"
#: What PatientID and PatientName may hold, without name components.
_FIT = re.compile(r"[0-9A-Za-z][0-9A-Za-z ._-]{0,62}[0-9A-Za-z]|[0-9A-Za-z]")
#: What stands for nobody, or for anybody, in an ID or a name.
_NOBODY = re.compile(
    r"(anonym\w*|anon|unknown|unbekannt|inconnu|desconocido|none|null|no ?name|no ?id|n/?a|empty"
    r"|patient|patientid|patient ?id|test|removed|deleted|deidentified|de-identified|hidden|x+|0+"
    r"|9{4,}|[\W_]+)?",
    re.IGNORECASE,
)
_NO_BIRTH_DATE = {"00000000", "00010101", "11111111", "18000101", "19000101", "99991231"}
_BETWEEN_WORDS = re.compile(r"[\^=\s,;.\-_]+")
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "oe", "å": "aa"})


@dataclass(frozen=True)
class Person:
    """Whose an image is, as it says; "" for what it does not say or fills with a placeholder.

    identity, issuer: PatientID and IssuerOfPatientID. birth: as yyyymmdd. study: its UID, only
    where nothing else tells patients apart. All of it is secret.
    """

    identity: str = ""
    issuer: str = ""
    name: str = ""
    birth: str = ""
    study: str = ""

    @property
    def told(self) -> int:
        """How much tells this person from others: those who tell most are named first."""
        return 4 * bool(self.identity) + bool(self.issuer) + bool(self.name) + bool(self.birth)


NOBODY = Person()


def person_of(dataset: Dataset) -> Person:
    """Read it from a dataset."""
    identity, name = (_told(_text(dataset, keyword)) for keyword in ("PatientID", "PatientName"))
    birth = re.sub(r"\D", "", _text(dataset, "PatientBirthDate"))
    birth = "" if len(birth) != 8 or birth in _NO_BIRTH_DATE else birth
    issuer = _text(dataset, "IssuerOfPatientID") if identity else ""
    # A name alone is that of many people.
    study = "" if identity or (name and birth) else _text(dataset, "StudyInstanceUID")
    return Person(identity, issuer, name, birth, study)


class Patients:
    """known: person → pseudonym; several of one pseudonym are one patient told in several ways.

    Not safe to share between threads.
    """

    def __init__(self, known: Mapping[Person, str] | None = None, prefix: str = PREFIX) -> None:
        self.known: dict[Person, str] = {}
        self._prefix = check_pseudonym(prefix)
        self._groups: dict[str, list[Person]] = defaultdict(list)
        self._near: dict[object, set[str]] = defaultdict(set)
        for person, pseudonym in (known or {}).items():
            self._add(person, pseudonym)

    def pseudonym(self, person: Person) -> str:
        """Of this patient; a new one gets the next free number.

        Raises InputError where somebody could be several that are told apart.
        """
        if person not in self.known:
            found = self._matching(person)
            if len(found) > 1:
                raise InputError(
                    "what it says of its patient fits several who are told apart",
                    "Correct PatientID, PatientName or PatientBirthDate in a copy.",
                )
            self._add(person, found[0] if found else self._free())
        return self.known[person]

    def name(self, person: Person, pseudonym: str) -> None:
        """Give a patient a chosen pseudonym; raises ConfigError where it contradicts another."""
        check_pseudonym(pseudonym)
        called = [self.known[person]] if person in self.known else self._matching(person)
        if called and pseudonym not in called:
            raise ConfigError(
                f"in this mapping the patient is called {called[0]} already",
                "Leave the patient ID out, or give that one.",
            )
        if not called and pseudonym in self._groups:
            raise ConfigError(
                f"the patient ID {pseudonym} stands for somebody else in this mapping",
                "Choose another.",
            )
        self.join(person, pseudonym)

    def join(self, person: Person, pseudonym: str) -> None:
        """Take a person for the patient of this pseudonym, who may be new."""
        if person not in self.known:
            self._add(person, pseudonym)

    def doubts(self, pseudonyms: Iterable[str]) -> list[str]:
        """What to look at, of these: who may be several, and who may be one. No name is told."""
        asked = set(pseudonyms)
        lines = [line for one in sorted(asked) for line in _doubts_of(one, self._groups[one])]
        close = sorted({tuple(sorted(near)) for near in self._near.values()})
        lines += [
            f"{', '.join(near)}: {self._why_apart(near)}"
            for near in close
            if len(near) > 1 and asked & set(near)
        ]
        return list(dict.fromkeys(lines))

    def _why_apart(self, pseudonyms: tuple[str, ...]) -> str:
        ids = [{one.identity for one in self._groups[name]} - {""} for name in pseudonyms]
        if set.intersection(*ids):
            return (
                "one patient ID, but other names, birth dates or issuers; taken for different "
                "patients"
            )
        return "the same name and birth date, but other IDs; taken for different patients"

    def _matching(self, person: Person) -> list[str]:
        near = {name for key in _keys(person) for name in self._near.get(key, ())}
        fitting = []
        for name in sorted(near):
            relations = {_relation(one, person) for one in self._groups[name]}
            if "same" in relations and "other" not in relations:
                fitting.append(name)
        return fitting

    def _add(self, person: Person, pseudonym: str) -> None:
        self.known[person] = pseudonym
        self._groups[pseudonym].append(person)
        for key in _keys(person):
            self._near[key].add(pseudonym)

    def _free(self) -> str:
        number = len(self._groups) + 1
        while f"{self._prefix}-{number:04}" in self._groups:
            number += 1
        return f"{self._prefix}-{number:04}"


def check_pseudonym(text: str) -> str:
    """The text, where it can be a PatientID and a folder's name; raises ConfigError."""
    if not _FIT.fullmatch(text):
        raise ConfigError(
            "the new patient ID cannot be used",
            "Use up to 64 letters, digits, spaces and . _ -, a letter or digit at both ends.",
        )
    return text


def _relation(one: Person, other: Person) -> str:
    """Whether two are the "same", each an "other", or "" where nothing tells."""
    if one.identity and other.identity:
        if one.identity != other.identity or _contradict(one.issuer, other.issuer):
            return "other"
        name, birth = _names_agree(one.name, other.name), _agree(one.birth, other.birth)
        if name is False and not _share_a_word(one.name, other.name):
            return "other"
        # A new name after a marriage, a typing error in a date: the other one still agrees.
        return "other" if False in (name, birth) and True not in (name, birth) else "same"
    if one.study or other.study:
        is_same = one.study == other.study and _names_agree(one.name, other.name) is not False
        return "same" if is_same else ""
    if one.birth == other.birth != "" and _words(one.name) == _words(other.name) != frozenset():
        return "same"
    return "" if one.identity or other.identity else "other"


def _doubts_of(pseudonym: str, group: list[Person]) -> Iterator[str]:
    first = group[0]
    if any(_names_agree(first.name, one.name) is False for one in group):
        yield f"{pseudonym}: its images tell different names; taken for one patient"
    if any(_contradict(first.birth, one.birth) for one in group):
        yield f"{pseudonym}: its images tell different birth dates; taken for one patient"
    if all(one.study for one in group):
        yield (
            f"{pseudonym}: neither an ID nor a name with a birth date; taken for a patient of its "
            "own, as every such study is"
        )


def _keys(person: Person) -> list[object]:
    """What two persons that may be the same have in common."""
    keys: list[object] = [("id", person.identity)] if person.identity else []
    if person.name and person.birth:
        keys.append((_words(person.name), person.birth))
    return [*keys, ("study", person.study)] if person.study else keys


def _contradict(one: str, other: str) -> bool:
    return _agree(one, other) is False


def _agree(one: str, other: str) -> bool | None:
    return one == other if one and other else None


def _names_agree(one: str, other: str) -> bool | None:
    """Whether one name has all words of the other: titles, second names, scripts come and go."""
    if not one or not other:
        return None
    return any(
        _words(one, umlauts) <= _words(other, umlauts)
        or _words(other, umlauts) <= _words(one, umlauts)
        for umlauts in (True, False)
    )


def _share_a_word(one: str, other: str) -> bool:
    """Whether names have a word in common, or are of scripts that have none in common."""
    if _plain(one).isascii() != _plain(other).isascii():
        return True
    return any(_words(one, umlauts) & _words(other, umlauts) for umlauts in (True, False))


def _plain(name: str) -> str:
    return " ".join(_words(name, False))


@lru_cache(maxsize=4096)
def _words(name: str, umlauts: bool = True) -> frozenset[str]:
    """Its words without capitals and accents; ü as ue, or as u."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    folded = folded.translate(_UMLAUTS) if umlauts else folded
    apart = unicodedata.normalize("NFKD", folded)
    plain = "".join(sign for sign in apart if not unicodedata.combining(sign))
    return frozenset(_BETWEEN_WORDS.split(plain)) - {""}


def _told(text: str) -> str:
    """The text; nothing where it is a placeholder."""
    parts = [part for part in re.split(r"[\^=]+", text) if part.strip()]
    return "" if all(_NOBODY.fullmatch(part.strip()) for part in parts) else text


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip(" \0")
