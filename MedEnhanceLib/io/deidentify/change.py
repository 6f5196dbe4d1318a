"""What was done with an attribute."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Change:
    """What was done with an attribute in one object, never with which value.

    tag: "(0010,0010)", or "(gggg,eeee)" for all private elements together. name: its keyword.
    action: "removed", "emptied", "replaced", "UID replaced", "date moved", "removed: not
    readable", "emptied: repeats a removed value", … count: how often, at whatever depth.
    """

    tag: str
    name: str
    action: str
    count: int = 1
