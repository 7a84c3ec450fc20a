"""How well searches find the turns that answer a question, on conversations in the LoCoMo format.

    python bench/demo.py [--dataset FOLDER] [--out FILE] [--data-dir FOLDER]

Every turn of every conversation becomes a memory. Every question of the categories 1 to 4 is then asked in
each mode, and its recall@10 is the share of the turns named as its evidence among the ten hits. The cluster
that runs in the data directory is used; without one, a temporary one is started and stopped again.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections import defaultdict
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
CONCURRENCY = 16
TEMPORARY_REPLICAS = 2
CALL_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with the namespace that it is asked in."""

    namespace: str
    text: str
    category: int
    evidence: frozenset[str]


def namespace(conversation: Conversation) -> str:
    """Another content is another namespace, so that what is there already is never mixed with it."""
    return f"demo/{conversation.name}-{conversation.content_hash}"


def questions(loaded: Sequence[Conversation]) -> tuple[list[Asked], int]:
    """The questions to ask, and how many are left out because no turn is named as their evidence."""
    asked = [
        Asked(namespace(conversation), question.text, question.category, frozenset(question.evidence))
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


async def recalls(
    endpoints: Sequence[str], asked: Sequence[Asked], mode: SearchMode, on_progress: Callable[[int], None]
) -> list[float]:
    """The recall of each question, in their order."""
    results = [0.0] * len(asked)
    remaining = iter(range(len(asked)))

    async def ask(client: AsyncClient) -> None:
        for position in remaining:
            question = asked[position]
            found = await client.search(question.namespace, question.text, mode=mode, top_k=TOP_K)
            hits = {hit.memory.id for hit in found.hits}
            results[position] = len(question.evidence & hits) / len(question.evidence)
            on_progress(1)

    async with AsyncClient(*endpoints, timeout_s=CALL_TIMEOUT_S) as client:
        tasks = [asyncio.create_task(ask(client)) for _ in range(CONCURRENCY)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
    return results


def summary(asked: Sequence[Asked], results: Sequence[float]) -> dict[str, Any]:
    """Mean recall over all questions and over those of each category."""
    by_category: dict[int, list[float]] = defaultdict(list)
    for question, recall in zip(asked, results, strict=True):
        by_category[question.category].append(recall)
    return _mean(results) | {
        "by_category": {str(category): _mean(by_category[category]) for category in sorted(by_category)}
    }


def _mean(values: Sequence[float]) -> dict[str, Any]:
    return {"recall@10": sum(values) / len(values) if values else None, "questions": len(values)}


def print_summaries(summaries: Mapping[str, dict[str, Any]]) -> None:
    """A row for each mode, a column for each category."""
    first = next(iter(summaries.values()))
    categories = list(first["by_category"])
    header = ["RECALL@10", *(CATEGORIES[int(category)] for category in categories), "ALL"]
    rows = [
        [mode, *(_recall(result["by_category"][category]) for category in categories), _recall(result)]
        for mode, result in summaries.items()
    ]
    counts = [str(first["by_category"][category]["questions"]) for category in categories]
    terminal.table([*rows, ["questions", *counts, str(first["questions"])]], header)


def _recall(result: Mapping[str, Any]) -> str:
    return f"{result['recall@10']:.3f}"


@contextmanager
def cluster_endpoints(data_dir: Path) -> Iterator[list[str]]:
    """The nodes of the cluster in the data directory, or of a temporary one."""
    endpoints = LocalCluster(data_dir).endpoints()
    if endpoints:
        terminal.say(f"using the cluster in {data_dir}")
        yield endpoints
        return
    terminal.say(
        f"no cluster runs in {data_dir}: starting one writer and {TEMPORARY_REPLICAS} replicas for now"
    )
    with tempfile.TemporaryDirectory(prefix="agentmem-demo-") as folder:
        cluster = LocalCluster(Path(folder))
        cluster.start(cluster.free_ports(TEMPORARY_REPLICAS, port=0))
        try:
            yield cluster.endpoints()
        finally:
            cluster.stop()


def run(dataset: Path, out: Path | None, data_dir: Path) -> None:
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
        summaries = {}
        with terminal.progress("asking", len(MODES) * len(asked)) as on_progress:
            for mode in MODES:
                results = asyncio.run(recalls(endpoints, asked, mode, on_progress))
                summaries[str(mode)] = summary(asked, results)
    turns = sum(len(conversation.turns) for conversation in loaded)
    print_summaries(summaries)
    terminal.say(
        f"{len(loaded)} conversations, {turns} turns ({added} imported now); "
        f"{skipped} questions without evidence left out; "
        f"{time.monotonic() - start_s:.1f} s in all, {imported_s:.1f} s until searchable"
    )
    if out is not None:
        try:
            out.write_text(json.dumps(summaries, indent=2) + "\n")
        except OSError as error:
            raise usage_error(f"cannot write {out}: {error.strerror}") from error
        terminal.say(f"written to {out}")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Recall of searches on conversations in the LoCoMo format.")
    parser.add_argument(
        "--dataset", type=Path, default=bundled.FOLDER, help="folder of *.json; default: the sample"
    )
    parser.add_argument("--out", type=Path, help="write the results there as JSON")
    parser.add_argument("--data-dir", type=Path, default=Path(".agentmem"), help="where a cluster may run")
    arguments = parser.parse_args()
    # So that a temporary cluster is stopped then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        run(arguments.dataset, arguments.out, arguments.data_dir)
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
