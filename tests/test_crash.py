"""The writer killed under load: what it acknowledged is there, and no batch is there by half."""

from __future__ import annotations

from pathlib import Path

from kill_loop import kill_loop

KILLS = 4
SEED = "crash"


def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    result = kill_loop(tmp_path, kills=KILLS, seed=SEED)
    assert result.problems == []
    assert result.kills == len(result.restart_s) == KILLS
    # Each kill came while clients waited for an answer.
    assert result.unanswered >= KILLS
    assert result.acknowledged >= KILLS
