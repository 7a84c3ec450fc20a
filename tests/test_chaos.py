"""Random calls under random faults: ``make chaos`` for a moment, and a broken build that it notices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from broken_builds import BREAKAGES, Breakage, NoSuchText, broken_copy, run_broken
from chaos_run import Plan, run

# Some five seconds: the first fault is begun within 1.5 s.
OPERATIONS = 3_000
# Without what takes long: nodes that are emptied, and waits for nodes that hang.
WEIGHTS = {"replica killed": 2, "writer killed": 2, "handover": 2, "failover after kill": 2}
# Enough for 50 or more reads of the past; replicas are some 30 ms behind, so one call in 60 meets it.
BROKEN_OPERATIONS = 3_000


@pytest.mark.timeout(300)
def test_no_promise_is_broken_while_nodes_die_and_take_over(tmp_path: Path) -> None:
    result = run(
        tmp_path / "run",
        Plan("test", OPERATIONS, rounds=1, replicas=2, sessions=8, readers=2, weights=WEIGHTS),
    )
    assert result.violations == []
    assert result.faults.faults.total() > 0
    assert result.outcomes()["acknowledged"] > OPERATIONS / 10
    assert sum(len(part.changes) for part in result.recorded.watched) > OPERATIONS / 10


@pytest.mark.timeout(300)
def test_a_session_that_says_nothing_is_noticed(tmp_path: Path) -> None:
    done = run_broken(
        tmp_path,
        BREAKAGES["session"],
        ["--operations", str(BROKEN_OPERATIONS), "--rounds", "1", "--seed", "test", "--faults", "--json"],
        timeout_s=250,
    )
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["violations"]["session went back"] > 0


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_is_broken_is_in_the_code(tmp_path: Path, name: str) -> None:
    """Each breakage still finds its text."""
    broken_copy(tmp_path, BREAKAGES[name])


def test_a_breakage_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoSuchText, match="0 times"):
        broken_copy(tmp_path, Breakage("nothing", (("core/agentmem/core/log.py", "no such text", ""),)))
