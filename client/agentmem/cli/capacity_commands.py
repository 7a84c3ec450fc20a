"""The command that says what a load needs."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from agentmem.cli import capacity, documents, terminal
from agentmem.cli.capacity import Load, Need
from agentmem.cli.failures import CommandError
from agentmem.cli.node_table import size_text
from agentmem.cli.options import Json, Option


class SearchKind(StrEnum):
    """What searches are asked of."""

    SCOPED = "scoped"
    NAMESPACE = "namespace"


def estimate(
    memories: Annotated[int, Option(min=1, help="How many are kept; each version counts as one.")],
    dimension: Annotated[int, Option(min=0, max=4096, help="Of the embeddings; 0 without any.")] = 256,
    content_bytes: Annotated[int, Option(min=1, max=262144, help="Of a memory, on average.")] = 200,
    writes_per_s: Annotated[float, Option("--writes", min=0, help="Memories written in a second.")] = 0.0,
    searches_per_s: Annotated[float, Option("--searches", min=0, help="Searches in a second.")] = 0.0,
    gets_per_s: Annotated[float, Option("--gets", min=0, help="Memories got by id in a second.")] = 0.0,
    redundancy: Annotated[int, Option(min=0, max=64, help="Replicas that may be missing.")] = 1,
    search_kind: Annotated[
        SearchKind, Option(help="Whether searches are of one user's memories, or of the whole namespace.")
    ] = SearchKind.SCOPED,
    cores: Annotated[
        float, Option(min=0.1, max=64, help="That one process can use. Python runs on one at a time, mostly.")
    ] = 1.0,
    utilization: Annotated[
        float, Option(min=0.05, max=1.0, help="How much of them it may use; the rest is for peaks.")
    ] = 0.6,
    headroom: Annotated[
        float, Option(min=1.0, max=10.0, help="What memory and disk are multiplied with.")
    ] = 1.3,
    costs: Annotated[
        Path | None,
        Option(help="Measured with `python -m agentmem.bench costs`. Default: those of the release."),
    ] = None,
    json: Json = False,
) -> None:
    """Says how many processes, how much memory and disk a load needs, and how each figure comes about.

    It asks no cluster. The costs are those of the machine that its last line names: measure them on yours.
    Exit code 1 when one writer cannot take the writes, or no number of replicas the load.
    """
    load = Load(
        memories=memories,
        dimension=dimension,
        content_bytes=content_bytes,
        writes_per_s=writes_per_s,
        searches_per_s=searches_per_s,
        gets_per_s=gets_per_s,
        redundancy=redundancy,
        search_cost=f"search_{search_kind}",
        cores=cores,
        utilization=utilization,
        headroom=headroom,
    )
    measured = capacity.load_costs(costs or capacity.DEFAULT_COSTS)
    needed = capacity.needs(load, measured)
    lacking = [need for need in needed if need.value is None]
    if json:
        documents.print_line(
            {
                "load": asdict(load),
                "feasible": not lacking,
                "needs": {need.name.replace(" ", "_"): asdict(need) for need in needed},
                "measured_on": measured.measured_on,
            }
        )
    else:
        rows = [(need.name, _value_text(need), need.formula) for need in needed]
        terminal.table(rows, header=("WHAT", "NEEDED", "HOW"))
        where = ", ".join(f"{name} {value}" for name, value in measured.measured_on.items())
        terminal.say(f"measured on: {where}")
    if lacking:
        raise CommandError("; ".join(f"{need.name}: {need.formula}" for need in lacking))


def _value_text(need: Need) -> str:
    if need.value is None:
        return "-"
    if need.unit == "bytes":
        return size_text(round(need.value))
    return f"{need.value:.2f}" if need.unit == "cores" else f"{need.value:g}"
