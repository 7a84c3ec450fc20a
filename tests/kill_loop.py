"""The writer, killed again and again under load and started again on what it left."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cluster import Node, Stubs, wait_until
from ledger import Ledger
from store_audit import Damaged, audit
from writing_clients import WritingClients, served

CLIENTS = 4
MAX_WRITES_BEFORE_KILL = 200


@dataclass(slots=True)
class KillResult:
    """What the kills led to. ``restart_s``: for each, from the start of the process until it serves."""

    kills: int = 0
    acknowledged: int = 0
    unanswered: int = 0
    restart_s: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def kill_loop(
    data_dir: Path,
    *,
    kills: int,
    seed: str,
    environment: Mapping[str, str] | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> KillResult:
    """Kills a writer that many times; after each restart it must serve what it acknowledged.

    Each round writes to a namespace of its own, which is compared after the restart, and once more, with the
    whole store read, when all is done.
    """
    chance = random.Random(seed)
    result = KillResult()
    ledgers: list[Ledger] = []
    node = Node("agentmem.server", data_dir, "--embedder", "none", environment=environment)
    try:
        node.wait_ready()
        for kill in range(kills):
            load = WritingClients(f"kill-{kill}", clients=CLIENTS, seed=f"{seed}/{kill}")
            ledgers.append(load.ledger)
            _kill_under_load(node, load, chance.randint(1, MAX_WRITES_BEFORE_KILL))
            start_s = time.monotonic()
            node.restart()
            result.restart_s.append(time.monotonic() - start_s)
            stubs = Stubs(node.address)
            result.problems += load.ledger.problems(served(stubs, load.ledger.namespace))
            stubs.channel.close()
            on_progress(1)
        node.terminate()
    finally:
        node.stop()
    result.kills = len(ledgers)
    result.acknowledged = sum(ledger.acknowledged() for ledger in ledgers)
    result.unanswered = sum(ledger.unanswered() for ledger in ledgers)
    result.problems += _audit_all(data_dir / "store", ledgers)
    return result


def _kill_under_load(node: Node, load: WritingClients, writes: int) -> None:
    """Kills the node some time after it acknowledged that many writes, while others are on their way."""
    load.start(node.address)
    try:
        wait_until(lambda: load.ledger.acknowledged() >= writes, f"{writes} writes are acknowledged")
        node.kill()
        load.join()
    finally:
        load.stop()


def _audit_all(store: Path, ledgers: list[Ledger]) -> list[str]:
    try:
        stored = audit(store, [ledger.namespace for ledger in ledgers])
    except Damaged as damage:
        return [str(damage)]
    return [line for ledger in ledgers for line in ledger.problems(stored[ledger.namespace])]
