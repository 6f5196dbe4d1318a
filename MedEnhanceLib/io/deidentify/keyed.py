"""What follows from the secret: new UIDs and the days by which a patient's dates move."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import date, timedelta

#: Dates move into the past, by up to ten years.
_DAYS = 3650
_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")
_OLD_DATE = re.compile(r"(\d{4})\.(\d{2})\.(\d{2})")
_DATE_TIME = re.compile(r"(\d{8})(\d{0,6}(?:\.\d{1,6})?(?:[+-]\d{4})?)")


def new_uid(secret: bytes, uid: str) -> str:
    """The UID that stands for `uid`: `2.25.` and 128 bits of a keyed hash."""
    return f"2.25.{int.from_bytes(_digest(secret, 'uid', uid)[:16], 'big')}"


def shift_days(secret: bytes, patient: str) -> int:
    """By how many days all dates of a patient move, −3650 to −1."""
    return -1 - int.from_bytes(_digest(secret, "days", patient)[:8], "big") % _DAYS


def shifted(value: str, vr: str, days: int) -> str | None:
    """A DA or DT moved by `days`; None for what is no full date or leaves the calendar."""
    if vr == "DT":
        match = _DATE_TIME.fullmatch(value)
        moved = match and shifted(match[1], "DA", days)
        return moved + match[2] if match and moved else None
    match = _DATE.fullmatch(value) or _OLD_DATE.fullmatch(value)
    if match is None:
        return None
    try:
        moved_day = date(int(match[1]), int(match[2]), int(match[3])) + timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return f"{moved_day.year:04}{moved_day.month:02}{moved_day.day:02}"


def _digest(secret: bytes, purpose: str, text: str) -> bytes:
    return hmac.new(
        secret, f"{purpose}\0{text}".encode("utf-8", "replace"), hashlib.sha256
    ).digest()
