"""What is done with each attribute: PS3.15 table E.1-1, and rules for what it does not list.

The table is that of the package dicom-anonymizer, in the newest edition that it carries. Only the
table is taken from there: its functions leave a date where one is to be removed, and keep their
map of UIDs in a global.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from importlib import import_module
from pkgutil import iter_modules

from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.runtime.dependencies import require

_PURPOSE = "De-identification"
_DATABASES = "dicomanonymizer.dicom_anonymization_databases"


class Action(Enum):
    """FIT: a dummy if this kind of object must have a value, else empty. CLEAN: look inside."""

    REMOVE = "removed"
    EMPTY = "emptied"
    DUMMY = "replaced"
    FIT = "fit"
    UID = "UID replaced"
    CLEAN = "clean"
    KEEP = "keep"


#: The package's categories. X/Z/U* stands for sequences of references, which stay with new UIDs.
_ACTIONS = {
    "D_TAGS": Action.DUMMY,
    "Z_TAGS": Action.EMPTY,
    "X_TAGS": Action.REMOVE,
    "U_TAGS": Action.UID,
    "Z_D_TAGS": Action.FIT,
    "X_Z_TAGS": Action.EMPTY,
    "X_D_TAGS": Action.FIT,
    "X_Z_D_TAGS": Action.FIT,
    "X_Z_U_STAR_TAGS": Action.CLEAN,
}
#: Attributes that identify or locate somebody and are not in the table, by keyword.
_OURS = {
    "PatientBirthDateInAlternativeCalendar": Action.REMOVE,
    "PatientDeathDateInAlternativeCalendar": Action.REMOVE,
    "DeviceID": Action.REMOVE,
    "GridID": Action.REMOVE,
    "SubstanceAdministrationDeviceID": Action.REMOVE,
    "RadiationMachineName": Action.EMPTY,
    "ContentDescription": Action.EMPTY,
    "CommentsOnTheScheduledProcedureStep": Action.REMOVE,
    "NTPSourceAddress": Action.REMOVE,
    "PatientBodyMassIndex": Action.REMOVE,
    "PatientSizeCodeSequence": Action.REMOVE,
    # An item of a code sequence, or of a mapping of values, is none without them.
    "LongCodeValue": Action.DUMMY,
    "URNCodeValue": Action.DUMMY,
    "LUTExplanation": Action.DUMMY,
}
#: Short texts (LO, SH) that name makers, materials, methods and codes; any other may be free text.
_TECHNICAL = re.compile(
    r"(?!.*(?:Operator|Contact|Issuer|Creator|Setup|Address))(?:.*(?:Manufacturer"
    r"|ManufacturerName|ModelName|ModelNumber|SoftwareVersions?|AlgorithmName|Kernel|Technique"
    r"|Method|Material|Nomenclature|RouteOfAdmissions|BolusRoute|Radiopharmaceutical(?:Route)?"
    r"|LUTType|FilterType|ImagedNucleus|CoilName|ElementName|SequenceName|SourceIsotopeName"
    r"|FramingType|Rejection|CodeValue|CodeMeaning|CodingScheme\w+|RescaleType|StackID"
    r"|DimensionDescriptionLabel|SegmentLabel|OpticalPathIdentifier|ImageFilter|ResponseUsed"
    r"|PlateType|PhosphorType|MIMETypes?\w*|FontName|PositionReferenceIndicator|WindowName"
    r"|MaterialID|SelectorAttribute(?:Name|Keyword)|DoseModeName|LUTLabel|ProcessingFunction"
    r"|TypeOfFilters|TriggerSourceOrType|CollimatorGridName))"
)
#: Objects are often invalid without them.
_NEEDED = re.compile(r".*(?:Label|Identifier|ID)")
#: By VR, for attributes in neither the table nor the list above: names, dates, free text.
_BY_VR = {
    "PN": Action.EMPTY,
    "AE": Action.EMPTY,
    "UR": Action.EMPTY,
    "DA": Action.FIT,
    "DT": Action.FIT,
    "TM": Action.FIT,
    "ST": Action.FIT,
    "LT": Action.FIT,
    "UT": Action.FIT,
    "UC": Action.FIT,
    "UI": Action.UID,
    "SQ": Action.CLEAN,
    "UN": Action.REMOVE,
}
#: Whole groups: curves, waveforms, overlays, and security screening of travelers.
_GROUPS = (
    range(0x5000, 0x5100), range(0x5400, 0x5401), range(0x6000, 0x6100), range(0x4010, 0x4011),
)  # fmt: skip
#: UIDs that name a kind of thing, not a thing.
_CLASS_UID = re.compile(r"SOPClass|TransferSyntax|^(CodingScheme|Context|MappingResource)UID$")
_BINARY = ("OB", "OD", "OF", "OL", "OV", "OW")
_SHORT_TEXT = ("LO", "SH")


@dataclass(frozen=True)
class Rule:
    """What is done with an element, and the rule's origin: table, ours, private or unknown."""

    action: Action
    origin: str


