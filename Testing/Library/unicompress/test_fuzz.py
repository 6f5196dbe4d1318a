"""Some of the cases that Benchmarks/fuzz.py runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from MedEnhanceLib.unicompress.codecs.block_types import BLOCK_TYPES
from MedEnhanceLib.unicompress.codecs.implicit.settings import IMPLICIT
from MedEnhanceLib.unicompress.codecs.lossless import CODERS

from .fuzzing import MUTATIONS, Base, Fuzzer, light, make_bases


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Base]:
    return make_bases(tmp_path_factory.mktemp("bases"))


@pytest.mark.parametrize(
    ("seed", "cases"), [(10, 200), pytest.param(11, 600, marks=pytest.mark.slow)]
)
def test_every_case_ends_in_an_error_of_ours_or_right_voxels(
    bases: list[Base], tmp_path: Path, seed: int, cases: int
) -> None:
    fuzzer = Fuzzer(bases, seed, tmp_path / "case.ucv")
    ends: Counter[tuple[str, str]] = Counter()
    with light():
        for case in range(cases):
            _, mutation, end = fuzzer.run(case)
            ends[mutation, end] += 1
    assert {mutation for mutation, _ in ends} == set(MUTATIONS)
    assert sum(count for (_, end), count in ends.items() if end == "refused") > cases / 2
    assert ends["code", "warned"] + ends["code", "right"] >= cases / 100  # the decoders are reached


def test_the_bases_have_every_type_and_kind_of_record(bases: list[Base]) -> None:
    kinds = {row.kind for base in bases for row in base.rows}
    # A case of implicit blocks takes half a second: they are forged in tests of their own.
    assert kinds >= set(BLOCK_TYPES) - {IMPLICIT}
    by_indices = {coder.id for coder in CODERS}
    records = {row.data[0] for base in bases for row in base.rows if row.kind in by_indices}
    assert records == {1, 2, 3, 4, 5}
    assert {base.header["mode"] for base in bases} == {"lossless", "max_error", "ratio", "psnr"}
