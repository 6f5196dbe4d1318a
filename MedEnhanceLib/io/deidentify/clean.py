"""One dataset after the profile: every element, at every depth, gets what its rule says."""

from __future__ import annotations

import copy
import re
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any

from MedEnhanceLib._version import __version__
from MedEnhanceLib.errors import ConfigError, InputError, MedEnhanceError
from MedEnhanceLib.io.deidentify import replacements
from MedEnhanceLib.io.deidentify.leaks import (
    NEVER_VOID,
    Identities,
    is_coded,
    is_revealing,
    kept_texts,
    keyword_of,
    repeats,
)
from MedEnhanceLib.io.deidentify.patients import Patients, person_of
from MedEnhanceLib.io.deidentify.pixel_data import burned_in, lacks_pixels, tidy_pixels, unfit
from MedEnhanceLib.io.deidentify.replacements import (
    TEXT_VRS,
    TIME_VRS,
    decoded,
    dummy,
    fixed_text,
    is_malformed,
    put,
    stored_bytes,
    text_of,
    texts,
    vr_of,
)
from MedEnhanceLib.io.deidentify.rules import Action, Change, Rule, table
from MedEnhanceLib.io.dicom.structure import silence
from MedEnhanceLib.io.dicomout.derivation import coded
from MedEnhanceLib.runtime.dependencies import require

if TYPE_CHECKING:
    from pydicom import Dataset

#: What a hostile or damaged element makes pydicom raise.
FAULTS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, NotImplementedError,
    RecursionError, TypeError, ValueError,
)  # fmt: skip
_BASIC = ("113100", "Basic Application Confidentiality Profile")
_CHARACTERISTICS = ("113108", "Retain Patient Characteristics Option")
_MOVED_DATES = ("113107", "Retain Longitudinal Temporal Information Modified Dates Option")
_TIME = re.compile(r"\d\d(?::?\d\d){0,2}(?:\.\d{1,6})?")
#: Kept with the dates: without it, times with and without a zone cannot be compared.
_ZONE = 0x00080201
#: Dates of birth and death are removed whatever the option says.
_LIFE = {0x00100030, 0x00100032, 0x00100033, 0x00100034, 0x00100035}
#: What the option for characteristics keeps; the ethnic group is removed all the same.
_OF_BODY = {
    "PatientAge", "PatientSex", "PatientSexNeutered", "PatientSize", "PatientWeight",
    "PatientBodyMassIndex", "PatientSizeCodeSequence", "PregnancyStatus", "SmokingStatus",
}  # fmt: skip
#: Few people are older, so a higher age may identify somebody.
_OLDEST = "090Y"
#: Objects of one frame whose dates may be empty; the newer ones must have them.
_PLAIN = {
    f"1.2.840.10008.5.1.4.1.1.{end}"
    for end in ("1", "2", "4", "7", "20", "128", "481.1", "481.2", "481.3", "481.5", "12.1", "6.1")
}
_PET = "1.2.840.10008.5.1.4.1.1.128"
_PET_NEEDS = {"SeriesDate", "SeriesTime"}
#: Elements that are removed instead of emptied.
_NEVER_EMPTY = {"AcquisitionDateTime"}
#: The sequences that may be without items (type 2).
_EMPTY_SEQUENCES = {0x00400555, 0x00400610, 0x00400513, 0x00400562, 0x30100081, 0x0040A088}
#: Pixels inside a sequence are a preview, which may show text as well.
_PIXELS, _NO_PREVIEWS = 0x7FE0, Rule(Action.REMOVE, "ours")
_AGE = 0x00101010
#: Their values are the pseudonym in the end.
_NAMED = {0x00100010, 0x00100020}


