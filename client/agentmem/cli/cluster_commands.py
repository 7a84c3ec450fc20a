"""The commands about the nodes of a cluster, and about one on this machine."""

from typing import Annotated

from agentmem.cli import bundled, documents, printing, supervisor, terminal
from agentmem.cli import cluster as local
from agentmem.cli.connection import DEFAULT_TARGET, connected, translated, unreachable_addresses
from agentmem.cli.options import (
    DEFAULT_DATA_DIR,
    DEFAULT_TIMEOUT_S,
    Argument,
    DataDir,
    Json,
    Option,
    Target,
    TimeoutS,
)


def status(
    target: Target = DEFAULT_TARGET, timeout_s: TimeoutS = DEFAULT_TIMEOUT_S, json: Json = False
) -> None:
    """Prints the nodes of the cluster. LAG is in revisions behind the writer.

    A node that the cluster lists and that nobody can connect to from here is shown as unreachable.
    """
    with connected(target, timeout_s) as client:
        topology = client.topology()
    nodes = printing.described(topology, unreachable_addresses([node.address for node in topology.nodes]))
    if json:
        cluster = {
            "cluster_id": topology.cluster_id,
            "epoch": topology.epoch,
            "answered_by": topology.answered_by,
        }
        documents.print_line(cluster | {"nodes": nodes})
    else:
        printing.print_nodes(nodes)


def up(
    replicas: Annotated[int, Option(help="How many replicas.")] = 2,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    port: Annotated[
        int,
        Option(min=0, max=65535, help="The writer's; replicas take the next ones. 0: any free ones."),
    ] = 50051,
    with_sample: Annotated[
        bool, Option("--sample", help="Import bundled conversations on the first start.")
    ] = False,
) -> None:
    """Runs a cluster on this machine until Ctrl-C. The processes log to <data-dir>/logs."""
    prepare = bundled.show if with_sample else None
    raise SystemExit(supervisor.serve(data_dir, local.check_replicas(replicas), port, prepare))


def scale(
    replicas: Annotated[int, Argument(help="How many replicas shall run.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Starts or stops replicas run by `up`. What crashed is started again."""
    cluster = local.LocalCluster(data_dir)
    with translated(str(data_dir)):
        started, stopped, killed = local.scale(cluster, local.check_replicas(replicas))
    for message in killed:
        terminal.note(message)
    for verb, names in (("started", started), ("stopped", stopped)):
        if names:
            terminal.say(f"{verb} {', '.join(names)}")
    terminal.say(f"{len(cluster.owned()) - 1} of {replicas} replicas run in {data_dir}")


def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stops a cluster started with `up`. Works whatever became of the command that started it."""
    cluster = local.LocalCluster(data_dir)
    names = [folder.name for folder in cluster.owned()]
    if not names:
        terminal.say(f"nothing runs in {data_dir}")
        return
    supervisor.stop(cluster)
    terminal.say(f"stopped {', '.join(names)}")
