"""What cannot be audited is refused with what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.spg.audit import Audited, audit

Make = Callable[..., Audited]


def images(count: int = 3, side: int = 24, value: float = 0.5) -> np.ndarray:
    return np.full((count, side, side), value, np.float32)


def people(count: int, **options: Any) -> dict[str, np.ndarray]:
    return {f"person {id(options)} {n}": images(**options) for n in range(count)}


def nan_at(array: np.ndarray) -> np.ndarray:
    array[1, 2, 3] = np.nan
    return array


@pytest.mark.parametrize(
    ("distilled", "what"),
    [
        (images(0), r"the distilled set is \(0, 24, 24\)"),
        (images()[0], r"\(24, 24\)"),
        (images().astype(np.float64), "float64"),
        (nan_at(images()), "reaches from nan"),
        (images(value=1.5), "reaches from 1.5 to 1.5"),
        (images(side=8), r"\(3, 8, 8\)"),
        ([[1.0]], "list"),
    ],
)
def test_a_wrong_distilled_set_is_named(distilled: Any, what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        Audited(distilled, people(2), people(2))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("training", "held_out", "what"),
    [
        (people(1), people(3), "1 training patients"),
        (people(3), people(1), "1 held-out patients"),
        (people(2), people(2, side=32), "held-out patient 1 has images of 32 × 32"),
        (people(2) | {"x": nan_at(images())}, people(2), "training patient 3 reaches from nan"),
    ],
)
def test_wrong_patients_are_named_by_number(
    training: dict[str, np.ndarray], held_out: dict[str, np.ndarray], what: str
) -> None:
    with pytest.raises(InputError, match=what) as caught:
        Audited(images(), training, held_out)
    assert caught.value.hint
    assert "person" not in str(caught.value)


def test_nobody_is_in_both_groups() -> None:
    ours = people(3)
    with pytest.raises(InputError, match="at once"):
        Audited(images(), ours, people(2) | dict(list(ours.items())[:1]))


def test_the_priors_patient_does_not_count(people: dict[str, np.ndarray], audited: Make) -> None:
    it = audited(people["outside"], prior=people["train0"], prior_owner="train0")
    assert "train0" not in it.patients
    assert it.tested_training == ["train1", "train2", "train3", "train4"]
    assert it.aliases["train0"] == "T1"
    with pytest.raises(InputError, match="1 training patients besides the prior's"):
        Audited(
            people["outside"],
            {"a": people["train0"], "b": people["train1"]},
            {"c": people["held0"], "d": people["held1"]},
            prior_owner="a",
        )


def test_what_redistill_gives_is_checked(people: dict[str, np.ndarray], audited: Make) -> None:
    small = np.zeros((2, 40, 48), np.float32)
    with pytest.raises(InputError, match="redistill"):
        audit(audited(people["outside"]), redistill=lambda slices, seed: small)
    with pytest.raises(InputError, match="the prior has images of 24 × 24"):
        audited(people["outside"], prior=images())
