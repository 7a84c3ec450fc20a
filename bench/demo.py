"""How well searches find the turns that answer a question, on conversations in the LoCoMo format.

    python bench/demo.py [--dataset FOLDER] [--json] [--out FILE] [--data-dir FOLDER]

Every turn of every conversation becomes a memory. Every question of the categories 1 to 4 is then asked in
each mode, and the turns named as its evidence are looked for among the ten hits:

    recall@5, recall@10    the share of them among the first 5, or 10
    MRR                    1 / the place of the first of them; 0 when there is none
    all@10                 1 when all of them are there, else 0

and the means over the questions are printed, of each category, of each conversation, and of all. The cluster
that runs in the data directory is used; without one, a temporary one is started and stopped again.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentmem.cli import bundled, conversations, terminal
from agentmem.cli.cluster import LocalCluster, wait_searchable, wait_serving
from agentmem.cli.connection import translated
from agentmem.cli.conversations import CATEGORIES, Conversation, ConversationError
from agentmem.cli.failures import CommandError, ExitCode, usage_error
from agentmem.client import AsyncClient, Client, SearchMode

MODES = (SearchMode.TEXT, SearchMode.SEMANTIC, SearchMode.HYBRID)
ASKED_CATEGORIES = (1, 2, 3, 4)
TOP_K = 10
FEW = 5
FIGURES = ("recall@5", "recall@10", "mrr", "all@10")
CONCURRENCY = 16
TEMPORARY_REPLICAS = 2
CALL_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with the namespace that it is asked in, and the name of its conversation."""

    namespace: str
    conversation: str
    text: str
    category: int
    evidence: frozenset[str]


def namespace(conversation: Conversation) -> str:
    """Another content is another namespace, so that what is there already is never mixed with it."""
    return f"demo/{conversation.name}-{conversation.content_hash}"


def questions(loaded: Sequence[Conversation]) -> tuple[list[Asked], int]:
    """The questions to ask, and how many are left out because no turn is named as their evidence."""
    asked = [
        Asked(
            namespace(conversation),
            conversation.name,
            question.text,
            question.category,
            frozenset(question.evidence),
        )
        for conversation in loaded
        for question in conversation.questions
        if question.category in ASKED_CATEGORIES
    ]
    with_evidence = [question for question in asked if question.evidence]
    return with_evidence, len(asked) - len(with_evidence)


def add_missing(client: Client, loaded: Sequence[Conversation]) -> int:
    """Adds the turns that are not there yet, waits until they can be found, and says how many they were."""
    added = 0
    with terminal.progress("importing", len(loaded)) as on_progress:
        for conversation in loaded:
            name = namespace(conversation)
            present = {memory.id for memory in client.iterate(name, page_size=500)}
            missing = [memory for memory in conversation.memories() if memory.id not in present]
            bundled.add_in_batches(client, name, missing)
            added += len(missing)
            on_progress(1)
    writer = client.topology().writer
    if writer is None:
        raise CommandError("the cluster has no writer", ExitCode.UNREACHABLE)
    wait_searchable(client, writer.applied_revision)
    return added


