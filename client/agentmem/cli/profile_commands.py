"""`agentmem profile`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

from agentmem.cli import documents, profiles, terminal
from agentmem.cli.cluster import LocalCluster
from agentmem.cli.failures import CommandError, usage_error
from agentmem.cli.options import DEFAULT_DATA_DIR, Argument, DataDir, Json, Option

MAX_CHECKPOINTS = 1000


def profile(
    nodes: Annotated[
        list[str] | None,
        Argument(help="Where nodes have /metrics: host:port. Default: those that run in --data-dir."),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    seconds: Annotated[
        float, Option(min=0, help="Between two checkpoints. 0: one report, since the nodes were started.")
    ] = 0.0,
    checkpoints: Annotated[int, Option(min=1, max=MAX_CHECKPOINTS, help="How many follow the first.")] = 1,
    json: Json = False,
) -> None:
    """Where the time of calls goes: by method and stage the count, total, mean, 95th percentile and share.

    Stages of concurrent searches of a batch overlap, so shares may add up to more than the call.
    """
    addresses = nodes or _running(data_dir)
    if not seconds and checkpoints > 1:
        raise usage_error("--checkpoints needs --seconds")
    if not seconds:
        _print(profiles.report(profiles.checkpoint(addresses)), 0.0, is_json=json)
        return
    before = profiles.checkpoint(addresses)
    for _ in range(checkpoints):
        began_s = time.monotonic()
        time.sleep(seconds)  # the length of the measurement, as asked for
        after = profiles.checkpoint(addresses)
        _print(profiles.report(after, before), time.monotonic() - began_s, is_json=json)
        before = after


def _running(data_dir: DataDir) -> list[str]:
    running = [process for folder in LocalCluster(data_dir).folders() if (process := folder.live())]
    addresses = [process.metrics_address for process in running if process.metrics_address]
    if not addresses:
        raise CommandError(f"no node with metrics runs in {data_dir}: name some, or start with `agentmem up`")
    return addresses


def _print(rows: Sequence[profiles.Row], seconds: float, *, is_json: bool) -> None:
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
