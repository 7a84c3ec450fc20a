"""The command that shows what the nodes do."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from agentmem.cli import documents, node_figures, node_table, terminal
from agentmem.cli.connection import DEFAULT_TARGET, connected
from agentmem.cli.options import DEFAULT_TIMEOUT_S, Json, Option, Target, TimeoutS
from agentmem.client import (
    AgentMemError,
    Client,
    DeadlineExceeded,
    Node,
    NodeReport,
    ServerError,
    Topology,
    Unavailable,
)

NODE_TIMEOUT_S = 2.0
MAX_NODES = 128


def top(
    once: Annotated[
        bool, Option("--once", help="One table, of the calls of one interval, instead of one after another.")
    ] = False,
    interval_s: Annotated[
        float, Option("--interval", min=0.1, max=3600, help="Seconds between two looks at the nodes.")
    ] = 2.0,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Shows what each node does: a live table until Ctrl-C, or as JSON a document a line.

    QPS, P95 and errors are of the calls to ReaderService and WriterService that ended since the look before,
    P95 without streams, by the time they took in the node. LAG is in revisions behind the writer, CPU of one
    core, HITS of the node's caches since it started. A wide terminal shows more columns.
    """
    with connected(target, timeout_s) as client:
        nodes = _Nodes(client, min(timeout_s, NODE_TIMEOUT_S))
        try:
            if json:
                _print_documents(nodes, interval_s, once=once)
            elif once or terminal.width_cells() is None:
                _print_tables(nodes, interval_s, once=once)
            else:
                with terminal.screen() as show:
                    _repeat(nodes, interval_s, lambda look: show(_lines(look, interval_s)), from_first=True)
        except KeyboardInterrupt:
            if not terminal.width_cells():
                terminal.note("")  # behind the ^C


@dataclass(frozen=True)
class _Look:
    """The nodes as they were at one time, described."""

    topology: Topology
    time: datetime
    nodes: Sequence[Mapping[str, Any]]


class _Nodes:
    """The nodes that have been seen, with the last report of each."""

    def __init__(self, client: Client, node_timeout_s: float) -> None:
        self._client = client
        self._node_timeout_s = node_timeout_s
        self._topology: Topology | None = None
        # By address. A node that went away stays, so that it is seen to be missing.
        self._seen: dict[str, Node] = {}
        self._reports: dict[str, NodeReport] = {}

    def look(self) -> _Look:
        """Asks all nodes at once. Raises AgentMemError when no node has ever said who is in the cluster."""
        try:
            self._topology = self._client.topology(timeout_s=self._node_timeout_s)
        except AgentMemError:
            if self._topology is None:
                raise
        listed = {node.address: node for node in self._topology.nodes}
        gone = {address: node for address, node in self._seen.items() if address not in listed}
        self._seen = dict(list((listed | gone).items())[:MAX_NODES])
        with ThreadPoolExecutor(len(self._seen)) as pool:
            answers = dict(zip(self._seen, pool.map(self._ask, self._seen), strict=True))
        described = [
            node_figures.described(
                node,
                answer if isinstance(answer, str) else "",
                self._reports.get(address),
                None if isinstance(answer, str) else answer,
            )
            for (address, node), answer in zip(self._seen.items(), answers.values(), strict=True)
        ]
        # Of a node that does not answer the last one stays: its next rates are of all the time since.
        self._reports |= {
            address: answer for address, answer in answers.items() if not isinstance(answer, str)
        }
        return _Look(self._topology, datetime.now(UTC), node_figures.with_lag(described))

    def _ask(self, address: str) -> NodeReport | str:
        """The report of a node, or what is to be said of it instead."""
        try:
            return self._client.node_report(address, timeout_s=self._node_timeout_s)
        except DeadlineExceeded:
            return "no answer"
        except Unavailable:
            return "unreachable"
        except ServerError:
            return "no report"  # of a release that has none


def _repeat(
    nodes: _Nodes, interval_s: float, use: Callable[[_Look], None], *, from_first: bool, once: bool = False
) -> None:
    """Looks at the nodes again and again, until interrupted or after the first rates.

    Args:
        from_first: use the first look, too, which has no rates.
    """
    next_s = time.monotonic()
    is_first = True
    while True:
        look = nodes.look()
        if from_first or not is_first:
            use(look)
            if once:
                return
        is_first = False
        # What a node that hangs took of the interval is not waited for again.
        next_s = max(next_s + interval_s, time.monotonic())
        time.sleep(max(0.0, next_s - time.monotonic()))


def _print_documents(nodes: _Nodes, interval_s: float, *, once: bool) -> None:
    def use(look: _Look) -> None:
        documents.print_line(
            {
                "time": look.time.isoformat(timespec="milliseconds"),
                "cluster_id": look.topology.cluster_id,
                "epoch": look.topology.epoch,
                "nodes": look.nodes,
            }
        )
        # Whoever reads a pipe shall have it now.
        sys.stdout.flush()

    _repeat(nodes, interval_s, use, from_first=False, once=once)


def _print_tables(nodes: _Nodes, interval_s: float, *, once: bool) -> None:
    def use(look: _Look) -> None:
        for text, style in _lines(look, interval_s):
            terminal.say(text, style)
        if not once:
            terminal.say()
        sys.stdout.flush()

    _repeat(nodes, interval_s, use, from_first=False, once=once)


def _lines(look: _Look, interval_s: float) -> list[terminal.Line]:
    rates = [node["calls_per_s"] for node in look.nodes if node["calls_per_s"] is not None]
    total = f"{sum(rates):.1f} calls/s" if rates else "calls from the next look on"
    nodes = f"{len(look.nodes)} node{'s' if len(look.nodes) != 1 else ''}"
    heading = (
        f"epoch {look.topology.epoch}   {nodes}   {total}   {look.time:%H:%M:%S} UTC, every {interval_s:g} s"
    )
    shown: list[terminal.Line] = [(heading, None), ("", None)]
    shown += node_table.lines(look.nodes, terminal.width_cells())
    if notes := node_table.notes(look.nodes):
        shown += [("", None), *((note, "red") for note in notes)]
    return shown
