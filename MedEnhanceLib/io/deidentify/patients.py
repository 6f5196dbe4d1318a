"""Pseudonyms over a whole cohort: two patients never share one, and one patient never has two.

Also the secret file that keeps them the same over several runs, and that re-identifies everybody.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.errors import ConfigError, InputError, OutputError
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.io.deidentify.replacements import text_of
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset


PREFIX = "ANON"
#: What PatientID and PatientName may hold, without name components.
_FIT = re.compile(r"[0-9A-Za-z][0-9A-Za-z ._-]{0,62}[0-9A-Za-z]|[0-9A-Za-z]")
#: Placeholders in an ID or a name.
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
    """The patient of an image, as its attributes say; "" if missing or a placeholder. Secret.

    Attributes:
        identity: PatientID.
        issuer: IssuerOfPatientID.
        name: PatientName.
        birth: PatientBirthDate as yyyymmdd.
        study: StudyInstanceUID, only if nothing else distinguishes patients.
    """

    identity: str = ""
    issuer: str = ""
    name: str = ""
    birth: str = ""
    study: str = ""

    @property
    def specificity(self) -> int:
        """0 to 7: how well the attributes distinguish this person from others."""
        return 4 * bool(self.identity) + bool(self.issuer) + bool(self.name) + bool(self.birth)


NOBODY = Person()


def person_of(dataset: Dataset) -> Person:
    """The patient of a dataset."""
    identity, name = (
        _stated(text_of(dataset, keyword)) for keyword in ("PatientID", "PatientName")
    )
    birth = re.sub(r"\D", "", text_of(dataset, "PatientBirthDate"))
    birth = "" if len(birth) != 8 or birth in _NO_BIRTH_DATE else birth
    issuer = text_of(dataset, "IssuerOfPatientID") if identity else ""
    # A name alone is that of many people.
    study = "" if identity or (name and birth) else text_of(dataset, "StudyInstanceUID")
    return Person(identity, issuer, name, birth, study)


class Patients:
    """The pseudonyms of a cohort. Not safe to share between threads.

    Args:
        known: person → pseudonym; persons with one pseudonym are spellings of one patient.
        prefix: of the pseudonyms of new patients, as in ANON-0001.
    """

    def __init__(self, known: Mapping[Person, str] | None = None, prefix: str = PREFIX) -> None:
        self.known: dict[Person, str] = {}
        self._prefix = check_pseudonym(prefix)
        self._groups: dict[str, list[Person]] = defaultdict(list)
        self._near: dict[object, set[str]] = defaultdict(set)
        for person, pseudonym in (known or {}).items():
            self._add(person, pseudonym)

    def pseudonym(self, person: Person) -> str:
        """The pseudonym of this person; a new patient gets the next free number.

        Raises:
            InputError: the person matches several patients that are known to be different.
        """
        if person not in self.known:
            found = self._matching(person)
            if len(found) > 1:
                raise InputError(
                    "its patient matches several patients who are known to be different",
                    "Correct PatientID, PatientName or PatientBirthDate in a copy.",
                )
            self._add(person, found[0] if found else self._free())
        return self.known[person]

    def name(self, person: Person, pseudonym: str) -> None:
        """Give a patient a chosen pseudonym; raises ConfigError if it contradicts another one."""
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
        """Make a person the patient of this pseudonym, which may be new."""
        if person not in self.known:
            self._add(person, pseudonym)

    def warnings(self, pseudonyms: Iterable[str]) -> list[str]:
        """Which of these may be several patients, and which may be one; without any name."""
        asked = set(pseudonyms)
        lines = [line for one in sorted(asked) for line in _warnings_of(one, self._groups[one])]
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
    """Return the text if it can be a PatientID and a folder's name, else raise ConfigError."""
    if not _FIT.fullmatch(text):
        raise ConfigError(
            "the new patient ID cannot be used",
            "Use up to 64 letters, digits, spaces and . _ -, a letter or digit at both ends.",
        )
    return text


def _relation(one: Person, other: Person) -> str:
    """Whether two are the "same" patient, each an "other", or "" if that is unknown."""
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


def _warnings_of(pseudonym: str, group: list[Person]) -> Iterator[str]:
    first = group[0]
    if any(_names_agree(first.name, one.name) is False for one in group):
        yield f"{pseudonym}: its images state different names; taken for one patient"
    if any(_contradict(first.birth, one.birth) for one in group):
        yield f"{pseudonym}: its images state different birth dates; taken for one patient"
    if all(one.study for one in group):
        yield (
            f"{pseudonym}: neither an ID nor a name with a birth date; taken for a patient of its "
            "own, as every such study is"
        )


def _keys(person: Person) -> list[object]:
    """Two persons that may be the same patient have at least one of these in common."""
    keys: list[object] = [("id", person.identity)] if person.identity else []
    if person.name and person.birth:
        keys.append((_words(person.name), person.birth))
    return [*keys, ("study", person.study)] if person.study else keys


def _contradict(one: str, other: str) -> bool:
    return _agree(one, other) is False


def _agree(one: str, other: str) -> bool | None:
    return one == other if one and other else None


def _names_agree(one: str, other: str) -> bool | None:
    """Whether one name has all words of the other: titles and second names may be missing."""
    if not one or not other:
        return None
    return any(
        _words(one, umlauts) <= _words(other, umlauts)
        or _words(other, umlauts) <= _words(one, umlauts)
        for umlauts in (True, False)
    )


