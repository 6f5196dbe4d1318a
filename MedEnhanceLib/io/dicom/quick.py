"""The elements of an ordinary header, in a tenth of the time that pydicom takes.

Little endian, in the order of the tags, ASCII, nothing odd: that is nearly every image of a
hospital. At the first oddness this gives up, and pydicom reads the file instead; so it can be
simple, and is never the judge of what is damaged.
Source: DICOM PS3.5 7.1 (elements), 7.5 (sequences), PS3.10 7.1 (the meta header).
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

_EXPLICIT = "1.2.840.10008.1.2.1"
_IMPLICIT = "1.2.840.10008.1.2"
#: Explicit syntaxes whose data set is not itself compressed begin so; deflated is `.99`.
_COMPRESSED_PIXELS = "1.2.840.10008.1.2.4."
_RLE = "1.2.840.10008.1.2.5"
_TEXT = ("CS", "LO", "SH", "UI", "DA", "TM", "DT", "IS", "DS", "ST", "LT")
_LONG = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UN", b"UC", b"UR", b"UT", b"SV", b"UV")
_SHORT = (
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN",
    b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US",
)  # fmt: skip
_NUMBERS = {"US": "<H", "SS": "<h", "FD": "<d", "FL": "<f"}
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_FIRST_READ, _MOST_READ = 1 << 15, 1 << 22
_MOST_NESTED = 16

#: What is wanted: tag → (keyword, or the tag itself where it is private; its VR).
_WANTED: dict[int, tuple[str | int, str]] = {
    0x00080008: ("ImageType", "CS"),
    0x00080016: ("SOPClassUID", "UI"),
    0x00080018: ("SOPInstanceUID", "UI"),
    0x00080020: ("StudyDate", "DA"),
    0x00080021: ("SeriesDate", "DA"),
    0x00080022: ("AcquisitionDate", "DA"),
    0x0008002A: ("AcquisitionDateTime", "DT"),
    0x00080032: ("AcquisitionTime", "TM"),
    0x00080060: ("Modality", "CS"),
    0x00081030: ("StudyDescription", "LO"),
    0x0008103E: ("SeriesDescription", "LO"),
    0x00100020: ("PatientID", "LO"),
    0x00180015: ("BodyPartExamined", "CS"),
    0x00180050: ("SliceThickness", "DS"),
    0x00180060: ("KVP", "DS"),
    0x00180081: ("EchoTime", "DS"),
    0x00180082: ("InversionTime", "DS"),
    0x00180086: ("EchoNumbers", "IS"),
    0x00180088: ("SpacingBetweenSlices", "DS"),
    0x00181060: ("TriggerTime", "DS"),
    0x00181210: ("ConvolutionKernel", "SH"),
    0x00181314: ("FlipAngle", "DS"),
    0x00189087: ("DiffusionBValue", "FD"),
    0x00190010: (0x00190010, "LO"),
    0x0019100C: (0x0019100C, "IS"),
    0x0020000D: ("StudyInstanceUID", "UI"),
    0x0020000E: ("SeriesInstanceUID", "UI"),
    0x00200011: ("SeriesNumber", "IS"),
    0x00200012: ("AcquisitionNumber", "IS"),
    0x00200013: ("InstanceNumber", "IS"),
    0x00200032: ("ImagePositionPatient", "DS"),
    0x00200037: ("ImageOrientationPatient", "DS"),
    0x00200052: ("FrameOfReferenceUID", "UI"),
    0x00200100: ("TemporalPositionIdentifier", "IS"),
    0x00200105: ("NumberOfTemporalPositions", "IS"),
    0x00200110: ("TemporalResolution", "DS"),
    0x00209241: ("NominalPercentageOfCardiacPhase", "FL"),
    0x00209245: ("NominalPercentageOfRespiratoryPhase", "FL"),
    0x00280002: ("SamplesPerPixel", "US"),
    0x00280004: ("PhotometricInterpretation", "CS"),
    0x00280008: ("NumberOfFrames", "IS"),
    0x00280010: ("Rows", "US"),
    0x00280011: ("Columns", "US"),
    0x00280030: ("PixelSpacing", "DS"),
    0x00280100: ("BitsAllocated", "US"),
    0x00280101: ("BitsStored", "US"),
    0x00280103: ("PixelRepresentation", "US"),
    0x00280120: ("PixelPaddingValue", "US"),
    0x00280301: ("BurnedInAnnotation", "CS"),
    0x00281050: ("WindowCenter", "DS"),
    0x00281051: ("WindowWidth", "DS"),
    0x00281052: ("RescaleIntercept", "DS"),
    0x00281053: ("RescaleSlope", "DS"),
    0x00281054: ("RescaleType", "LO"),
    0x00282110: ("LossyImageCompression", "CS"),
    0x00282112: ("LossyImageCompressionRatio", "DS"),
    0x00282114: ("LossyImageCompressionMethod", "CS"),
    0x00283000: ("ModalityLUTSequence", "SQ"),
    0x00430010: (0x00430010, "LO"),
    0x00431039: (0x00431039, "IS"),
    0x00541001: ("Units", "CS"),
    0x00541300: ("FrameReferenceTime", "DS"),
    0x20010010: (0x20010010, "LO"),
    0x20011003: (0x20011003, "FL"),
}
_LAST = max(_WANTED)
_PADDING, _REPRESENTATION = 0x00280120, "PixelRepresentation"
_META = {0x00020002: "MediaStorageSOPClassUID", 0x00020010: "TransferSyntaxUID"}
Fields = dict[str | int, Any]


class _Odd(Exception):  # noqa: N818 - no error: pydicom reads the file then
    """Something that this reader leaves to pydicom."""


class _Bytes:
    """The beginning of a file, longer when asked for."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.data = stream.read(_FIRST_READ)

    def reach(self, end: int) -> None:
        """Have `data` up to `end`; raises _Odd where the file, or the patience, ends before."""
        if end > len(self.data) and len(self.data) < _MOST_READ:
            self.data += self._stream.read(max(end, 4 * len(self.data)) - len(self.data))
        if end > len(self.data) or end > _MOST_READ:
            raise _Odd