class Deidentifier:
    """Removes from datasets what PS3.15's Basic Profile lists; one object for a whole cohort.

    Args:
        secret: at least 16 bytes, from which new UIDs and, with the pseudonym, moved dates are
            derived: the same secret gives the same ones. None: random and forgotten afterwards.
        profile: "basic", the only one.
        keep_intervals: move all dates of a patient by the same days instead of removing them.
        keep_characteristics: keep sex, age, size, weight and other properties of the body.
        patients: the pseudonyms; new patients are numbered there.
        allow_burned_in: also accept images that show text, or probably do.
    Raises:
        ConfigError: an unknown profile or a short secret.
    """

    def __init__(
        self,
        secret: bytes | None = None,
        profile: str = "basic",
        *,
        keep_intervals: bool = False,
        keep_characteristics: bool = False,
        patients: Patients | None = None,
        allow_burned_in: bool = False,
    ) -> None:
        if profile != "basic":
            raise ConfigError(f"there is no profile {profile!r}", "Use basic.")
        if secret is not None and len(secret) < 16:
            raise ConfigError("the secret is shorter than 16 bytes", "Give 32 random bytes.")
        self.secret = secret or secrets.token_bytes(32)
        self.keep_intervals = keep_intervals
        self.keep_characteristics = keep_characteristics
        self.patients = patients or Patients()
        self.allow_burned_in = allow_burned_in
        self.table = table()
        self.method = [
            f"MedEnhance {__version__}",
            f"PS3.15 Basic Profile, table {self.table.edition}",
        ]
        self.codes = [_BASIC]
        self.codes += [_MOVED_DATES] if keep_intervals else []
        self.codes += [_CHARACTERISTICS] if keep_characteristics else []

    def dataset(self, dataset: Dataset) -> tuple[Dataset, list[Change]]:
        """De-identify a copy of a dataset.

        Args:
            dataset: stays as it is.
        Returns:
            The cleaned copy and what was done.
        Raises:
            InputError: it cannot be cleaned (a document, a report, text in pixels), or is damaged.
        """
        try:
            cleaned = copy.deepcopy(dataset)
            with silence():
                tidied = tidy_pixels(cleaned)
            changes, _ = self.clean(cleaned)
        except MedEnhanceError:
            raise
        except FAULTS as cause:
            raise InputError(
                f"the dataset cannot be de-identified ({type(cause).__name__})",
                "It is damaged: export it again.",
            ) from None
        return cleaned, [*changes, *tidied]

    def clean(self, dataset: Dataset) -> tuple[list[Change], Identities]:
        """De-identify in place; returns what was done and the removed values, to search for."""
        require("pydicom", purpose="De-identification")
        with silence():
            return self._clean(dataset)

    def _clean(self, dataset: Dataset) -> tuple[list[Change], Identities]:
        self._refuse(dataset)
        pseudonym = self.patients.pseudonym(person_of(dataset))
        run = _Run(
            self, replacements.shift_days(self.secret, pseudonym), text_of(dataset, "SOPClassUID")
        )
        run.walk(dataset)
        codes = [text for _, text in self.codes]
        run.identities.forget([pseudonym, *self.method, *codes, *run.fixed_texts])
        run.scrub(dataset)
        self._state(dataset, pseudonym)
        self._new_meta(dataset)
        return run.changes(), run.identities

    def _refuse(self, dataset: Dataset) -> None:
        if lacks_pixels(dataset):
            raise InputError("damaged: an image without its pixels", "Copy or export it again.")
        if reason := unfit(dataset):
            raise UnfitError(reason, "Check it by hand.")
        level, reason = burned_in(dataset)
        if level == "refuse" and not self.allow_burned_in:
            raise InputError(
                f"text may be burned into its pixels: {reason}",
                "Check the image; if it shows no name: --allow-burned-in, allow_burned_in=True.",
            )

    def _state(self, dataset: Dataset, pseudonym: str) -> None:
        """Record in the dataset what was done to it."""
        dataset.PatientName = dataset.PatientID = pseudonym
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = self.method
        dataset.DeidentificationMethodCodeSequence = [coded(*code) for code in self.codes]
        dataset.LongitudinalTemporalInformationModified = (
            "MODIFIED" if self.keep_intervals else "REMOVED"
        )

    def _new_meta(self, dataset: Dataset) -> None:
        """Replace the file meta information by what reading needs; the preamble by zeros."""
        from pydicom.dataset import FileMetaDataset
        from pydicom.uid import UID

        before = getattr(dataset, "file_meta", None)
        if before is None:
            return
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = UID(text_of(dataset, "SOPClassUID"))
        meta.MediaStorageSOPInstanceUID = UID(text_of(dataset, "SOPInstanceUID"))
        if "TransferSyntaxUID" in before:
            meta.TransferSyntaxUID = before.TransferSyntaxUID
        dataset.file_meta = meta
        dataset.preamble = b"\0" * 128