def _share_a_word(one: str, other: str) -> bool:
    """Whether names have a word in common, or are in scripts that cannot have one."""
    if _plain(one).isascii() != _plain(other).isascii():
        return True
    return any(_words(one, umlauts) & _words(other, umlauts) for umlauts in (True, False))


def _plain(name: str) -> str:
    return " ".join(_words(name, False))


@lru_cache(maxsize=4096)
def _words(name: str, umlauts: bool = True) -> frozenset[str]:
    """The words of a name without capitals and accents; ü as ue, or as u."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    folded = folded.translate(_UMLAUTS) if umlauts else folded
    apart = unicodedata.normalize("NFKD", folded)
    plain = "".join(sign for sign in apart if not unicodedata.combining(sign))
    return frozenset(_BETWEEN_WORDS.split(plain)) - {""}


def _stated(text: str) -> str:
    """The text; "" for a placeholder."""
    parts = [part for part in re.split(r"[\^=]+", text) if part.strip()]
    return "" if all(_NOBODY.fullmatch(part.strip()) for part in parts) else text


_FORMAT = "medenhance-deidentification"
_NOTICE = (
    "SECRET. Anybody with this file can identify the patient of each de-identified image. Keep it "
    "apart from the images, and delete it when the patients need not be found again."
)
_LARGEST = 256 << 20
_OTHERS = 0o077


@dataclass
class MappingFile:
    """The content of the mapping file.

    Attributes:
        secret: 32 bytes that new UIDs and moved dates are derived from.
        patients: person → pseudonym.
        read: the file's text as it was read; None if there was no file.
    """

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    patients: dict[Person, str] = field(default_factory=dict)
    read: str | None = None


def read_mapping(path: Path | None, monitor: Monitor) -> MappingFile:
    """Read the mapping file; a new mapping if there is no file yet, or no path.

    Args:
        path: the file, or None.
        monitor: warned if other users may read the file.
    Raises:
        InputError: not a mapping file, or not readable.
    """
    if path is None or not path.exists():
        return MappingFile()
    try:
        if path.stat().st_size > _LARGEST:
            raise _no_mapping(path)
        text = path.read_text(encoding="utf-8")
        is_open = os.name != "nt" and path.stat().st_mode & _OTHERS
        fields = json.loads(text)
    except OSError as cause:
        raise InputError(f"{path} cannot be read: {cause.strerror}", "Check the path.") from cause
    except (ValueError, RecursionError):
        raise _no_mapping(path) from None
    if is_open:
        monitor.warn(f"{path.name} can be read by other users of this machine: chmod 600 {path}")
    return _checked(fields, text, path)


def check_place(path: Path | None, folder_out: Path) -> None:
    """Raise ConfigError for a mapping inside the output folder, OutputError if it is no file."""
    if path is None:
        return
    if path.resolve().is_relative_to(folder_out.resolve()):
        raise ConfigError(
            f"{path.name}: the mapping would lie inside the de-identified folder",
            "It re-identifies everybody: keep it elsewhere.",
        )
    if not path.parent.is_dir():
        raise OutputError(
            f"{path}: the folder {path.parent} is not there", "Make it, or give another path."
        )
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is no file", "Name a file for the mapping.")


@contextlib.contextmanager
def mapping_in_place(path: Path | None, mapping: MappingFile) -> Iterator[None]:
    """Write the mapping before the images are written; undo it if writing them fails.

    An entry without images does no harm; images without their entry could never be matched.
    """
    if path is None:
        yield
        return
    before = mapping.read
    write_mapping(path, mapping)
    try:
        yield
    except BaseException:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            _write(path, before)
        raise


def write_mapping(path: Path, mapping: MappingFile) -> None:
    """Save it, readable by its owner alone; OutputError if another run changed it meanwhile."""
    now = path.read_text(encoding="utf-8") if path.exists() else None
    if now != mapping.read:
        raise OutputError(
            f"{path.name} was changed by another run meanwhile", "Run this one again after it."
        )
    fields = {
        "format": _FORMAT,
        "version": 1,
        "notice": _NOTICE,
        "secret": mapping.secret.hex(),
        "patients": [
            {"pseudonym": pseudonym, **asdict(person)}
            for person, pseudonym in mapping.patients.items()
        ],
    }
    text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
    _write(path, text)
    mapping.read = text


def _write(path: Path, text: str) -> None:
    with atomic_write(path, overwrite=True) as temporary:
        temporary.chmod(0o600)  # before anything secret is in it
        temporary.write_text(text, encoding="utf-8")


def _checked(fields: Any, text: str, path: Path) -> MappingFile:
    if not isinstance(fields, dict) or fields.get("format") != _FORMAT:
        raise _no_mapping(path)
    if fields.get("version") != 1:
        raise InputError(f"{path.name} is of a newer version", "Update MedEnhance.")
    try:
        secret = bytes.fromhex(fields["secret"])
        patients = dict(_patient(row) for row in fields["patients"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _no_mapping(path) from None
    if len(secret) < 16:
        raise _no_mapping(path)
    return MappingFile(secret, patients, text)


def _patient(row: dict[str, Any]) -> tuple[Person, str]:
    if not all(isinstance(value, str) for value in row.values()):
        raise TypeError
    fields = dict(row)
    pseudonym: str = fields.pop("pseudonym")
    return Person(**fields), pseudonym


def _no_mapping(path: Path) -> InputError:
    return InputError(
        f"{path.name} is no mapping of de-identified patients",
        "Name the file that an earlier run wrote, or one that is not there yet.",
    )