@dataclass(frozen=True)
class Table:
    """The actions of the listed tags; edition: of the standard, for example "2026c"."""

    edition: str
    tags: dict[int, Action]

    def rule(self, tag: int, vr: str) -> Rule:
        """The rule for an element with this tag and the VR that its file states."""
        group, element = tag >> 16, tag & 0xFFFF
        if group % 2:
            return Rule(Action.REMOVE, "private")
        if group in (0x0000, 0x0002) or element == 0 or any(group in span for span in _GROUPS):
            return Rule(Action.REMOVE, "ours")
        if tag in self.tags:
            return Rule(self.tags[tag], "table")
        return _unlisted(tag, vr)


@lru_cache(maxsize=1)
def table() -> Table:
    """The newest installed edition; raises DependencyError if there is none."""
    require("dicomanonymizer", purpose=_PURPOSE)
    databases = import_module(_DATABASES)
    names = sorted(found.name for found in iter_modules(databases.__path__))
    editions = [name for name in names if re.fullmatch(r"dicomfields_\d{4}[a-e]?", name)]
    if not editions:
        raise DependencyError(
            "the package dicom-anonymizer holds no table of actions",
            "Install it again with: python -m pip install 'dicom-anonymizer>=2.0'",
        )
    database = import_module(f"{_DATABASES}.{editions[-1]}")
    tags: dict[int, Action] = {}
    for category, action in _ACTIONS.items():
        listed: Sequence[tuple[int, ...]] = getattr(database, category)
        # Entries with masks are curves and overlays, which go as whole groups.
        tags |= {entry[0] << 16 | entry[1]: action for entry in listed if len(entry) == 2}
    return Table(editions[-1].removeprefix("dicomfields_"), tags)


@lru_cache(maxsize=8192)
def _unlisted(tag: int, vr: str) -> Rule:
    from pydicom.datadict import dictionary_has_tag, dictionary_is_retired, dictionary_VR
    from pydicom.datadict import keyword_for_tag as keyword_of

    if not dictionary_has_tag(tag):
        return Rule(Action.REMOVE, "unknown")
    keyword, known = keyword_of(tag), dictionary_VR(tag)
    if keyword in _OURS:
        return Rule(_OURS[keyword], "ours")
    if (vr == "SQ") != (known == "SQ"):
        return Rule(Action.REMOVE, "unknown")
    if vr in _BINARY and vr not in known:
        return Rule(Action.REMOVE, "unknown")
    if "UI" in (vr, known) and _CLASS_UID.search(keyword):
        return Rule(Action.KEEP, "ours")
    if dictionary_is_retired(tag) and known in _SHORT_TEXT:
        return Rule(Action.REMOVE, "ours")
    for kind in (known, vr):
        if kind in _BY_VR:
            return Rule(_BY_VR[kind], "ours")
    if known in _SHORT_TEXT and not _TECHNICAL.fullmatch(keyword):
        return Rule(Action.DUMMY if _NEEDED.fullmatch(keyword) else Action.FIT, "ours")
    return Rule(Action.KEEP, "ours")


@dataclass(frozen=True, order=True)
class Change:
    """What was done with an attribute in one object; never its value.

    Attributes:
        tag: "(0010,0010)", or "(gggg,eeee)" for all private elements together.
        name: the attribute's keyword.
        action: "removed", "emptied", "replaced", "UID replaced", "date moved", "removed: not
            readable", "emptied: repeats a removed value", …
        count: how often, at all depths together.
    """

    tag: str
    name: str
    action: str
    count: int = 1
