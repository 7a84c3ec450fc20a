"""`agentmem profile`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated

from agentmem.cli import documents, profiles, terminal
from agentmem.cli.connection import DEFAULT_TARGET, connected
from agentmem.cli.failures import usage_error
from agentmem.cli.options import DEFAULT_TIMEOUT_S, Argument, Json, Option, Target, TimeoutS
from agentmem.client import Client, NodeReport

MAX_CHECKPOINTS = 1000


def profile(
    nodes: Annotated[
        list[str] | None, Argument(help="Addresses of nodes, host:port. Default: all of the cluster.")
    ] = None,
    seconds: Annotated[
        float, Option(min=0, help="Between two checkpoints. 0: one report, since the nodes were started.")
    ] = 0.0,
    checkpoints: Annotated[int, Option(min=1, max=MAX_CHECKPOINTS, help="How many follow the first.")] = 1,
    target: Target = DEFAULT_TARGET,
    timeout_s: TimeoutS = DEFAULT_TIMEOUT_S,
    json: Json = False,
) -> None:
    """Where the time of calls goes: by method and stage the count, total, mean, 95th percentile and share.

    Stages of concurrent searches of a batch overlap, so shares may add up to more than the call.
    """
    if not seconds and checkpoints > 1:
        raise usage_error("--checkpoints needs --seconds")
    with connected(",".join(nodes) if nodes else target, timeout_s) as client:
        before: Mapping[str, NodeReport] = {}
        began_s = time.monotonic()
        after = _checkpoint(client, nodes)
        if not seconds:
            _print(before, after, 0.0, is_json=json)
            return
        for _ in range(checkpoints):
            before = after
            time.sleep(seconds)  # the length of the measurement, as asked for
            after = _checkpoint(client, nodes)
            ended_s = time.monotonic()
            _print(before, after, ended_s - began_s, is_json=json)
            began_s = ended_s


def _checkpoint(client: Client, nodes: Sequence[str] | None) -> Mapping[str, NodeReport]:
    """What each node has counted so far, by address."""
    addresses = nodes or [node.address for node in client.topology().nodes]
    return {address: client.node_report(address) for address in addresses}


def _print(
    before: Mapping[str, NodeReport], after: Mapping[str, NodeReport], seconds: float, *, is_json: bool
) -> None:
    rows = profiles.report((before.get(address), report) for address, report in after.items())
    if is_json:
        documents.print_line({"seconds": round(seconds, 3), "stages": profiles.as_documents(rows)})
        return
    terminal.say(f"{seconds:.1f} s" if seconds else "since the start")
    terminal.table(
        [
            (
                *(f"{row.count}", f"{row.total_s:.3f}", f"{row.mean_ms:.3f}", f"{row.p95_ms:.3f}"),
                *(f"{row.share:.0%}", row.method.rpartition(".")[2] if row.stage == profiles.CALL else ""),
                "" if row.stage == profiles.CALL else row.stage,
            )
            for row in rows
        ],
        ("COUNT", "TOTAL S", "MEAN MS", "P95 MS", "SHARE", "METHOD", "STAGE"),
    )