def quick_fields(stream: BinaryIO) -> Fields | None:
    """The wanted elements by keyword, TransferSyntaxUID and MediaStorageSOPClassUID among them.

    stream: at the start of a file with the mark DICM. Values are text, numbers, or lists of them,
    as pydicom has them. None where the header is odd in any way: pydicom must read it.
    """
    try:
        source = _Bytes(stream)
        meta, start = _meta(source)
        syntax = meta.get("TransferSyntaxUID", "")
        is_explicit = syntax in (_EXPLICIT, _RLE) or syntax.startswith(_COMPRESSED_PIXELS)
        if not is_explicit and syntax != _IMPLICIT:
            return None
        fields = meta | _data_set(source, start, is_explicit)
    except (_Odd, struct.error, ValueError):
        return None
    return fields if fields.get("SOPClassUID") and fields.get("SOPInstanceUID") else None


def _meta(source: _Bytes) -> tuple[Fields, int]:
    """The meta header, always explicit, and where it ends."""
    source.reach(144)
    tag, vr, length = _WORDS.unpack_from(source.data, 132)
    if (tag, vr, length) != (0x00000002, b"UL", 4):
        raise _Odd
    end = 144 + struct.unpack_from("<I", source.data, 140)[0]
    source.reach(end)
    fields: Fields = {}
    place = 144
    while place < end:
        group, element = struct.unpack_from("<HH", source.data, place)
        length, start = _explicit_length(source, place)
        keyword = _META.get(group << 16 | element)
        if group != 2 or length == _UNDEFINED or start + length > end:
            raise _Odd
        if keyword:
            fields[keyword] = _text(source.data[start : start + length])
        place = start + length
    return fields, end


_WORDS = struct.Struct("<I2sH")
_TAG_AND_LENGTH = struct.Struct("<HHI")


def _data_set(source: _Bytes, place: int, is_explicit: bool) -> Fields:
    fields: Fields = {}
    before = 0
    while True:
        try:
            source.reach(place + 8)
        except _Odd:
            if place == len(source.data):
                return fields  # the file ends behind an element, before any pixels
            raise
        group, element, length = _TAG_AND_LENGTH.unpack_from(source.data, place)
        tag = group << 16 | element
        if tag > _LAST:
            return fields
        if tag <= before:
            raise _Odd
        before, start = tag, place + 8
        vr = source.data[place + 4 : place + 6]
        if is_explicit:
            length, start = _explicit_length(source, place)
        wanted = _WANTED.get(tag)
        if length == _UNDEFINED:
            if wanted and wanted[1] != "SQ":
                raise _Odd
            place = _behind_sequence(source, start, is_explicit and vr != b"UN", 0)
            value = b""
        else:
            place = start + length
            if wanted:
                source.reach(place)
                value = source.data[start:place]
            elif place > _MOST_READ:
                raise _Odd
        if wanted:
            key, expected = wanted
            if is_explicit and vr not in (expected.encode(), b"UN") and tag != _PADDING:
                raise _Odd
            if tag == _PADDING:
                expected = "SS" if fields.get(_REPRESENTATION) == 1 else "US"
            fields[key] = _value(value, expected)


def _explicit_length(source: _Bytes, place: int) -> tuple[int, int]:
    """The length of an element with a VR, and where its value starts."""
    source.reach(place + 12)
    vr = source.data[place + 4 : place + 6]
    if vr in _SHORT:
        return struct.unpack_from("<H", source.data, place + 6)[0], place + 8
    if vr not in _LONG:
        raise _Odd
    return struct.unpack_from("<I", source.data, place + 8)[0], place + 12


def _behind_sequence(source: _Bytes, place: int, is_explicit: bool, depth: int) -> int:
    """Where a sequence of undefined length ends."""
    if depth > _MOST_NESTED:
        raise _Odd
    while True:
        source.reach(place + 8)
        group, element, length = _TAG_AND_LENGTH.unpack_from(source.data, place)
        tag, place = group << 16 | element, place + 8
        if tag == _SEQUENCE_END:
            return place
        if tag != _ITEM:
            raise _Odd
        if length != _UNDEFINED:
            place += length
        else:
            place = _behind_item(source, place, is_explicit, depth)


def _behind_item(source: _Bytes, place: int, is_explicit: bool, depth: int) -> int:
    while True:
        source.reach(place + 8)
        group, element, length = _TAG_AND_LENGTH.unpack_from(source.data, place)
        if group << 16 | element == _ITEM_END:
            return place + 8
        start, vr = place + 8, source.data[place + 4 : place + 6]
        if is_explicit:
            length, start = _explicit_length(source, place)
        if length == _UNDEFINED:
            place = _behind_sequence(source, start, is_explicit and vr != b"UN", depth + 1)
        else:
            place = start + length


def _value(value: bytes, vr: str) -> Any:
    if vr == "SQ":
        return True
    if vr in _TEXT:
        told = _text(value)
        return told.split("\\") if "\\" in told else told
    form = struct.Struct(_NUMBERS[vr])
    if not value:
        return None
    numbers = [found[0] for found in form.iter_unpack(value)]
    return numbers if len(numbers) > 1 else numbers[0]


def _text(value: bytes) -> str:
    """ASCII without its padding; escapes to other alphabets are left to pydicom."""
    if b"\x1b" in value:
        raise _Odd
    return value.rstrip(b"\0 ").decode("ascii")
