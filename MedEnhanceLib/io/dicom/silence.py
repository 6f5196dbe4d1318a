"""Silence of pydicom, whose warnings tell values of patients."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silence() -> Iterator[None]:
    """Keep pydicom's warnings to itself, as they tell values; of this thread alone in its log."""
    here, log = threading.get_ident(), logging.getLogger("pydicom")

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != here

    log.addFilter(is_of_others)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.removeFilter(is_of_others)