class UnfitError(InputError):
    """An object of a kind that is left out: a report, a document, a DICOMDIR."""


class _Run:
    """The walk through one dataset."""

    def __init__(self, by: Deidentifier, days: int, sop_class: str) -> None:
        self.identities = Identities()
        self.fixed_texts: set[str] = set()
        self._secret, self._table = by.secret, by.table
        self._keeps_body = by.keep_characteristics
        self._days = days if by.keep_intervals else None
        self._sop_class = sop_class
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def changes(self) -> list[Change]:
        return sorted(Change(*key, count) for key, count in self._counts.items())

    def walk(self, dataset: Dataset, *, nested: bool = False) -> None:
        for tag in sorted(dataset.keys()):
            vr = vr_of(dataset.get_item(tag))
            rule = _NO_PREVIEWS if nested and tag >> 16 == _PIXELS else self._table.rule(tag, vr)
            try:
                self._apply(dataset, tag, vr, rule)
            except FAULTS:
                del dataset[tag]
                self._count(tag, "removed: not readable", rule)

    def scrub(self, dataset: Dataset) -> None:
        """Empty kept elements that repeat a removed value."""
        for inner, tag in kept_texts(dataset):
            element = decoded(inner, tag)
            if not repeats(self.identities, tag, element.VR, texts(element)):
                continue
            if is_coded(tag) or keyword_of(tag) in NEVER_VOID:
                words = [
                    "REMOVED" if repeats(self.identities, tag, element.VR, [word]) else word
                    for word in texts(element)
                ]
                put(inner, tag, element.VR, words)
                self._count(tag, "replaced: repeats a removed value")
            else:
                put(inner, tag, element.VR, None)
                self._count(tag, "emptied: repeats a removed value")

    def _apply(self, dataset: Dataset, tag: int, vr: str, rule: Rule) -> None:
        action = rule.action
        if self._keeps_time(dataset, tag, vr, action) or self._keeps_fixed_text(dataset, tag, vr):
            return
        if self._keeps_body and keyword_of(tag) in _OF_BODY:
            action = Action.KEEP
        if action is Action.FIT:
            action = self._fit(tag)
        if vr == "SQ" and action is Action.EMPTY and tag not in _EMPTY_SEQUENCES:
            action = Action.REMOVE
        if action is Action.UID and vr == "UI":
            self._replace_uids(dataset, tag)
        elif action in (Action.CLEAN, Action.KEEP):
            self._keep(dataset, tag, vr)
        else:
            self._take_away(dataset, tag, vr, action, rule)

    def _keep(self, dataset: Dataset, tag: int, vr: str) -> None:
        if vr == "SQ":
            for item in dataset[tag].value:
                self.walk(item, nested=True)
        elif is_malformed(dataset.get_item(tag), vr):
            put(dataset, tag, vr, None)
            self._count(tag, "emptied: not what this attribute holds")
        elif vr in TEXT_VRS:
            element = decoded(dataset, tag)  # what cannot be decoded cannot be looked through
            if vr == "AS" and str(element.value).strip(" \0") > _OLDEST and tag == _AGE:
                put(dataset, tag, vr, _OLDEST)
                self._count(tag, f"replaced: above {_OLDEST}")

    def _take_away(self, dataset: Dataset, tag: int, vr: str, action: Action, rule: Rule) -> None:
        had_value = self._remember(dataset, tag)
        value = dummy(vr) if action is Action.DUMMY else None
        if action is Action.REMOVE or (vr == "SQ" and action is Action.DUMMY):
            del dataset[tag]
            self._count(tag, Action.REMOVE.value, rule)
        elif not had_value:
            return
        elif value is None:
            put(dataset, tag, vr, [] if vr == "SQ" else None)
            self._count(tag, (Action.DUMMY if tag in _NAMED else Action.EMPTY).value)
        else:
            put(dataset, tag, vr, value)
            self._count(tag, Action.DUMMY.value)

    def _remember(self, dataset: Dataset, tag: int) -> bool:
        """Note identifying values in an element, at every depth; returns whether it had a value."""
        stored = stored_bytes(dataset.get_item(tag))
        try:
            element = decoded(dataset, tag)
            self._note(element, stored)
        except FAULTS:
            return True
        return bool(element.value) or element.value == 0

    def _note(self, element: Any, stored: bytes = b"") -> None:
        if element.VR == "SQ":
            for item in element.value:
                for tag in list(item.keys()):
                    self._note(decoded(item, tag), stored_bytes(item.get_item(tag)))
            return
        if element.VR == "DA" or is_revealing(element.keyword, element.VR):
            for text in texts(element):
                self.identities.add(text, element.VR)
            if element.VR == "PN":
                self.identities.add_stored(stored)

    def _replace_uids(self, dataset: Dataset, tag: int) -> None:
        from pydicom._uid_dict import UID_dictionary

        found = texts(decoded(dataset, tag))
        replaced = [uid for uid in found if uid not in UID_dictionary]
        if not replaced:
            return
        self.identities.uids |= {uid.strip(" \0") for uid in replaced}
        new = [
            uid if uid in UID_dictionary else replacements.new_uid(self._secret, uid.strip(" \0"))
            for uid in found
        ]
        put(dataset, tag, "UI", new if len(new) > 1 else new[0])
        self._count(tag, Action.UID.value)

    def _keeps_time(self, dataset: Dataset, tag: int, vr: str, action: Action) -> bool:
        """Move a date by the patient's days, if requested and possible; returns whether it was."""
        if self._days is None or action is Action.KEEP or tag in _LIFE:
            return False
        if tag == _ZONE:
            return True
        if vr not in TIME_VRS or tag >> 16 & 1:
            return False
        found = texts(decoded(dataset, tag))
        if vr == "TM":
            return all(_TIME.fullmatch(text.strip()) for text in found)
        moved = [replacements.shifted(text.strip(), vr, self._days) for text in found]
        if not found or None in moved:
            return False
        put(dataset, tag, vr, moved if len(moved) > 1 else moved[0])
        self._count(tag, "date moved")
        return True

    def _keeps_fixed_text(self, dataset: Dataset, tag: int, vr: str) -> bool:
        """Reduce a text of MedEnhance to fixed words: derived, for research."""
        if vr not in ("LO", "ST", "LT") or tag >> 16 & 1:
            return False
        found = texts(decoded(dataset, tag))
        fixed = fixed_text(keyword_of(tag), found[0]) if len(found) == 1 else None
        if fixed is None:
            return False
        self.fixed_texts.add(fixed)
        put(dataset, tag, vr, fixed)
        self._count(tag, "reduced to fixed words")
        return True

    def _fit(self, tag: int) -> Action:
        """The strictest action that leaves a valid object of its kind."""
        keyword = keyword_of(tag)
        if self._sop_class not in _PLAIN or (self._sop_class == _PET and keyword in _PET_NEEDS):
            return Action.DUMMY
        return Action.REMOVE if keyword in _NEVER_EMPTY else Action.EMPTY

    def _count(self, tag: int, action: str, rule: Rule | None = None) -> None:
        if tag >> 16 & 1:
            self._counts["(gggg,eeee)", "private elements", action] += 1
            return
        name = keyword_of(tag) or ("unknown" if rule and rule.origin == "unknown" else "")
        self._counts[f"({tag >> 16:04X},{tag & 0xFFFF:04X})", name, action] += 1
