"""The writer killed under load: what it acknowledged is there, and no batch is there by half."""

from __future__ import annotations

from pathlib import Path

from disk_shim import NoShim, build_shim, slow_syncs
from kill_loop import kill_loop

KILLS = 6
SEED = "crash"


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    try:
        # A kill during a sync is what shows an answer that came before it.
        environment = slow_syncs(build_shim(tmp_path))
    except NoShim:
        environment = {}
    result = kill_loop(tmp_path / "writer", kills=KILLS, seed=SEED, environment=environment)
    assert result.problems == []
    assert result.kills == len(result.restart_s) == KILLS
    # Each kill came while clients waited for an answer.
    assert result.unanswered >= KILLS
    assert result.acknowledged >= KILLS
