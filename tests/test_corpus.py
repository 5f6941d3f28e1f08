"""Odd input to every public function: a result or a clear refusal, and nothing else is touched (benchmarks/corpus.py)."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import corpus
import corpus_by_hand

EVERY = 6  # of the cases is tried here; the script tries all


@pytest.fixture(scope="module", autouse=True)
def _ready():
    """A process in which everything has run once; training takes some steps only."""
    before = os.getcwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLBACKEND", "Agg")
        with corpus.small_budget():
            corpus.warm_up()
            yield
    os.chdir(before)


def test_there_are_cases_for_every_function():
    cases = corpus.by_function()
    assert set(cases) == set(corpus.public()) - corpus.INTERNAL
    assert sum(map(len, cases.values())) > 600 * EVERY
    assert len(corpus_by_hand.by_hand()) > 300


@pytest.mark.parametrize("function", corpus.by_function())
def test_each_answer_is_a_result_or_a_clear_refusal(function):
    first, *others = corpus.by_function()[function]  # the first is a call that is right
    found = [(case, corpus.answer(case)) for case in (first, *others[::EVERY])]
    lines = "\n".join(f"{case}: {answer.fault} | {answer.message}" for case, answer in found if answer.fault)
    assert not lines, lines
    assert any(answer.kind == "result" for _, answer in found)
