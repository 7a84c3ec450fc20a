"""``python -m agentmem.bench costs``: what calls and memories cost, for `agentmem capacity`.

CPU is that of the server processes, as they report it themselves, so a generator that is slow changes
nothing. Sizes come from three namespaces, one after the other, of which two differ in the dimension of the
embeddings and two in the length of the contents; what a process takes at first is there before them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy

from agentmem.cli import bundled, conversations
from agentmem.cli.cluster import LocalCluster, wait_searchable
from agentmem.client import Client, NewMemory, NodeReport

FORMAT = 1
NAMESPACE = "costs"
BATCH_MEMORIES = 500
MEMORIES_OF_USER = 100
SETTLE_TIMEOUT_S = 600.0
POLL_S = 0.5
CALL_TIMEOUT_S = 60.0
# Pages of 4 KiB make steps: what one vector of 768 components leaves of its page is about the average.
DIMENSIONS = (64, 768)
CONTENT_BYTES = (200, 1200)
# Of calls, what users have most: the embedder's dimension, and short contents.
CALL_CONTENT_BYTES = 200
QUESTION_BYTES = 40

Sizes = Mapping[str, float]


class Texts:
    """Contents of the words of the bundled conversations, as often as there: the same for the same seed.

    Not their sentences, which are few: a store compresses what it has seen before to nothing.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        loaded = conversations.load_folder(bundled.FOLDER)
        text = " ".join(turn.text for each in loaded for turn in each.turns)
        self._words = text.encode("ascii", "ignore").decode().split()

    def content(self, size_bytes: int) -> str:
        """Words, cut at the size."""
        text = self._random.choice(self._words)
        while len(text) < size_bytes:
            text += " " + self._random.choice(self._words)
        return text[:size_bytes]


@contextmanager
def running() -> Iterator[tuple[LocalCluster, Client]]:
    """A writer, a replica and a client, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="agentmem-costs-") as folder:
        cluster = LocalCluster(Path(folder))
        try:
            cluster.start(cluster.free_ports(1, port=0))
            with Client(*cluster.endpoints(), timeout_s=CALL_TIMEOUT_S) as client:
                yield cluster, client
        finally:
            cluster.stop()


def reports(client: Client) -> tuple[NodeReport, NodeReport]:
    """Of the writer and of the replica."""
    writer, replica = (client.node_report(node.address) for node in client.topology().nodes)
    return writer, replica


def sizes(client: Client, quiet_s: float) -> Sizes:
    """Bytes by name, when those of the indexes have stayed as they are for so long."""
    found: list[tuple[float, Sizes]] = []
    give_up_s = time.monotonic() + SETTLE_TIMEOUT_S
    while True:
        writer, replica = reports(client)
        now = {
            "writer_memory": float(writer.anonymous_memory_bytes or 0),
            "replica_memory": float(replica.anonymous_memory_bytes or 0),
            "store_disk": float(writer.store_used_bytes),
            "index_disk": float(replica.index_bytes or 0),
        }
        if found and found[0][1]["index_disk"] != now["index_disk"]:
            found = []
        found.append((time.monotonic(), now))
        if found[-1][0] - found[0][0] >= quiet_s:
            return now
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"the indexes still change after {SETTLE_TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)  # the pace of the looks


def add(
    client: Client, namespace: str, memories: int, texts: Texts, dimension: int, content_bytes: int
) -> None:
    """Adds memories with made embeddings, or with those of the server for dimension 0."""
    draw = numpy.random.default_rng(dimension)
    revision = 0
    for start in range(0, memories, BATCH_MEMORIES):
        batch = [
            NewMemory(
                content=texts.content(content_bytes),
                id=str(number),
                user_id=f"user-{number // MEMORIES_OF_USER}",
                embedding=draw.standard_normal(dimension).tolist() if dimension else None,
                embedding_model="drawn" if dimension else "",
            )
            for number in range(start, min(start + BATCH_MEMORIES, memories))
        ]
        revision = client.add_many(namespace, batch).revision
    wait_searchable(client, revision, SETTLE_TIMEOUT_S)


def byte_costs(client: Client, memories: int, quiet_s: float) -> dict[str, float]:
    """Sizes by memory, by component and by byte of content, and what processes have without memories.

    Args:
        client: of a cluster that has as many memories already, so that buffers, which are there once, are.
    """
    (low, high), (short, long) = DIMENSIONS, CONTENT_BYTES
    warm = sizes(client, quiet_s)
    before = warm
    grown = []
    for dimension, content_bytes in ((low, short), (high, short), (low, long)):
        add(client, f"{NAMESPACE}-{dimension}-{content_bytes}", memories, Texts(1), dimension, content_bytes)
        after = sizes(client, quiet_s)
        grown.append({name: (after[name] - before[name]) / memories for name in after})
        before = after
    small, wide, verbose = grown
    costs = {}
    for name in small:
        # What noise makes negative costs nothing.
        component = max(0.0, (wide[name] - small[name]) / (high - low))
        byte = max(0.0, (verbose[name] - small[name]) / (long - short))
        costs[f"{name}_per_component"] = component
        costs[f"{name}_per_content_byte"] = byte
        costs[f"{name}_per_memory"] = max(0.0, small[name] - low * component - short * byte)
    for name in ("writer_memory", "replica_memory"):
        costs[name] = max(0.0, warm[name] - memories * small[name])
    return {name: round(value, 3) for name, value in sorted(costs.items())}


Call = Callable[[Client, int], object]


def cpu_costs(
    client: Client, endpoints: Sequence[str], memories: int, calls: int, callers: int, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds of CPU by call: the median of the rounds, and their spread as a share of it."""
    texts = Texts(0)
    add(client, NAMESPACE, memories, texts, 0, CALL_CONTENT_BYTES)
    kinds = _kinds(texts, memories, calls * (rounds + 1))
    found: dict[str, list[float]] = {}
    with ThreadPoolExecutor(callers) as pool, ExitStack() as open_clients:
        # A client for each, so that calls do not travel together.
        clients = [
            open_clients.enter_context(Client(*endpoints, timeout_s=CALL_TIMEOUT_S)) for _ in range(callers)
        ]
        # The first round warms caches and connections up.
        for number in range(rounds + 1):
            for name, call in kinds.items():

                def run(caller: int, call: Call = call, first: int = number * calls) -> None:
                    for place in range(caller, calls, callers):
                        call(clients[caller], first + place)

                before = reports(client)
                list(pool.map(run, range(callers)))
                if name == "add":
                    wait_searchable(client, reports(client)[0].node.applied_revision, SETTLE_TIMEOUT_S)
                writer_s, replica_s = (
                    now.cpu_s - then.cpu_s for now, then in zip(reports(client), before, strict=True)
                )
                if number and name == "add":
                    found.setdefault("add", []).append(1000 * writer_s / calls)
                    found.setdefault("apply", []).append(1000 * replica_s / calls)
                elif number:
                    found.setdefault(name, []).append(1000 * replica_s / calls)
    medians = {name: statistics.median(values) for name, values in sorted(found.items())}
    spreads = {name: (max(values) - min(values)) / medians[name] for name, values in sorted(found.items())}
    return (
        {name: round(value, 4) for name, value in medians.items()},
        {name: round(value, 3) for name, value in spreads.items()},
    )