async def hits(
    endpoints: Sequence[str], asked: Sequence[Asked], on_progress: Callable[[int], None]
) -> dict[SearchMode, list[list[str]]]:
    """The ids that each question finds in each mode, best first, in the order of the questions."""
    results: dict[SearchMode, list[list[str]]] = {mode: [[] for _ in asked] for mode in MODES}
    remaining = iter([(mode, position) for mode in MODES for position in range(len(asked))])

    async def ask(client: AsyncClient) -> None:
        for mode, position in remaining:
            question = asked[position]
            found = await client.search(question.namespace, question.text, mode=mode, top_k=TOP_K)
            results[mode][position] = [hit.memory.id for hit in found.hits]
            on_progress(1)

    async with AsyncClient(*endpoints, timeout_s=CALL_TIMEOUT_S) as client:
        tasks = [asyncio.create_task(ask(client)) for _ in range(CONCURRENCY)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
    return results


def figures(evidence: frozenset[str], found: Sequence[str]) -> dict[str, float]:
    """What one question adds to the means, by the name of the figure.

    Args:
        evidence: the turns that answer it, at least one.
        found: ids, best first, ``TOP_K`` at most.
    """
    places = [place for place, name in enumerate(found, start=1) if name in evidence]
    return {
        "recall@5": sum(place <= FEW for place in places) / len(evidence),
        "recall@10": len(places) / len(evidence),
        "mrr": 1 / places[0] if places else 0.0,
        "all@10": float(len(places) == len(evidence)),
    }


def summary(asked: Sequence[Asked], results: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The means over all questions, and over those of each category and each conversation.

    Args:
        asked: at least one.
        results: what each of them found.
    """
    by_category: dict[str, list[dict[str, float]]] = {}
    by_conversation: dict[str, list[dict[str, float]]] = {}
    rows = []
    for question, found in zip(asked, results, strict=True):
        row = figures(question.evidence, found)
        rows.append(row)
        by_category.setdefault(str(question.category), []).append(row)
        by_conversation.setdefault(question.conversation, []).append(row)
    return _means(rows) | {
        "by_category": {each: _means(by_category[each]) for each in sorted(by_category)},
        "by_conversation": {each: _means(of_it) for each, of_it in by_conversation.items()},
    }


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    means = {name: sum(row[name] for row in rows) / len(rows) for name in FIGURES}
    return {**means, "questions": len(rows)}


def print_summaries(summaries: Mapping[str, dict[str, Any]]) -> None:
    """A block for each mode, with a row for each category, each conversation, and all of them."""
    for mode, result in summaries.items():
        groups = {CATEGORIES[int(number)]: means for number, means in result["by_category"].items()}
        groups |= {**result["by_conversation"], "ALL": result}
        rows = [
            [group, *(f"{means[name]:.3f}" for name in FIGURES), str(means["questions"])]
            for group, means in groups.items()
        ]
        terminal.table(rows, [mode.upper(), *(name.upper() for name in FIGURES), "QUESTIONS"])
        terminal.say()


@contextmanager
def cluster_endpoints(data_dir: Path) -> Iterator[list[str]]:
    """The nodes of the cluster in the data directory, or of a temporary one."""
    endpoints = LocalCluster(data_dir).endpoints()
    if endpoints:
        terminal.note(f"using the cluster in {data_dir}")
        yield endpoints
        return
    terminal.note(
        f"no cluster runs in {data_dir}: starting one writer and {TEMPORARY_REPLICAS} replicas for now"
    )
    with tempfile.TemporaryDirectory(prefix="agentmem-demo-") as folder:
        cluster = LocalCluster(Path(folder))
        cluster.start(cluster.free_ports(TEMPORARY_REPLICAS, port=0))
        try:
            yield cluster.endpoints()
        finally:
            cluster.stop()


def run(dataset: Path, out: Path | None, data_dir: Path, *, as_json: bool) -> None:
    """Imports, asks, prints and writes."""
    start_s = time.monotonic()
    loaded = conversations.load_folder(dataset)
    asked, skipped = questions(loaded)
    if not asked:
        raise usage_error(f"{dataset}: no conversation has a question with evidence")
    with cluster_endpoints(data_dir) as endpoints, translated(", ".join(endpoints)):
        with Client(*endpoints, timeout_s=CALL_TIMEOUT_S) as client:
            if not client.topology().replicas:
                raise CommandError("searches need a replica: start one with `make replicas N=1`")
            wait_serving(client, [node.id for node in client.topology().replicas])
            added = add_missing(client, loaded)
        imported_s = time.monotonic() - start_s
        with terminal.progress("asking", len(MODES) * len(asked)) as on_progress:
            found = asyncio.run(hits(endpoints, asked, on_progress))
    summaries = {str(mode): summary(asked, of_mode) for mode, of_mode in found.items()}
    text = json.dumps(summaries, indent=2)
    if as_json:
        print(text)
    else:
        print_summaries(summaries)
    turns = sum(len(conversation.turns) for conversation in loaded)
    terminal.note(
        f"{len(loaded)} conversations, {turns} turns ({added} imported now); "
        f"{skipped} questions without evidence left out; "
        f"{time.monotonic() - start_s:.1f} s in all, {imported_s:.1f} s until searchable"
    )
    if out is not None:
        try:
            out.write_text(text + "\n")
        except OSError as error:
            raise usage_error(f"cannot write {out}: {error.strerror}") from error
        terminal.note(f"written to {out}")


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Recall of searches on conversations in the LoCoMo format.")
    parser.add_argument(
        "--dataset", type=Path, default=bundled.FOLDER, help="folder of *.json; default: the sample"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--out", type=Path, help="write the results there as JSON, too")
    parser.add_argument("--data-dir", type=Path, default=Path(".agentmem"), help="where a cluster may run")
    arguments = parser.parse_args(words)
    # So that a temporary cluster is stopped then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        run(arguments.dataset, arguments.out, arguments.data_dir, as_json=arguments.json)
    except ConversationError as error:
        terminal.fail(str(error))
        return ExitCode.USAGE
    except CommandError as error:
        terminal.fail(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
