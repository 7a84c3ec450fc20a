"""bench/demo.py on the bundled sample, and on a conversation whose figures are known."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentmem.cli import bundled

DEMO = Path(__file__).parent.parent / "bench" / "demo.py"
TIMEOUT_S = 100
FIGURES = ("recall@5", "recall@10", "mrr", "all@10")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(DEMO), "--data-dir", str(folder / "data"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        env=os.environ | {"COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    return done


def known() -> dict[str, Any]:
    """By words alone each question finds its evidence at a place that the words decide.

    Seven turns have a lamp, each a word more beside it than the one before, so each is one place behind it.
    """
    lamps = [f"lamp {' '.join(['hm'] * number)}" for number in range(7)]
    texts = [*lamps, "a zebra", "nothing"]
    return {
        "session_1_date_time": "12:05 am on 8 May, 2023",
        "session_1": [
            {"speaker": "A", "dia_id": f"D1:{number}", "text": text} for number, text in enumerate(texts, 1)
        ],
        "qa": [
            {"question": "lamp", "evidence": ["D1:7"], "category": 1},
            {"question": "lamp", "evidence": ["D1:5", "D1:6", "D1:9"], "category": 1},
            {"question": "zebra", "evidence": ["D1:8"], "category": 4},
            {"question": "unheard", "evidence": ["D1:8"], "category": 4},
            {"question": "zebra", "evidence": ["D1:1"], "category": 5},
            {"question": "zebra", "evidence": [], "category": 4},
        ],
    }


def test_the_figures_of_a_conversation_that_is_known(tmp_path: Path) -> None:
    dataset, out = tmp_path / "dataset", tmp_path / "figures.json"
    shutil.copytree(bundled.FOLDER, dataset)
    (dataset / "known.json").write_text(json.dumps(known()))
    done = run(tmp_path, "--dataset", str(dataset), "--json", "--out", str(out))
    printed = json.loads(done.stdout)
    assert printed == json.loads(out.read_text())
    assert list(printed) == ["text", "semantic", "hybrid"]
    # At the 7th place; at the 5th, the 6th and nowhere; at the first; nowhere.
    assert printed["text"]["by_conversation"]["known"] == {
        "recall@5": pytest.approx((0 + 1 / 3 + 1 + 0) / 4),
        "recall@10": pytest.approx((1 + 2 / 3 + 1 + 0) / 4),
        "mrr": pytest.approx((1 / 7 + 1 / 5 + 1 + 0) / 4),
        "all@10": pytest.approx((1 + 0 + 1 + 0) / 4),
        "questions": 4,
    }
    for means in printed.values():
        for parts in (means["by_category"], means["by_conversation"]):
            assert sum(part["questions"] for part in parts.values()) == means["questions"]
            for name in FIGURES:
                total = sum(part[name] * part["questions"] for part in parts.values())
                assert means[name] == pytest.approx(total / means["questions"])


def test_the_tables_of_the_sample(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
    blocks = done.stdout.strip().split("\n\n")
    heads = [block.splitlines()[0].split() for block in blocks]
    assert heads == [
        [mode, "RECALL@5", "RECALL@10", "MRR", "ALL@10", "QUESTIONS"]
        for mode in ("TEXT", "SEMANTIC", "HYBRID")
    ]
    names = {path.stem for path in bundled.FOLDER.glob("*.json")}
    recalls = []
    for block in blocks:
        rows = [line.split() for line in block.splitlines()[1:]]
        assert [row[0] for row in rows[:4]] == ["multi-hop", "temporal", "open-domain", "single-hop"]
        assert {row[0] for row in rows[4:-1]} == names
        assert rows[-1][0] == "ALL"
        recalls.append(float(rows[-1][2]))
    # Hybrid is worth its while, and does not become worse unnoticed.
    text, semantic, hybrid = recalls
    assert hybrid >= max(text, semantic, 0.84)
