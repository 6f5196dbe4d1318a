"""A model of a few steps says so, on its card and when it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from MedEnhanceLib.bundles import Bundle
from MedEnhanceLib.bundles.export import make_card
from MedEnhanceLib.bundles.length import doubt_about_length, limits_of_length
from MedEnhanceLib.bundles.store import list_bundles


def trained(training: object) -> Bundle:
    metadata = {"name": "m", "kind": "enhancer", "modality": "MR", "training": training}
    return Bundle(Path("m"), metadata, shipped=False)


def test_a_training_of_a_few_steps_made_a_test_model() -> None:
    doubt = doubt_about_length(trained({"config": {"steps": 6}}))
    assert doubt is not None
    assert doubt.text.startswith("m was trained for 6 steps only, as a test model")
    assert limits_of_length(6) == [
        "Trained for 6 steps only, as a test model: use it for nothing else."
    ]


@pytest.mark.parametrize("training", [{"config": {"steps": 7000}}, {"summary": "unknown"}, None])
def test_others_and_those_that_do_not_say_are_left_alone(training: object) -> None:
    assert doubt_about_length(trained(training)) is None
    assert not limits_of_length(7000)


def test_no_shipped_model_is_one() -> None:
    shipped = [bundle for bundle in list_bundles() if bundle.shipped]
    assert shipped
    assert not any(doubt_about_length(bundle) for bundle in shipped)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"licence": "CC0", "source": "doi 1"}, "- A: 2 people (CC0). doi 1"),
        (
            {"licence": "not stated", "source": "not stated"},
            "- A: 2 people. Licence and source are not stated.",
        ),
        ({}, "- A: 2 people. Licence and source are not stated."),
        ({"licence": "CC0"}, "- A: 2 people (CC0). The source is not stated."),
        ({"source": "doi 1"}, "- A: 2 people. doi 1. The licence is not stated."),
        (None, "What it learned from is not stated."),
    ],
)
def test_a_card_says_in_one_line_what_of_the_data_is_stated(
    fields: dict[str, str] | None, line: str
) -> None:
    data = [] if fields is None else [{"name": "A", "subjects": "2 people", **fields}]
    metadata = {
        "name": "m",
        "description": "d",
        "kind": "enhancer",
        "modality": "MR",
        "version": "1",
        "licence": "Apache-2.0",
        "data": data,
    }
    card = make_card(metadata)
    assert card.partition("## Training data")[2].partition("##")[0].strip() == line
