"""The judge of the crash tests: what it has to object to, and what not."""

from __future__ import annotations

from pathlib import Path

import pytest
from ledger import Ledger, Outcome, Stored, Write

ADDED = Write(("a", "b"), "first", Outcome.ACKNOWLEDGED, 100)
UPDATED = Write(("a",), "second", Outcome.ACKNOWLEDGED, 200)
BOTH = {"a": Stored(2, "second"), "b": Stored(1, "first")}


def ledger(*writes: Write) -> Ledger:
    return Ledger("ns", [list(writes)])


@pytest.mark.parametrize(
    ("live", "objection"),
    [
        (BOTH, None),
        ({"b": Stored(1, "first")}, "a: version 2 (second…) was acknowledged, but it is not there"),
        ({**BOTH, "a": Stored(1, "first")}, "a: version 2 (second…) was acknowledged, but version 1"),
        (
            {**BOTH, "a": Stored(2, "first")},
            "a: version 2 (second…) was acknowledged, but version 2 (first…)",
        ),
        ({**BOTH, "c": Stored(1, "first")}, "c: nobody wrote it"),
    ],
)
def test_what_was_acknowledged_must_be_there(live: dict[str, Stored], objection: str | None) -> None:
    found = ledger(ADDED, UPDATED).problems(live)
    assert [line.startswith(objection) for line in found] == [True] if objection else found == []


def test_a_write_without_an_answer_is_there_whole_or_not() -> None:
    unknown = Write(("a", "b"), None)
    before = {"a": Stored(1, "first"), "b": Stored(1, "first")}
    written = ledger(ADDED, unknown)
    assert written.problems(before) == []
    assert written.problems({}) == []
    assert written.problems({"a": before["a"]}) == ["a, b: written by half"]


def test_a_refused_write_must_not_be_there() -> None:
    refused = Write(("a",), "second", Outcome.REFUSED)
    assert ledger(ADDED, refused).problems({"a": Stored(1, "first"), "b": Stored(1, "first")}) == []
    assert len(ledger(ADDED, refused).problems(BOTH)) == 1


def test_a_deletion_counts_as_a_version() -> None:
    deleted = Write(("b",), None, Outcome.ACKNOWLEDGED)
    again = Write(("b",), "third", Outcome.ACKNOWLEDGED)
    assert ledger(ADDED, deleted).problems({"a": Stored(1, "first")}) == []
    assert len(ledger(ADDED, deleted).problems({"a": Stored(1, "first"), "b": Stored(1, "first")})) == 1
    assert ledger(ADDED, deleted, again).problems({"a": Stored(1, "first"), "b": Stored(3, "third")}) == []


def test_a_cut_before_the_answer_leaves_it_open() -> None:
    written = ledger(ADDED, UPDATED)
    before = {"a": Stored(1, "first"), "b": Stored(1, "first")}
    assert written.problems(before, cut_bytes=199) == []
    assert written.problems(BOTH, cut_bytes=199) == []
    assert len(written.problems(before, cut_bytes=200)) == 1
    assert len(written.problems({}, cut_bytes=199)) == 2


def test_a_ledger_can_be_kept(tmp_path: Path) -> None:
    written = ledger(ADDED, UPDATED, Write(("b",), None))
    written.save(tmp_path / "ledger.json")
    assert Ledger.load(tmp_path / "ledger.json") == written
    assert written.acknowledged() == 2
