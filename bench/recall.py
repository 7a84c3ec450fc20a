"""How many of the ten nearest memories a search by meaning finds, by the share that its filter matches.

    make recall
    PYTHONPATH=tests python bench/recall.py [--memories N] [--questions N] [--corpus NAME] [--json]

A writer and a replica get memories, whose vectors the replica seals into segments; a twentieth of them are
then deleted and as many written again. Every question is asked of the replica, and what it finds is compared
with scoring every memory in NumPy. A hit counts when it scores no less than the tenth best. The corpora:

    clusters    random directions around 1,000 centres, 256 dimensions
    sentences   sentences put together from lists of words, embedded by the server

Each share is asked with three filters: by tag (a random draw), by time (a range, random as well), and by
region, which goes by the centre or the place that the memory is about: near memories match together, so that
of most questions all of what is nearest is left out. Exit code 1 when a recall is below 0.95.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from cluster import Cluster, Stubs

from agentmem.cli import terminal
from agentmem.client import Client, Filter, NewMemory
from agentmem.v1 import reader_pb2

CORPORA = ("clusters", "sentences")
NAMESPACE, QUESTIONS = "recall", "questions"
SHARES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.001, 0.0001)
TOP_K = 10
TARGET_RECALL = 0.95
DIMENSION = 256
CENTRES = 1000
BATCH = 1000
SEAL_ROWS = 20_000
# Segments are built at low priority, beside what else goes on.
SEALED_TIMEOUT_S = 1200.0
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
SPAN = timedelta(days=1000)
TOLERANCE = 1e-6
Rows = npt.NDArray[np.float32]

PEOPLE = (
    "Ana|Ben|Cleo|Dora|Emil|Farah|Goran|Hana|Ivan|Jun|Karim|Lena|Mateo|Nadia|Omar|Priya|Quinn|Rosa|Sven|Tara"
)
DEEDS = (
    "bought|sold|painted|repaired|lost|found|photographed|borrowed|cleaned|described|drew|forgot|hid|"
    "measured|moved|ordered|praised|rented|returned|wrapped"
)
THINGS = (
    "a red bicycle|an old piano|a wooden chair|two train tickets|a novel about whales|a green coat|"
    "the kitchen lamp|a recipe for soup|a map of the city|a broken clock|three oranges|"
    "a letter from school|the garden fence|a silver ring|a tent for four|a box of chalk|"
    "the dentist's bill|a jar of honey|a pair of skis|a cheap camera|the wedding cake|"
    "a puzzle of the moon|a blue kite|running shoes|a used laptop"
)
PLACES = (
    "Lisbon|Quito|Osaka|Nairobi|Toronto|Oslo|Cairo|Lima|Warsaw|Hanoi|Dublin|Perth|Athens|Bogota|Seoul|"
    "Tunis|Vienna|Boston|Mumbai|Havana|Prague|Accra|Riga|Kyoto|Austin|Geneva|Manila|Porto|Zagreb|Denver"
)
REASONS = (
    "because it rained|for her brother|before the holidays|after work|for the new flat|with a discount|"
    "by mistake|for the first time|in a hurry|as a present|to save money|on the way home|"
    "for a friend's birthday|out of boredom|without asking anybody|during the strike|"
    "after a long search|for the summer party|in spite of the price|at night"
)


class Corpus:
    """Texts, vectors and regions (0 to 1) of so many memories, made one after the other."""

    def __init__(self, name: str, count: int) -> None:
        self._random = np.random.default_rng(11)
        self._rows: Rows | None = None
        if name == "clusters":
            centres = self._random.standard_normal((CENTRES, DIMENSION))
            chosen = self._random.integers(0, CENTRES, count)
            rows = centres[chosen] + self._random.standard_normal((count, DIMENSION))
            self._rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
            self._texts = [f"memory {number}" for number in range(count)]
            self._regions = self._random.random(CENTRES)[chosen]
        else:
            parts = [words.split("|") for words in (PEOPLE, DEEDS, THINGS, PLACES, REASONS)]
            drawn = np.stack([self._random.integers(0, len(words), count) for words in parts], axis=1)
            self._texts = [
                "{} {} {} in {} {}.".format(*(words[at] for words, at in zip(parts, places, strict=True)))
                for places in drawn.tolist()
            ]
            # Of near regions are those of a place, and within it those of a thing.
            self._regions = (drawn[:, 3] + drawn[:, 2] / len(parts[2])) / len(parts[3])

    def memory(self, number: int, id: str) -> NewMemory:
        draw, when = self._random.random(2).tolist()
        return NewMemory(
            self._texts[number],
            id=id,
            tags=[f"share-{share:g}" for share in SHARES if draw < share],
            metadata={"region": float(self._regions[number])},
            event_time=_moment(when),
            embedding=None if self._rows is None else self._rows[number].tolist(),
            embedding_model="" if self._rows is None else "random",
        )


def _moment(place: float) -> datetime:
    return BEGIN + place * SPAN


def filters(share: float) -> dict[str, str]:
    """The filters that about this share of the memories match, by name."""
    start = 0.3 * (1 - share)
    first, last = (_moment(place).isoformat() for place in (start, start + share))
    return {
        "tag": f'tags = "share-{share:g}"',
        "time": f'event_time between "{first}" and "{last}"',
        "region": f"metadata.region < {share}",
    }


@dataclass
class Truth:
    """All memories that are there, as the writer exports them."""

    rows: Rows
    tags: list[frozenset[str]]
    times: list[datetime]
    regions: npt.NDArray[np.float64]

    @classmethod
    def of(cls, client: Client) -> Truth:
        rows, tags, times, regions = [], [], [], []
        for version in client.export(NAMESPACE, newest_only=True, timeout_s=600):
            memory = version.memory
            assert memory.embedding is not None
            rows.append(np.array(memory.embedding, dtype=np.float32))
            tags.append(frozenset(memory.tags))
            times.append(memory.event_time)
            regions.append(float(memory.metadata["region"]))  # type: ignore[arg-type]
        return cls(np.stack(rows), tags, times, np.array(regions))

    def matching(self, name: str, share: float) -> npt.NDArray[np.bool_]:
        """What ``filters`` means, said a second time."""
        if name == "tag":
            return np.array([f"share-{share:g}" in each for each in self.tags])
        if name == "time":
            first, last = _moment(0.3 * (1 - share)), _moment(0.3 * (1 - share) + share)
            return np.array([first <= each <= last for each in self.times])
        return self.regions < share


def load(cluster: Cluster, client: Client, corpus: Corpus, memories: int, questions: int) -> None:
    """Adds memories and questions, deletes and rewrites some, and waits for segments."""
    for start in range(0, memories, BATCH):
        batch = [corpus.memory(number, f"m{number}") for number in range(start, min(start + BATCH, memories))]
        client.add_many(NAMESPACE, batch, timeout_s=120)
        terminal.note(f"{start + len(batch)} memories added")
    worn = memories // 20
    for start in range(0, worn, BATCH):
        numbers = range(start, min(start + BATCH, worn))
        client.delete(NAMESPACE, [f"m{20 * number}" for number in numbers], timeout_s=120)
    for number in range(worn):
        client.update(NAMESPACE, f"m{20 * number + 1}", event_time=corpus.memory(number, "m").event_time)
    asked = [corpus.memory(memories + number, f"q{number}") for number in range(questions)]
    client.add_many(QUESTIONS, asked, timeout_s=120)
    cluster.wait_settled()
    wait_sealed(cluster, memories - 2 * SEAL_ROWS)


def wait_sealed(cluster: Cluster, wanted: int) -> None:
    folder = cluster.replicas[0].data_dir / "indexes" / "segments"
    give_up_s = time.monotonic() + SEALED_TIMEOUT_S
    seen: list[int] = []
    while time.monotonic() < give_up_s:
        before, seen = (
            seen,
            sorted(json.loads(path.read_text())["count"] for path in folder.glob("*/segment.json")),
        )
        building = len([*folder.iterdir()]) > len(seen)
        terminal.note(f"segments of {seen} rows{', building' if building else ''}")
        if sum(seen) >= wanted and seen == before and not building:
            return
        time.sleep(5)  # the pace of the look
    raise TimeoutError(f"only {seen} rows were sealed within {SEALED_TIMEOUT_S} s")


def measure(stubs: Stubs, truth: Truth, questions: Rows) -> list[dict[str, Any]]:
    scores = questions @ truth.rows.T
    found = []
    for share in SHARES:
        for name, text in filters(share).items():
            mask = truth.matching(name, share)
            hits, wanted, waits_ms, plan = 0, 0, [], "-"
            for row, question in zip(scores, questions, strict=True):
                best = np.sort(row[mask])[::-1][:TOP_K]
                began_s = time.perf_counter()
                response = ask(stubs, question, text)
                waits_ms.append((time.perf_counter() - began_s) * 1e3)
                assert len(response.hits) == len(best), (name, share, len(response.hits), len(best))
                wanted += len(best)
                hits += sum(hit.score >= best[-1] - TOLERANCE for hit in response.hits)
            if len(best):
                plan = plan_of(ask(stubs, questions[0], text, explain=True))
            found.append(
                {
                    "share": share,
                    "filter": name,
                    "matching": int(mask.sum()),
                    "recall": round(hits / wanted, 4) if wanted else None,
                    "p50_ms": round(median(waits_ms), 2),
                    "p95_ms": round(float(np.percentile(waits_ms, 95)), 2),
                    "plan": plan,
                }
            )
    return found


def ask(
    stubs: Stubs, question: npt.NDArray[np.float32], text: str, *, explain: bool = False
) -> reader_pb2.SearchMemoriesResponse:
    request = reader_pb2.SearchMemoriesRequest(
        namespace=NAMESPACE,
        embedding=question.astype("<f4").tobytes(),
        mode=reader_pb2.SEARCH_MODE_SEMANTIC,
        filter=Filter.parse(text).to_proto(),
        top_k=TOP_K,
        explain=explain,
    )
    return stubs.reader.SearchMemories(request, timeout=60)


def plan_of(response: reader_pb2.SearchMemoriesResponse) -> str:
    return ", ".join(step.plan for step in response.explanation.steps if step.name == "vectors") or "-"


def run(corpus_name: str, memories: int, questions: int) -> list[dict[str, Any]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Cluster(Path(folder), replicas=1) as cluster,
        Client(cluster.writer.address, timeout_s=60) as client,
        Stubs(cluster.replicas[0].address) as stubs,
    ):
        corpus = Corpus(corpus_name, memories + questions)
        load(cluster, client, corpus, memories, questions)
        asked = client.iterate(QUESTIONS, include_embedding=True)
        rows = np.array([memory.embedding for memory in asked], dtype=np.float32)
        return [{"corpus": corpus_name, **row} for row in measure(stubs, Truth.of(client), rows)]


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    print(f"{'corpus':10} {'share':>8} {'filter':8} matching recall@10 {'p50':>7} {'p95':>7}  ms")
    for row in rows:
        recall = "" if row["recall"] is None else f"{row['recall']:.4f}"
        print(
            f"{row['corpus']:10} {row['share']:8.2%} {row['filter']:8} {row['matching']:8} {recall:>9} "
            f"{row['p50_ms']:7.2f} {row['p95_ms']:7.2f}  {row['plan']}",
            flush=True,
        )


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="recall@10 of searches by meaning per share of memories.")
    parser.add_argument("--memories", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--corpus", choices=CORPORA, action="append", help="default: all of them")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args(words)
    rows: list[dict[str, Any]] = []
    for name in given.corpus or CORPORA:
        measured = run(name, given.memories, given.questions)
        rows += measured
        if not given.json:
            print_table(measured)
    if given.json:
        print(json.dumps(rows))
    low = [row for row in rows if row["recall"] is not None and row["recall"] < TARGET_RECALL]
    terminal.note(
        f"{len(low)} recalls are below {TARGET_RECALL}" if low else f"none is below {TARGET_RECALL}"
    )
    return int(bool(low))


if __name__ == "__main__":
    sys.exit(main())
