"""What the frames of a sequence differ in: their contrast, by design, or little or nothing.

Sources of the words: DICOM PS3.3 C.8.13.3 (ImageType of enhanced MR), BIDS 1.10 (suffixes).
"""

from __future__ import annotations

from collections.abc import Iterable

DIFFUSION, ECHOES, INVERSION_TIMES = "diffusion", "echoes", "inversion times"
FUNCTIONAL, PERFUSION, DYNAMIC = "functional", "perfusion", "dynamic"
#: Frames that are the same: averages kept apart, a phantom.
REPEATS = "repeats"
_OF_CONTRAST = (DIFFUSION, ECHOES, INVERSION_TIMES)
KINDS = (*_OF_CONTRAST, FUNCTIONAL, PERFUSION, DYNAMIC, REPEATS)
#: Kind → its words in image types, and suffixes and folders of BIDS. Kinds of alike frames come
#: first: filtering these together would do harm.
_WORDS = {
    FUNCTIONAL: "fmri func bold cbv",
    PERFUSION: "asl perfusion perf dsc dce",
    DYNAMIC: "dynamic realtime cine pet",
    DIFFUSION: "diffusion dwi",
    ECHOES: "mese megre",
    INVERSION_TIMES: "irt1",
    REPEATS: "repeats t1w t2w pdw flair",
}
_BY_WORD = {word: kind for kind, words in _WORDS.items() for word in words.split()}
#: Attribute that frames of DICOM differ in → kind.
_BY_AXIS = {
    "b-value": DIFFUSION, "direction": DIFFUSION, "echo": ECHOES,
    "inversion time": INVERSION_TIMES, "cardiac phase": DYNAMIC, "breathing phase": DYNAMIC,
}  # fmt: skip
#: Letters of names of these attributes, also in DICOM and in 3D Slicer → the name.
_AXIS_NAMES = {"".join(filter(str.isalpha, axis)): axis for axis in _BY_AXIS} | {
    "echotime": "echo", "te": "echo", "ti": "inversion time", "cardiaccycle": "cardiac phase",
    "nominalpercentageofcardiacphase": "cardiac phase",
    "nominalpercentageofrespiratoryphase": "breathing phase",
}  # fmt: skip


def is_filtered_together(kind: str) -> bool:
    """Return whether frames of a kind hide no weak change over time; False for "" (unknown)."""
    return kind in (*_OF_CONTRAST, REPEATS)


def known_kind(text: str) -> str:
    """Return the text if it is a kind, else "": a file may come from a later release."""
    return text if text in KINDS else ""


def axis_named(name: str) -> str:
    """Return the attribute behind a name, such as "Siemens.B-value" or "EchoTime"; "" for none."""
    letters = "".join(filter(str.isalpha, name.rpartition(".")[2].lower()))
    return _AXIS_NAMES.get(letters, "")


def stated_kind(words: Iterable[str], axis: str = "", *, is_followed: bool = False) -> str:
    """Return the kind that a header or a name states; "" if none is certain.

    Args:
        words: of image types and names.
        axis: the attribute that frames differ in, as in `io.dicom.frame_attributes`; "" if unknown.
        is_followed: whether frames follow a contrast medium or a tracer in time.
    """
    stated = {_BY_WORD.get(word.lower(), "") for word in words}
    kind = next((kind for kind in _WORDS if kind in stated), "")
    if kind in (FUNCTIONAL, PERFUSION):  # also with several echoes or inversion times
        return kind
    if is_followed and kind in ("", REPEATS):
        kind = DYNAMIC
    return _BY_AXIS.get(axis) or kind
