"""Mutants of the code that files and patients depend on: how many do the fast tests notice?

    python -m pip install mutmut                               into an environment of its own
    python Testing/Benchmarks/mutation.py --each 24 --seed 1   a sample of each file, and the page
    python Testing/Benchmarks/mutation.py --each 0             all of them: a day of one core

mutmut changes one place of the code at a time (a comparison, a number, an argument) and runs the
tests that pass through it. A mutant is killed when one of them fails. Left out are mutants that
change nothing but the text of an error or a warning. What is mutated, and by which tests it is
judged: [tool.mutmut] in pyproject.toml. `python -m mutmut show NAME` shows a mutant.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from _common import REPOSITORY, RESULTS, gate, write

MUTANTS = REPOSITORY / "mutants"
EQUIVALENT = Path(__file__).with_name("mutation_equivalent.json")
WANTED = 0.85
_KILLED, _TIMEOUT = (1, 3, -24, 24, 36, 152, 255), (36, -24, 24, 152)
Row = dict[str, Any]


def main() -> None:
    """Sample, run, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--each", type=int, default=24, help="mutants of each file; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-run", action="store_true", help="write the results of the last run")
    if sys.argv[1:2] == ["mutmut"]:
        _be_mutmut(sys.argv[2:])
    options = parser.parse_args()
    os.chdir(REPOSITORY)
    if not options.no_run:
        # Makes the mutants, and finds which tests pass through which function.
        _mutmut("run", "--max-children", "1", "none of them", check=False)
    chosen = _choose(options.each, options.seed)
    if not options.no_run:
        _mutmut(
            "run", "--max-children", "1", *(name for names in chosen.values() for name in names)
        )
    rows = [row for path, names in chosen.items() for row in _rows(path, names)]
    killed = sum(row["killed"] for row in rows)
    counted = sum(not row["equivalent"] for row in rows)
    share = killed / counted
    gates = [gate("share of the mutants that is killed", share, f"≥ {WANTED}", share >= WANTED)]
    write(
        "mutation",
        gates=gates,
        rows=rows,
        seeds=[options.seed],
        folder=RESULTS,
    )


def _mutmut(*words: str, check: bool = True) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, __file__, "mutmut", *words], env=environment, check=check)


def _be_mutmut(words: list[str]) -> NoReturn:
    """Mutmut, which names tests without their parameters: pytest finds not every one by those."""
    from mutmut.__main__ import cli
    from mutmut.runners import harness

    regular = harness.PytestRunner._pytest_args_regular_run

    def by_function(self: Any, tests: Iterable[str]) -> list[str]:
        named: list[str] = regular(self, sorted({test.partition("[")[0] for test in tests}))
        return named

    harness.PytestRunner._pytest_args_regular_run = by_function
    sys.exit(cli(words))


def _choose(each: int, seed: int) -> dict[str, list[str]]:
    """File → names of mutants, at random, without those of texts."""
    dice, chosen = random.Random(seed), {}
    for meta in sorted(MUTANTS.rglob("*.meta")):
        path = meta.relative_to(MUTANTS).as_posix().removesuffix(".meta")
        names = sorted(json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"])
        functions = _functions(MUTANTS / path)
        dice.shuffle(names)
        kept = []
        for name in names:
            if each and len(kept) == each:
                break
            if not _is_text(functions, name.rpartition(".")[2]):
                kept.append(name)
        if kept:
            chosen[path] = kept
    return chosen


def _functions(path: Path) -> dict[str, str]:
    """Name → source of every function in a file of mutants."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    return {
        node.name: "\n".join(lines[node.lineno - 1 : node.end_lineno])
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    }


def _is_text(functions: dict[str, str], mutant: str) -> bool:
    """Whether all that a mutant changes lies in an error that is raised, or in a warning."""
    original = functions.get(f"{mutant.rpartition('__mutmut_')[0]}__mutmut_orig", "")
    changed = functions.get(mutant, "")
    if not original or not changed:
        return False
    before, after = (text.splitlines() for text in (original, changed))
    places = [
        line
        for tag, first, last, *_ in difflib.SequenceMatcher(a=before, b=after).get_opcodes()
        if tag != "equal" and first
        for line in range(first, max(last, first + 1))
    ]
    texts = set()
    tree = ast.parse("if True:\n" + original if original.startswith(" ") else original)
    shift = 2 if original.startswith(" ") else 1
    for node in ast.walk(tree):
        is_call = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("warn", "log")
        if isinstance(node, ast.Raise) or is_call:
            texts |= set(range(node.lineno - shift, (node.end_lineno or node.lineno) - shift + 1))
    return bool(places) and all(place in texts for place in places)


def _rows(path: str, names: list[str]) -> list[Row]:
    meta = MUTANTS / f"{path}.meta"
    ends = json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
    known = json.loads(EQUIVALENT.read_text(encoding="utf-8")) if EQUIVALENT.exists() else {}
    return [
        {
            "file": path,
            "mutant": name,
            "killed": ends[name] in _KILLED,
            "no test": ends[name] == 33,
            "equivalent": known.get(name, "") if ends[name] not in _KILLED else "",
        }
        for name in names
        if ends[name] is not None  # a run that was stopped judged the quick ones first
    ]


if __name__ == "__main__":
    main()