def _kinds(texts: Texts, memories: int, calls: int) -> dict[str, Call]:
    """What is called, each time with other arguments."""
    users = memories // MEMORIES_OF_USER
    questions = [texts.content(QUESTION_BYTES) for _ in range(calls)]
    contents = [texts.content(CALL_CONTENT_BYTES) for _ in range(calls)]
    # Goes round all memories and users in an order of its own.
    step = 7919
    return {
        "get": lambda own, at: own.get(NAMESPACE, str(at * step % memories)),
        "search_scoped": lambda own, at: own.search(
            NAMESPACE, questions[at], user_id=f"user-{at * step % users}", top_k=10
        ),
        "search_namespace": lambda own, at: own.search(NAMESPACE, questions[at], top_k=10),
        "add": lambda own, at: own.add(NAMESPACE, contents[at], user_id=f"user-{at % users}"),
    }


def main(words: list[str]) -> int:
    """Measures and writes the document."""
    parser = argparse.ArgumentParser(prog="python -m agentmem.bench costs", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument(
        "--memories",
        type=int,
        default=50_000,
        help="added to each store, behind half as many (default: %(default)s)",
    )
    parser.add_argument("--calls", type=int, default=2_000, help="of each kind (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is taken")
    parser.add_argument("--callers", type=int, default=4, help="at a time (default: %(default)s)")
    parser.add_argument(
        "--quiet-s",
        type=float,
        default=20.0,
        help="seconds for which the indexes must stay the same: segments are built behind the searches",
    )
    options = parser.parse_args(words)
    if min(options.memories // MEMORIES_OF_USER, options.calls, options.rounds, options.callers) < 1:
        parser.error(f"at least {MEMORIES_OF_USER} memories, and one of everything else")
    with running() as (cluster, client):
        print("calls: CPU of the processes", flush=True)
        cpu_ms, spread = cpu_costs(
            client, cluster.endpoints(), options.memories, options.calls, options.callers, options.rounds
        )
        for name, cost in cpu_ms.items():
            print(f"  {name:18} {cost:8.3f} ms, spread {100 * spread[name]:.0f} %", flush=True)
        print("memories: what three stores grow by", flush=True)
        sized = byte_costs(client, options.memories, options.quiet_s)
        for name, cost in sized.items():
            print(f"  {name:32} {cost:14,.2f}", flush=True)
    document = {
        "format": FORMAT,
        "cpu_ms": cpu_ms,
        "cpu_ms_spread": spread,
        "bytes": sized,
        "measured_on": {
            "time": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": f"{_cpu_model()}, {os.cpu_count()} CPUs",
            "python": platform.python_version(),
            "memories": options.memories,
            "content_bytes": CALL_CONTENT_BYTES,
            "memories_of_a_user": MEMORIES_OF_USER,
            "command": f"python -m agentmem.bench costs {' '.join(words)}",
        },
    }
    options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"written to {options.out}")
    return 0


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
