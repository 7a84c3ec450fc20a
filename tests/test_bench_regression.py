"""The comparison with a baseline, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pytest

from agentmem.bench.suite import quick, regression
from agentmem.bench.suite.regression import BaselineError, Verdict

RECORDINGS = [
    {"get: nodes": 2.0, "add: nodes": 10.0},
    {"get: nodes": 2.1, "add: nodes": 13.0},
    {"get: nodes": 1.9, "add: nodes": 9.0},
]


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps(regression.recorded(RECORDINGS, machine={"cores": 2})))
    return path


def test_a_band_is_how_far_the_recordings_were_apart(baseline: Path) -> None:
    ratios = regression.load(baseline)["ratios"]
    assert (ratios["get: nodes"]["ratio"], ratios["get: nodes"]["band"]) == (2.0, regression.MIN_BAND)
    assert (ratios["add: nodes"]["ratio"], ratios["add: nodes"]["band"]) == (10.0, 0.6)
    with pytest.raises(ValueError, match="3 measurements"):
        regression.recorded(RECORDINGS[:2])


@pytest.mark.parametrize(
    ("get", "verdict", "strict", "tolerant"),
    [
        (2.0, Verdict.SAME, 0, 0),
        (2.39, Verdict.SAME, 0, 0),
        (2.41, Verdict.BEYOND, 1, 0),
        (3.99, Verdict.BEYOND, 1, 0),
        (4.01, Verdict.BEYOND, 1, 1),
        (1.5, Verdict.BETTER, 0, 0),
    ],
)
def test_exit_codes(baseline: Path, get: float, verdict: Verdict, strict: int, tolerant: int) -> None:
    found = regression.compare(regression.load(baseline), {"get: nodes": get, "add: nodes": 10.0})
    assert [each.verdict for each in found] == [verdict, Verdict.SAME]
    assert regression.exit_code(found) == strict
    assert regression.exit_code(found, tolerated=2.0) == tolerant


def test_a_band_wider_than_what_is_tolerated_still_counts() -> None:
    wide = {"schema": 1, "ratios": {"add": {"ratio": 1.0, "band": 2.0}}}
    assert regression.exit_code(regression.compare(wide, {"add": 2.5}), tolerated=2.0) == 0
    assert regression.exit_code(regression.compare(wide, {"add": 3.5}), tolerated=2.0) == 1


@pytest.mark.parametrize(
    "content", ["", "[]", '{"schema": 2, "ratios": {"a": 1}}', '{"schema": 1, "ratios": {}}']
)
def test_what_is_no_baseline_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(content)
    with pytest.raises(BaselineError, match=r"baseline\.json"):
        regression.load(path)


class Measured:
    """Answers measurements one after the other."""

    def __init__(self, *answers: dict[str, float]) -> None:
        self.answers, self.asked = list(answers), list[Collection[str]]()

    def __call__(self, only: Collection[str]) -> dict[str, float]:
        self.asked.append(only)
        return self.answers.pop(0)


def test_what_is_beyond_is_measured_again_and_the_lower_counts(baseline: Path) -> None:
    chance = Measured({"get: nodes": 3.0, "add: nodes": 10.0}, {"get: nodes": 2.0})
    assert quick.check(baseline, None, chance) == 0
    assert chance.asked == [(), {"get"}]
    dearer = Measured({"get: nodes": 3.0, "add: nodes": 10.0}, {"get: nodes": 3.1})
    assert quick.check(baseline, None, dearer) == 1
    assert (
        quick.check(baseline, 2.0, Measured({"get: nodes": 3.0, "add: nodes": 10.0}, {"get: nodes": 3.1}))
        == 0
    )


def test_a_baseline_of_other_calls_is_refused(baseline: Path, tmp_path: Path) -> None:
    assert quick.check(baseline, None, Measured({"get: nodes": 2.0})) == 2
    assert quick.check(tmp_path / "none.json", None, Measured()) == 2


def test_the_committed_baseline_is_of_the_calls_that_are_measured() -> None:
    committed = regression.load(Path(__file__).parent.parent / quick.BASELINE)
    names = {f"{case.name}: {who}" for case in quick.CASES for who in ("nodes", "client")}
    assert set(committed["ratios"]) == names
