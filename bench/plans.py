"""Whether the planner takes the best way to search by meaning, by the share that a filter matches.

    make plans
    python bench/plans.py [--memories N] [--questions N] [--index KIND] [--json]

A segment of conversations is searched as the planner wants, and by each of its ways: an exact scan of what
matches, and the index. Each question has a filter of its own, which matches

    random     any memories
    owners     all memories of some owners, whose rows stand together
    far        what is least like the question, so that all that is near it is left out

A time is the median of the CPU time of the questions, asked of one way after the other, three times;
``ratio`` is the planner's time by that of the better way. Exit code 1 when a recall@10 of the planner's is
below 0.95.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from agentmem.bench.suite.corpus import Corpus
from agentmem.bench.suite.questions import question
from agentmem.cli import terminal
from agentmem.core.embedders import WordLlamaEmbedder
from agentmem.replica.machine_costs import measured_costs
from agentmem.replica.namespace_vectors import NamespaceVectors
from agentmem.replica.ordinals import ordinal_set
from agentmem.replica.planner import Costs
from agentmem.replica.segment import KINDS, Segment, write_segment
from agentmem.replica.segment_files import ORDINALS_FILE, ROWS_FILE

SHARES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001, 0.0001)
TOP_K = 10
ROUNDS = 3
TARGET_RECALL = 0.95
TOLERANCE = 1e-6
MEMORIES_OF_AN_OWNER = 100
# With these one way is always thought to be the cheaper one.
EXACT, INDEX = Costs(scan=1e-9, gather=1e-9), Costs(scan=1e6, gather=1e6)
Rows = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


def embedded(texts: Sequence[str]) -> Rows:
    """The texts that mean something to the model, float32 [n, dimension]."""
    embedder = WordLlamaEmbedder()
    found = [vector for vector in embedder.embed(texts) if vector is not None]
    return np.stack(found).astype(np.float32)


def segment_of(folder: Path, rows: Rows, kind: str) -> Segment:
    """Written in turns by many owners, whose rows then stand together."""
    owners = np.arange(len(rows)) % max(1, len(rows) // MEMORIES_OF_AN_OWNER)
    order = np.argsort(owners, kind="stable")
    (order + 1).astype("<u8").tofile(folder / ORDINALS_FILE)
    rows[order].astype("<f4").tofile(folder / ROWS_FILE)
    write_segment(folder, dimension=rows.shape[1], kind=kind, replaces=[])
    return Segment.open(folder)


def filters(rows: Rows, asked: Rows, share: float) -> Iterator[tuple[str, list[Places]]]:
    """Kinds of filters, each with the rows of the segment that match for each question."""
    random = np.random.default_rng(7)
    count = max(1, round(len(rows) * share))
    yield "random", [random.permutation(len(rows))[:count] for _ in asked]
    if share == 1:
        return
    owners, some = len(rows) // MEMORIES_OF_AN_OWNER, max(1, count // MEMORIES_OF_AN_OWNER)
    theirs = np.arange(MEMORIES_OF_AN_OWNER)
    drawn = [random.permutation(owners)[:some, np.newaxis] * MEMORIES_OF_AN_OWNER for _ in asked]
    yield "owners", [(starts + theirs).ravel() for starts in drawn]
    yield "far", [np.argpartition(rows @ vector, count - 1)[:count] for vector in asked]


def measure(segment: Segment, asked: Rows) -> Iterator[dict[str, Any]]:
    vectors = NamespaceVectors(segment.rows.shape[1])
    live = ordinal_set(segment.ordinals)
    vectors.add_segment(segment, live)
    view = vectors.view(measured_costs())
    # What rows cost to read stays as it is; only what the planner believes is another.
    ways = {"planner": view, "exact": replace(view, costs=EXACT), "index": replace(view, costs=INDEX)}
    for share in SHARES:
        for name, matching in filters(segment.rows, asked, share):
            # Beforehand, for it reads all rows, and leaves the processor's caches to whoever comes next.
            best = min(TOP_K, len(matching[0]))
            least = [
                np.sort(segment.rows[places] @ vector)[-best]
                for vector, places in zip(asked, matching, strict=True)
            ]
            allowed = [ordinal_set(segment.ordinals[places]) for places in matching]
            took_ms: dict[str, list[float]] = {way: [] for way in ways}
            found = 0
            for way, searched in list(ways.items()) * ROUNDS:
                for vector, some, bound in zip(asked, allowed, least, strict=True):
                    began_ns = time.thread_time_ns()
                    hits = searched.search(vector, TOP_K, some, live)
                    took_ms[way].append((time.thread_time_ns() - began_ns) / 1e6)
                    if way == "planner":
                        plan = hits.how
                        found += int(np.count_nonzero(hits.cosines >= bound - TOLERANCE))
            times = {way: median(each) for way, each in took_ms.items()}
            yield {
                "share": share,
                "filter": name,
                "matching": len(matching[0]),
                "recall": round(found / (best * len(asked) * ROUNDS), 4),
                **{f"{way}_ms": round(each, 3) for way, each in times.items()},
                "ratio": round(times["planner"] / min(times["exact"], times["index"]), 2),
                "plan": plan,
            }


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="The planner's way beside each of the ways that there are.")
    parser.add_argument("--memories", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--index", choices=KINDS, default="ivf")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args(words)
    corpus = Corpus()
    terminal.note(f"embedding {given.memories} memories")
    rows = embedded([corpus.text(number) for number in range(given.memories)])
    numbers = corpus.searchable(given.questions, among=given.memories)
    asked = embedded([question(corpus, number, "text") for number in numbers])
    low = 0
    if not given.json:
        columns = f"{'planner':>8} {'exact':>8} {'index':>8}"
        print(f"{'share':>8} filter matching recall@10 {columns}  ms CPU  ratio")
    with tempfile.TemporaryDirectory() as folder:
        terminal.note(f"building the index: {given.index}")
        segment = segment_of(Path(folder), rows, given.index)
        for row in measure(segment, asked):
            low += row["recall"] < TARGET_RECALL
            if given.json:
                print(json.dumps(row), flush=True)
                continue
            times = " ".join(f"{row[f'{way}_ms']:8.3f}" for way in ("planner", "exact", "index"))
            print(
                f"{row['share']:8.2%} {row['filter']:6} {row['matching']:8} {row['recall']:9.4f} {times}"
                f"{row['ratio']:15.2f}",
                flush=True,
            )
    terminal.note(f"{low} recalls are below {TARGET_RECALL}" if low else f"none is below {TARGET_RECALL}")
    return int(low > 0)


if __name__ == "__main__":
    sys.exit(main())
