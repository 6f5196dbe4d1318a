"""Items that a thread makes ahead: their order, errors, and the end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from MedEnhanceLib.runtime.ordered import ahead


def test_items_are_made_ahead_and_come_in_order() -> None:
    made: list[int] = []
    third = threading.Event()

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    stream = ahead(items(), 2)
    assert next(stream) == 0
    assert third.wait(10)  # though nobody has asked for it
    assert made[3:] == []
    assert list(stream) == [1, 2, 3, 4]


def test_an_error_comes_at_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second item")

    stream = ahead(items(), 3)
    assert next(stream) == 1
    with pytest.raises(ValueError, match="the second item"):
        next(stream)


def test_whoever_stops_early_ends_the_thread() -> None:
    before = threading.active_count()
    stream = ahead(iter(range(100)), 2)
    assert next(stream) == 0 and threading.active_count() > before
    stream.close()
    assert threading.active_count() == before
