"""The expected time of an enhancement."""

from __future__ import annotations

from typing import Any

import pytest

from MedEnhanceLib.hqg.duration import expected_seconds


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, 0),
        ({"pace": 40.0}, 45),
        ({"threads": 1}, 5),
        ({"threads": 1, "is_compiled": False}, 40),
        ({"threads": 1, "is_compiled": False, "is_built_first": True}, 65),
    ],
)
def test_a_pace_is_that_of_a_run_before_else_of_the_cores(
    options: dict[str, Any], seconds: int
) -> None:
    assert expected_seconds(1.0, **options) == seconds
